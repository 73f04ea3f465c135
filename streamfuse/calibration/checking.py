"""Check that a calibration still fits its cameras, from pictures of any scene (`streamfuse calibrate check`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from streamfuse.calibration.dominant import DominantDistance
from streamfuse.calibration.drift import PAIRS, Drift, Misfit
from streamfuse.calibration.evidence import Evidence
from streamfuse.calibration.geometry import evenly_spaced
from streamfuse.calibration.model import Calibration, normalized
from streamfuse.calibration.similarity import Similarity
from streamfuse.color import Plane

FITS_PX = 2.0
"""Misfit, px at a width of 640, up to which a calibration fits: that of a good one is below 1."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """Result of checking a calibration."""

    misfit: Misfit | None
    """Motion that it lacks; None where the pictures do not tell."""
    distance_m: float | None
    """Distance of most of the scenes, m; None where they do not tell, or without parallax."""
    corrected: Calibration
    """The calibration, displaced by the misfit."""

    @property
    def fits(self) -> bool:
        return self.misfit is not None and self.misfit.error_px <= FITS_PX


def check_fit(calibration: Calibration, pairs: Sequence[tuple[Plane, Plane]]) -> Verdict:
    """Compare pairs of luma planes, (h, w) and (H, W) uint8 of one size each, with a calibration."""
    shape = pairs[0][1].shape
    evidence = Evidence(calibration, shape)
    drift = Drift(evidence)
    surfaces = [evidence.surfaces(*pairs[k]) for k in evenly_spaced(len(pairs), PAIRS)]
    for each in surfaces:
        drift.add(each)
    misfit = drift.estimate(least=1)
    if misfit is None or not misfit.sure:
        return Verdict(None, None, calibration)
    distance_m = None
    if calibration.parallax is not None:
        moved = misfit.moved.displacements(evidence.middles, evidence.size)
        distance = DominantDistance(evidence)
        for each in surfaces:
            found = distance.add(each, moved)
        distance_m = None if not found.sure else 1 / found.inverse_m if found.inverse_m else math.inf
    return Verdict(misfit, distance_m, displaced(calibration, misfit.moved))


def displaced(calibration: Calibration, moved: Similarity) -> Calibration:
    """Return a calibration whose visible positions are displaced."""
    matrix = moved.matrix(calibration.vis_size)
    far = matrix @ calibration.homography
    parallax = None if calibration.parallax is None else matrix @ calibration.parallax / far[2, 2]
    return replace(calibration, homography=normalized(far), parallax=parallax)


def describe_misfit(misfit: Misfit, vis_size: tuple[int, int]) -> str:
    """Describe a misfit in one line."""
    moved = misfit.moved
    right, down = moved.right * vis_size[1], moved.down * vis_size[1]
    return (
        f"{misfit.error_px:.1f} px at a width of 640: {right:+.1f} px right and {down:+.1f} px down, turned by "
        f"{np.degrees(moved.turn):+.2f} degrees, {moved.scale:+.1%} larger"
    )
