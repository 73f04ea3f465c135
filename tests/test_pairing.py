"""Pairing by time stamp."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import MS, every, frame_at

from streamfuse.pairing.recorded import NO_PARTNER, OTHER_ENDED, default_tolerance_ns, pair_frames

TOLERANCE_NS = 20 * MS


class Run:
    """Result of pairing: pairs of stamps in ms, and the drops by (role, reason)."""

    def __init__(self, ir_ms: list[float], vis_ms: list[float], **settings: int) -> None:
        self.drops: Counter[tuple[str, str]] = Counter()
        settings = {"tolerance_ns": TOLERANCE_NS, **settings}
        pairs = pair_frames(
            (frame_at(ms) for ms in ir_ms),
            (frame_at(ms) for ms in vis_ms),
            on_drop=lambda role, reason: self.drops.update([(role, reason)]),
            **settings,
        )
        self.pairs = [(pair.ir.stamp_ns / MS, pair.vis.stamp_ns / MS) for pair in pairs]


def test_equal_stamps_all_pair() -> None:
    run = Run(every(40, 5), every(40, 5))
    assert run.pairs == [(t, t) for t in every(40, 5)]
    assert not run.drops


def test_faster_stream_gives_its_nearest_frames() -> None:
    """Infrared at 9 fps, visible at 30: each infrared frame gets the nearest visible one."""
    ir, vis = every(1000 / 9, 9), every(1000 / 30, 30)
    run = Run(ir, vis, tolerance_ns=default_tolerance_ns(round(1e9 / 9), round(1e9 / 30)))
    assert len(run.pairs) == 9
    for ir_ms, vis_ms in run.pairs:
        assert abs(ir_ms - vis_ms) == pytest.approx(min(abs(ir_ms - v) for v in vis), abs=1e-3)
    assert run.drops == {("vis", NO_PARTNER): 19}  # the last two are left unread


def test_start_offset_is_not_index_offset() -> None:
    run = Run(every(40, 5, start_ms=400), every(40, 15))
    assert run.pairs == [(t, t) for t in every(40, 5, start_ms=400)]
    assert run.drops == {("vis", NO_PARTNER): 10}


def test_lost_frame_does_not_shift_what_follows() -> None:
    run = Run([0, 40, 120, 160], every(40, 5))
    assert run.pairs == [(0, 0), (40, 40), (120, 120), (160, 160)]
    assert run.drops == {("vis", NO_PARTNER): 1}


def test_variable_frame_rate() -> None:
    run = Run([0, 33, 50, 133, 140], [0, 30, 60, 90, 135])
    assert run.pairs == [(0, 0), (33, 30), (50, 60), (133, 135)]
    assert run.drops[("ir", OTHER_ENDED)] == 1
    assert run.drops[("vis", NO_PARTNER)] == 1


def test_waits_for_a_nearer_frame() -> None:
    assert Run([0, 30], [28], tolerance_ns=100 * MS).pairs == [(30, 28)]


def test_configured_offset_moves_infrared() -> None:
    run = Run(every(40, 3), every(40, 3, start_ms=1000), ir_offset_ns=1000 * MS)
    assert run.pairs == [(0, 1000), (40, 1040), (80, 1080)]


def test_beyond_tolerance_nothing_pairs() -> None:
    run = Run([0, 100], [50, 150], tolerance_ns=10 * MS)
    assert run.pairs == []
    assert run.drops.total() == 4


def test_closing_early_accounts_for_waiting_frames() -> None:
    drops: Counter[str] = Counter()
    pairs = pair_frames(
        (frame_at(ms) for ms in [0, 30, 60]),
        (frame_at(ms) for ms in [0, 31, 60]),
        tolerance_ns=TOLERANCE_NS,
        on_drop=lambda role, reason: drops.update([role]),
    )
    list(islice(pairs, 2))
    pairs.close()
    assert drops == {"ir": 1}  # 60 ms was read to see whether it is nearer to 31


@given(
    st.lists(st.integers(0, 2000), unique=True, max_size=40),
    st.lists(st.integers(0, 2000), unique=True, max_size=40),
    st.integers(0, 100),
)
def test_any_two_streams(ir: list[int], vis: list[int], tolerance: int) -> None:
    """Pairs are in order, use each frame once, are within the tolerance, and all other read frames are counted."""
    ir, vis = sorted(ir), sorted(vis)
    run = Run([float(t) for t in ir], [float(t) for t in vis], tolerance_ns=tolerance * MS)
    assert all(abs(a - b) <= tolerance for a, b in run.pairs)
    for side in (0, 1):
        used = [pair[side] for pair in run.pairs]
        assert used == sorted(set(used))
    for role, stamps in (("ir", ir), ("vis", vis)):
        dropped = sum(count for (who, _), count in run.drops.items() if who == role)
        assert len(run.pairs) + dropped <= len(stamps)
    exact = set(ir) & set(vis)
    assert exact <= {round(a) for a, b in run.pairs if a == b}


def test_default_tolerance_is_half_the_slower_frame_interval() -> None:
    assert default_tolerance_ns(round(1e9 / 9), round(1e9 / 30)) == round(1e9 / 9) // 2
    assert default_tolerance_ns(None, 10 * MS) == 20 * MS
