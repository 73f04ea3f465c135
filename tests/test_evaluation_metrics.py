"""Metrics of one picture against values by hand, plain loops, and the published tables' own values."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.evaluation import fmi
from streamfuse.evaluation import paper_metrics as paper
from streamfuse.evaluation import reference_metrics as reference
from streamfuse.evaluation.score import METRICS, Scores, Triple, in_threads, mean_scores, score, score_all


def noise(seed: int, height: int = 24, width: int = 20) -> Plane:
    """Blobs of a few pixels: smooth enough to have edges, never twice the same."""
    rough = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    return cast(Plane, cv2.GaussianBlur(rough, (0, 0), 1.2, borderType=cv2.BORDER_REPLICATE))


A, B, F = noise(1), noise(2), noise(3)


# The published tables' metrics.


def test_entropy_of_levels() -> None:
    assert paper.entropy(np.full((4, 4), 7, np.uint8)) == 0
    assert paper.entropy(np.array([[0, 255], [255, 0]], np.uint8)) == 1
    assert paper.entropy(np.arange(256, dtype=np.uint8).reshape(16, 16)) == 8
    assert paper.table_mi(np.arange(256, dtype=np.uint8).reshape(16, 16)) == 16


def test_spread_is_not_divided_by_the_number_of_pixels() -> None:
    once = np.array([[0, 255], [0, 255]], np.uint8)
    assert paper.spread(once) == pytest.approx(1)  # four pixels, each half a range from the mean
    assert paper.spread(np.tile(once, (2, 2))) == pytest.approx(2)
    assert reference.deviation(np.tile(once, (2, 2))) == pytest.approx(127.5)


def test_scd_of_a_sum_is_two() -> None:
    a, b = A // 2, B // 2
    assert paper.sum_of_correlations(a, b, a + b) == pytest.approx(2)


def test_scd_uses_differences_below_zero() -> None:
    a, b, f = (plane.astype(float) for plane in (A, B, F))
    expected = np.corrcoef((f - b).ravel(), a.ravel())[0, 1] + np.corrcoef((f - a).ravel(), b.ravel())[0, 1]
    assert paper.sum_of_correlations(A, B, F) == pytest.approx(expected)


def test_scd_of_a_copy_is_undefined() -> None:
    assert math.isnan(paper.sum_of_correlations(A, B, B))
    assert math.isnan(paper.sum_of_correlations(A, np.full_like(A, 9), F))


# FMI against plain loops over windows and cells.


def _masses(window: list[float]) -> list[float]:
    low, high = min(window), max(window)
    scaled = [1.0] * 9 if low == high else [(value - low) / (high - low) for value in window]
    return [value / sum(scaled) for value in scaled]


def _moments(mass: list[float]) -> tuple[float, float]:
    mean = sum(place * m for place, m in enumerate(mass))
    return mean, sum((place - mean) ** 2 * m for place, m in enumerate(mass))


def _window_score(x: list[float], y: list[float]) -> float:
    if x == y or (len(set(x)) == 1 and len(set(y)) == 1):
        return 1.0
    a, f = _masses(x), _masses(y)
    da, df = [m - 1 / 9 for m in a], [m - 1 / 9 for m in f]
    scale = math.sqrt(sum(d * d for d in da) * sum(d * d for d in df))
    c = sum(p * q for p, q in zip(da, df, strict=True)) / scale if scale > 1e-12 else 0.0

    def bound(i: int, j: int) -> float:
        """Joint cumulative mass."""
        if i < 0 or j < 0:
            return 0.0
        up_a, up_f = sum(a[: i + 1]), sum(f[: j + 1])
        return min(up_a, up_f) if c >= 0 else max(up_a + up_f - 1, 0.0)

    joint = [
        [bound(i, j) - bound(i - 1, j) - bound(i, j - 1) + bound(i - 1, j - 1) for j in range(9)] for i in range(9)
    ]
    (mean_a, var_a), (mean_f, var_f) = _moments(a), _moments(f)
    spread = math.sqrt(var_a * var_f)
    covariance = sum(i * j * joint[i][j] for i in range(9) for j in range(9)) - mean_a * mean_f
    phi = c * spread / covariance if spread > 1e-12 else 0.0
    information = 0j
    for i in range(9):
        for j in range(9):
            p = phi * joint[i][j] + (1 - phi) * a[i] * f[j]
            if abs(p) > 1e-15:
                information += p * (cmath.log(p) - cmath.log(a[i] * f[j])) / math.log(2)
    entropies = -sum(m * math.log2(m) for m in [*a, *f] if m > 0)
    return 2 * information.real / entropies if entropies else 0.0


def _windows(feature: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Iterator[list[float]]:
    for row in range(feature.shape[0] - 2):
        for column in range(feature.shape[1] - 2):
            yield [float(feature[row + r, column + c]) for c in range(3) for r in range(3)]


def _mean_score(source: Plane, fused: Plane, *, edges: bool) -> float:
    features = [
        fmi.sobel_edges(p).astype(float) if edges else np.asarray(cv2.dct(p.astype(float) / 255), np.float64)
        for p in (source, fused)
    ]
    scores = [_window_score(x, y) for x, y in zip(_windows(features[0]), _windows(features[1]), strict=True)]
    return sum(scores) / len(scores)


def test_fmi_dct_is_what_plain_loops_give() -> None:
    expected = (_mean_score(A, F, edges=False) + _mean_score(B, F, edges=False)) / 2
    assert fmi.fmi_dct(A, B, F) == pytest.approx(expected, abs=1e-9)


def test_fmi_pixel_is_what_plain_loops_give() -> None:
    expected = (_mean_score(A, F, edges=True) + _mean_score(B, F, edges=True)) / 2
    assert 0.1 < expected < 0.99
    assert fmi.fmi_pixel(A, B, F) == pytest.approx(expected, abs=1e-9)


def test_fmi_where_phi_exceeds_one() -> None:
    """Nearly proportional windows: some cells of the joint mass are negative."""
    x, y = [0.0, 9, 2, 3, 1, 8, 7, 4, 6], [0.0, 9, 2, 3, 1, 8, 7, 4, 5]
    got = fmi.window_scores(np.array([x]).T, np.array([y]).T)
    assert got[0] == pytest.approx(_window_score(x, y), abs=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([5.0] * 9, [7.0] * 9, 1.0),  # two constant windows
        ([0.0, 1, 2, 3, 4, 5, 6, 7, 8], [0.0, 1, 2, 3, 4, 5, 6, 7, 8], 1.0),
        ([5.0] * 9, [0.0, 1, 2, 3, 4, 5, 6, 7, 8], 0.0),  # no correlation with a constant
        ([1.0] + [0.0] * 8, [0.0] * 8 + [1.0], 0.0),  # two places without any doubt
    ],
)
def test_fmi_of_special_windows(x: list[float], y: list[float], expected: float) -> None:
    assert fmi.window_scores(np.array([x]).T, np.array([y]).T)[0] == pytest.approx(expected, abs=1e-9)


def test_fmi_of_a_copy() -> None:
    """One source is held whole, of the other as much as the two share."""
    for metric in (fmi.fmi_dct, fmi.fmi_pixel):
        assert metric(A, A, A) == pytest.approx(1)
        shared = metric(A, A, B)
        assert metric(A, B, B) == pytest.approx((1 + shared) / 2)


def test_edges_are_thin_and_stay_at_the_border() -> None:
    step = np.zeros((12, 12), np.uint8)
    step[:, 6:] = 200
    edges = fmi.sobel_edges(step)
    # Both columns beside the step have the same gradient: the one that is above its successor stays.
    assert edges[:, 6].all()
    assert edges.sum() == 12
    at_border = np.zeros((12, 12), np.uint8)
    at_border[:, 11] = 200
    assert fmi.sobel_edges(at_border)[:, 11].all()
    assert fmi.sobel_edges(step.T).sum() == 12
    assert not fmi.sobel_edges(np.full((12, 12), 9, np.uint8)).any()


# Metrics that are harder to please.


def test_mutual_information() -> None:
    halves = np.array([[0, 0], [255, 255]], np.uint8)
    assert reference.mutual_information(halves, 255 - halves) == pytest.approx(1)
    assert reference.mutual_information(halves, halves.T) == 0
    assert reference.mutual_information(A, A) == pytest.approx(paper.entropy(A))


def test_ssim_and_vif_of_a_copy_and_of_more_contrast() -> None:
    picture = noise(4, 80, 96)
    assert reference.structural_similarity(picture, picture) == pytest.approx(1)
    assert reference.visual_information(picture, picture) == pytest.approx(1)
    soft = (picture // 2 + 64).astype(np.uint8)
    assert reference.visual_information(soft, picture) > 1 > reference.visual_information(picture, soft) > 0
    assert reference.visual_information(picture, noise(5, 80, 96)) < 0.1
    assert math.isnan(reference.visual_information(np.full((80, 96), 50, np.uint8), picture))
    assert math.isnan(reference.structural_similarity(A[:10], A[:10]))


def test_vif_of_a_single_window() -> None:
    """17x17 pixels: the coarsest window fits once, and no other scale does."""
    source, fused = noise(6, 17, 17).astype(float), (0.6 * noise(6, 17, 17) + 0.4 * noise(7, 17, 17)).astype(np.uint8)
    steps = np.arange(17) - 8.0
    weights = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * (17 / 5) ** 2))
    weights /= weights.sum()
    off_r, off_d = source - (weights * source).sum(), fused - (weights * fused).sum()
    var_r, var_d, cov = ((weights * p * q).sum() for p, q in ((off_r, off_r), (off_d, off_d), (off_r, off_d)))
    gain = cov / var_r
    noise_left = var_d - gain * cov
    assert gain > 0.3
    expected = math.log2(1 + gain**2 * var_r / (noise_left + 2)) / math.log2(1 + var_r / 2)
    assert reference.visual_information(source.astype(np.uint8), fused) == pytest.approx(expected, rel=1e-6)


def _sobel(plane: Plane, row: int, column: int) -> tuple[float, float]:
    """Strength and direction in a picture that lies in black."""
    around = np.pad(plane.astype(float), 1)[row : row + 3, column : column + 3]
    smooth = np.array([1.0, 2, 1])
    across = float(smooth @ around[:, 2] - smooth @ around[:, 0])
    down = float(smooth @ around[2] - smooth @ around[0])
    return math.hypot(across, down), math.atan(down / across) if across else math.pi / 2


@pytest.mark.parametrize("fused", [F, np.maximum(A, B)])  # a maximum has edges as strong as a source's
def test_edge_preservation_is_what_plain_loops_give(fused: Plane) -> None:
    kept = weight = 0.0
    for row in range(fused.shape[0]):
        for column in range(fused.shape[1]):
            strength, angle = _sobel(fused, row, column)
            for source in (A, B):
                own, own_angle = _sobel(source, row, column)
                ratio = own if own == strength else min(own, strength) / max(own, strength)
                aligned = 1 - abs(own_angle - angle) / (math.pi / 2)
                quality = 0.9994 / (1 + math.exp(-15 * (ratio - 0.5))) * 0.9879 / (1 + math.exp(-22 * (aligned - 0.8)))
                kept, weight = kept + quality * own, weight + own
    assert reference.edge_preservation(A, B, fused) == pytest.approx(kept / weight)


def test_edge_preservation_of_a_copy_and_of_nothing() -> None:
    black = np.zeros_like(A)
    assert reference.edge_preservation(black, black, F) == 0
    assert reference.edge_preservation(A, A, A) > 0.97


def test_average_gradient_of_a_ramp() -> None:
    ramp = np.tile(np.arange(0, 60, 3, dtype=np.uint8), (20, 1))
    assert reference.average_gradient(ramp) == pytest.approx(3 / math.sqrt(2))


# All together.


def test_score_has_every_metric_in_order() -> None:
    scores = score(A, B, F)
    assert tuple(scores) == METRICS
    assert scores["VIF"] == pytest.approx(scores["VIF_ir"] + scores["VIF_vis"])
    assert scores["SSIM"] == pytest.approx((scores["SSIM_ir"] + scores["SSIM_vis"]) / 2)
    assert scores["true_MI"] == pytest.approx(reference.mutual_information(A, F) + reference.mutual_information(B, F))
    assert scores["FMI_dct"] == pytest.approx(fmi.fmi_dct(A, B, F))
    swapped = score(B, A, F)
    assert swapped["SSIM_ir"] == pytest.approx(scores["SSIM_vis"])
    assert "FMI_dct" not in score(A, B, F, with_fmi=False)


@pytest.mark.parametrize(
    ("triple", "words"),
    [
        ((A[:-1], B, F), "the infrared picture is 20x23, the fused one 20x24"),
        ((A, B, F.astype(float)), "must be .H, W. uint8, got .24, 20. float64"),
        ((A, B, np.dstack((F, F, F))), "must be .H, W. uint8"),
        ((A[:2], B[:2], F[:2]), "under 3 pixels"),
    ],
)
def test_score_says_what_does_not_fit(triple: Triple, words: str) -> None:
    with pytest.raises(InputError, match=words):
        score(*triple)


def test_score_of_flat_pictures_is_no_crash() -> None:
    flat = np.full((20, 20), 100, np.uint8)
    scores = score(flat, flat, flat)
    assert math.isnan(scores["SCD"])
    assert scores["EN"] == scores["AG"] == scores["Q_ABF"] - scores["Q_ABF"] == 0


def test_means_leave_out_what_is_undefined() -> None:
    means = mean_scores([{"EN": 1.0, "SCD": math.nan}, {"EN": 2.0, "SCD": 1.5}])
    assert means == {"EN": 1.5, "SCD": 1.5}
    assert math.isnan(mean_scores([{"SCD": math.nan}])["SCD"])
    assert mean_scores([]) == {}


def test_threads_keep_the_order_and_do_not_run_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for k in range(20):
            taken.append(k)
            yield k

    results = in_threads(lambda k: k * k, items(), 2)
    assert next(results) == 0
    assert len(taken) <= 4
    assert list(results) == [k * k for k in range(1, 20)]


# The published tables.  SD has fewer digits where the reference has.

REFERENCE = {
    "average": {
        "EN": (6.1743, 4), "SD": (47.850, 3), "MI": (12.3487, 4), "FMI_dct": (0.4076, 4), "FMI_pixel": (0.9089, 4),
        "SCD": (1.6306, 4), "true_MI": (2.140, 3), "Q_ABF": (0.345, 3), "SSIM": (0.781, 3), "VIF": (0.535, 3),
        "AG": (3.06, 2),
    },
    "maximum": {
        "EN": (6.5322, 4), "SD": (77.565, 3), "MI": (13.0643, 4), "FMI_dct": (0.2856, 4), "FMI_pixel": (0.8934, 4),
        "SCD": (1.5957, 4), "true_MI": (6.592, 3), "Q_ABF": (0.572, 3), "SSIM": (0.714, 3), "VIF": (0.886, 3),
        "AG": (4.11, 2),
    },
    "visible": {
        "EN": (6.6911, 4), "SD": (97.74, 2), "MI": (13.3823, 4), "FMI_dct": (0.5496, 4), "FMI_pixel": (0.9352, 4),
    },
}  # fmt: skip


def _fuse(how: str, ir: Plane, vis: Plane) -> Plane:
    if how == "average":
        return ((ir.astype(np.uint16) + vis + 1) // 2).astype(np.uint8)
    return np.maximum(ir, vis) if how == "maximum" else vis


@pytest.fixture(scope="module")
def tno_means(data_dir: Path) -> dict[str, Scores]:
    pairs: list[tuple[Plane, Plane]] = []
    for path in sorted((data_dir / "data/eval/tno21/vis").iterdir()):
        ir, vis = (
            cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in (path.parent.parent / "ir" / path.name, path)
        )
        assert ir is not None
        assert vis is not None
        pairs.append((cast(Plane, ir), cast(Plane, vis)))
    assert len(pairs) == 21
    return {how: mean_scores(list(score_all((a, b, _fuse(how, a, b)) for a, b in pairs))) for how in REFERENCE}


@pytest.mark.parametrize("how", REFERENCE)
def test_published_values_to_the_digit(tno_means: dict[str, Scores], how: str) -> None:
    got = {metric: round(tno_means[how][metric], digits) for metric, (_, digits) in REFERENCE[how].items()}
    assert got == {metric: value for metric, (value, _) in REFERENCE[how].items()}
    assert math.isnan(tno_means[how]["SCD"]) == (how == "visible")
