"""Two streams of frames into one stream of pairs, by time stamp and never by index.

Two cameras are never quite alike: rates differ, one starts later, frames are lost, and pairing by index
then drifts apart for ever (one frame in 80 seconds was seen in the field).  Here each frame is used at
most once, with the frame of the other stream that is nearest in time, and only if that is within the
tolerance; every other frame is counted with its reason.  At most two frames of each stream are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

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
        self._ahead: Frame | None = None
        self.head: Frame | None = next(self._frames, None)

    def time_ns(self, frame: Frame) -> int:
        return frame.stamp_ns + self._offset_ns

    def peek(self) -> Frame | None:
        """The frame after `head`; reads it if need be."""
        if self._ahead is None:
            self._ahead = next(self._frames, None)
        return self._ahead

    def advance(self) -> None:
        self.head = self.peek()
        self._ahead = None

    def drop(self, reason: str) -> None:
        self._on_drop(self.role, reason)
        self.advance()

    def drop_held(self, reason: str) -> None:
        """Both frames that are held; the rest of the stream is left unread."""
        for frame in (self.head, self._ahead):
            if frame is not None:
                self._on_drop(self.role, reason)
        self.head = self._ahead = None


def pair_frames(
    ir: Iterable[Frame],
    vis: Iterable[Frame],
    *,
    tolerance_ns: int,
    ir_offset_ns: int = 0,
    hurry_ns: int = 0,
    on_drop: OnDrop = lambda role, reason: None,
) -> Iterator[FramePair]:
    """Pairs in the order of time, until one stream ends.

    `ir_offset_ns` is added to every infrared stamp before it is compared.  A frame waits for the one that
    follows it, which may be nearer to the partner, unless the two are within `hurry_ns`: recordings use 0
    and always get the nearest; live streams do not wait a frame period for a better partner that cannot come.
    Stamps within each stream rise.
    """
    a, b = _Lane("ir", ir, ir_offset_ns, on_drop), _Lane("vis", vis, 0, on_drop)
    while a.head is not None and b.head is not None:
        early, late = (a, b) if a.time_ns(a.head) <= b.time_ns(b.head) else (b, a)
        assert early.head is not None  # both are: the loop's condition
        assert late.head is not None
        target_ns = late.time_ns(late.head)
        distance_ns = target_ns - early.time_ns(early.head)
        if distance_ns > hurry_ns:
            following = early.peek()
            if following is not None and abs(early.time_ns(following) - target_ns) < distance_ns:
                early.drop(NO_PARTNER)
                continue
        if distance_ns > tolerance_ns:
            early.drop(NO_PARTNER)
            continue
        yield FramePair(ir=a.head, vis=b.head)
        a.advance()  # after the yield: a live pair must not wait for the frames after it
        b.advance()
    a.drop_held(OTHER_ENDED)
    b.drop_held(OTHER_ENDED)
