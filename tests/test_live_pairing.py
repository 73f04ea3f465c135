"""Pairing of live frames, with simulated arrivals; nothing here waits."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import MS, ListSource, frame_at

from streamfuse.frames import Clock, Frame, FramePair, Role
from streamfuse.pairing.flow import ClockNotes, LiveFlow, OnLoss
from streamfuse.pairing.live import MAX_WAITING, OTHER_AWAY, TOO_OLD, TOO_SLOW, LivePairing, Policy
from streamfuse.pairing.recorded import NO_PARTNER
from streamfuse.sources.base import Source, State


def taken(stamp_ms: float, arrives_ms: float | None = None) -> Frame:
    arrival_ns = round((stamp_ms if arrives_ms is None else arrives_ms) * MS)
    return replace(frame_at(stamp_ms), clock=Clock.SENDER, arrival_ns=arrival_ns, tracked_ns=arrival_ns)


class Run:
    """Feeds frames in order of arrival; the engine takes a pair every `engine_ms`."""

    def __init__(self, policy: Policy = Policy.LATEST, **settings: int) -> None:
        self.drops: Counter[tuple[str, str]] = Counter()
        self.pairs: list[tuple[float, float]] = []
        self.ages_ms: list[float] = []
        self.pairing = LivePairing(
            **({"tolerance_ns": 20 * MS, "max_age_ns": 500 * MS} | settings),  # type: ignore[arg-type]
            policy=policy,
            on_drop=lambda role, reason: self.drops.update([(role, reason)]),
        )

    def feed(self, ir: list[Frame], vis: list[Frame], *, engine_ms: float = 0.0) -> Run:
        arrivals = sorted(
            [*((Role.IR, f) for f in ir), *((Role.VIS, f) for f in vis)], key=lambda item: item[1].arrival_ns
        )
        free_ns = 0
        for role, frame in arrivals:
            self.pairing.add(role, frame)
            while frame.arrival_ns >= free_ns and self.take(max(frame.arrival_ns, free_ns)):
                free_ns = frame.arrival_ns + round(engine_ms * MS)
                if engine_ms:
                    break
        return self

    def take(self, now_ns: int) -> bool:
        pair = self.pairing.take(now_ns)
        if pair is not None:
            self.pairs.append((pair.ir.stamp_ns / MS, pair.vis.stamp_ns / MS))
            self.ages_ms.append((now_ns - min(pair.ir.arrival_ns, pair.vis.arrival_ns)) / MS)
        return pair is not None


def test_late_delivery_phase_and_loss() -> None:
    """Infrared is taken 8 ms later, delivered 130 ms later, and every 10th frame lost: each pair is 8 ms apart."""
    ir = [taken(40 * k + 8, 40 * k + 138 + 30) for k in range(100) if k % 10]
    vis = [taken(40 * k, 40 * k + 30) for k in range(104)]
    run = Run().feed(ir, vis)
    assert [b - a for a, b in run.pairs] == [-8] * 90
    assert run.drops == {(Role.VIS, NO_PARTNER): 10}


def test_pair_is_ready_when_its_later_frame_arrives() -> None:
    run = Run()
    run.pairing.add(Role.VIS, taken(0))
    assert run.pairing.take(0) is None
    run.pairing.add(Role.IR, taken(9, 9))
    pair = run.pairing.take(9 * MS)
    assert pair is not None
    assert pair.skew_ns == 9 * MS


def test_waits_only_if_a_nearer_partner_may_arrive() -> None:
    run = Run(tolerance_ns=60 * MS)
    run.pairing.add(Role.IR, taken(0))
    run.pairing.add(Role.VIS, taken(35, 36))
    assert run.pairing.take(36 * MS) is None  # the next infrared frame, due at 40, is nearer
    run.pairing.add(Role.IR, taken(40, 41))
    run.take(41 * MS)
    assert run.pairs == [(40, 35)]
    assert run.drops == {(Role.IR, TOO_SLOW): 1}


@pytest.mark.parametrize(("policy", "expected"), [(Policy.LATEST, 40), (Policy.ORDERED, 0)])
def test_policies(policy: Policy, expected: float) -> None:
    run = Run(policy)
    for k in range(2):
        run.pairing.add(Role.IR, taken(40 * k))
        run.pairing.add(Role.VIS, taken(40 * k))
    run.take(41 * MS)
    assert run.pairs == [(expected, expected)]


def test_slow_engine_gets_new_frames_and_age_does_not_grow() -> None:
    """The engine runs at a tenth of the frame rate for two minutes."""
    ir = [taken(40 * k + 8, 40 * k + 168) for k in range(3000) if k % 10]
    vis = [taken(40 * k, 40 * k + 30) for k in range(3000)]
    run = Run().feed(ir, vis, engine_ms=400)
    assert 280 <= len(run.pairs) <= 300
    assert max(run.ages_ms) <= 260
    assert {a - b for a, b in run.pairs} == {8}
    reasons = {reason for _, reason in run.drops}
    assert reasons == {TOO_SLOW, NO_PARTNER}
    assert run.drops[Role.IR, NO_PARTNER] == 0
    assert run.drops[Role.VIS, NO_PARTNER] == pytest.approx(300, abs=15)


def test_ordered_gives_every_pair_through_a_short_pause() -> None:
    run = Run(Policy.ORDERED)
    for k in range(10):
        run.pairing.add(Role.IR, taken(40 * k))
        run.pairing.add(Role.VIS, taken(40 * k))
    while run.take(400 * MS):
        pass
    assert run.pairs == [(40 * k, 40 * k) for k in range(10)]
    assert not run.drops


def test_budget_and_bound() -> None:
    run = Run(Policy.ORDERED, max_age_ns=100 * MS)
    for k in range(10):
        run.pairing.add(Role.IR, taken(40 * k))
        run.pairing.add(Role.VIS, taken(40 * k))
    run.take(360 * MS)
    assert run.pairs == [(280, 280)]
    assert run.drops == {(Role.IR, TOO_OLD): 7, (Role.VIS, TOO_OLD): 7}
    endless = Run(max_age_ns=10**15)
    for k in range(MAX_WAITING + 5):
        endless.pairing.add(Role.IR, taken(40 * k))
    assert endless.drops == {(Role.IR, TOO_OLD): 5}


def test_default_tolerance_follows_the_slower_stream() -> None:
    for pairing, pairs in ((LivePairing(max_age_ns=500 * MS), False), (LivePairing(max_age_ns=500 * MS), True)):
        if pairs:
            pairing.rates(111 * MS, 33 * MS)
        pairing.add(Role.IR, taken(0))
        pairing.add(Role.VIS, taken(50))
        pairing.add(Role.VIS, taken(90))
        assert (pairing.take(90 * MS) is not None) is pairs


def test_both_frames_of_a_pair_are_nearest_to_each_other() -> None:
    """Also with a large tolerance, the newest visible frame does not take another frame's partner."""
    run = Run(tolerance_ns=100 * MS)
    for frame in (taken(0), taken(30)):
        run.pairing.add(Role.VIS, frame)
    run.pairing.add(Role.IR, taken(2, 31))
    run.take(31 * MS)
    assert run.pairs == [(2, 0)]


def test_frames_expire_while_the_engine_is_busy() -> None:
    """Also a frame whose possible partner has expired."""
    run = Run(max_age_ns=100 * MS)
    run.pairing.add(Role.VIS, taken(0))
    run.pairing.add(Role.IR, taken(0, 60))
    run.pairing.add(Role.VIS, taken(120))
    assert run.drops == {(Role.VIS, TOO_OLD): 1}
    run.pairing.add(Role.VIS, taken(170))
    assert run.drops == {(Role.VIS, TOO_OLD): 1, (Role.IR, TOO_OLD): 1}


def test_offset_shifts_infrared_but_not_the_reported_skew() -> None:
    run = Run(ir_offset_ns=300 * MS)
    run.pairing.add(Role.IR, taken(0, 300))
    run.pairing.add(Role.VIS, taken(300))
    pair = run.pairing.take(300 * MS)
    assert pair is not None
    assert pair.skew_ns == -300 * MS


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 300)), max_size=40, unique_by=lambda t: t[0]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 300)), max_size=40, unique_by=lambda t: t[0]),
    st.sampled_from(Policy),
    st.sampled_from([0.0, 90.0]),
)
def test_any_two_streams(
    ir: list[tuple[int, int]], vis: list[tuple[int, int]], policy: Policy, engine_ms: float
) -> None:
    """Pairs are in order, use each frame once, are within the tolerance, and all other frames are counted."""
    irs, viss = ([taken(t, t + max(late, 0)) for t, late in sorted(frames)] for frames in (ir, vis))
    # A connection delivers in order.
    for frames in (irs, viss):
        for k in range(1, len(frames)):
            frames[k] = replace(frames[k], arrival_ns=max(frames[k].arrival_ns, frames[k - 1].arrival_ns))
    run = Run(policy).feed(irs, viss, engine_ms=engine_ms)
    assert all(abs(a - b) <= 20 for a, b in run.pairs)
    for side, role, frames in ((0, Role.IR, irs), (1, Role.VIS, viss)):
        used = [pair[side] for pair in run.pairs]
        assert used == sorted(set(used))
        dropped = sum(count for (who, _), count in run.drops.items() if who == role)
        assert len(used) + dropped + run.pairing.clear(role) == len(frames)


# One stream is away


class Away(ListSource):
    where = State.BACKOFF

    @property
    def state(self) -> State:
        return self.where


def flow(on_loss: OnLoss) -> tuple[LiveFlow, Run, Away]:
    """A flow whose infrared stream is away."""
    run, away = Run(), Away([], live=True)
    sources: dict[Role, Source] = {Role.IR: away, Role.VIS: ListSource([], live=True)}
    return LiveFlow(sources, run.pairing, on_loss=on_loss, clock=lambda: 100 * MS), run, away


def test_passthrough_shows_the_remaining_stream_until_the_other_is_back() -> None:
    live, _, infrared = flow(OnLoss.PASSTHROUGH)
    items = live.items()
    live.put(Role.VIS, taken(40))
    single = next(items)
    assert isinstance(single, tuple)
    assert (single[0], single[1].stamp_ns) == (Role.VIS, 40 * MS)
    infrared.where = State.LIVE
    live.put(Role.VIS, taken(80))
    live.put(Role.IR, taken(80))
    assert isinstance(next(items), FramePair)
    assert live.abandon() == {Role.IR: 0, Role.VIS: 0}
    assert next(items, None) is None
    assert not live.put(Role.VIS, taken(120))


def test_nothing_waits_after_both_streams_ended() -> None:
    live, run, _ = flow(OnLoss.WAIT)
    live.put(Role.VIS, taken(0))
    live.put(Role.IR, taken(19, 20))
    for role in Role:
        run.pairing.rates(25 * MS, 25 * MS)
        live.end(role)
    assert [type(item) for item in live.items()] == [FramePair]


def test_on_loss_wait_drops_and_counts() -> None:
    live, run, _ = flow(OnLoss.WAIT)
    live.put(Role.VIS, taken(40))
    live.end(Role.IR)  # ends the iteration
    assert list(live.items()) == []
    live, run, _ = flow(OnLoss.WAIT)
    live.put(Role.VIS, taken(40))
    assert live._single(50 * MS) is None
    assert run.drops == {(Role.VIS, OTHER_AWAY): 1}


def test_clock_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "streamfuse")
    notes = ClockNotes()
    sender, arrival = taken(0), replace(taken(0), clock=Clock.ARRIVAL)
    notes(True, sender, sender)
    notes(True, sender, replace(sender, clock=Clock.SENDER_DELAY))
    notes(False, sender, arrival)
    notes(False, sender, arrival)
    notes(False, sender, replace(sender, stamp_ns=sender.stamp_ns + 37_000 * MS))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert said[0] == "pairing by the clock: sender"
    assert "pairing by arrival: infrared has the clock sender, visible has arrival" in said[1]
    assert "-37.0 s apart" in said[2]
