"""Drift: by how much a rig was moved, turned or zoomed since its calibration.

With parallax, a thing may be anywhere along the path that its distance draws, so only shifts across the path tell
drift.  In each cell of the evidence the best correlation along the path is taken for every shift across it.  Summed
over the last seconds, these profiles are searched for the shift, turn and scale that agree with most of them: across
the path they displace a cell at (x, y) from the middle by

    n . (t + turn (-y, x) + scale (x, y)),      n the normal of the path,

which determines the turn, the scale and the shift across the path.  A shift along the path looks like another distance,
unless it leads beyond far.  That estimate says nothing of how well the cells fit along the path, so it is then refined
on the correlation of all cells together, at the distance where that is highest.

Without parallax the same is done along both axes, so the whole shift is found; then a scene at another distance than
that of the calibration looks like drift too.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.evidence import MARGIN, Evidence, Surfaces
from streamfuse.calibration.similarity import Similarity

PAIRS = 10
"""Pairs whose evidence is summed: 2.5 s at four pairs a second, 5 s at two."""
MIN_PAIRS = 4
LARGEST_TURN_DEG = 1.5
LARGEST_SCALE = 0.025
"""Largest turn and scale that are searched, and so the limits of a correction; the largest shift is `MARGIN` reduced
px."""
FINE_PX = 0.125
"""Steps of the profiles and of the search, reduced px."""
COARSE_PX = 0.5
SURE_PX = 0.75
"""Largest difference between the fits to two halves of the cells of an estimate that is sure, reduced px."""
REFINED_PX = (1.0, 0.5, 0.25)
"""Steps of the refinement, reduced px at the picture's corners."""
REFINE_ROUNDS = 3
"""Rounds of each step at most."""
LEAST_HEIGHT = 0.25
"""Least mean height of the profiles at the estimate, where 1 is the highest and 0 the mean of each."""

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Misfit:
    """Motion that the calibration lacks."""

    moved: Similarity
    """By which the picture that it makes must be displaced to fit the visible one."""
    error_px: float
    """Root mean square of what is off over the picture, px at a width of 640: of that displacement, or of the shifts
    across the parallax if they are larger, as where the picture is bent."""
    sure: bool
    """True where two halves of the picture agree."""


class Drift:
    """Gathers the evidence of the last seconds."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        height, width = evidence.size
        self._at = evidence.middles - ((width - 1) / 2, (height - 1) / 2)
        shift = np.hypot(*evidence.shift_px_m) / evidence.nearest_m
        if shift > 1:
            along = evidence.shift_px_m / np.hypot(*evidence.shift_px_m)
            self._normals = np.array([(-along[1], along[0])])
        else:
            self._normals = np.eye(2)
        self._offsets = np.arange(-MARGIN, MARGIN + FINE_PX / 2, FINE_PX)
        self._kept: deque[Reals] = deque(maxlen=PAIRS)
        self._surfaces: deque[Surfaces] = deque(maxlen=PAIRS)
        half = np.hypot(width, height) / 2
        self._turns = _steps(math.radians(LARGEST_TURN_DEG), COARSE_PX / half)
        self._scales = _steps(LARGEST_SCALE, COARSE_PX / half)
        self._shifts = _steps(MARGIN, COARSE_PX)
        self._halves = [np.arange(len(self._at)) % 2 == k for k in (0, 1)]

    def add(self, surfaces: Surfaces) -> None:
        """Add the evidence of a pair."""
        self._kept.append(np.stack([self._profiles(surfaces, normal) for normal in self._normals]))
        self._surfaces.append(surfaces)

    def _profiles(self, surfaces: Surfaces, normal: Reals) -> Reals:
        """Best correlation along the path for every shift across it, (cells, offsets), each cell with 0 to 1."""
        paths = self._evidence.cell_paths
        if len(self._normals) == 2:  # no path: everything within the margin, along the other axis
            reach = np.arange(-MARGIN, MARGIN + 1)[:, None] * normal[::-1]
            paths = paths[:, :1] + reach
        result = np.empty((len(surfaces), len(self._offsets)))
        for index, surface in enumerate(surfaces):
            at = (paths[index][None] + self._offsets[:, None, None] * normal).astype(np.float32)
            result[index] = cv2.remap(
                surface, at[..., 0], at[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            ).max(axis=1)
        return result

    def estimate(self, least: int = MIN_PAIRS) -> Misfit | None:
        """Return the misfit by the evidence of the last seconds; None where there are fewer than `least` pairs."""
        if len(self._kept) < least:
            return None
        total = np.sum(self._kept, axis=0)  # (normals, cells, offsets)
        low = total.mean(axis=2, keepdims=True)
        profiles = (total - low) / np.maximum(total.max(axis=2, keepdims=True) - low, 1e-6)
        # A cell without structure has a high floor: it counts by how much its peak stands out of what is left.
        strength = np.ptp(total, axis=2) / np.maximum(total.max(axis=2), 1e-6)
        profiles *= np.clip(strength, 0, 1)[:, :, None]
        everything = np.ones(len(self._at), bool)
        best = self._search(profiles, everything)
        apart = [self._displacement(self._search(profiles, half)) for half in self._halves]
        differ = float(np.sqrt(np.mean(np.square(apart[0] - apart[1]).sum(axis=-1))))
        height = self._height(profiles, best)
        moved = self._refined(self._similarity(best))
        # Seen directly, so it counts even where no similarity corrects it.
        across = self._displacement(best) @ self._normals.T
        size = self._evidence.size
        error = max(moved.rms_px(size), float(np.sqrt(np.mean(np.square(across).sum(axis=-1)))))
        return Misfit(moved, error * 640 / size[1], differ <= SURE_PX and height >= LEAST_HEIGHT)

    def _similarity(self, found: Reals) -> Similarity:
        shift = found[0] * self._normals[0] + (found[3] * self._normals[1] if len(self._normals) == 2 else 0)
        width = self._evidence.size[1]
        return Similarity(float(shift[0]) / width, float(shift[1]) / width, float(found[1]), float(found[2]))

    def _refined(self, found: Similarity) -> Similarity:
        """Return the similarity near `found`, or near none, at which the correlation of the picture is highest.

        With parallax, a shift along the path is looked for in one direction only, where nothing can be: beyond far.
        """
        surfaces = np.sum(self._surfaces, axis=0)
        height, width = self._evidence.size
        half = math.hypot(width, height) / 2
        steps = [Similarity(*(normal / width)) for normal in self._normals]
        steps += [Similarity(turn=1 / half), Similarity(scale=1 / half)]
        along = self._evidence.shift_px_m / max(float(np.hypot(*self._evidence.shift_px_m)), 1e-9)
        beyond, beyond_px = Similarity(*(-along / width)), 0.0

        def correlation(moved: Similarity) -> tuple[float, int]:
            """Return the highest correlation and the index of its distance, 0 for far."""
            displaced = moved.displacements(self._evidence.middles, self._evidence.size)
            total = self._evidence.curves(surfaces, displaced).sum(axis=0)
            return float(total.max()), int(total.argmax())

        starts = [(correlation(each), each) for each in (Similarity(), found)]
        (highest, nearness), best = max(starts, key=lambda start: start[0][0])
        for length in REFINED_PX:
            for _ in range(REFINE_ROUNDS):
                before = highest
                moves = [(step, signed) for step in steps for signed in (length, -length)]
                if len(self._normals) == 1:
                    moves += [(beyond, length)] * (nearness == 0) + [(beyond, -length)] * (beyond_px >= length)
                for step, signed in moves:
                    moved = Similarity(*(a + signed * b for a, b in zip(best, step, strict=True)))
                    value, there = correlation(moved)
                    if value > highest:
                        best, highest, nearness = moved, value, there
                        beyond_px += signed if step is beyond else 0.0
                if highest == before:
                    break
        return best

    def _across(self, normal: Reals) -> tuple[Reals, Reals]:
        """Displacement of every cell across the path, for a turn of 1 and for a scale of 1, (cells,) reduced px."""
        x, y = self._at.T
        return -y * normal[0] + x * normal[1], x * normal[0] + y * normal[1]

    def _displacement(self, found: Reals) -> Reals:
        """Displacement of every cell, (cells, 2) reduced px."""
        x, y = self._at.T
        shift = found[0] * self._normals[0] + (found[3] * self._normals[1] if len(self._normals) == 2 else 0)
        return np.stack((shift[0] - found[1] * y + found[2] * x, shift[1] + found[1] * x + found[2] * y), axis=-1)

    def _search(self, profiles: Reals, cells: npt.NDArray[np.bool_]) -> Reals:
        """Return shift across, turn, scale and shift along (0 with a path) of the highest sum of the profiles."""
        turns, scales = (grid.ravel() for grid in np.meshgrid(self._turns, self._scales, indexing="ij"))
        best = self._best(profiles, cells, self._shifts, turns, scales)
        for step in (0.5, 0.25):
            near = np.arange(-2, 3) * step
            turn_step, scale_step = self._turns[1] - self._turns[0], self._scales[1] - self._scales[0]
            turns, scales = (grid.ravel() for grid in np.meshgrid(near * turn_step, near * scale_step, indexing="ij"))
            shifts = np.asarray(np.arange(-4, 5) * step * COARSE_PX, np.float64)
            best = self._best(profiles, cells, shifts, best[1] + turns, best[2] + scales, best)
        return best

    def _best(
        self,
        profiles: Reals,
        cells: npt.NDArray[np.bool_],
        shifts: Reals,
        turns: Reals,
        scales: Reals,
        around: Reals | None = None,
    ) -> Reals:
        """Return the best of all combinations; `shifts` are relative to those of `around`."""
        total = np.zeros((len(turns), 1))
        chosen = []
        for k, normal in enumerate(self._normals):
            by_turn, by_scale = self._across(normal)
            middle = 0.0 if around is None else around[0 if k == 0 else 3]
            base = turns[:, None] * by_turn[cells] + scales[:, None] * by_scale[cells]  # (combinations, cells)
            heights = np.zeros((len(turns), len(shifts)))
            index = (base[:, None] + (middle + shifts)[None, :, None] + MARGIN) / FINE_PX
            index = np.clip(np.rint(index), 0, len(self._offsets) - 1).astype(int)  # (combinations, shifts, cells)
            for number, cell in enumerate(np.flatnonzero(cells)):
                heights += profiles[k, cell][index[:, :, number]]
            chosen.append(heights.argmax(axis=1))
            total = total + heights.max(axis=1, keepdims=True)
        winner = int(total.argmax())
        found = [
            (0.0 if around is None else around[0 if k == 0 else 3]) + shifts[chosen[k][winner]]
            for k in range(len(self._normals))
        ]
        return np.array([found[0], turns[winner], scales[winner], found[1] if len(found) == 2 else 0.0])

    def _height(self, profiles: Reals, found: Reals) -> float:
        """Mean height of the profiles at an estimate."""
        displaced = self._displacement(found)
        heights = [
            np.interp(displaced[cell] @ normal, self._offsets, profiles[k, cell])
            for k, normal in enumerate(self._normals)
            for cell in range(len(self._at))
        ]
        return float(np.mean(heights))


def _steps(largest: float, step: float) -> Reals:
    count = math.ceil(largest / step)
    return np.asarray(np.linspace(-largest, largest, 2 * count + 1), np.float64)
