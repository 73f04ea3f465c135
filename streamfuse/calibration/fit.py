"""Robust estimation of a homography from point pairs with outliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Matrix3, Points, residuals, rms

MIN_POINTS = 4
ITERATIONS = 10_000
CONFIDENCE = 0.9999
ROUNDS = 5
"""Largest number of refits to the current inliers; two or three are usually enough."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A homography and its inliers."""

    homography: Matrix3
    residuals: npt.NDArray[np.float64]
    """(n,) residuals of all points, px of the target."""
    inliers: npt.NDArray[np.bool_]
    """(n,) True for the points that agree with the homography."""

    @property
    def rms_px(self) -> float:
        """RMS residual of the inliers, px of the target."""
        return rms(self.residuals[self.inliers])


def fit_homography(source: Points, target: Points, threshold_px: float) -> Fit | None:
    """Fit a homography to the largest set of points that agree to `threshold_px`; None if there is no such set.

    MAGSAC++ (Barath et al., CVPR 2020) finds the consensus; the distance in the target is minimised by
    Levenberg-Marquardt.
    """
    if len(source) < MIN_POINTS:
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
        if chosen.sum() < MIN_POINTS:
            return None
        if (chosen == inliers).all():
            break
        inliers = chosen
        homography = least_squares(source[inliers], target[inliers])
    if homography is None:
        return None
    return Fit(homography, residuals(homography, source, target), inliers)


def least_squares(source: Points, target: Points) -> Matrix3 | None:
    """Fit a homography to all points; None where they do not determine one."""
    if len(source) < MIN_POINTS:
        return None
    found, _ = cv2.findHomography(source, target, 0)
    return cast("Matrix3 | None", found)


def fit_affine(source: Points, target: Points, threshold_px: float) -> Fit | None:
    """Fit an affine map as `fit_homography` does; more robust where points are few and inexact."""
    if len(source) < MIN_POINTS:
        return None
    found, _ = cv2.estimateAffine2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=threshold_px, maxIters=3000, confidence=0.999
    )
    affine = cast("Matrix3 | None", found)
    if affine is None:
        return None
    homography = np.vstack((affine, (0.0, 0.0, 1.0)))
    errors = residuals(homography, source, target)
    return Fit(homography, errors, errors <= threshold_px)
