"""The structure that an infrared and a visible picture have in common: position and direction of edges.

Grey levels do not agree between the two, not even in sign; the direction of an edge, modulo half a turn, does.  Each
pixel gets four features: sine and cosine of twice and of four times its gradient's angle, the first two terms of a
histogram of orientations (compare CFOG: Ye et al., IEEE Trans. Geoscience and Remote Sensing 57, 2019), weighted by the
strength of the gradient relative to its neighbourhood.  For unrelated edges the products of these features average 0.
"""

from __future__ import annotations

from typing import TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Matrix3, Size, inverse, project, resize_matrix
from streamfuse.color import Plane

Features: TypeAlias = npt.NDArray[np.float32]
"""(H, W, 4)."""
Mask: TypeAlias = npt.NDArray[np.uint8]
"""(H, W), 1 inside the picture."""

NEIGHBOURHOOD = 12
"""Size of the neighbourhood, in sigmas of the smoothing before the gradient."""
NOISE_SHARE = 0.25
"""Share of the median gradient below which a gradient counts as noise."""
MIN_GRADIENT = 0.05
"""Smallest gradient, grey levels per pixel; a flat picture has no structure."""
FOURFOLD = 0.7
"""Weight of the fourfold angle, which is sharper and less reliable."""
EDGE_PX = 4
"""Margin removed from a warped picture's mask: its border is not an edge of the scene."""


def features(plane: Plane, mask: Mask | None = None, sigma: float = 1.0) -> Features:
    """Compute the features of a plane (H, W) uint8; 0 outside `mask`.  `sigma`: smoothing before the gradient, px."""
    smooth = cv2.GaussianBlur(plane.astype(np.float32), (0, 0), sigma)
    gx, gy = (cv2.Scharr(smooth, cv2.CV_32F, 1 - axis, axis) / 32 for axis in (0, 1))
    square = gx * gx + gy * gy
    strength = np.sqrt(square)
    noise = NOISE_SHARE * float(np.median(strength)) + MIN_GRADIENT
    weight = strength / (strength + cv2.GaussianBlur(strength, (0, 0), NEIGHBOURHOOD * sigma) + noise)
    weight = np.where(strength > MIN_GRADIENT, weight, 0)
    if mask is not None:
        weight = weight * mask
    cos, sin = (gx * gx - gy * gy) / (square + 1e-6), 2 * gx * gy / (square + 1e-6)
    fourfold = FOURFOLD * weight
    stacked = (weight * cos, weight * sin, fourfold * (cos * cos - sin * sin), fourfold * 2 * cos * sin)
    return np.dstack(stacked).astype(np.float32)


def warp(plane: Plane, homography: Matrix3, size: Size) -> tuple[Plane, Mask]:
    """Warp (h, w) through a homography into a picture of `size`, averaged where it shrinks; also return its mask."""
    middle = np.array([[plane.shape[1] / 2, plane.shape[0] / 2]])
    around = project(homography, middle + np.array([(0, 0), (1, 0), (0, 1)]))
    scale = float(np.sqrt(abs(np.linalg.det(around[1:] - around[0])))) if np.isfinite(around).all() else 1.0
    old: Size = (plane.shape[0], plane.shape[1])
    if scale < 0.8:
        new = max(round(old[0] * scale), 8), max(round(old[1] * scale), 8)
        plane = cast(Plane, cv2.resize(plane, new[::-1], interpolation=cv2.INTER_AREA))
        homography = homography @ inverse(resize_matrix(old, new))
        old = new
    warped = cv2.warpPerspective(plane, homography, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpPerspective(np.ones(old, np.uint8), homography, size[::-1], flags=cv2.INTER_NEAREST)
    # The border of the target frame itself (borderValue=1) needs no margin.
    return cast(Plane, warped), cast(Mask, cv2.erode(mask, np.ones((2 * EDGE_PX + 1,) * 2), borderValue=1))
