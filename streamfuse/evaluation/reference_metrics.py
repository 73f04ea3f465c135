"""Reference metrics, in which neither a copy of one source nor an average of both wins.

Each compares the fused picture with both sources, except the deviation and the average gradient.
"""

from __future__ import annotations

import math
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane
from streamfuse.evaluation.packages import research_packages
from streamfuse.evaluation.paper_metrics import LEVELS, entropy_of

Floats = npt.NDArray[np.float64]

SSIM_WINDOW = 11


def mutual_information(source: Plane, fused: Plane) -> float:
    """I(source; fused) of the grey levels of two (H, W) uint8 pictures, 256x256 joint histogram, 0 to 8 bits.

    Summed over both sources it is the metric of G. Qu, D. Zhang and P. Yan, "Information measure for performance
    of image fusion", Electronics Letters 38, 2002.
    """
    codes = source.ravel().astype(np.int64) * LEVELS + fused.ravel()
    joint = np.bincount(codes, minlength=LEVELS * LEVELS).reshape(LEVELS, LEVELS)
    return max(entropy_of(joint.sum(axis=1)) + entropy_of(joint.sum(axis=0)) - entropy_of(joint), 0.0)


def deviation(fused: Plane) -> float:
    """Standard deviation of an (H, W) uint8 picture, grey levels, 0 to 127.5."""
    return float(fused.std(dtype=np.float64))


def structural_similarity(source: Plane, fused: Plane) -> float:
    """SSIM of two (H, W) uint8 pictures, Gaussian window of 1.5 pixels, -1 to 1; NaN under 11 pixels.

    Z. Wang, A. C. Bovik, H. R. Sheikh and E. P. Simoncelli, "Image quality assessment: from error visibility to
    structural similarity", IEEE TIP 13, 2004.
    """
    with research_packages():
        from skimage.metrics import structural_similarity as ssim

    if min(source.shape) < SSIM_WINDOW:
        return math.nan
    similarity = ssim(  # type: ignore[no-untyped-call]
        source, fused, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(similarity)


def edge_preservation(ir: Plane, vis: Plane, fused: Plane) -> float:
    """Q_AB/F: share of the sources' edges, in strength and direction, in the fused picture; (H, W) uint8, 0 to 1.

    C. S. Xydeas and V. Petrovic, "Objective image fusion performance measure", Electronics Letters 36, 2000.  An
    edge counts by its strength in the source.  0 where neither source has an edge.

    Three properties of the implementation behind the published figures are kept: pictures are surrounded by black, so
    that their borders are edges; a vertical gradient points to +pi/2, up or down; the ratio of equal strengths is the
    strength itself, which saturates the sigmoid.
    """
    strength, angle = _edges(fused)
    kept = weight = 0.0
    for source in (ir, vis):
        source_strength, source_angle = _edges(source)
        low, high = np.minimum(source_strength, strength), np.maximum(source_strength, strength)
        ratio = np.where(low == high, low, low / np.where(high > 0, high, 1))
        aligned = 1 - np.abs(source_angle - angle) / (math.pi / 2)
        quality = (0.9994 / (1 + np.exp(-15 * (ratio - 0.5)))) * (0.9879 / (1 + np.exp(-22 * (aligned - 0.8))))
        kept += float((quality * source_strength).sum())
        weight += float(source_strength.sum())
    return kept / weight if weight else 0.0


def _edges(plane: Plane) -> tuple[Floats, Floats]:
    """Return Sobel strength, and direction in -pi/2..pi/2."""
    across = cv2.Sobel(plane, cv2.CV_64F, 1, 0, borderType=cv2.BORDER_CONSTANT)
    down = cv2.Sobel(plane, cv2.CV_64F, 0, 1, borderType=cv2.BORDER_CONSTANT)
    upright = across == 0
    angle = np.where(upright, math.pi / 2, np.arctan(down / np.where(upright, 1, across)))
    return np.hypot(across, down), angle


VIF_NOISE = 2.0
"""Variance of the eye's noise in the model of VIF, grey levels squared."""


def visual_information(source: Plane, fused: Plane) -> float:
    """VIF in the pixel domain, four scales, of an (H, W) uint8 source and its fused picture; 0 up, 1 for a copy.

    H. R. Sheikh and A. C. Bovik, "Image information and visual quality", IEEE TIP 15, 2006.  Above 1 where the
    fused picture has more contrast.  NaN where the source holds nothing to keep (it is constant, or so small
    that the largest window, 17 pixels, does not fit).
    """
    reference, distorted = source.astype(np.float64), fused.astype(np.float64)
    kept = held = 0.0
    for scale in range(4):
        side = 2 ** (4 - scale) + 1
        if scale:
            reference = _blur(reference, side)[::2, ::2]
            distorted = _blur(distorted, side)[::2, ::2]
        if min(reference.shape) < side:
            break
        kept_here, held_here = _information_at_scale(reference, distorted, side)
        kept, held = kept + kept_here, held + held_here
    return kept / held if held > 0 else math.nan


def _blur(values: Floats, side: int) -> Floats:
    """Gaussian mean, sigma a fifth of the window, only where the window fits."""
    kernel = cv2.getGaussianKernel(side, side / 5, cv2.CV_64F)
    half = side // 2
    blurred = cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel)
    return cast(Floats, blurred[half : values.shape[0] - half, half : values.shape[1] - half])


def _information_at_scale(reference: Floats, distorted: Floats, side: int) -> tuple[float, float]:
    """Return the information that the eye gets from the distorted picture, and from the reference itself."""
    mean_r, mean_d = _blur(reference, side), _blur(distorted, side)
    var_r = np.maximum(_blur(reference * reference, side) - mean_r * mean_r, 0)
    var_d = np.maximum(_blur(distorted * distorted, side) - mean_d * mean_d, 0)
    cov = _blur(reference * distorted, side) - mean_r * mean_d
    tiny = 1e-10
    gain = cov / (var_r + tiny)
    noise = var_d - gain * cov
    gain[var_r < tiny] = 0
    noise[var_r < tiny] = var_d[var_r < tiny]
    var_r[var_r < tiny] = 0
    gain[var_d < tiny] = 0
    noise[var_d < tiny] = 0
    noise[gain < 0] = var_d[gain < 0]
    gain = np.maximum(gain, 0)
    noise = np.maximum(noise, tiny)
    kept = np.log2(1 + gain * gain * var_r / (noise + VIF_NOISE)).sum()
    return float(kept), float(np.log2(1 + var_r / VIF_NOISE).sum())


def average_gradient(fused: Plane) -> float:
    """AG: mean of sqrt((gx^2 + gy^2) / 2) of forward differences of an (H, W) uint8 picture, grey levels."""
    levels = fused.astype(np.float64)
    across = levels[:-1, 1:] - levels[:-1, :-1]
    down = levels[1:, :-1] - levels[:-1, :-1]
    return float(np.sqrt((across * across + down * down) / 2).mean()) if across.size else 0.0
