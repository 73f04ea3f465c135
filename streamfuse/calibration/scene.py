"""From natural scenes: infrared and visible pictures registered by their structure, or an honest refusal.

A coarse search over similarities gives candidates.  Each is refined by matching blocks over ever finer levels and
smaller windows.  The best is then put to tests that it was not fitted to; a wrong answer given confidently would be
worse than none.
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
)
from streamfuse.calibration.search import coarse_search
from streamfuse.color import Plane
from streamfuse.errors import InputError

FULL_SIDE = 640
"""Larger pictures are matched at this size: parallax and focus leave nothing to win above it."""
ROUGH_STEPS = (Step(160, 40, 10, 12), Step(160, 40, 6, 10), Step(320, 56, 8, 20))
"""Fitted without perspective."""
FINE_STEPS = (Step(320, 56, 6, 20), Step(640, 80, 8, 28), Step(640, 80, 5, 28), Step(640, 80, 4, 28))
TEST_STEP = Step(640, 80, 20, 28)
"""A wide window: where nothing agrees, a block is within `AGREE_PX` of its place by chance in one case of a hundred."""
AGREE_PX = 2.0
"""Of the level; from the place where the homography expects a block."""
CANDIDATES = 4
LEAST_BLOCKS = 12
SPLITS = 12
PARTS = 4
"""A side: where coverage is counted."""


ADVICE = (
    "give more pairs, of sharp, far scenes that fill the picture with edges seen by both cameras, or use `streamfuse "
    "calibrate board` or `points`"
)

LEAST_AGREEING = 30
LEAST_SHARE = 0.6
LEAST_COVERAGE = 0.5
MOST_RMS = 1.15
"""Of the level's pixels; blocks that lie anywhere within `AGREE_PX` would give 1.41."""
MOST_APART_PX = 2.5
"""Of the level.  Such a difference is about as large as the error itself, seldom much less."""
RIVAL_STRENGTH = 0.6
"""Of the best answer's agreeing blocks: another answer with so many is taken seriously."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """A homography and how far it can be trusted."""

    homography: Matrix3
    rms_px: float
    """Of the agreeing blocks, visible px."""
    pixel: float
    """Visible px to one of the level on which they were matched."""
    blocks: int
    """Clear ones; the others say nothing."""
    agreeing: int
    coverage: float
    """Of the visible picture's 4 by 4 parts, the share in which blocks agree, of those that infrared reaches."""
    halves_px: float
    """How far apart two halves of the agreeing blocks bring the corners of what both pictures see, visible px, on
    average: the median over random halves."""
    second_px: float
    """The same between this answer and one from coarser structure."""
    rival_px: float
    """The same between this answer and the best other one that has nearly as many agreeing blocks; 0 without one."""

    @property
    def share(self) -> float:
        return self.agreeing / max(self.blocks, 1)


def register(ir: Sequence[Plane], vis: Sequence[Plane]) -> Evidence:
    """Infrared pictures of one size and the visible ones of the same moments.

    Raises InputError, which says why and what to do, where the pictures do not tell with certainty.
    """
    found = estimate(ir, vis)
    if found is None:
        raise InputError(f"no structure was found that both pictures share: {ADVICE}")
    if reason := doubt(found):
        raise InputError(f"{reason}: {ADVICE}")
    return found


def doubt(evidence: Evidence) -> str | None:
    """Why an answer must not be given, or None."""
    if evidence.agreeing < LEAST_AGREEING or evidence.share < LEAST_SHARE:
        return (
            f"only {evidence.agreeing} of {evidence.blocks} parts of the picture agree on one alignment "
            f"(needed: {LEAST_AGREEING}, and {LEAST_SHARE:.0%} of all)"
        )
    if evidence.coverage < LEAST_COVERAGE:
        return f"what agrees covers {evidence.coverage:.0%} of what both see (needed: {LEAST_COVERAGE:.0%})"
    if evidence.rms_px > MOST_RMS * evidence.pixel:
        return f"what agrees does so only to {evidence.rms_px:.2f} px RMS (needed: {MOST_RMS * evidence.pixel:.2f})"
    for value, between in (
        (evidence.halves_px, "two halves of the evidence"),
        (evidence.second_px, "fine and coarse structure"),
        (evidence.rival_px, "two answers of equal strength"),
    ):
        if value > MOST_APART_PX * evidence.pixel:
            allowed = MOST_APART_PX * evidence.pixel
            return f"{between} differ by {value:.1f} px at the picture's corners (allowed: {allowed:.1f})"
    return None


class _Answer:
    """A homography and the blocks of the wide test around it."""

    def __init__(self, homography: Matrix3, matches: Matches, pixel: float) -> None:
        self.homography, self.matches = homography, matches
        self.apart = residuals(homography, matches.source, matches.target)
        self.agrees: npt.NDArray[np.bool_] = matches.clear & (self.apart <= AGREE_PX * pixel)

    def strength(self) -> int:
        return int(self.agrees.sum())


def estimate(ir: Sequence[Plane], vis: Sequence[Plane]) -> Evidence | None:
    """The best answer, however poor; None where there is none at all."""
    levels = {side: Level(vis, side) for side in (160, 320, FULL_SIDE)}
    answers = []
    for candidate in coarse_search(ir, vis, CANDIDATES):
        homography = _refine(ir, levels, candidate.homography)
        if homography is None:
            continue
        matches = levels[FULL_SIDE].match(ir, homography, TEST_STEP)
        answers.append(_Answer(homography, matches, levels[FULL_SIDE].pixel))
    answers = sorted((answer for answer in answers if answer.agrees.sum() >= LEAST_BLOCKS), key=_Answer.strength)
    if not answers:
        return None
    best = answers[-1]
    ir_size, vis_size = ((planes[0].shape[0], planes[0].shape[1]) for planes in (ir, vis))
    at = overlap_corners(best.homography, ir_size, vis_size)
    if not len(at):
        return None
    rivals = [
        float(difference(best.homography, other.homography, at).mean())
        for other in answers[:-1]
        if other.agrees.sum() > RIVAL_STRENGTH * best.agrees.sum()
    ]
    second = _second_opinion(ir, vis, best.homography)
    return Evidence(
        homography=best.homography,
        rms_px=rms(best.apart[best.agrees]),
        pixel=levels[FULL_SIDE].pixel,
        blocks=int(best.matches.clear.sum()),
        agreeing=int(best.agrees.sum()),
        coverage=_coverage(best, ir_size, vis_size),
        halves_px=_halves(best, at),
        second_px=np.inf if second is None else float(difference(best.homography, second, at).mean()),
        rival_px=max(rivals, default=0.0),
    )


def _refine(ir: Sequence[Plane], levels: dict[int, Level], homography: Matrix3) -> Matrix3 | None:
    for step in ROUGH_STEPS + FINE_STEPS:
        level = levels[step.side]
        matches = level.match(ir, homography, step)
        source, target = matches.source[matches.clear], matches.target[matches.clear]
        fit = fit_affine if step in ROUGH_STEPS else fit_homography
        threshold = 3 if step.side == 160 else AGREE_PX
        found: Fit | None = fit(source, target, threshold * level.pixel)
        if found is None or found.inliers.sum() < LEAST_BLOCKS:
            return None
        homography = found.homography
        if not np.isfinite(homography).all() or abs(np.linalg.det(homography)) < 1e-6:
            return None
    return homography


def _second_opinion(ir: Sequence[Plane], vis: Sequence[Plane], homography: Matrix3) -> Matrix3 | None:
    level = Level(vis, FULL_SIDE, sigma=2.0)
    for _ in range(2):
        matches = level.match(ir, homography, FINE_STEPS[1])
        found = fit_homography(matches.source[matches.clear], matches.target[matches.clear], AGREE_PX * level.pixel)
        if found is None:
            return None
        homography = found.homography
    return homography


def _coverage(answer: _Answer, ir_size: Size, vis_size: Size) -> float:
    across, down = vis_size[1] / PARTS, vis_size[0] / PARTS
    middles = [((column + 0.5) * across, (row + 0.5) * down) for row in range(PARTS) for column in range(PARTS)]
    places = project(inverse(answer.homography), np.array(middles))
    reached = np.all((places >= 0) & (places < ir_size[::-1]), axis=1)
    found = (answer.matches.target[answer.agrees] / (across, down)).astype(int).clip(0, PARTS - 1)
    agreeing = np.zeros(PARTS * PARTS, bool)
    agreeing[found[:, 1] * PARTS + found[:, 0]] = True
    return float((agreeing & reached).sum() / max(reached.sum(), 1))


def _halves(answer: _Answer, at: Points) -> float:
    """Halves are made of patches of two by two blocks: neighbouring blocks share pixels and are not independent."""
    random = np.random.default_rng(0)
    source, target = answer.matches.source[answer.agrees], answer.matches.target[answer.agrees]
    patches = answer.matches.cells[answer.agrees] // (2 * TEST_STEP.stride)
    apart = []
    for _ in range(SPLITS):
        side = random.random(patches.max(axis=0) + 1) < 0.5
        first = side[patches[:, 0], patches[:, 1]]
        one, other = (least_squares(source[half], target[half]) for half in (first, ~first))
        if one is None or other is None:
            apart.append(np.inf)
        else:
            apart.append(float(difference(one, other, at).mean()))
    return float(np.median(apart))
