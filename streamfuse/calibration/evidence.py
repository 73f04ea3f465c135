"""Evidence for where infrared lies in the visible picture, from one pair of pictures.

Both pictures are reduced, infrared is warped as for far things, and the picture is divided into cells.  For each cell
the structure of infrared (`streamfuse.calibration.structure`) is correlated with that of the visible picture at all
small shifts.  Summed over cells and over time along the path that a distance takes, this tells the distance; the other
shifts tell whether the cameras were moved.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Points, inverse, project, size_of
from streamfuse.calibration.grid import CoordinateGrid, Map
from streamfuse.calibration.model import Calibration
from streamfuse.calibration.structure import EDGE_PX, Features, features
from streamfuse.color import Plane

Surfaces: TypeAlias = npt.NDArray[np.float32]
"""(cells, Y, X) correlation of every cell at every shift."""

SIDE = 320
"""Longer side of the reduced pictures: half of 640, where a shift of a pixel is still seen."""
ROWS, COLUMNS = 4, 6
"""Cells of the grid."""
NEAREST_M = 2.0
"""Nearest distance that is searched, m."""
LARGEST_SHIFT = 0.125
"""Largest parallax that is searched, as a share of the width."""
MARGIN = 5
"""Shifts beyond the path of the distances that are looked at, reduced px."""


class Evidence:
    """Correlates pairs of pictures of one calibration and one size of the visible picture."""

    def __init__(self, calibration: Calibration, vis_shape: tuple[int, ...]) -> None:
        height, width = size_of(vis_shape)
        shrink = min(SIDE / max(height, width), 1.0)
        self.size = round(height * shrink), round(width * shrink)
        self.pixel = width / self.size[1]
        """Visible px per reduced px."""
        self._calibration = calibration.for_sizes(calibration.ir_size, self.size)
        self._grid = CoordinateGrid(self._calibration)
        self._far = self._grid.coordinates(0.0)
        x, _ = self._far
        step = abs(float(x[self.size[0] // 2, self.size[1] // 2 + 1] - x[self.size[0] // 2, self.size[1] // 2]))
        self._ir_size = tuple(max(round(side / max(step, 1.0)), 8) for side in calibration.ir_size)
        self._maps = cv2.convertMaps(*self.maps_of(self._ir_size), cv2.CV_16SC2)
        mask = self._grid.coverage(0.0).astype(np.uint8)
        self._mask = cv2.erode(mask, np.ones((2 * EDGE_PX + 1,) * 2), borderValue=1)
        self.shift_px_m = self._calibration.shift_px_m
        """(2,) parallax in the middle of the picture, reduced px m."""
        shift = float(np.hypot(*self.shift_px_m))
        self.nearest_m = max(NEAREST_M, shift / (LARGEST_SHIFT * self.size[1]))
        """Nearest distance that is searched, m."""
        steps = max(math.ceil(2 * shift / self.nearest_m), 1)
        self.inverse_m: npt.NDArray[np.float64] = np.linspace(0, 1 / self.nearest_m, steps + 1)
        """(n,) searched 1 / distance, half a reduced px apart, 1/m."""
        self._homographies = [self._calibration.at(1 / q if q else math.inf).homography for q in self.inverse_m]
        self._lay_out()

    def _lay_out(self) -> None:
        """Place the cells, with room for all shifts around each."""
        height, width = self.size
        paths = self.paths(np.array([(x * (width - 1), y * (height - 1)) for x in (0, 0.5, 1) for y in (0, 0.5, 1)]))
        low = np.floor(paths.reshape(-1, 2).min(axis=0)).astype(int) - MARGIN
        high = np.ceil(paths.reshape(-1, 2).max(axis=0)).astype(int) + MARGIN
        self._low = low
        (left, top), (right, bottom) = np.maximum(-low, 0), np.maximum(high, 0)
        xs = np.linspace(left, width - right, COLUMNS + 1).round().astype(int)
        ys = np.linspace(top, height - bottom, ROWS + 1).round().astype(int)
        self._cells = [(slice(a, b), slice(c, d)) for a, b in pairwise(ys) for c, d in pairwise(xs)]
        self._span = high - low
        self.middles = np.array([((c.start + c.stop - 1) / 2, (r.start + r.stop - 1) / 2) for r, c in self._cells])
        """(cells, 2) middle of each cell, reduced px."""
        self.cell_paths = (self.paths(self.middles) - low).astype(np.float32)
        """(cells, n, 2) position of every distance in the surface of each cell."""

    def maps_of(self, ir_size: tuple[int, ...]) -> tuple[Map, Map]:
        """Return x and y of every reduced pixel in an infrared picture of this size (h, w), for far things."""
        scale = [ir_size[axis] / self._calibration.ir_size[axis] for axis in (0, 1)]
        x, y = self._far
        return np.asarray((x + 0.5) * scale[1] - 0.5, np.float32), np.asarray((y + 0.5) * scale[0] - 0.5, np.float32)

    def paths(self, points: Points) -> npt.NDArray[np.float64]:
        """Shifts, from far, of things that are at `points` when far, for every searched distance, (p, n, 2) px."""
        flat = project(inverse(self._calibration.homography), points)
        return np.stack([project(each, flat) for each in self._homographies], axis=1) - points[:, None]

    def structures(self, ir: Plane, vis: Plane) -> tuple[Features, Features]:
        """Return the structure of luma planes (h, w) and (H, W) uint8, reduced and infrared warped as for far."""
        small = cv2.resize(ir, self._ir_size[::-1], interpolation=cv2.INTER_AREA)
        warped = cv2.remap(small, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        found = features(cast(Plane, warped), cast(Plane, self._mask))
        return found, features(cast(Plane, cv2.resize(vis, self.size[::-1], interpolation=cv2.INTER_AREA)))

    def surfaces(self, ir: Plane, vis: Plane) -> Surfaces:
        """Correlate luma planes (h, w) and (H, W) uint8."""
        return self.correlate(*self.structures(ir, vis))

    def correlate(self, found: Features, there: Features) -> Surfaces:
        """Correlate the structures of a pair."""
        (low_x, low_y), (wide, tall) = self._low, self._span
        result = np.empty((len(self._cells), tall + 1, wide + 1), np.float32)
        for index, (rows, columns) in enumerate(self._cells):
            window = there[
                rows.start + low_y : rows.stop + low_y + tall, columns.start + low_x : columns.stop + low_x + wide
            ]
            cell = np.ascontiguousarray(found[rows, columns])
            result[index] = cv2.matchTemplate(np.ascontiguousarray(window), cell, cv2.TM_CCORR)
        return result

    def curves(self, surfaces: Surfaces, moved: Points | None = None) -> npt.NDArray[np.float32]:
        """Correlation of every cell at every searched distance, (cells, n).

        `moved`: displacement of every cell by a drift of the cameras, (cells, 2) reduced px.
        """
        result = np.empty((len(surfaces), len(self.inverse_m)), np.float32)
        for index, surface in enumerate(surfaces):
            x, y = (self.cell_paths[index] + (0 if moved is None else moved[index])).astype(np.float32).T
            result[index] = cv2.remap(surface, x[None], y[None], cv2.INTER_CUBIC)[0]
        return result
