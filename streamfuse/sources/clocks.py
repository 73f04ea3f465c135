"""The time at which a live frame was taken, by the best clock available.

Two cameras rarely share a clock, and the moment of arrival says more about the network than about the scene.  So each
frame gets the best of these, and says which:

    SENDER        reference times that travel beside the frames (RTCP sender reports, prft boxes)
    SENDER_START  one reference time for the connection
    SENDER_DELAY  arrival less the sender's delay as it was before the connection broke
    KERNEL        the stamp of the camera's driver
    ARRIVAL       arrival, by an `ArrivalTracker`

and every frame gets the last, so that it can be paired with one of a stream that has nothing better.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from streamfuse.frames import Clock

SECOND = 1_000_000_000
AGREE_NS = 2_500_000
"""Largest difference between reference times that agree."""


class ArrivalTracker:
    """Converts a stream's own stamps to this machine's monotonic clock.

    A frame cannot arrive before it was taken, only late by what the network and the scheduler add.  So the distance
    between the clocks is the least that was seen lately.  A smaller one is believed at once; a larger one, which may be
    drift or a slower way, is followed at `SLEW`, so that drift is tracked and never accumulates, while a burst of
    late frames moves nothing.
    """

    WINDOW_NS = 5 * SECOND
    SLEW = 0.002
    """Relative drift between two clocks that is followed; quartz drifts by 0.0001."""
    LATE_NS = 500_000_000
    """Delay after its stamp from which a frame counts as late."""
    AGREED_NS = 2 * SECOND
    """Duration of an even delay after which the sender's clock is taken to have jumped."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, int]] = deque()
        """(arrival, distance), distances rising: the first is the sliding minimum."""
        self._distance_ns: int | None = None
        self._last_ns = 0
        self._late_since: tuple[int, int] | None = None

    def track(self, media_ns: int, arrival_ns: int) -> tuple[int, int]:
        """Return the time of a frame, ns of the monotonic clock, and its delay, ns."""
        distance = arrival_ns - media_ns
        while self._recent and self._recent[-1][1] >= distance:
            self._recent.pop()
        self._recent.append((arrival_ns, distance))
        while self._recent[0][0] < arrival_ns - self.WINDOW_NS:
            self._recent.popleft()
        least = self._recent[0][1]
        if self._distance_ns is None or least < self._distance_ns:
            self._distance_ns = least
        elif self._jumped(distance, media_ns, arrival_ns):
            self._distance_ns = distance
        else:
            most = self._distance_ns + round(self.SLEW * (arrival_ns - self._last_ns))
            self._distance_ns = min(least, most)
        self._last_ns = arrival_ns
        return media_ns + self._distance_ns, distance - self._distance_ns

    def _jumped(self, distance: int, media_ns: int, arrival_ns: int) -> bool:
        assert self._distance_ns is not None
        if distance - self._distance_ns < self.LATE_NS:
            self._late_since = None
            return False
        if self._late_since is None:
            self._late_since = (media_ns, arrival_ns)
        media_passed, passed = media_ns - self._late_since[0], arrival_ns - self._late_since[1]
        # A backlog comes faster than it was taken; a stream whose clock has jumped comes at the pace of its stamps.
        if media_passed < self.AGREED_NS:
            return False
        if passed < 0.75 * media_passed:
            self._late_since = (media_ns, arrival_ns)
            return False
        self._late_since = None
        self._recent.clear()
        self._recent.append((arrival_ns, distance))
        return True


@dataclass(frozen=True, slots=True)
class Stamp:
    """Stamp of one frame."""

    stamp_ns: int
    clock: Clock
    tracked_ns: int
    late_ns: int
    """Delay of its arrival after its own stamp, ns."""


class Stamper:
    """Stamps for the frames of one live stream, over all its connections."""

    def __init__(self, *, wait_ns: int = 0, wall_ns: Callable[[], int] = time.time_ns) -> None:
        """`wait_ns`: longest time after connecting to drop frames while the sender's clock is unknown.  `wall_ns`:
        time since 1970, ns.
        """
        self._wait_ns = wait_ns
        self._wall_ns = wall_ns
        self._arrivals = ArrivalTracker()
        self._connected_ns = 0
        self._sender: tuple[Clock, int] | None = None
        """Kind of the reference, and its time since 1970 less media time, ns."""
        self._heard_ns: int | None = None
        """The last reference, which the next must confirm: FFmpeg's first is a frame late."""
        self._delay_ns: int | None = None
        """Tracked arrival less the sender's clock: the delay of the network and the offset of the clocks, ns."""

    def restart(self, now_ns: int) -> None:
        """Begin a new connection, at `now_ns` of the monotonic clock."""
        self._arrivals = ArrivalTracker()
        self._connected_ns = now_ns
        self._sender = self._heard_ns = None

    def reference(self, media_ns: int, since_1970_ns: int) -> None:
        """Record a sender report: the frame with stamp `media_ns` was captured at `since_1970_ns`."""
        before, self._heard_ns = self._heard_ns, since_1970_ns - media_ns
        if before is not None and abs(self._heard_ns - before) < AGREE_NS:
            self._sender = (Clock.SENDER, self._heard_ns)

    def start_reference(self, since_1970_ns: int) -> None:
        """Record the time of the sender's stamp 0, which is used until there are sender reports."""
        if self._sender is None or self._sender[0] is not Clock.SENDER:
            self._sender = (Clock.SENDER_START, since_1970_ns)

    def stamp(self, media_ns: int | None, arrival_ns: int, *, kernel: bool = False) -> Stamp | None:
        """Stamp a frame; None while the sender's clock is not known yet.

        `media_ns`: the frame's own stamp; that of the driver if `kernel`.
        """
        if media_ns is None:
            return Stamp(arrival_ns, Clock.ARRIVAL, arrival_ns, 0)
        tracked_ns, late_ns = self._arrivals.track(media_ns, arrival_ns)
        if self._sender is not None:
            clock, offset_ns = self._sender
            if late_ns < ArrivalTracker.LATE_NS:
                self._delay_ns = tracked_ns - (media_ns + offset_ns)
            return Stamp(media_ns + offset_ns, clock, tracked_ns, late_ns)
        if kernel and (driver_ns := self._driver_ns(media_ns, arrival_ns)) is not None:
            return Stamp(driver_ns, Clock.KERNEL, tracked_ns, late_ns)
        if self._delay_ns is not None:
            return Stamp(tracked_ns - self._delay_ns, Clock.SENDER_DELAY, tracked_ns, late_ns)
        if arrival_ns - self._connected_ns < self._wait_ns:
            return None
        return Stamp(tracked_ns, Clock.ARRIVAL, tracked_ns, late_ns)

    def _driver_ns(self, media_ns: int, arrival_ns: int) -> int | None:
        """Convert a driver's stamp: of the monotonic clock, or since 1970; a few drivers use neither."""
        for ahead_ns in (0, self._wall_ns() - arrival_ns):
            if abs(arrival_ns - (media_ns - ahead_ns)) < 5 * SECOND:
                return media_ns - ahead_ns
        return None
