"""The newest picture for all viewers, encoded at most once per view, and only on request.

`publish` is called by the sink's thread, the coroutines by the server's event loop.  A slow viewer misses pictures; it
delays neither the pipeline nor other viewers.
"""

from __future__ import annotations

import asyncio
import enum
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from streamfuse.color import Chroma, Plane
from streamfuse.frames import FusedFrame
from streamfuse.temperature import Extremes
from streamfuse.web.jpeg import JpegEncoder
from streamfuse.web.thermometer import Wanted, measure

WINDOW_NS = 5_000_000_000
"""Time over which rate and latency are measured, ns."""
MOST_QUEUED = 3
"""JPEGs that are being encoded or wait for the encoder: the views of one picture."""


class View(enum.StrEnum):
    """Picture that a viewer can choose."""

    FUSED = "fused"
    INFRARED = "infrared"
    VISIBLE = "visible"


class Closed(Exception):
    """The run has ended; no picture follows."""


class Shown:
    """A published picture and the JPEGs made of it so far."""

    def __init__(self, frame: FusedFrame, number: int) -> None:
        self.frame = frame
        self.number = number
        """Sequence number, from 1, without gaps."""
        self.jpegs: dict[View, asyncio.Future[bytes]] = {}
        self._extremes: tuple[Extremes | None] | None = None

    def measure(self, wanted: Wanted) -> dict[str, Any] | None:
        """Return the temperatures that a browser wants, for JSON; None where the picture has none."""
        plane = self.frame.temperature
        if plane is None:
            return None
        if self._extremes is None:
            self._extremes = (plane.extremes(),)
        return measure(plane, self._extremes[0], wanted)

    def planes(self, view: View) -> tuple[Plane, Chroma | None] | None:
        """Return luma (H, W) and chroma of a view, or None if its stream is away."""
        frame = self.frame
        if view is View.FUSED:
            return frame.luma, frame.chroma
        if view is View.INFRARED:
            return None if frame.infrared is None else (frame.infrared, None)
        return None if frame.visible is None else (frame.visible, frame.chroma)


class Hub:
    """Hands the newest picture from the pipeline to any number of viewers."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """clock: the clock of `FusedFrame.arrival_ns`, ns."""
        self.now_ns = clock
        self.viewers = 0
        """Connected viewers, including those that show nothing at the moment."""
        self.encoded: Counter[View] = Counter()
        """JPEGs encoded so far, by view."""
        self._newest: Shown | None = None
        self._lock = threading.Lock()
        self._recent: deque[tuple[int, int]] = deque()
        """Time of publication and age at that time of each picture in the window, ns."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._waiting = 0
        self._closed = False
        self._encoder = JpegEncoder()
        self._worker: ThreadPoolExecutor | None = None
        self._room = asyncio.Semaphore(MOST_QUEUED)
        """In the encoder's queue, which keeps pictures alive: requests may be cancelled, queued encodings are not."""

    def publish(self, frame: FusedFrame) -> None:
        """Make a picture the newest one; takes microseconds, however many viewers there are."""
        now_ns = self.now_ns()
        number = 1 if self._newest is None else self._newest.number + 1
        with self._lock:
            self._recent.append((now_ns, now_ns - frame.arrival_ns))
            self._forget(now_ns)
        self._newest = Shown(frame, number)
        # A waiter increments `_waiting` before it reads `_newest`: it sees this picture, or is woken here.
        if self._waiting and self._loop is not None:
            self._loop.call_soon_threadsafe(self._announce)

    def forget(self) -> None:
        """Release the newest picture, at the end of the run."""
        self._newest = None

    @property
    def newest(self) -> Shown | None:
        return self._newest

    def fps(self) -> float:
        """Return the pictures per second within the window; 0 when they have stopped."""
        now_ns = self.now_ns()
        with self._lock:
            self._forget(now_ns)
            times = [at for at, _ in self._recent]
        if len(times) < 2:
            return 0.0
        span_ns = times[-1] - times[0]
        if now_ns - times[-1] > 2 * span_ns / (len(times) - 1):
            span_ns = now_ns - times[0]
        return (len(times) - 1) * 1e9 / max(span_ns, 1)

    def latency_ms(self) -> float | None:
        """Return the median age at publication of the window's pictures, ms; None if there are none."""
        with self._lock:
            self._forget(self.now_ns())
            ages = [age for _, age in self._recent]
        return statistics.median(ages) / 1e6 if ages else None

    def _forget(self, now_ns: int) -> None:
        while self._recent and now_ns - self._recent[0][0] > WINDOW_NS:
            self._recent.popleft()

    # Called in the event loop.

    def open(self) -> None:
        """Attach the hub to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="streamfuse preview encode")

    def close(self) -> None:
        """End all waiting with Closed."""
        self._closed = True
        self._announce()
        if self._worker is not None:
            self._worker.shutdown()

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def after(self, number: int) -> Shown:
        """Wait until the newest picture's number is above `number`, and return that picture.  Raises Closed."""
        self._waiting += 1
        try:
            while not self._closed:
                news = self._news
                shown = self._newest
                if shown is not None and shown.number > number:
                    return shown
                await news.wait()
            raise Closed
        finally:
            self._waiting -= 1

    async def jpeg(self, shown: Shown, view: View) -> bytes | None:
        """Return a picture's JPEG, encoded on first request; None if the view's stream is away.  Raises Closed."""
        planes = shown.planes(view)
        if planes is None:
            return None
        if view not in shown.jpegs:
            await self._room.acquire()
            if view in shown.jpegs or self._closed or self._loop is None or self._worker is None:
                self._room.release()
            else:
                self.encoded[view] += 1
                encoding = self._loop.run_in_executor(self._worker, self._encoder.encode, *planes)
                encoding.add_done_callback(lambda _: self._room.release())
                shown.jpegs[view] = encoding
        if view not in shown.jpegs:
            raise Closed
        # Several viewers may wait for the same JPEG: one that disconnects must not cancel it for the others.
        return await asyncio.shield(shown.jpegs[view])
