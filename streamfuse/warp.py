"""The warp of infrared pictures to the visible one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse import layers
from streamfuse.calibration.geometry import Points, Size, resize_matrix
from streamfuse.calibration.grid import Map
from streamfuse.calibration.model import Calibration
from streamfuse.calibration.overlap import Box
from streamfuse.calibration.similarity import Similarity
from streamfuse.color import Plane
from streamfuse.covered import Covered
from streamfuse.temperature import NONE, OVER, Counts

Values: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""(h, w), values of a scale."""

MAX_STEP = 1.25
"""Infrared pixels per visible pixel above which infrared is averaged before it is sampled."""


class Warp:
    """Warps infrared pictures of one size; the maps are kept for the last distance.

    The maps are of floating point: OpenCV's fixed-point maps cost more to make than they save (0.2 ms at 640x480), and
    with cubic interpolation they save nothing.
    """

    def __init__(self, calibration: Calibration, ir_size: Size, covered: Covered) -> None:
        calibration.for_sizes(ir_size, calibration.vis_size)  # raises InputError for another aspect ratio
        step = _pixels_per_step(*covered.grid.coordinates(0.0)) * ir_size[1] / calibration.ir_size[1]
        shrink = 1 / step if step > MAX_STEP else 1.0
        self._resized = max(round(ir_size[0] * shrink), 2), max(round(ir_size[1] * shrink), 2)
        self._scale = resize_matrix(calibration.ir_size, self._resized)
        self._ir_size, self._covered = ir_size, covered
        self._calibrated_size = calibration.ir_size
        self._place: tuple[float, Similarity] | None = None
        self._x: cv2.typing.MatLike
        self._y: cv2.typing.MatLike

    def fits(self, shape: tuple[int, ...], covered: Covered) -> bool:
        return self._ir_size == shape and self._covered is covered

    def go(self, inverse_m: float, moved: Similarity) -> None:
        """Compute the maps for a distance and a correction, unless they are those of the last one."""
        if self._place == (inverse_m, moved):
            return
        x, y = self._covered.grid.coordinates(inverse_m, moved, self._scale)
        self._x, self._y = self._covered.box.cut(x), self._covered.box.cut(y)
        self._place = inverse_m, moved

    @property
    def size(self) -> Size:
        """(h, w) to which infrared is resized before it is warped."""
        return self._resized

    def resize(self, ir: Plane) -> Plane:
        """Resize infrared to the size from which it is warped."""
        return ir if ir.shape == self._resized else resize(ir, self._resized)

    def box_of(self, corners: Points, inverse_m: float | None) -> tuple[layers.Box, Points]:
        """Place a rectangle of infrared, as `layers.Placing` says."""
        assert self._place is not None
        now_m, moved = self._place
        size = np.array(self._calibrated_size[::-1])
        placed = self._covered.grid.place(corners * size - 0.5, now_m if inverse_m is None else inverse_m, moved)
        box = self._covered.box
        placed = np.nan_to_num(placed - (box.left, box.top), nan=-1.0).clip(-1e6, 1e6)
        (left, top), (right, bottom) = np.floor(placed.min(axis=0)), np.ceil(placed.max(axis=0)) + 1
        rows = slice(max(int(top), 0), min(int(bottom), box.height))
        return (rows, slice(max(int(left), 0), min(int(right), box.width))), placed

    def maps_of(self, box: layers.Box, inverse_m: float | None) -> tuple[Map, Map]:
        """Map a box to infrared, as `layers.Placing` says."""
        if inverse_m is None:
            return cast(Map, self._x[box]), cast(Map, self._y[box])
        assert self._place is not None
        around, (rows, columns) = self._covered.box, box
        patch = Box(
            around.top + rows.start, around.left + columns.start, rows.stop - rows.start, columns.stop - columns.start
        )
        x, y = self._covered.grid.patch(patch, inverse_m, self._place[1])
        scale = self._scale
        return (
            cast(Map, cv2.addWeighted(x, scale[0, 0], x, 0, scale[0, 2])),
            cast(Map, cv2.addWeighted(y, scale[1, 1], y, 0, scale[1, 2])),
        )

    def apply(self, ir: Plane) -> Plane:
        ir = self.resize(ir)
        # The border is replicated so that the last pixels can be interpolated; pixels beyond are blended away.
        return cast(Plane, cv2.remap(ir, self._x, self._y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))

    def apply_values(self, values: Values, method: int) -> Values:
        """Warp values (h, w) of 8 or 16 bits; `method`: cv2.INTER_NEAREST or cv2.INTER_LINEAR."""
        if values.shape != self._resized:
            values = resize_values(values, method, self._resized)
        return cast(Values, cv2.remap(values, self._x, self._y, method, borderMode=cv2.BORDER_REPLICATE))


def interpolate(values: Counts, warp: Callable[[Values, int], Values]) -> Counts:
    """Warp values of a scale by interpolation, and by the nearest value wherever an end of the scale is involved.

    `warp`: maps an array by an interpolation method of OpenCV.
    """
    smooth = warp(values, cv2.INTER_LINEAR)
    ends = (values == NONE) | (values == OVER)
    if ends.any():
        touched = warp(ends.astype(np.uint8) * np.uint8(255), cv2.INTER_LINEAR) > 0
        smooth = np.where(touched, warp(values, cv2.INTER_NEAREST), smooth)
    return cast(Counts, smooth)


def resize_values(values: Values, method: int, shape: tuple[int, ...]) -> Values:
    """Resize values (h, w) to `shape` (H, W); `method`: cv2.INTER_NEAREST, or cv2.INTER_LINEAR, which averages too."""
    shrinks = shape[0] <= values.shape[0] and shape[1] <= values.shape[1]
    if method == cv2.INTER_LINEAR and shrinks:
        method = cv2.INTER_AREA
    elif method == cv2.INTER_NEAREST:
        method = cv2.INTER_NEAREST_EXACT  # the other one is shifted by half a pixel
    return cast(Values, cv2.resize(values, (shape[1], shape[0]), interpolation=method))


def _pixels_per_step(x: Map, y: Map) -> float:
    """Infrared pixels per visible pixel in the middle of the picture."""
    row, column = x.shape[0] // 2, x.shape[1] // 2
    dx = float(x[row, column + 1]) - float(x[row, column - 1])
    dy = float(y[row, column + 1]) - float(y[row, column - 1])
    return float(np.hypot(dx, dy)) / 2


def resize(plane: Plane, shape: tuple[int, ...]) -> Plane:
    """Resize (h, w) to `shape` (H, W), averaged where it shrinks, cubic where it grows."""
    shrinks = shape[0] <= plane.shape[0] and shape[1] <= plane.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cast(Plane, cv2.resize(plane, (shape[1], shape[0]), interpolation=method))
