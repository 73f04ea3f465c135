"""Output times of a live run."""

from __future__ import annotations

from streamfuse.frames import Frame
from streamfuse.sources.clocks import SECOND


class TimeLine:
    """A continuous time line for live streams, whose stamps change clock when a stream reconnects.

    It starts at 0 and advances by the stamps while their clock stays the same and they agree with the elapsed time,
    otherwise by arrival.
    """

    def __init__(self) -> None:
        self._now_ns = 0
        self._last: Frame | None = None

    def place(self, frame: Frame) -> int:
        """Return the time of a frame, ns; never before that of the frame before."""
        if self._last is not None:
            passed = frame.arrival_ns - self._last.arrival_ns
            step = passed
            if frame.source == self._last.source and frame.clock is self._last.clock:
                by_stamp = frame.stamp_ns - self._last.stamp_ns
                step = by_stamp if abs(by_stamp - passed) < SECOND else passed
            self._now_ns += max(step, 0)
        self._last = frame
        return self._now_ns
