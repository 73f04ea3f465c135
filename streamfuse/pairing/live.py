"""Pair two live streams by time.

The next frame of a recording can be read at any time (`streamfuse.pairing.recorded`); that of a camera cannot.  Its
frames wait here for a partner, but not longer than the age budget, and the engine takes a pair when it is free.  So a
stream that arrives 130 ms later than the other can still be paired.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from streamfuse.frames import DEFAULT_PERIOD_NS, Frame, FramePair, Role
from streamfuse.pairing.recorded import NO_PARTNER, OnDrop, default_tolerance_ns
from streamfuse.pairing.skew import skew

TOO_SLOW = "the engine was busy"
TOO_OLD = "older than the age budget"
OTHER_AWAY = "the other stream was away"
MAX_WAITING = 64
"""Largest number of waiting frames of each stream for any age budget: 20 MB at 640x480, 130 MB at 1080p."""


class Policy(enum.StrEnum):
    """Choice of the pair that the engine gets when it is free."""

    LATEST = "latest"
    """The newest pair; the frames before it are dropped."""
    ORDERED = "ordered"
    """The oldest pair within the age budget: every pair, if the engine keeps up on average."""


@dataclass(slots=True)
class _Waiting:
    """A frame that waits for a partner."""

    frame: Frame
    had_partner: bool = False
    """True if a frame with which it could have been paired was dropped."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A possible pair: the indices of its frames among the waiting ones."""

    ir: int
    vis: int
    skew_ns: int
    by_stamp: bool


class LivePairing:
    """Frames that wait for a partner, and the rules by which they are paired.  Not thread-safe; no call blocks.

    Call `add` for each frame, then `take` for a pair or, while the other stream is away, `take_single` for a frame.
    """

    def __init__(
        self,
        *,
        max_age_ns: int,
        tolerance_ns: int | None = None,
        ir_offset_ns: int = 0,
        policy: Policy = Policy.LATEST,
        on_drop: OnDrop = lambda role, reason: None,
        on_clock: Callable[[bool, Frame, Frame], None] = lambda by_stamp, ir, vis: None,
    ) -> None:
        """`tolerance_ns`: largest skew of a pair; None for half the frame interval of the slower stream (see `rates`).
        `on_clock`: called for each pair with True if its frames were compared by stamp, False if by arrival.
        """
        self._fixed_ns = tolerance_ns
        self._max_age_ns = max_age_ns
        self._offset_ns = ir_offset_ns
        self._policy = policy
        self._on_drop = on_drop
        self._on_clock = on_clock
        self._waiting: dict[Role, deque[_Waiting]] = {role: deque() for role in Role}
        self.rates(None, None)

    def rates(self, ir_ns: int | None, vis_ns: int | None) -> None:
        """Set the frame intervals of the streams, ns; None while one is not known."""
        self._periods = {Role.IR: ir_ns or DEFAULT_PERIOD_NS, Role.VIS: vis_ns or DEFAULT_PERIOD_NS}
        self._tolerance_ns = default_tolerance_ns(ir_ns, vis_ns) if self._fixed_ns is None else self._fixed_ns

    def add(self, role: Role, frame: Frame) -> None:
        """Add a frame; drop those that have become too old by its arrival."""
        waiting = self._waiting[role]
        waiting.append(_Waiting(frame))
        self._expire(frame.arrival_ns)
        if len(waiting) > MAX_WAITING:
            self._drop({role: 1}, TOO_OLD)

    def take(self, now_ns: int, *, final: bool = False) -> FramePair | None:
        """Return the next pair under the policy, or None.  `final`: no more frames will come."""
        self._expire(now_ns)
        found = self._find(final)
        if found is None:
            return None
        self._drop({Role.IR: found.ir, Role.VIS: found.vis}, TOO_SLOW)
        ir, vis = (self._waiting[role].popleft().frame for role in Role)
        self._on_clock(found.by_stamp, ir, vis)
        return FramePair(ir, vis, found.skew_ns)

    def take_single(self, role: Role, now_ns: int) -> Frame | None:
        """Return the newest frame of a stream while the other one is away, or None; drop the older frames."""
        self._expire(now_ns)
        waiting = self._waiting[role]
        if not waiting:
            return None
        self._drop({role: len(waiting) - 1}, TOO_SLOW)
        return waiting.popleft().frame

    def away(self, role: Role) -> None:
        """Drop the frames of the other stream unless frames of `role`, which is away, still wait."""
        if not self._waiting[role]:
            self._drop({role.other: len(self._waiting[role.other])}, OTHER_AWAY)

    def has_waiting(self, role: Role) -> bool:
        return bool(self._waiting[role])

    def clear(self, role: Role) -> int:
        """Remove the waiting frames of a stream without counting them; return their number."""
        count = len(self._waiting[role])
        self._waiting[role].clear()
        return count

    def _skew(self, ir: _Waiting, vis: _Waiting) -> tuple[int, bool]:
        difference, by_stamp = skew(ir.frame, vis.frame)
        return difference + self._offset_ns, by_stamp

    def _find(self, final: bool) -> _Candidate | None:
        """Find two frames within the tolerance, each nearest to the other, such that no nearer one can still arrive."""
        irs, viss = self._waiting[Role.IR], self._waiting[Role.VIS]
        if not irs or not viss:
            return None
        order = range(len(viss)) if self._policy is Policy.ORDERED else range(len(viss) - 1, -1, -1)
        for v in order:
            i = self._nearest_ir(v)
            difference, by_stamp = self._skew(irs[i], viss[v])
            if abs(difference) > self._tolerance_ns or not self._mutual(i, v, abs(difference)):
                continue
            if not final and self._nearer_may_come(i, v, difference):
                if self._policy is Policy.ORDERED:
                    return None  # it is this one's turn
                continue
            return _Candidate(i, v, difference - self._offset_ns, by_stamp)
        return None

    def _nearest_ir(self, v: int) -> int:
        irs, vis = self._waiting[Role.IR], self._waiting[Role.VIS][v]
        return min(range(len(irs)), key=lambda i: abs(self._skew(irs[i], vis)[0]))

    def _mutual(self, i: int, v: int, distance_ns: int) -> bool:
        ir, viss = self._waiting[Role.IR][i], self._waiting[Role.VIS]
        neighbours = (viss[k] for k in (v - 1, v + 1) if 0 <= k < len(viss))
        return all(abs(self._skew(ir, vis)[0]) >= distance_ns for vis in neighbours)

    def _nearer_may_come(self, i: int, v: int, difference_ns: int) -> bool:
        """True if the successor of the earlier frame has not arrived and may be nearer to the later frame."""
        role, index = (Role.IR, i) if difference_ns < 0 else (Role.VIS, v)
        is_newest = index == len(self._waiting[role]) - 1
        return is_newest and abs(difference_ns) > 0.6 * self._periods[role]

    def _expire(self, now_ns: int) -> None:
        old = {
            role: sum(now_ns - one.frame.arrival_ns > self._max_age_ns for one in waiting)
            for role, waiting in self._waiting.items()
        }
        self._drop(old, TOO_OLD)

    def _drop(self, counts: dict[Role, int], reason: str) -> None:
        """Drop the oldest `counts` frames of each stream, for `reason` or because they had no partner."""
        dropped = []
        for role, count in counts.items():
            for index in range(count):
                one = self._waiting[role][index]
                partners = self._partners(role, one)
                others = self._waiting[role.other]
                dropped.append((role, reason if partners or one.had_partner or not others else NO_PARTNER))
                for partner in partners:
                    partner.had_partner = True
        for role, count in counts.items():
            for _ in range(count):
                self._waiting[role].popleft()
        for role, why in dropped:
            self._on_drop(role, why)

    def _partners(self, role: Role, one: _Waiting) -> list[_Waiting]:
        """Return the frames of the other stream within the tolerance."""
        return [
            other for other in self._waiting[role.other] if abs(self._ahead(role, one, other)) <= self._tolerance_ns
        ]

    def _ahead(self, role: Role, one: _Waiting, other: _Waiting) -> int:
        """Return the time by which a frame precedes one of the other stream, ns."""
        return -self._skew(one, other)[0] if role is Role.IR else self._skew(other, one)[0]
