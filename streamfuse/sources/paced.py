"""A recording in real time, for a preview without another output."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from streamfuse.frames import Frame
from streamfuse.sources.base import Source

LATE_NS = 200_000_000
"""Delay of the reader above which the remaining frames are delayed too, instead of being read faster."""


class PacedSource(Source):
    """Yields the frames of a recording in real time, by their stamps.

    After a longer delay of the reader (the engine is compiled) the remaining frames keep their intervals.
    """

    real_time = True

    def __init__(
        self,
        source: Source,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """`clock`: returns the current time, ns; `wait`: sleeps for a time in s."""
        super().__init__()
        self._source = source
        self.name, self.clock, self.size, self.files = source.name, source.clock, source.size, source.files
        self.period_ns, self.first_stamp_ns = source.period_ns, source.first_stamp_ns
        self.epoch_ns = source.epoch_ns
        self.frame_count = source.frame_count
        self.drops, self.repeated = source.drops, source.repeated
        self._now = clock
        self._interrupted = threading.Event()
        self._wait = wait or self._interrupted.wait

    def __iter__(self) -> Iterator[Frame]:
        origin_ns: int | None = None
        for frame in self._source:
            now = self._now()
            if origin_ns is None or now - (origin_ns + frame.stamp_ns) > LATE_NS:
                origin_ns = now - frame.stamp_ns
            while not self._interrupted.is_set() and (early_ns := origin_ns + frame.stamp_ns - self._now()) > 0:
                self._wait(early_ns / 1e9)
            if self._interrupted.is_set():
                return
            yield frame
        self.damage = self._source.damage

    def cut_before(self, stamp_ns: int) -> int | None:
        return self._source.cut_before(stamp_ns)

    def start_at(self, stamp_ns: int) -> None:
        self._source.start_at(stamp_ns)

    def interrupt(self) -> None:
        self._interrupted.set()
        self._source.interrupt()

    def close(self) -> None:
        self._source.close()
