"""Pair two recordings by time stamp, never by index.

Two cameras never run exactly alike: rates differ, one starts later, frames are lost.  Paired by index they drift
apart (by one frame in 80 seconds in a real recording).  Here each frame is used at most once, with the frame of the
other stream that is nearest in time, and only if both are within the tolerance.  Every other frame is dropped and
counted by reason.  At most two frames of each stream wait here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable

from streamfuse.frames import DEFAULT_PERIOD_NS, Frame, FramePair, Role

NO_PARTNER = "no partner in time"
OTHER_ENDED = "after the other stream ended"

OnDrop = Callable[[Role, str], None]
"""Callback for each dropped frame: its stream and the reason."""


def default_tolerance_ns(ir_period_ns: int | None, vis_period_ns: int | None) -> int:
    """Return half the frame interval of the slower stream, ns: then each of its frames can find a partner."""
    return max(ir_period_ns or DEFAULT_PERIOD_NS, vis_period_ns or DEFAULT_PERIOD_NS) // 2


class _Lane:
    """One stream, with its next frames read ahead."""

    def __init__(self, role: Role, frames: Iterable[Frame], offset_ns: int, on_drop: OnDrop) -> None:
        self.role = role
        self._frames = iter(frames)
        self._offset_ns = offset_ns
        self._on_drop = on_drop
        self._waiting: deque[Frame] = deque()

    def time_ns(self, frame: Frame) -> int:
        return frame.stamp_ns + self._offset_ns

    def peek(self, ahead: int = 0) -> Frame | None:
        """Return the next frame, or with `ahead` 1 the one after it, without taking it; None past the end."""
        while len(self._waiting) <= ahead:
            frame = next(self._frames, None)
            if frame is None:
                return None
            self._waiting.append(frame)
        return self._waiting[ahead]

    def take(self) -> Frame:
        return self._waiting.popleft()

    def drop(self, reason: str) -> None:
        self.take()
        self._on_drop(self.role, reason)

    def drop_waiting(self, reason: str) -> None:
        """Drop the frames that were read ahead; the rest of the stream is left unread."""
        while self._waiting:
            self.drop(reason)


def pair_frames(
    ir: Iterable[Frame],
    vis: Iterable[Frame],
    *,
    tolerance_ns: int,
    ir_offset_ns: int = 0,
    on_drop: OnDrop = lambda role, reason: None,
) -> Generator[FramePair]:
    """Yield pairs in order of time until one stream ends.

    `ir_offset_ns`: added to every infrared stamp before the comparison.  A frame waits for the next one of its
    stream, which may be nearer to the partner.  Stamps must rise within each stream.
    """
    a, b = _Lane(Role.IR, ir, ir_offset_ns, on_drop), _Lane(Role.VIS, vis, 0, on_drop)
    try:
        while (ir_head := a.peek()) is not None and (vis_head := b.peek()) is not None:
            ir_ns, vis_ns = a.time_ns(ir_head), b.time_ns(vis_head)
            early, target_ns = (a, vis_ns) if ir_ns <= vis_ns else (b, ir_ns)
            distance_ns = abs(ir_ns - vis_ns)
            following = early.peek(1) if distance_ns else None
            nearer = following is not None and abs(early.time_ns(following) - target_ns) < distance_ns
            if nearer or distance_ns > tolerance_ns:
                early.drop(NO_PARTNER)
            else:
                yield FramePair(ir=a.take(), vis=b.take(), skew_ns=ir_ns - vis_ns - ir_offset_ns)
    finally:
        a.drop_waiting(OTHER_ENDED)
        b.drop_waiting(OTHER_ENDED)
