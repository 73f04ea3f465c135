"""A homography from points of which some are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Matrix3, Points, residuals, rms

LEAST_POINTS = 4
ITERATIONS = 10_000
CONFIDENCE = 0.9999
ROUNDS = 5
"""Of fitting to the inliers and choosing them anew; it settles in two or three."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A homography and the points that it explains."""

    homography: Matrix3
    residuals: npt.NDArray[np.float64]
    """(n,) of all points, px of the target."""
    inliers: npt.NDArray[np.bool_]
    """(n,)"""

    @property
    def rms_px(self) -> float:
        """Of the inliers."""
        return rms(self.residuals[self.inliers])


def fit_homography(source: Points, target: Points, threshold_px: float) -> Fit | None:
    """The homography that most points agree with to `threshold_px`, least squares over those; None if there is none.

    MAGSAC++ (Barath et al., CVPR 2020) finds the consensus; the distance in the target is minimised by
    Levenberg-Marquardt.
    """
    if len(source) < LEAST_POINTS:
        return None
    found, _ = cv2.findHomography(
        source, target, cv2.USAC_MAGSAC, threshold_px, maxIters=ITERATIONS, confidence=CONFIDENCE
    )
    homography = cast("Matrix3 | None", found)
    inliers = np.zeros(len(source), bool)
    for _ in range(ROUNDS):
        if homography is None:
            return None
        chosen = residuals(homography, source, target) <= threshold_px
        if chosen.sum() < LEAST_POINTS:
            return None
        if (chosen == inliers).all():
            break
        inliers = chosen
        homography = least_squares(source[inliers], target[inliers])
    if homography is None:
        return None
    return Fit(homography, residuals(homography, source, target), inliers)


def least_squares(source: Points, target: Points) -> Matrix3 | None:
    """The homography that brings all points nearest to their targets; None where they do not determine one."""
    if len(source) < LEAST_POINTS:
        return None
    found, _ = cv2.findHomography(source, target, 0)
    return cast("Matrix3 | None", found)


def fit_affine(source: Points, target: Points, threshold_px: float) -> Fit | None:
    """As `fit_homography`, without perspective: steadier where points are few and rough."""
    if len(source) < LEAST_POINTS:
        return None
    found, _ = cv2.estimateAffine2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=threshold_px, maxIters=3000, confidence=0.999
    )
    affine = cast("Matrix3 | None", found)
    if affine is None:
        return None
    homography = np.vstack((affine, (0.0, 0.0, 1.0)))
    apart = residuals(homography, source, target)
    return Fit(homography, apart, apart <= threshold_px)
