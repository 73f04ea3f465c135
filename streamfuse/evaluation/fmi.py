"""Fast feature mutual information (FMI): the share of the sources' features in the fused picture.

M. Haghighat and M. A. Razian, "Fast-FMI: non-reference image fusion metric", AICT 2014; M. B. A. Haghighat,
A. Aghagolzadeh and H. Seyedarabi, "A non-reference image fusion metric based on mutual information of image
features", Computers and Electrical Engineering 37, 2011.

A window of a feature map, 3x3 = 9 values read column by column, is taken as the probability mass of a position X in
1..9.  Two windows, with masses a and f and Pearson correlation c between the nine values, get the joint mass

    p(i, j) = phi u(i, j) + (1 - phi) a(i) f(j)

in which u is the Frechet bound of a and f, the upper one for c >= 0 and the lower one below, and phi makes the
correlation of p equal to c.  The window's score is 2 I(p) / (H(a) + H(f)).

In closed form, for all windows at once: with the cumulative masses A and F the upper bound gives the cell (i, j) the
overlap of the intervals [A(i-1), A(i)] and [F(j-1), F(j)], and the lower bound is the upper one of a and of f
read backwards.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from streamfuse.color import Plane
from streamfuse.evaluation.packages import research_packages

Floats = npt.NDArray[np.float64]

WINDOW = 3
CELLS = WINDOW * WINDOW
CHUNK = 8192
"""Windows processed at a time: their nine masses, in double precision, fit into a core's cache."""
EDGE_SCALE = 4.0
"""Matlab's `edge(image, "sobel")`: the threshold on the squared gradient is this many times its mean."""
TINY = 1e-12
SMALLEST = 1e-300
"""Added to a mass before its logarithm; negligible for any mass except 0."""


def fmi_dct(ir: Plane, vis: Plane, fused: Plane) -> float:
    """FMI of the coefficients of the whole picture's orthonormal 2-D DCT; (H, W) uint8 each, 0 (nothing) to 1."""
    a, b, f = (_windows(_dct(plane)) for plane in (ir, vis, fused))
    return (_mean_score(a, f) + _mean_score(b, f)) / 2


def fmi_pixel(ir: Plane, vis: Plane, fused: Plane) -> float:
    """FMI of Sobel edge maps, called "pixel" in the published tables; (H, W) uint8 each, 0 to 1."""
    a, b, f = (_edge_codes(sobel_edges(plane)) for plane in (ir, vis, fused))
    return (_mean_edge_score(a, f) + _mean_edge_score(b, f)) / 2


def _dct(plane: Plane) -> Floats:
    with research_packages():
        from scipy.fft import dctn

    coefficients: Floats = dctn(plane.astype(np.float64) / 255, norm="ortho")
    return coefficients


def sobel_edges(plane: Plane) -> npt.NDArray[np.bool_]:
    """Matlab's `edge(image, "sobel")`: (H, W) uint8 to (H, W) bool.

    A pixel is an edge where the squared gradient exceeds four times its mean and is a local maximum along the
    axis of the larger component (not below the pixel before, above the one after).  Pixels outside the picture
    repeat its border for the gradient and never suppress an edge.
    """
    # Integers, 8 times Matlab's gradient: ties are ties.
    across = cv2.Sobel(plane, cv2.CV_32F, 1, 0, borderType=cv2.BORDER_REPLICATE).astype(np.int32)
    down = cv2.Sobel(plane, cv2.CV_32F, 0, 1, borderType=cv2.BORDER_REPLICATE).astype(np.int32)
    square = across * across + down * down
    padded = np.pad(square, 1, constant_values=-1)
    left, right = padded[1:-1, :-2], padded[1:-1, 2:]
    above, below = padded[:-2, 1:-1], padded[2:, 1:-1]
    across, down = np.abs(across), np.abs(down)
    ridge = ((across >= down) & (left <= square) & (square > right)) | (
        (down >= across) & (above <= square) & (square > below)
    )
    edges: npt.NDArray[np.bool_] = ridge & (square > EDGE_SCALE * square.mean())
    return edges


def _windows(feature: Floats) -> Floats:
    """Return every 3x3 window at stride 1, read column by column: (H, W) to (9, windows)."""
    views = sliding_window_view(feature, (WINDOW, WINDOW))  # (H-2, W-2, row, column)
    return np.ascontiguousarray(views.transpose(3, 2, 0, 1).reshape(CELLS, -1))


def _edge_codes(edges: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return each window of nine bits as a number below 512: (H, W) to (windows,)."""
    views = sliding_window_view(edges, (WINDOW, WINDOW)).transpose(3, 2, 0, 1).reshape(CELLS, -1)
    codes: npt.NDArray[np.int64] = (views.astype(np.int64) << np.arange(CELLS)[:, None]).sum(axis=0)
    return codes


def _mean_edge_score(a: npt.NDArray[np.int64], f: npt.NDArray[np.int64]) -> float:
    """Score each occurring pair of windows once, because windows of nine bits repeat."""
    pairs, counts = np.unique((a << CELLS) | f, return_counts=True)
    bits = np.arange(CELLS)[:, None]
    scores = window_scores(
        (((pairs >> CELLS) >> bits) & 1).astype(np.float64), ((pairs >> bits) & 1).astype(np.float64)
    )
    return float(np.dot(scores, counts)) / int(counts.sum())


def _mean_score(a: Floats, f: Floats) -> float:
    total = 0.0
    for start in range(0, a.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        total += float(window_scores(a[:, part], f[:, part]).sum())
    return total / int(a.shape[1])


def window_scores(a: Floats, f: Floats) -> Floats:
    """Score of each pair of windows: (9, n) and (9, n) to (n,), 0 to 1; equal windows, or two constant ones, have 1."""
    same = (a == f).all(axis=0)
    mass_a, flat_a = _masses(a)
    mass_f, flat_f = _masses(f)
    correlation = _correlation(mass_a, mass_f)
    mass_f = np.where(correlation < 0, mass_f[::-1], mass_f)
    cumulative_a = np.cumsum(mass_a, axis=0)
    cumulative_f = np.cumsum(mass_f, axis=0)
    phi = np.abs(correlation) / _bound_correlation(mass_a, mass_f, cumulative_a, cumulative_f)
    information = _information(mass_a, mass_f, cumulative_a, cumulative_f, phi)
    entropies = _entropy(mass_a) + _entropy(mass_f)
    scores = 2 * information / np.maximum(entropies, TINY)
    scores[same | (flat_a & flat_f)] = 1.0
    return scores


def _masses(windows: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Shift and scale windows to 0..1, then to sum 1; a constant window becomes uniform."""
    low, high = windows.min(axis=0), windows.max(axis=0)
    flat = low == high
    scaled = (windows - low) / np.where(flat, 1.0, high - low)
    scaled[:, flat] = 1.0
    return scaled / scaled.sum(axis=0), flat


def _correlation(a: Floats, f: Floats) -> Floats:
    """Pearson correlation over the nine values; 0 if one window is constant."""
    a, f = a - 1 / CELLS, f - 1 / CELLS
    scale = np.sqrt((a * a).sum(axis=0) * (f * f).sum(axis=0))
    correlation: Floats = (a * f).sum(axis=0) / np.where(scale < TINY, np.inf, scale)
    return correlation


def _bound_correlation(a: Floats, f: Floats, cumulative_a: Floats, cumulative_f: Floats) -> Floats:
    """Correlation of the two positions under the upper bound, by Hoeffding's formula; infinite if one is constant."""
    covariance = np.zeros(a.shape[1])
    for i in range(CELLS - 1):
        for j in range(CELLS - 1):
            covariance += np.minimum(cumulative_a[i], cumulative_f[j])
    covariance -= cumulative_a[:-1].sum(axis=0) * cumulative_f[:-1].sum(axis=0)
    scale = np.sqrt(_variance(a) * _variance(f))
    return np.where(scale < TINY, np.inf, covariance / np.maximum(scale, TINY))


def _variance(mass: Floats) -> Floats:
    places = np.arange(CELLS, dtype=np.float64)
    mean = places @ mass
    variance: Floats = np.maximum(places**2 @ mass - mean**2, 0.0)
    return variance


def _information(a: Floats, f: Floats, cumulative_a: Floats, cumulative_f: Floats, phi: Floats) -> Floats:
    """Mutual information of the joint mass, bits; its marginals are `a` and `f` for any phi.

    A phi above 1 makes some cells negative; the published values then use the real part of their logarithm.

    The bound has mass only in a staircase of 17 cells.  All 81 cells are summed as if it had none, which has a closed
    form; then those 17 are corrected, step by step for all windows at once.
    """
    count = phi.size
    free = 1 - phi
    entropies = _entropy(a) + _entropy(f)
    total = entropies + free * (_log2(np.abs(free)) - entropies)
    at_a, at_f = np.arange(count), np.arange(count)  # indices of the current cell's masses in the flat arrays
    ends_a, ends_f = cumulative_a.copy(), cumulative_f.copy()
    ends_a[-1] = ends_f[-1] = 2.0  # do not step beyond the last position
    begin = np.zeros(count)
    for _ in range(2 * CELLS - 1):
        end_a, end_f = ends_a.take(at_a), ends_f.take(at_f)
        end = np.minimum(np.minimum(end_a, end_f), 1.0)
        independent = free * a.take(at_a)
        independent *= f.take(at_f)
        joint = phi * (end - begin)
        joint += independent
        total += joint * _log2(np.abs(joint)) - independent * _log2(np.abs(independent))
        first = end_a <= end_f
        at_a += first * count
        at_f += ~first * count
        begin = end
    return total


def _entropy(mass: Floats) -> Floats:
    entropy: Floats = -(mass * _log2(mass)).sum(axis=0)
    return entropy


def _log2(values: Floats) -> Floats:
    """Logarithm that is finite at 0, so that 0 log 0 is 0."""
    logarithm: Floats = np.log2(values + SMALLEST)
    return logarithm
