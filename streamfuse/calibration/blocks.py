"""Block matching: the positions of small infrared blocks in the visible picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Matrix3, Points, Size, inverse, parabola_vertex, project, resize_matrix
from streamfuse.calibration.structure import Features, features, warp
from streamfuse.color import Plane

MIN_PRESENT = 0.75
"""Smallest share of a block that infrared must cover; blocks at the edge of the infrared picture are partly empty."""
MIN_CORRELATION = 0.05
MAX_SECOND_PEAK = 0.95
"""Largest ratio of the second peak to the best one; above it the match is ambiguous."""

Sums = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Step:
    """Parameters of one pass of block matching, in pixels of the level."""

    side: int
    """The visible picture's longer side on this level."""
    block: int
    radius: int
    """Search radius around the expected position."""
    stride: int


@dataclass(frozen=True, eq=False)
class Matches:
    """Matches of all blocks that infrared covers."""

    source: Points
    """(n, 2) block centres, infrared px."""
    target: Points
    """(n, 2) matched positions, visible px."""
    clear: npt.NDArray[np.bool_]
    """(n,) True where the peak is unambiguous and inside the search window."""
    cells: npt.NDArray[np.int64]
    """(n, 2) row and column of the block's top left corner, px of the level."""


class Level:
    """The visible pictures at one resolution."""

    def __init__(self, vis: Sequence[Plane], side: int, sigma: float = 1.0) -> None:
        height, width = vis[0].shape
        shrink = min(side / max(height, width), 1)
        self.size: Size = (round(height * shrink), round(width * shrink))
        self.scale = resize_matrix((height, width), self.size)
        """(3, 3) visible pixels to pixels of this level."""
        self.pixel = 1 / self.scale[0, 0]
        """Visible pixels per pixel of this level."""
        self._sigma = sigma
        resized = [np.asarray(cv2.resize(p, self.size[::-1], interpolation=cv2.INTER_AREA), np.uint8) for p in vis]
        self._vis = [features(plane, None, sigma) for plane in resized]
        self._energy = {0: np.zeros(0)}

    def match(self, ir: Sequence[Plane], homography: Matrix3, step: Step) -> Matches:
        """Match every block of the infrared pictures, warped by `homography`, near its position in the visible ones.

        A block's correlation is computed over the pixels of all pairs together.
        """
        block = step.block
        warped = [warp(plane, self.scale @ homography, self.size) for plane in ir]
        found = [features(plane, mask, self._sigma) for plane, mask in warped]
        present = _block_sums(warped[0][1], block)
        energy = _energy(found, block)
        if block not in self._energy:
            self._energy[block] = _energy(self._vis, block)
        rows = []
        for y in range(0, self.size[0] - block + 1, step.stride):
            for x in range(0, self.size[1] - block + 1, step.stride):
                if present[y, x] >= MIN_PRESENT * block * block:
                    rows.append((x, y, *self._find(found, float(energy[y, x]), x, y, step)))
        table = np.array(rows, np.float64).reshape(-1, 5)
        at = table[:, :2] + (block - 1) / 2
        back = inverse(self.scale)
        return Matches(
            project(inverse(homography), project(back, at)),
            project(back, at + table[:, 2:4]),
            table[:, 4] > 0,
            table[:, 1::-1].astype(np.int64),
        )

    def _find(self, found: Sequence[Features], energy: float, x: int, y: int, step: Step) -> tuple[float, float, bool]:
        """Return a block's shift to the right and down, px of the level, and whether the match is clear."""
        block, radius = step.block, step.radius
        top, left = max(y - radius, 0), max(x - radius, 0)
        bottom, right = min(y + radius, self.size[0] - block), min(x + radius, self.size[1] - block)
        product = np.zeros((bottom - top + 1, right - left + 1), np.float32)
        for ir, vis in zip(found, self._vis, strict=True):
            window = np.ascontiguousarray(vis[top : bottom + block, left : right + block])
            product += cv2.matchTemplate(window, np.ascontiguousarray(ir[y : y + block, x : x + block]), cv2.TM_CCORR)
        there = self._energy[block][top : bottom + 1, left : right + 1]
        surface = product / np.sqrt(np.maximum(energy, 1) * np.maximum(there, 1))
        row, column = (int(index) for index in np.unravel_index(surface.argmax(), surface.shape))
        if not (0 < row < surface.shape[0] - 1 and 0 < column < surface.shape[1] - 1):
            return float(left + column - x), float(top + row - y), False
        best = float(surface[row, column])
        dy = parabola_vertex(float(surface[row - 1, column]), best, float(surface[row + 1, column]))
        dx = parabola_vertex(float(surface[row, column - 1]), best, float(surface[row, column + 1]))
        clear = best > MIN_CORRELATION and _second_peak(surface, row, column, radius) < MAX_SECOND_PEAK * best
        return left + column + dx - x, top + row + dy - y, clear


def _second_peak(surface: Sums, row: int, column: int, radius: int) -> float:
    """Return the highest value outside the neighbourhood of the best peak."""
    others = surface.copy()
    near = max(3, radius // 4)
    others[max(row - near, 0) : row + near + 1, max(column - near, 0) : column + near + 1] = -1
    return float(others.max())


def _energy(found: Sequence[Features], block: int) -> Sums:
    total = np.zeros(1)
    for each in found:
        total = total + _block_sums(np.square(each).sum(axis=2), block)
    return total


def _block_sums(values: npt.NDArray[np.generic], block: int) -> Sums:
    """Sums over (block, block) windows, indexed by their top left corner."""
    table = cast(Sums, cv2.integral(values.astype(np.float32), sdepth=cv2.CV_64F))
    return table[block:, block:] - table[:-block, block:] - table[block:, :-block] + table[:-block, :-block]
