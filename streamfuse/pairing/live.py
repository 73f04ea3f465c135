"""Two live streams into pairs: by time, from what has arrived.

Recordings can be asked for their next frame (`streamfuse.pairing.recorded`); cameras cannot.  Their frames wait here
until a partner arrives, at most as long as the age budget allows, and the engine takes a pair when it is free.  So a
stream that is delivered 130 ms later than the other can still be paired.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from streamfuse.frames import DEFAULT_PERIOD_NS, Frame, FramePair
from streamfuse.pairing.recorded import NO_PARTNER, OnDrop, default_tolerance_ns
from streamfuse.pairing.skew import skew

TOO_SLOW = "the engine was busy"
TOO_OLD = "older than the age budget"
OTHER_AWAY = "the other stream was away"
MOST_HELD = 64
"""Frames of each stream, whatever the age budget: 20 MB at 640x480, 130 MB at 1080p."""


class Policy(enum.StrEnum):
    """Which pair the engine gets when it is free."""

    LATEST = "latest"
    """The newest; those before it are dropped."""
    ORDERED = "ordered"
    """The oldest within the age budget: every pair, if the engine keeps up on average."""


@dataclass(slots=True)
class _Held:
    frame: Frame
    met: bool = False
    """It had a partner, which was dropped."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    ir: int
    vis: int
    skew_ns: int
    by_stamp: bool


class LivePairing:
    """Holds frames and matches them; not safe for threads, and it never waits.

    `add` a frame, then `take` a pair or, while the other stream is away, `take_single` a frame.
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
        """`tolerance_ns`: None for half a frame period of the slower stream, as `rates` tells.

        `on_clock` is called with each pair, with whether it was compared by stamps.
        """
        self._fixed_ns = tolerance_ns
        self._max_age_ns = max_age_ns
        self._offset_ns = ir_offset_ns
        self._policy = policy
        self._on_drop = on_drop
        self._on_clock = on_clock
        self._held: dict[str, deque[_Held]] = {"ir": deque(), "vis": deque()}
        self.rates(None, None)

    def rates(self, ir_ns: int | None, vis_ns: int | None) -> None:
        """The periods of the streams, as far as they are known by now, ns."""
        self._periods = {"ir": ir_ns or DEFAULT_PERIOD_NS, "vis": vis_ns or DEFAULT_PERIOD_NS}
        self._tolerance_ns = default_tolerance_ns(ir_ns, vis_ns) if self._fixed_ns is None else self._fixed_ns

    def add(self, role: str, frame: Frame) -> None:
        held = self._held[role]
        held.append(_Held(frame))
        self._expire(frame.arrival_ns)
        if len(held) > MOST_HELD:
            self._drop({role: 1}, TOO_OLD)

    def take(self, now_ns: int, *, final: bool = False) -> FramePair | None:
        """The pair that is next under the policy, if there is one; `final`: no more frames will come."""
        self._expire(now_ns)
        found = self._find(final)
        if found is None:
            return None
        self._drop({"ir": found.ir, "vis": found.vis}, TOO_SLOW)
        ir, vis = self._held["ir"].popleft().frame, self._held["vis"].popleft().frame
        self._on_clock(found.by_stamp, ir, vis)
        return FramePair(ir, vis, found.skew_ns)

    def take_single(self, role: str, now_ns: int) -> Frame | None:
        """The newest frame of a stream whose partner is away."""
        self._expire(now_ns)
        held = self._held[role]
        if not held:
            return None
        self._drop({role: len(held) - 1}, TOO_SLOW)
        return held.popleft().frame

    def away(self, role: str) -> None:
        """That stream is away: what the other has cannot find partners but in what is here already."""
        other = "vis" if role == "ir" else "ir"
        if not self._held[role]:
            self._drop({other: len(self._held[other])}, OTHER_AWAY)

    def holds(self, role: str) -> bool:
        return bool(self._held[role])

    def clear(self, role: str) -> int:
        """Throw away what is held of a stream; how many frames that were."""
        count = len(self._held[role])
        self._held[role].clear()
        return count

    def _skew(self, ir: _Held, vis: _Held) -> tuple[int, bool]:
        difference, by_stamp = skew(ir.frame, vis.frame)
        return difference + self._offset_ns, by_stamp

    def _find(self, final: bool) -> _Candidate | None:
        """Frames that are each other's nearest, within the tolerance, of which no nearer one can still come."""
        irs, viss = self._held["ir"], self._held["vis"]
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
        irs, vis = self._held["ir"], self._held["vis"][v]
        return min(range(len(irs)), key=lambda i: abs(self._skew(irs[i], vis)[0]))

    def _mutual(self, i: int, v: int, distance_ns: int) -> bool:
        ir, viss = self._held["ir"][i], self._held["vis"]
        neighbours = (viss[k] for k in (v - 1, v + 1) if 0 <= k < len(viss))
        return all(abs(self._skew(ir, vis)[0]) >= distance_ns for vis in neighbours)

    def _nearer_may_come(self, i: int, v: int, difference_ns: int) -> bool:
        """The earlier of the two may have a successor that is nearer to the later, and is not here yet."""
        role, place = ("ir", i) if difference_ns < 0 else ("vis", v)
        is_newest = place == len(self._held[role]) - 1
        return is_newest and abs(difference_ns) > 0.6 * self._periods[role]

    def _expire(self, now_ns: int) -> None:
        old = {
            role: sum(now_ns - one.frame.arrival_ns > self._max_age_ns for one in held)
            for role, held in self._held.items()
        }
        self._drop(old, TOO_OLD)

    def _drop(self, counts: dict[str, int], reason: str) -> None:
        """So many of the oldest of each stream; those that have no partner at all are told apart."""
        dropped = []
        for role, count in counts.items():
            for place in range(count):
                one = self._held[role][place]
                partners = self._partners(role, one)
                others = self._held["vis" if role == "ir" else "ir"]
                dropped.append((role, reason if partners or one.met or not others else NO_PARTNER))
                for partner in partners:
                    partner.met = True
        for role, count in counts.items():
            for _ in range(count):
                self._held[role].popleft()
        for role, why in dropped:
            self._on_drop(role, why)

    def _partners(self, role: str, one: _Held) -> list[_Held]:
        """What the other stream has within the tolerance."""
        others = self._held["vis" if role == "ir" else "ir"]
        return [other for other in others if abs(self._ahead(role, one, other)) <= self._tolerance_ns]

    def _ahead(self, role: str, one: _Held, other: _Held) -> int:
        """By how much a frame is before one of the other stream, ns."""
        return -self._skew(one, other)[0] if role == "ir" else self._skew(other, one)[0]
