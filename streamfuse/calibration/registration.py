"""Registration of infrared and visible pictures of natural scenes by their structure.

A coarse search over similarities gives candidates.  Each is refined by block matching over finer and finer levels and
smaller windows.  The best solution must then pass tests that it was not fitted to; otherwise it is rejected, because a
wrong alignment is worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamfuse.calibration.blocks import Level, Matches, Step
from streamfuse.calibration.fit import Fit, fit_affine, fit_homography, least_squares
from streamfuse.calibration.geometry import (
    Matrix3,
    Points,
    Size,
    difference,
    inverse,
    overlap_corners,
    project,
    residuals,
    rms,
    size_of,
)
from streamfuse.calibration.search import coarse_search
from streamfuse.color import Plane
from streamfuse.errors import InputError

FULL_SIDE = 640
"""Longer side at which larger pictures are matched; parallax and focus leave nothing to gain above it."""
ROUGH_STEPS = (Step(160, 40, 10, 12), Step(160, 40, 6, 10), Step(320, 56, 8, 20))
"""Passes that fit an affine map, without perspective."""
FINE_STEPS = (Step(320, 56, 6, 20), Step(640, 80, 8, 28), Step(640, 80, 5, 28), Step(640, 80, 4, 28))
TEST_STEP = Step(640, 80, 20, 28)
"""The final test, with a wide window: a random match is within `AGREE_PX` of the expected position once in a hundred
blocks."""
AGREE_PX = 2.0
"""Largest distance of an agreeing block from the position that the homography predicts, px of the level."""
CANDIDATES = 4
MIN_BLOCKS = 12
SPLITS = 12
"""Random splits of the agreeing blocks into halves."""
GRID = 4
"""Rows and columns of the grid on which coverage is measured."""

ADVICE = (
    "give more pairs of sharp, far scenes that fill the picture with edges seen by both cameras, or use `streamfuse "
    "calibrate board` or `points`"
)

MIN_AGREEING = 30
"""Smallest number of agreeing blocks."""
MIN_SHARE = 0.6
"""Smallest share of the clear blocks that agree."""
MIN_COVERAGE = 0.5
"""Smallest share of the overlap that the agreeing blocks cover."""
MAX_RMS = 1.15
"""Largest RMS error of the agreeing blocks, px of the level; a uniform distribution within `AGREE_PX` gives 1.41."""
MAX_DIFFERENCE_PX = 2.5
"""Largest difference between independent solutions, px of the level; it is about as large as the error itself."""
RIVAL_STRENGTH = 0.6
"""Share of the best solution's agreeing blocks from which another solution counts as a rival."""


@dataclass(frozen=True, eq=False)
class Registration:
    """A homography and the measures of its reliability."""

    homography: Matrix3
    """(3, 3) infrared to visible px."""
    rms_px: float
    """RMS error of the agreeing blocks, visible px."""
    pixel: float
    """Visible px per pixel of the level on which the blocks were matched."""
    blocks: int
    """Number of clear blocks; the others are ignored."""
    agreeing: int
    """Number of clear blocks that agree with the homography."""
    coverage: float
    """Share of the cells of a 4 by 4 grid that contain agreeing blocks, among the cells that infrared covers, 0..1."""
    halves_px: float
    """Difference between the fits to two halves of the agreeing blocks: mean distance at the corners of the overlap,
    visible px, the median over random halves."""
    coarse_px: float
    """The same difference between this homography and one fitted to coarser structure."""
    rival_px: float
    """The same difference between this homography and that of the strongest rival; 0 without one."""

    @property
    def share(self) -> float:
        return self.agreeing / max(self.blocks, 1)


def register(ir: Sequence[Plane], vis: Sequence[Plane]) -> Registration:
    """Register infrared pictures, (h, w) uint8, with the visible ones of the same moments, (H, W) uint8.

    Raises InputError, which says why and what to do, where the pictures do not determine the alignment with certainty.
    """
    found = estimate(ir, vis)
    if found is None:
        raise InputError(f"infrared and visible have no structure in common: {ADVICE}")
    if reason := rejection_reason(found):
        raise InputError(f"{reason}: {ADVICE}")
    return found


def rejection_reason(registration: Registration) -> str | None:
    """Return the reason to reject a registration, or None."""
    if registration.agreeing < MIN_AGREEING or registration.share < MIN_SHARE:
        return (
            f"only {registration.agreeing} of {registration.blocks} blocks agree on one alignment "
            f"(needed: {MIN_AGREEING}, and {MIN_SHARE:.0%} of all)"
        )
    if registration.coverage < MIN_COVERAGE:
        return f"the agreeing blocks cover {registration.coverage:.0%} of the overlap (needed: {MIN_COVERAGE:.0%})"
    if registration.rms_px > MAX_RMS * registration.pixel:
        return f"the blocks agree only to {registration.rms_px:.2f} px RMS (needed: {MAX_RMS * registration.pixel:.2f})"
    for value, between in (
        (registration.halves_px, "the fits to two halves of the blocks"),
        (registration.coarse_px, "the fits to fine and coarse structure"),
        (registration.rival_px, "two equally strong solutions"),
    ):
        if value > MAX_DIFFERENCE_PX * registration.pixel:
            allowed = MAX_DIFFERENCE_PX * registration.pixel
            return f"{between} differ by {value:.1f} px at the picture's corners (allowed: {allowed:.1f})"
    return None


class _Solution:
    """A refined candidate and its matches in the final test."""

    def __init__(self, homography: Matrix3, matches: Matches, pixel: float) -> None:
        self.homography, self.matches = homography, matches
        self.residuals = residuals(homography, matches.source, matches.target)
        self.agrees: npt.NDArray[np.bool_] = matches.clear & (self.residuals <= AGREE_PX * pixel)

    def strength(self) -> int:
        return int(self.agrees.sum())


def estimate(ir: Sequence[Plane], vis: Sequence[Plane]) -> Registration | None:
    """Return the best solution, before `rejection_reason` is applied; None where there is none."""
    levels = {side: Level(vis, side) for side in (160, 320, FULL_SIDE)}
    solutions = []
    for candidate in coarse_search(ir, vis, CANDIDATES):
        homography = _refine(ir, levels, candidate.homography)
        if homography is None:
            continue
        matches = levels[FULL_SIDE].match(ir, homography, TEST_STEP)
        solutions.append(_Solution(homography, matches, levels[FULL_SIDE].pixel))
    solutions = sorted(
        (solution for solution in solutions if solution.agrees.sum() >= MIN_BLOCKS), key=_Solution.strength
    )
    if not solutions:
        return None
    best = solutions[-1]
    ir_size, vis_size = (size_of(planes[0].shape) for planes in (ir, vis))
    at = overlap_corners(best.homography, ir_size, vis_size)
    if not len(at):
        return None
    rivals = [
        float(difference(best.homography, other.homography, at).mean())
        for other in solutions[:-1]
        if other.agrees.sum() > RIVAL_STRENGTH * best.agrees.sum()
    ]
    coarse = _refine_coarse(ir, vis, best.homography)
    return Registration(
        homography=best.homography,
        rms_px=rms(best.residuals[best.agrees]),
        pixel=levels[FULL_SIDE].pixel,
        blocks=int(best.matches.clear.sum()),
        agreeing=int(best.agrees.sum()),
        coverage=_coverage(best, ir_size, vis_size),
        halves_px=_halves(best, at),
        coarse_px=np.inf if coarse is None else float(difference(best.homography, coarse, at).mean()),
        rival_px=max(rivals, default=0.0),
    )


def _refine(ir: Sequence[Plane], levels: dict[int, Level], homography: Matrix3) -> Matrix3 | None:
    """Refine a candidate over all passes; None where too few blocks agree."""
    for step in ROUGH_STEPS + FINE_STEPS:
        level = levels[step.side]
        matches = level.match(ir, homography, step)
        source, target = matches.source[matches.clear], matches.target[matches.clear]
        fit = fit_affine if step in ROUGH_STEPS else fit_homography
        threshold = 3 if step.side == 160 else AGREE_PX
        found: Fit | None = fit(source, target, threshold * level.pixel)
        if found is None or found.inliers.sum() < MIN_BLOCKS:
            return None
        homography = found.homography
        if not np.isfinite(homography).all() or abs(np.linalg.det(homography)) < 1e-6:
            return None
    return homography


def _refine_coarse(ir: Sequence[Plane], vis: Sequence[Plane], homography: Matrix3) -> Matrix3 | None:
    """Refine a homography on coarser structure."""
    level = Level(vis, FULL_SIDE, sigma=2.0)
    for _ in range(2):
        matches = level.match(ir, homography, FINE_STEPS[1])
        found = fit_homography(matches.source[matches.clear], matches.target[matches.clear], AGREE_PX * level.pixel)
        if found is None:
            return None
        homography = found.homography
    return homography


def _coverage(solution: _Solution, ir_size: Size, vis_size: Size) -> float:
    """Share of the grid's covered cells that contain agreeing blocks, 0..1."""
    across, down = vis_size[1] / GRID, vis_size[0] / GRID
    middles = [((column + 0.5) * across, (row + 0.5) * down) for row in range(GRID) for column in range(GRID)]
    positions = project(inverse(solution.homography), np.array(middles))
    covered = np.all((positions >= 0) & (positions < ir_size[::-1]), axis=1)
    found = (solution.matches.target[solution.agrees] / (across, down)).astype(int).clip(0, GRID - 1)
    agreeing = np.zeros(GRID * GRID, bool)
    agreeing[found[:, 1] * GRID + found[:, 0]] = True
    return float((agreeing & covered).sum() / max(covered.sum(), 1))


def _halves(solution: _Solution, at: Points) -> float:
    """Median difference between the fits to two halves of the agreeing blocks, visible px at the points `at`.

    Halves are made of patches of two by two blocks: neighbouring blocks share pixels and are not independent.
    """
    random = np.random.default_rng(0)
    source, target = solution.matches.source[solution.agrees], solution.matches.target[solution.agrees]
    patches = solution.matches.cells[solution.agrees] // (2 * TEST_STEP.stride)
    differences = []
    for _ in range(SPLITS):
        side = random.random(patches.max(axis=0) + 1) < 0.5
        first = side[patches[:, 0], patches[:, 1]]
        one, other = (least_squares(source[half], target[half]) for half in (first, ~first))
        if one is None or other is None:
            differences.append(np.inf)
        else:
            differences.append(float(difference(one, other, at).mean()))
    return float(np.median(differences))
