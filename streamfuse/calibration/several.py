"""Registration of several scenes at different distances, by one rig: a homography, the direction of the parallax, and a
shift along it for every scene.

Registered together with one homography such scenes contradict each other.  Here a block at x of scene k is expected at

    x_vis ~ H x_ir + q_k e,      |e| = 1,

and may be off along e by much, as things in a scene are at different distances, but across e only by little.  All
numbers are found together by iteratively reweighted least squares over block matches, which are made again around each
solution.  The scale of q and where far lies are not determined: a ruler must tell the scale, and the farthest scene
counts as far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from streamfuse.calibration.blocks import Level, Step
from streamfuse.calibration.geometry import Matrix3, Points, rms
from streamfuse.calibration.registration import FULL_SIDE
from streamfuse.color import Plane

MIN_SCENES = 5
PASSES = ((14, 2.0, 4.0), (10, 1.5, 3.0), (8, 1.25, 2.5), (8, 1.25, 2.5))
"""Search radius of each pass, and the standard deviations across and along the parallax, px of the level."""
CUT = 2.5
"""Standard deviations across from which a block is an outlier."""
ROUNDS = 30
MIN_SHARE = 0.6
"""Least share of the blocks that agree."""
MIN_BLOCKS = 20
"""Least number of agreeing blocks of a scene, in the median."""
MAX_ACROSS = 1.15
"""Largest RMS error across the parallax, px of the level; a uniform distribution within the cut gives 1.8."""
MIN_SPREAD = 1.0
"""Least spread of the scenes along the parallax, px of the level: below, they are at the same distance."""

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SeveralScenes:
    """Alignment of a rig from several scenes."""

    homography: Matrix3
    """(3, 3) infrared to visible px, where q is 0: at a middle distance."""
    direction: Reals
    """(2,) unit vector of the parallax, up to its sign."""
    shifts_px: Reals
    """(scenes,) q, visible px."""
    across_px: float
    """RMS error across the parallax, visible px."""
    blocks: int
    agreeing: int
    pixel: float
    """Visible px per pixel of the level."""
    by_scene: npt.NDArray[np.int64]
    """(scenes,) agreeing blocks."""

    def reason_against(self) -> str | None:
        """Return why the result must not be used; None if it may be."""
        if self.agreeing < MIN_SHARE * self.blocks or np.median(self.by_scene) < MIN_BLOCKS:
            return f"only {self.agreeing} of {self.blocks} blocks agree on one rig"
        if self.across_px > MAX_ACROSS * self.pixel:
            return (
                f"the blocks agree only to {self.across_px:.2f} px RMS across the parallax (needed: "
                f"{MAX_ACROSS * self.pixel:.2f})"
            )
        if np.ptp(self.shifts_px) < MIN_SPREAD * self.pixel:
            return "the scenes are at distances too alike to tell the parallax"
        return None


def register_several(ir: Sequence[Plane], vis: Sequence[Plane], homography: Matrix3, along: Reals) -> SeveralScenes:
    """Register scenes, (h, w) and (H, W) uint8, from a first homography and a first direction of the parallax, (2,)."""
    levels = [Level([plane], FULL_SIDE) for plane in vis]
    pixel = levels[0].pixel
    state = _State(homography / homography[2, 2], float(np.arctan2(along[1], along[0])), np.zeros(len(ir)))
    for radius, across, apart in PASSES:
        source, target, scene = [], [], []
        for k, (level, plane) in enumerate(zip(levels, ir, strict=True)):
            matches = level.match([plane], state.at(k), Step(FULL_SIDE, 80, radius, 28))
            source.append(matches.source[matches.clear])
            target.append(matches.target[matches.clear])
            scene.append(np.full(len(source[-1]), k))
        blocks = _Blocks(np.vstack(source), np.vstack(target), np.concatenate(scene))
        for _ in range(ROUNDS):
            state = _step(state, blocks, across * pixel, apart * pixel)
    _, off = state.residuals(blocks)
    agrees = np.abs(off) < CUT * across * pixel
    return SeveralScenes(
        state.homography,
        state.direction,
        state.shifts,
        rms(off[agrees]),
        len(off),
        int(agrees.sum()),
        pixel,
        np.bincount(blocks.scene[agrees], minlength=len(ir)),
    )


@dataclass(frozen=True, eq=False)
class _Blocks:
    source: Points
    target: Points
    scene: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _State:
    homography: Matrix3
    angle: float
    shifts: Reals

    @property
    def direction(self) -> Reals:
        return np.array([np.cos(self.angle), np.sin(self.angle)])

    def at(self, scene: int) -> Matrix3:
        found = self.homography.copy()
        found[:2, 2] += self.shifts[scene] * self.direction
        return found

    def predicted(self, blocks: _Blocks) -> tuple[Points, Reals]:
        """Predicted positions, (n, 2), and the third coordinate, (n,)."""
        mapped = np.column_stack((blocks.source, np.ones(len(blocks.source)))) @ self.homography.T
        mapped[:, :2] += self.shifts[blocks.scene][:, None] * self.direction
        return mapped[:, :2] / mapped[:, 2:], mapped[:, 2]

    def residuals(self, blocks: _Blocks) -> tuple[Reals, Reals]:
        """Residuals along and across the parallax, (n,) px."""
        off = blocks.target - self.predicted(blocks)[0]
        cos, sin = self.direction
        return off @ (cos, sin), off @ (-sin, cos)


def _bisquare(values: Reals, limit: float) -> Reals:
    """Tukey's weights, 0 from `limit`."""
    share = np.clip(np.abs(values) / limit, 0, 1)
    return np.asarray((1 - share**2) ** 2, np.float64)


def _step(state: _State, blocks: _Blocks, across: float, apart: float) -> _State:
    """One step of Gauss and Newton, with weights of the present residuals."""
    along, off = state.residuals(blocks)
    trust = _bisquare(off, CUT * across) * (np.abs(along) < 4 * apart)
    weight_off = np.sqrt(_bisquare(off, CUT * across)) / across
    weight_along = np.sqrt(_bisquare(along, CUT * apart) * (trust > 0)) / apart
    count, scenes = len(off), len(state.shifts)
    at, third = state.predicted(blocks)
    unit = np.array([1e-3, 1e-3, 1, 1e-3, 1e-3, 1, 1e-6, 1e-6])  # so that all columns are of like size
    rows = np.column_stack((blocks.source, np.ones(count))) / third[:, None]
    zero = np.zeros((count, 3))
    by_x = np.hstack((rows, zero, -at[:, :1] * rows[:, :2])) * unit
    by_y = np.hstack((zero, rows, -at[:, 1:] * rows[:, :2])) * unit
    cos, sin = state.direction
    by_scene = np.zeros((count, scenes))
    by_scene[np.arange(count), blocks.scene] = 1 / third
    turned = (state.shifts[blocks.scene] / third)[:, None]
    system = np.vstack(
        (
            np.hstack((cos * by_x + sin * by_y, by_scene, np.zeros((count, 1)))) * weight_along[:, None],
            np.hstack((cos * by_y - sin * by_x, np.zeros((count, scenes)), turned)) * weight_off[:, None],
            # The mean shift is 0, as the homography has it; and no scene is far off without evidence.
            np.hstack((np.zeros((1, 8)), np.ones((1, scenes)), np.zeros((1, 1)))),
            np.hstack((np.zeros((scenes, 8)), 0.05 * np.eye(scenes), np.zeros((scenes, 1)))),
        )
    )
    right = np.concatenate((along * weight_along, off * weight_off, [-state.shifts.sum()], -0.05 * state.shifts))
    normal = system.T @ system
    step = np.linalg.solve(normal + 1e-3 * np.diag(np.diag(normal)) + 1e-9 * np.eye(len(normal)), system.T @ right)
    homography = state.homography.copy()
    homography.ravel()[:8] += step[:8] * unit
    return replace(
        state,
        homography=homography,
        angle=state.angle + float(np.clip(step[-1], -0.2, 0.2)),
        shifts=state.shifts + step[8:-1],
    )
