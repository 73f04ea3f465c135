"""Receive what `streamfuse run --publish` sends, in another process or on another machine.

>>> with streamfuse.Subscriber("tcp://127.0.0.1:5556") as subscriber:
...     for frame in subscriber:
...         show(frame.to_bgr(), frame.header.vis_stamp_ns)

Needs neither the network nor an engine: importing it takes what NumPy and ZeroMQ take.
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

from streamfuse.channel import Channel
from streamfuse.closeable import Closeable
from streamfuse.color import Plane
from streamfuse.errors import NothingReceived, UsageError
from streamfuse.frames import FusedFrame
from streamfuse.sources.limits import MAX_PIXELS
from streamfuse.urls import redact
from streamfuse.zeromq.curve import client_keys
from streamfuse.zeromq.endpoint import check_url
from streamfuse.zeromq.link import Connection, Link
from streamfuse.zeromq.payload import bgr_of, luma_of, picture_of
from streamfuse.zeromq.wire import PREFIX, STREAM, Header, Malformed, topic_of, unpack

log = logging.getLogger("streamfuse")

TIMEOUT_S = 10.0
MAX_BYTES = 64 * 1024 * 1024
"""A picture of 4096x4096 in bgr8 has 50 million."""
AGES = 1000
"""Of the last frames, for their percentiles."""
MAX_STREAMS = 256
"""That are followed at a time: the names come from outside."""


class Mode(enum.StrEnum):
    LATEST = "latest"
    """The newest frame whenever one is asked for; what came before it is skipped."""
    EVERY = "every"
    """Each frame in its order; a reader that is too slow loses some on the way, and they are counted."""


@dataclass(frozen=True, slots=True, repr=False)
class Received:
    """A frame as it came."""

    header: Header
    payload: memoryview
    """The bytes of the pixels, in the message's own memory."""
    received_ns: int
    """When it came, ns since 1970 by this machine's clock."""

    def __repr__(self) -> str:
        h = self.header
        return f"Received({h.stream} #{h.seq}, {h.width}x{h.height} {h.encoding}, {h.content})"

    @property
    def luma(self) -> Plane:
        """(H, W) uint8, full range: a view for mono8 and yuv420p, computed for bgr8 and jpeg.

        Raises InputError for a JPEG that cannot be decoded.
        """
        return luma_of(self.header, self.payload)

    def to_bgr(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 as OpenCV has it: a view for bgr8, computed for the others.  Raises InputError."""
        return bgr_of(self.header, self.payload)

    @property
    def age_ns(self) -> int | None:
        """From the arrival at the publisher's machine to here; as exact as the two machines' clocks agree."""
        if self.header.age_ns is None:
            return None
        return self.header.age_ns + self.received_ns - self.header.published_ns

    def to_fused(self) -> FusedFrame:
        """As the publisher's sinks have it, for those here.  Raises InputError."""
        luma, chroma = picture_of(self.header, self.payload)
        h = self.header
        stamps = (h.ir_stamp_ns, h.vis_stamp_ns, h.ir_clock, h.vis_clock)
        return FusedFrame(luma, chroma, h.seq, h.time_ns, *stamps, skew_ns=h.skew_ns, content=h.content)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a subscriber has seen since it was made."""

    link: Link = Link.SEARCHING
    received: int = 0
    """Frames that were new and whole."""
    skipped: int = 0
    """Of these, frames that nobody asked for in time."""
    gaps: int = 0
    """Frames that the publisher had and that never came."""
    repeats: int = 0
    """Frames that came again, for the sake of a subscriber that came late."""
    restarts: int = 0
    """How often a stream began anew: its publisher had been started again."""
    malformed: int = 0
    """Messages that were none of ours, or broken."""
    oversized: int = 0
    """Messages above the size limit; each costs the connection, which is then made anew."""
    age_p50_ms: float = math.nan
    """Of the last frames, from arrival at the publisher to arrival here."""
    age_p95_ms: float = math.nan


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

    Frames are taken by one thread, which may be as slow as it likes: for the latest, another thread receives meanwhile,
    and every frame is received when it is asked for.  It connects by itself, when the publisher is started and
    whenever it comes back.
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
        """`stream`: only that one, None for all of the address.  `timeout_s`: how long one frame is waited for, None
        for ever.  `server_key` and `client_key`: files of the publisher's public and this subscriber's secret key.
        `max_bytes`: the largest part of a message that is taken; `max_pixels`: the largest JPEG.  Raises UsageError.
        """
        check_url(url)
        if stream is not None and not STREAM.fullmatch(stream):
            raise UsageError(f"there can be no stream {stream!r}: 1 to 64 letters, digits, points, - and _")
        if (server_key is None) is not (client_key is None):
            raise UsageError("give both keys, the publisher's public and the subscriber's secret one, or none")
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
        self._complained = False
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
        """The newest frame that was not given yet, waiting for one; `timeout_s` in place of the usual one.

        Raises NothingReceived when none comes in time; the subscriber can still be asked again.
        """
        frame = self._take(timeout_s)
        while (newer := self._next(0)) is not None:
            self._skip()
            frame = newer
        return frame

    def every(self, timeout_s: float | None = None) -> Iterator[Received]:
        """Each frame in its order, until the subscriber is closed; needs mode="every".

        Raises NothingReceived when none comes in time, and UsageError in the other mode.
        """
        if self.mode is not Mode.EVERY:
            raise UsageError('this subscriber keeps the newest frame only: make it with mode="every"')
        return self._frames(timeout_s)

    def __iter__(self) -> Iterator[Received]:
        """Frames by the mode, until the subscriber is closed; raises NothingReceived when none comes in time."""
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
            return "the publisher refuses this subscriber: it wants keys, or other ones"
        if state is Link.CONNECTED:
            what = "nothing" if self._stream is None else f"no stream {self._stream!r}"
            return f"a publisher is there, but sends {what}"
        return "no publisher is there; is `streamfuse run --publish` running?"

    def statistics(self) -> Statistics:
        """Now; any thread may ask."""
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
                oversized=self._connection.cut,
                age_p50_ms=float(ages[0]),
                age_p95_ms=float(ages[1]),
            )

    def _next(self, timeout_s: float | None) -> Received | None:
        """None when none comes in time, or the subscriber is closed."""
        return self._newest.take(timeout_s) if self.mode is Mode.LATEST else self._receive(timeout_s)

    def _follow(self) -> None:
        """The thread that receives for those who want the latest."""
        try:
            while (frame := self._receive(None)) is not None:
                self._newest.put(frame)
        except BaseException as error:  # handed to whoever takes frames; a thread has nobody else to tell
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
                    frame = Received(unpack(buffers, self._max_pixels), buffers[-1], time.time_ns())
                except Malformed as error:
                    self._reject(error)
                    continue
                if self._is_new(frame):
                    return frame
        return None

    def _reject(self, error: Malformed) -> None:
        with self._lock:
            self._counts.malformed += 1
        if not self._complained:
            self._complained = True
            log.warning("%s sent a message that is left out: %s; more of them are only counted", self.name, error)

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
            if frame.age_ns is not None and not header.resent:  # what was kept for us is older than what is new
                counts.ages_ms.append(frame.age_ns / 1e6)
        return True

    def _skip(self) -> None:
        with self._lock:
            self._counts.skipped += 1

    def close(self) -> None:
        """End the iteration and the connection; any thread may call it, more than once."""
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
