"""Two recordings into one stream of pairs, by time stamp and never by index.

Two cameras are never quite alike: rates differ, one starts later, frames are lost, and pairing by index
then drifts apart for ever (one frame in 80 seconds was seen in the field).  Here each frame is used at
most once, with the frame of the other stream that is nearest in time, and only if that is within the
tolerance; every other frame is counted with its reason.  At most two frames of each stream are held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable

from streamfuse.frames import DEFAULT_PERIOD_NS, Frame, FramePair

NO_PARTNER = "no partner in time"
OTHER_ENDED = "after the other stream ended"

OnDrop = Callable[[str, str], None]
"""Called with the role, "ir" or "vis", and the reason."""


def default_tolerance_ns(ir_period_ns: int | None, vis_period_ns: int | None) -> int:
    """Half a frame period of the slower stream: then each of its frames can find a partner."""
    return max(ir_period_ns or DEFAULT_PERIOD_NS, vis_period_ns or DEFAULT_PERIOD_NS) // 2


class _Lane:
    """One stream with its next frame in view."""

    def __init__(self, role: str, frames: Iterable[Frame], offset_ns: int, on_drop: OnDrop) -> None:
        self.role = role
        self._frames = iter(frames)
        self._offset_ns = offset_ns
        self._on_drop = on_drop
        self._held: deque[Frame] = deque()

    def time_ns(self, frame: Frame) -> int:
        return frame.stamp_ns + self._offset_ns

    def peek(self, place: int = 0) -> Frame | None:
        """The next frame, or with 1 the one after it; read if need be, None past the end."""
        while len(self._held) <= place:
            frame = next(self._frames, None)
            if frame is None:
                return None
            self._held.append(frame)
        return self._held[place]

    def take(self) -> Frame:
        return self._held.popleft()

    def drop(self, reason: str) -> None:
        self.take()
        self._on_drop(self.role, reason)

    def drop_held(self, reason: str) -> None:
        """The rest of the stream is left unread."""
        while self._held:
            self.drop(reason)


def pair_frames(
    ir: Iterable[Frame],
    vis: Iterable[Frame],
    *,
    tolerance_ns: int,
    ir_offset_ns: int = 0,
    on_drop: OnDrop = lambda role, reason: None,
) -> Generator[FramePair]:
    """Pairs in the order of time, until one stream ends.

    `ir_offset_ns` is added to every infrared stamp before it is compared.  A frame waits for the one that
    follows it, which may be nearer to the partner.  Stamps within each stream rise.
    """
    a, b = _Lane("ir", ir, ir_offset_ns, on_drop), _Lane("vis", vis, 0, on_drop)
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
        a.drop_held(OTHER_ENDED)
        b.drop_held(OTHER_ENDED)
