"""Receive frames from `streamfuse run --publish`, in another process or on another machine.

>>> with streamfuse.Subscriber("tcp://127.0.0.1:5556") as subscriber:
...     for frame in subscriber:
...         show(frame.to_bgr(), frame.header.vis_stamp_ns)

It needs neither the neural network nor an engine, only NumPy and ZeroMQ, so it is quick to import.
"""

from __future__ import annotations

import enum
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane
from streamfuse.errors import NothingReceived, UsageError
from streamfuse.frames import FusedFrame
from streamfuse.sources.limits import MAX_PIXELS
from streamfuse.support.channel import Channel
from streamfuse.support.closeable import Closeable
from streamfuse.support.urls import redact
from streamfuse.temperature import Celsius
from streamfuse.zeromq.curve import client_keys
from streamfuse.zeromq.endpoint import check_url
from streamfuse.zeromq.link import Connection, Link
from streamfuse.zeromq.payload import bgr_of, luma_of, picture_of, temperature_of
from streamfuse.zeromq.wire import PARTS, PREFIX, STREAM, STREAM_RULE, Header, Malformed, topic_of, unpack

log = logging.getLogger("streamfuse")

TIMEOUT_S = 10.0
MAX_BYTES = 64 * 1024 * 1024
"""Default size limit of a message part; a picture of 4096x4096 in bgr8 has 50 million bytes."""
AGES = 1000
"""Number of frames whose ages are kept for the percentiles."""
MAX_STREAMS = 256
"""Streams whose sequence is followed at a time; bounded because the names come from outside."""


class Mode(enum.StrEnum):
    """Order in which frames are delivered."""

    LATEST = "latest"
    """Only the newest frame; older ones are skipped."""
    EVERY = "every"
    """Every frame in order; a reader that is too slow loses some, which are counted as gaps."""


@dataclass(frozen=True, slots=True, repr=False)
class Received:
    """A received frame."""

    header: Header
    payload: memoryview
    """Encoded pixels, in the memory of the message."""
    received_ns: int
    """Time of arrival, ns since 1970 by this machine's clock."""
    values: memoryview | None = None
    """Encoded temperatures, in the memory of the message; None if they were not sent."""

    def __repr__(self) -> str:
        h = self.header
        return f"Received({h.stream} #{h.seq}, {h.width}x{h.height} {h.encoding}, {h.content})"

    @property
    def luma(self) -> Plane:
        """Luma, (H, W) uint8 full range: a view for mono8 and yuv420p, computed for bgr8 and jpeg.

        Raises InputError for a JPEG that cannot be decoded.
        """
        return luma_of(self.header, self.payload)

    def to_bgr(self) -> npt.NDArray[np.uint8]:
        """Picture in OpenCV's BGR, (H, W, 3) uint8: a view for bgr8, computed for the others.  Raises InputError."""
        return bgr_of(self.header, self.payload)

    @property
    def temperature(self) -> Celsius | None:
        """Temperatures, (H, W) float32 degC: NaN where there is none, infinity above the scale; None if not sent.

        `header.temperature` has the extremes also where the publisher does not send the temperatures themselves.
        """
        plane = temperature_of(self.header, self.values)
        return None if plane is None else plane.celsius()

    @property
    def age_ns(self) -> int | None:
        """Time from the frame's arrival at the publisher to its arrival here, ns; None where unknown.

        It is as accurate as the two machines' clocks agree.
        """
        if self.header.age_ns is None:
            return None
        return self.header.age_ns + self.received_ns - self.header.published_ns

    def to_fused(self) -> FusedFrame:
        """Convert to a `FusedFrame`, for sinks in this process.  Raises InputError."""
        luma, chroma = picture_of(self.header, self.payload)
        h = self.header
        stamps = (h.ir_stamp_ns, h.vis_stamp_ns, h.ir_clock, h.vis_clock)
        return FusedFrame(
            luma,
            chroma,
            h.seq,
            h.time_ns,
            *stamps,
            skew_ns=h.skew_ns,
            content=h.content,
            temperature=temperature_of(h, self.values),
            alarms=h.alarms,
        )


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters and state of a subscriber since it was made."""

    link: Link = Link.SEARCHING
    """State of the connection."""
    received: int = 0
    """New and valid frames."""
    skipped: int = 0
    """Received frames that were replaced by newer ones before they were taken."""
    gaps: int = 0
    """Frames missing in the publisher's sequence."""
    repeats: int = 0
    """Frames received again, because the publisher resent them for a new subscriber."""
    restarts: int = 0
    """Times that a stream started again, because its publisher was restarted."""
    malformed: int = 0
    """Messages of another kind, or invalid."""
    oversized: int = 0
    """Messages above the size limit; each one breaks the connection, which is then made again."""
    age_p50_ms: float = math.nan
    """Median age of the last frames, from arrival at the publisher to arrival here."""
    age_p95_ms: float = math.nan
    """95th percentile of the same."""


@dataclass(slots=True)
class _Counts:
    received: int = 0
    skipped: int = 0
    gaps: int = 0
    repeats: int = 0
    restarts: int = 0
    malformed: int = 0
    ages_ms: deque[float] = field(default_factory=lambda: deque(maxlen=AGES))


class Subscriber(Closeable):
    """An iterator of received frames, and a context manager.

    One thread takes the frames.  In mode `latest` another thread receives meanwhile, so a slow reader gets recent
    frames; in mode `every` a frame is received when it is asked for.  The subscriber connects automatically when the
    publisher starts, and reconnects when it comes back.
    """

    def __init__(
        self,
        url: str,
        *,
        stream: str | None = None,
        mode: Mode | str = Mode.LATEST,
        timeout_s: float | None = TIMEOUT_S,
        server_key: str | PathLike[str] | None = None,
        client_key: str | PathLike[str] | None = None,
        max_bytes: int = MAX_BYTES,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """`url`: the publisher's address.  `stream`: name of one stream, None for all.  `timeout_s`: longest wait for
        a frame, None for no limit.  `server_key` and `client_key`: files of the publisher's public and this
        subscriber's secret key.  `max_bytes`: size limit of a message part.  `max_pixels`: size limit
        of a JPEG.  Raises UsageError.
        """
        check_url(url)
        if stream is not None and not STREAM.fullmatch(stream):
            raise UsageError(f"invalid stream name {stream!r}: {STREAM_RULE}")
        if (server_key is None) is not (client_key is None):
            raise UsageError("give both the publisher's public key and the subscriber's secret key, or neither")
        try:
            self.mode = Mode(mode)
        except ValueError:
            raise UsageError(f"unknown mode {mode!r}: use {' or '.join(Mode)}") from None
        self.name = redact(url)
        self._stream = stream
        self._timeout_s = timeout_s
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        self._counts = _Counts()
        self._last: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._warned = False
        self._closed = threading.Event()
        self._failure: BaseException | None = None
        self._newest: Channel[Received] = Channel(1, drop_oldest=True, on_drop=lambda _: self._skip())
        keys = None
        if server_key is not None and client_key is not None:
            keys = client_keys(Path(server_key), Path(client_key))
        self._connection = Connection(url, PREFIX if stream is None else topic_of(stream), keys, max_bytes)
        self._receiving = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name=f"streamfuse subscribe {self.name}", daemon=True)
        if self.mode is Mode.LATEST:
            self._thread.start()

    def latest(self, timeout_s: float | None = None) -> Received:
        """Return the newest frame that was not returned yet, waiting for one if necessary.

        `timeout_s`: replaces the subscriber's own.  Raises NothingReceived on timeout; the call may be repeated.
        """
        frame = self._take(timeout_s)
        while (newer := self._next(0)) is not None:
            self._skip()
            frame = newer
        return frame

    def every(self, timeout_s: float | None = None) -> Iterator[Received]:
        """Iterate over every frame in order, until the subscriber is closed; needs mode="every".

        Raises NothingReceived on timeout, and UsageError in the other mode.
        """
        if self.mode is not Mode.EVERY:
            raise UsageError('this subscriber keeps only the newest frame: make it with mode="every"')
        return self._frames(timeout_s)

    def __iter__(self) -> Iterator[Received]:
        """Iterate over frames according to the mode, until the subscriber is closed; raises NothingReceived."""
        return self._frames(None)

    def _frames(self, timeout_s: float | None) -> Iterator[Received]:
        while not self._closed.is_set():
            try:
                yield self._take(timeout_s)
            except NothingReceived:
                if self._closed.is_set():
                    return
                raise

    def _take(self, timeout_s: float | None) -> Received:
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        frame = self._next(limit_s)
        if frame is not None:
            return frame
        if self._failure is not None:
            raise self._failure
        if self._closed.is_set():
            raise NothingReceived(f"the subscriber to {self.name} is closed")
        raise NothingReceived(f"nothing came from {self.name} within {limit_s:g} s: {self._why()}")

    def _why(self) -> str:
        state = self._connection.state
        if state is Link.REFUSED:
            return "the publisher refused this subscriber: give keys that it accepts"
        if state is Link.CONNECTED:
            what = "nothing" if self._stream is None else f"no stream {self._stream!r}"
            return f"the publisher is connected, but sends {what}"
        return "no publisher found; check the address and that `streamfuse run --publish` is running"

    def statistics(self) -> Statistics:
        """Return the current statistics; any thread may call this."""
        with self._lock:
            c = self._counts
            ages = np.percentile(list(c.ages_ms), (50, 95)) if c.ages_ms else (math.nan, math.nan)
            return Statistics(
                link=self._connection.state,
                received=c.received,
                skipped=c.skipped,
                gaps=c.gaps,
                repeats=c.repeats,
                restarts=c.restarts,
                malformed=c.malformed,
                oversized=self._connection.oversized,
                age_p50_ms=float(ages[0]),
                age_p95_ms=float(ages[1]),
            )

    def _next(self, timeout_s: float | None) -> Received | None:
        """Return the next frame; None on timeout, or when the subscriber is closed."""
        return self._newest.take(timeout_s) if self.mode is Mode.LATEST else self._receive(timeout_s)

    def _follow(self) -> None:
        """Receive frames for mode `latest`, in a thread of its own."""
        try:
            while (frame := self._receive(None)) is not None:
                self._newest.put(frame)
        except BaseException as error:  # raised again by `_take`
            self._failure = error
        finally:
            self._newest.close()

    def _receive(self, timeout_s: float | None) -> Received | None:
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        with self._receiving:
            while not self._closed.is_set():
                left_s = None if end == math.inf else max(end - time.monotonic(), 0)
                parts = self._connection.receive(left_s)
                if parts is None:
                    return None
                buffers = [part.buffer for part in parts]
                try:
                    header = unpack(buffers, self._max_pixels)
                    frame = Received(header, buffers[2], time.time_ns(), buffers[3] if len(buffers) > PARTS else None)
                except Malformed as error:
                    self._reject(error)
                    continue
                if self._is_new(frame):
                    return frame
        return None

    def _reject(self, error: Malformed) -> None:
        with self._lock:
            self._counts.malformed += 1
        if not self._warned:
            self._warned = True
            log.warning(
                "%s sent an invalid message, which is ignored: %s; later ones are only counted", self.name, error
            )

    def _is_new(self, frame: Received) -> bool:
        header, counts = frame.header, self._counts
        with self._lock:
            run, seq = self._last.get(header.stream, (None, -1))
            if run == header.run and header.seq <= seq:
                counts.repeats += 1
                return False
            if run == header.run:
                counts.gaps += header.seq - seq - 1
            elif run is not None:
                counts.restarts += 1
            self._last[header.stream] = header.run, header.seq
            self._last.move_to_end(header.stream)
            if len(self._last) > MAX_STREAMS:
                self._last.popitem(last=False)
            counts.received += 1
            if frame.age_ns is not None and not header.resent:  # a resent frame's age says nothing about latency
                counts.ages_ms.append(frame.age_ns / 1e6)
        return True

    def _skip(self) -> None:
        with self._lock:
            self._counts.skipped += 1

    def close(self) -> None:
        """End the iteration and the connection; any thread may call this, more than once."""
        with self._lock:
            first = not self._closed.is_set()
            self._closed.set()
        if not first:
            return
        self._newest.close()
        self._connection.interrupt()
        with self._receiving:
            self._connection.close()
        if self.mode is Mode.LATEST:
            self._thread.join()
