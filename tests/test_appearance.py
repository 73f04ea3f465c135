"""Metrics of faults that a viewer sees at once, on synthetic pictures whose values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamfuse.color import Plane
from streamfuse.evaluation import appearance
from streamfuse.evaluation.maps import COLOURS, draw_faults


def flat(level: int, side: int = 80) -> Plane:
    return np.full((side, side), level, np.uint8)


def chequered(level: int, deviation: int, side: int = 80) -> Plane:
    """Return a chequered plane whose blocks all have this mean and deviation."""
    odd = np.indices((side, side)).sum(axis=0) % 2
    levels: Plane = (level + deviation * (2 * odd - 1)).astype(np.uint8)
    return levels


def test_shadow_loss_counts_black_pixels_where_a_source_shows_something() -> None:
    ir, vis, fused = flat(9), flat(9), flat(30)
    fused[:10] = 2  # black, but neither source shows anything
    assert appearance.shadow_loss(ir, vis, fused) == 0
    ir[:5] = 10
    vis[5:6] = 200
    assert appearance.shadow_loss(ir, vis, fused) == pytest.approx(100 * 6 / 80)
    fused[0] = 3
    assert appearance.shadow_loss(ir, vis, fused) == pytest.approx(100 * 5 / 80)


def test_highlight_loss_counts_white_pixels_where_no_source_is_white() -> None:
    ir, vis, fused = flat(239), flat(100), flat(200)
    fused[:8] = 253
    assert appearance.highlight_loss(ir, vis, fused) == pytest.approx(10)
    vis[:4] = 240
    assert appearance.highlight_loss(ir, vis, fused) == pytest.approx(5)
    fused[:8] = 252
    assert appearance.highlight_loss(ir, vis, fused) == 0


def test_shadow_contrast_is_relative_to_the_stronger_source_in_dark_blocks() -> None:
    ir, vis = chequered(100, 2), chequered(30, 8)
    assert appearance.shadow_contrast(ir, vis, chequered(30, 2)) == pytest.approx(0.25)
    assert appearance.shadow_contrast(ir, vis, chequered(90, 8)) == pytest.approx(1)
    assert appearance.shadow_contrast(ir, vis, chequered(90, 20)) == pytest.approx(1)  # more is not better
    assert appearance.shadow_contrast(chequered(100, 16), vis, chequered(90, 8)) == pytest.approx(0.5)
    vis[:, 40:] = 200  # half of the blocks are bright: what is lost there does not count
    fused = chequered(30, 8)
    fused[:, 40:] = 0
    assert appearance.shadow_contrast(ir, vis, fused) == pytest.approx(1)
    assert math.isnan(appearance.shadow_contrast(ir, chequered(40, 8), fused))
    assert math.isnan(appearance.shadow_contrast(flat(9), flat(9), fused))


def test_warm_contrast_is_relative_to_infrared() -> None:
    ir, fused = flat(60, 160), flat(120, 160)
    ir[70:90, 70:90] = 160
    fused[70:90, 70:90] = 150
    assert appearance.warm_contrast(ir, flat(0, 160), fused) == pytest.approx(0.3)
    assert appearance.warm_contrast(ir, flat(0, 160), ir) == pytest.approx(1)
    assert appearance.warm_contrast(ir, flat(0, 160), flat(9, 160)) == pytest.approx(0)
    assert math.isnan(appearance.warm_contrast(flat(60), flat(0), flat(0)))


def test_noise_gain_is_relative_to_the_quieter_source() -> None:
    ir, vis = chequered(100, 1), chequered(100, 3)
    assert appearance.noise_gain(ir, vis, chequered(100, 2)) == pytest.approx(2)
    assert appearance.noise_gain(vis, ir, chequered(100, 1)) == pytest.approx(1)
    busy = np.where(np.arange(80) < 40, vis, chequered(100, 50)).astype(np.uint8)  # half is no noise
    assert appearance.noise_gain(ir, busy, chequered(100, 2)) == pytest.approx(2)
    assert math.isnan(appearance.noise_gain(ir, chequered(100, 4), ir))
    assert appearance.noise_gain(flat(9), flat(9), chequered(9, 1)) == pytest.approx(math.sqrt(12))  # rounding


def test_faults_are_drawn_at_their_positions() -> None:
    ir, vis, fused = chequered(100, 1), chequered(100, 1), chequered(100, 1)
    plain = draw_faults(ir, vis, fused)
    fused[:16, :16] = 0
    fused[:16, 64:] = 255
    fused[32:40, 32:40] = chequered(100, 3)[32:40, 32:40]
    vis[64:72, :8] = chequered(30, 9)[64:72, :8]
    drawn = draw_faults(ir, vis, fused)
    positions = {
        "crushed shadow": (4, 4),
        "burnt highlight": (4, 70),
        "noise over twice the quieter source's": (36, 36),
        "shadow contrast under half": (68, 4),
    }
    assert set(positions) == set(COLOURS)
    for kind, position in positions.items():
        nearest = min(COLOURS, key=lambda name: float(np.abs(drawn[position] - np.array(COLOURS[name])).sum()))
        assert nearest == kind
    assert (drawn[48:56] == plain[48:56]).all()
    assert (plain == plain[:, :, :1]).all()  # grey: nothing is lost


def test_surroundings_are_63_pixels_wide() -> None:
    ir, fused = flat(60, 160), flat(120, 160)
    ir[80, 80] = 200
    fused[80 - 31, 80 + 31] = 119  # the last pixel that counts
    fused[80 - 32, 80] = 0
    assert appearance.warm_contrast(ir, flat(0, 160), fused) == pytest.approx((1 / 63**2) / (140 * (1 - 1 / 63**2)))
