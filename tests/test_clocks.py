"""Clocks of live streams, with simulated arrivals."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from media import MS, frame_at

from streamfuse.frames import Clock, Frame
from streamfuse.pairing.skew import skew
from streamfuse.pairing.time_line import TimeLine
from streamfuse.sources.clocks import ArrivalTracker, Stamper

SECOND = 1000 * MS
T0 = 5_000 * SECOND
"""Start on the monotonic clock, ns."""


def arrivals(
    count: int, *, ppm: float = 0.0, jitter_ms: float = 0.0, way_ms: float = 20.0
) -> list[tuple[int, int, int]]:
    """Return (media, true, arrival) times of frames every 40 ms; the sender's clock runs `ppm` fast."""
    rng = random.Random(0)
    frames = []
    for k in range(count):
        truth = T0 + 40 * MS * k
        media = round(40 * MS * k * (1 + ppm / 1e6))
        late = abs(rng.gauss(0, jitter_ms)) if jitter_ms else 0.0
        frames.append((media, truth, truth + round((way_ms + late) * MS)))
    return frames


def test_jitter_is_removed() -> None:
    tracker = ArrivalTracker()
    frames = arrivals(2000, jitter_ms=15)
    errors = [tracker.track(media, arrival)[0] - truth - 20 * MS for media, truth, arrival in frames][100:]
    assert max(map(abs, errors)) < 3 * MS
    assert max(arrival - truth - 20 * MS for _, truth, arrival in frames) > 40 * MS  # the jitter that was removed


@pytest.mark.parametrize("ppm", [-200, 100, 500])
def test_drift_is_tracked_and_does_not_add_up(ppm: float) -> None:
    """In an hour, 500 ppm add up to 1.8 s."""
    tracker = ArrivalTracker()
    errors = [
        tracker.track(media, arrival)[0] - truth - 20 * MS
        for media, truth, arrival in arrivals(90_000, ppm=ppm, jitter_ms=5)
    ]
    assert max(map(abs, errors[1000:])) < 6 * MS


def test_backlog_is_late_and_does_not_change_the_estimate() -> None:
    tracker = ArrivalTracker()
    for media, _, arrival in arrivals(200):
        tracker.track(media, arrival)
    # Ten seconds of frames are delayed and then arrive together.
    held = [(40 * MS * k, T0 + 40 * MS * 450 + MS * (k - 200)) for k in range(200, 440)]
    late = [tracker.track(media, arrival)[1] for media, arrival in held]
    assert late[0] == pytest.approx(10 * SECOND, abs=100 * MS)
    assert min(late) > ArrivalTracker.LATE_NS  # for any duration
    for media, truth, arrival in arrivals(600)[460:]:
        tracked, late_ns = tracker.track(media, arrival)
        assert abs(tracked - truth - 20 * MS) < 25 * MS
        assert late_ns < 25 * MS


def test_lasting_jump_of_the_sender_clock_is_accepted() -> None:
    tracker = ArrivalTracker()
    for media, _, arrival in arrivals(100):
        tracker.track(media, arrival)
    late = [tracker.track(media - 10 * SECOND, arrival)[1] for media, _, arrival in arrivals(300)[100:]]
    assert late[0] > 9 * SECOND
    assert max(late[60:]) < MS
    # A jump the other way is accepted immediately: no frame arrives before it was taken.
    tracked, late_ns = tracker.track(60 * SECOND, T0 + 13 * SECOND)
    assert (tracked, late_ns) == (T0 + 13 * SECOND, 0)


def test_best_available_clock_is_used() -> None:
    stamper = Stamper(wait_ns=5 * SECOND)
    stamper.restart(T0)
    assert stamper.stamp(0, T0 + 20 * MS) is None  # the sender may still say
    first = stamper.stamp(6 * SECOND, T0 + 6020 * MS)
    assert first is not None
    assert (first.stamp_ns, first.clock) == (T0 + 6020 * MS, Clock.ARRIVAL)
    stamper.start_reference(1_700_000_000 * SECOND)
    second = stamper.stamp(7 * SECOND, T0 + 7020 * MS)
    assert second is not None
    assert (second.stamp_ns, second.clock) == (1_700_000_007 * SECOND, Clock.SENDER_START)
    assert second.tracked_ns == T0 + 7020 * MS
    stamper.reference(8 * SECOND, 1_700_000_008 * SECOND + 43 * MS)  # FFmpeg's first is a frame off
    stamper.reference(9 * SECOND, 1_700_000_009 * SECOND + 3 * MS)
    stamper.reference(10 * SECOND, 1_700_000_010 * SECOND + 3 * MS)
    stamper.start_reference(1_600_000_000 * SECOND)
    third = stamper.stamp(11 * SECOND, T0 + 11_020 * MS)
    assert third is not None
    assert (third.stamp_ns, third.clock) == (1_700_000_011 * SECOND + 3 * MS, Clock.SENDER)


def test_single_outlier_reference_is_ignored() -> None:
    stamper = Stamper()
    stamper.restart(T0)
    for k in (0, 1):
        stamper.reference(k * SECOND, (100 + k) * SECOND)
    stamper.reference(2 * SECOND, 202 * SECOND)
    stamp = stamper.stamp(2 * SECOND, T0 + 2 * SECOND)
    assert stamp is not None
    assert stamp.stamp_ns == 102 * SECOND


def test_after_a_reconnect_the_known_delay_is_used() -> None:
    """The media time of a new connection starts again, and the sender's first report takes seconds."""
    stamper = Stamper(wait_ns=5 * SECOND)
    stamper.restart(T0)
    for k in (0, 1):
        stamper.reference(k * SECOND, 1_700_000_000 * SECOND + k * SECOND)
        stamper.stamp(k * SECOND, T0 + k * SECOND + 150 * MS)
    stamper.restart(T0 + 20 * SECOND)
    stamp = stamper.stamp(77 * SECOND, T0 + 30 * SECOND + 150 * MS)
    assert stamp is not None
    assert (stamp.stamp_ns, stamp.clock) == (1_700_000_030 * SECOND, Clock.SENDER_DELAY)


def test_backlog_does_not_change_the_known_delay() -> None:
    stamper = Stamper()
    stamper.restart(T0)
    for k in (0, 1):
        stamper.reference(k * SECOND, 1_700_000_000 * SECOND + k * SECOND)
        stamper.stamp(k * SECOND, T0 + k * SECOND + 150 * MS)
    for k in range(8, 22):  # not long enough to be taken for a jump of the sender's clock
        stamper.stamp(k * SECOND // 8, T0 + k * SECOND // 8 + 6150 * MS)
    stamper.restart(T0 + 20 * SECOND)
    stamp = stamper.stamp(0, T0 + 30 * SECOND + 150 * MS)
    assert stamp is not None
    assert abs(stamp.stamp_ns - 1_700_000_030 * SECOND) < 50 * MS


@pytest.mark.parametrize("wall", [False, True])
def test_driver_stamps_of_either_kind(wall: bool) -> None:
    now_1970 = 1_800_000_000 * SECOND
    stamper = Stamper(wall_ns=lambda: now_1970)
    stamper.restart(T0)
    taken = (now_1970 if wall else T0) - 30 * MS
    stamp = stamper.stamp(taken, T0, kernel=True)
    assert stamp is not None
    assert (stamp.stamp_ns, stamp.clock) == (T0 - 30 * MS, Clock.KERNEL)
    nonsense = stamper.stamp(123, T0, kernel=True)
    assert nonsense is not None
    assert nonsense.clock is Clock.ARRIVAL


def test_without_stamps_the_arrival_is_used() -> None:
    stamp = Stamper(wait_ns=SECOND).stamp(None, T0)
    assert stamp is not None
    assert (stamp.stamp_ns, stamp.clock, stamp.late_ns) == (T0, Clock.ARRIVAL, 0)


def live(stamp_ns: int, clock: Clock, arrival_ns: int, tracked_ns: int | None = None) -> Frame:
    return replace(frame_at(0), stamp_ns=stamp_ns, clock=clock, arrival_ns=arrival_ns, tracked_ns=tracked_ns)


def test_only_stamps_of_one_kind_are_compared() -> None:
    sender = live(1_700_000_000 * SECOND, Clock.SENDER, T0 + 130 * MS)
    delay = live(1_700_000_000 * SECOND + 8 * MS, Clock.SENDER_DELAY, T0)
    arrival = live(T0 + 3 * MS, Clock.ARRIVAL, T0 + 9 * MS, T0 + 3 * MS)
    kernel = live(T0 - 20 * MS, Clock.KERNEL, T0, T0)
    assert skew(sender, delay) == (-8 * MS, True)
    assert skew(sender, arrival) == (127 * MS, False)
    assert skew(arrival, kernel) == (23 * MS, True)
    assert skew(kernel, sender) == (-130 * MS, False)


def test_senders_that_are_not_synchronised_are_paired_by_arrival() -> None:
    right = live(1_700_000_000 * SECOND, Clock.SENDER, T0)
    wrong = live(1_700_000_037 * SECOND, Clock.SENDER, T0 + 5 * MS)
    assert skew(right, wrong) == (-5 * MS, False)


def test_time_line_continues_over_changes_of_clock() -> None:
    line = TimeLine()
    frames = [
        live(T0, Clock.ARRIVAL, T0),
        live(T0 + 40 * MS, Clock.ARRIVAL, T0 + 43 * MS),  # by the stamps, not by arrival
        live(1_700_000_000 * SECOND, Clock.SENDER, T0 + 80 * MS),  # by arrival
        live(1_700_000_000 * SECOND + 40 * MS, Clock.SENDER, T0 + 118 * MS),
        live(1_700_000_100 * SECOND, Clock.SENDER, T0 + 160 * MS),  # the sender's clock was set
        live(1_700_000_099 * SECOND, Clock.SENDER, T0 + 150 * MS),  # never back
    ]
    assert [line.place(frame) // MS for frame in frames] == [0, 40, 77, 117, 159, 159]
