"""The newest picture for every viewer, encoded once for all of them and only if somebody looks.

`publish` belongs to the thread that has the pictures; everything else to the event loop of the server.  Nobody waits
for a viewer: who is slow misses pictures, and holds back nobody.
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

from streamfuse.color import Chroma, Plane
from streamfuse.frames import FusedFrame
from streamfuse.web.jpeg import JpegEncoder

WINDOW_NS = 5_000_000_000
"""Rate and latency are of the pictures of this time, ns."""


class View(enum.StrEnum):
    """What can be looked at."""

    FUSED = "fused"
    INFRARED = "infrared"
    VISIBLE = "visible"


class Closed(Exception):
    """The run has ended: there will be no more pictures."""


class Shown:
    """A picture, and its JPEGs as far as they were asked for."""

    def __init__(self, frame: FusedFrame, number: int) -> None:
        self.frame = frame
        self.number = number
        """From 1, without gaps."""
        self.jpegs: dict[View, asyncio.Future[bytes]] = {}

    def planes(self, view: View) -> tuple[Plane, Chroma | None] | None:
        """Of a view; None if its stream is away."""
        frame = self.frame
        if view is View.FUSED:
            return frame.luma, frame.chroma
        if view is View.INFRARED:
            return None if frame.infrared is None else (frame.infrared, None)
        return None if frame.visible is None else (frame.visible, frame.chroma)


class Hub:
    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """`clock`: ns, that of `FusedFrame.arrival_ns`."""
        self.now_ns = clock
        self.viewers = 0
        """Who is connected, whether looking or not."""
        self.encoded: Counter[View] = Counter()
        """JPEGs that were made."""
        self._newest: Shown | None = None
        self._lock = threading.Lock()
        self._recent: deque[tuple[int, int]] = deque()
        """When the pictures of the window came, and how old they were, ns."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._waiting = 0
        self._closed = False
        self._encoder = JpegEncoder()
        self._worker: ThreadPoolExecutor | None = None

    def publish(self, frame: FusedFrame) -> None:
        """From one thread; it takes microseconds, whoever looks."""
        now_ns = self.now_ns()
        number = 1 if self._newest is None else self._newest.number + 1
        with self._lock:
            self._recent.append((now_ns, now_ns - frame.arrival_ns))
            self._forget(now_ns)
        self._newest = Shown(frame, number)
        # Whoever begins to wait says so before it looks for the newest: it sees this one, or is woken.
        if self._waiting and self._loop is not None:
            self._loop.call_soon_threadsafe(self._announce)

    def forget(self) -> None:
        """Let go of the picture; there will be no more."""
        self._newest = None

    @property
    def newest(self) -> Shown | None:
        return self._newest

    def fps(self) -> float:
        """Pictures a second, of late; 0 when they have stopped."""
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
        """Median age of late of a picture when it is ready; None where there was none."""
        with self._lock:
            self._forget(self.now_ns())
            ages = [age for _, age in self._recent]
        return statistics.median(ages) / 1e6 if ages else None

    def _forget(self, now_ns: int) -> None:
        while self._recent and now_ns - self._recent[0][0] > WINDOW_NS:
            self._recent.popleft()

    # In the event loop.

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="streamfuse preview encode")

    def close(self) -> None:
        self._closed = True
        self._announce()
        if self._worker is not None:
            self._worker.shutdown()

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def after(self, number: int) -> Shown:
        """The newest picture, as soon as it is newer than `number`; raises Closed."""
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
        """A picture's JPEG, made when it is first asked for; None if that stream is away.  Raises Closed."""
        planes = shown.planes(view)
        if planes is None:
            return None
        if view not in shown.jpegs:
            if self._closed or self._loop is None or self._worker is None:
                raise Closed
            self.encoded[view] += 1
            shown.jpegs[view] = self._loop.run_in_executor(self._worker, self._encoder.encode, *planes)
        # Others may wait for the same: that one of them leaves must not cancel it.
        return await asyncio.shield(shown.jpegs[view])
