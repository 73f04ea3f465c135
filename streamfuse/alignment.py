"""Alignment of infrared to visible pixels.

With a calibration, infrared is warped to the visible picture, which stays unchanged; outside the area that infrared
covers, the result is the visible picture.  Without a calibration, the two pictures must be registered; if their sizes
differ, infrared is resized to the visible picture.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Points, Size, resize_matrix, same_aspect, size_of
from streamfuse.calibration.model import Calibration
from streamfuse.calibration.overlap import FEATHER_PX, FILL_PX, Box, Mask, feather, infrared_coordinates, largest_box
from streamfuse.color import Chroma, Plane
from streamfuse.errors import InputError, UsageError
from streamfuse.network.config import MIN_SIDE
from streamfuse.temperature import NONE, OVER, Counts, TemperaturePlane

log = logging.getLogger("streamfuse")

Weights = npt.NDArray[np.float32]
"""(H, W) blending weight, 0..1."""

Values: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""(h, w), values of a scale."""

MAX_STEP = 1.25
"""Infrared pixels per visible pixel above which infrared is averaged before it is sampled."""


class Aligner:
    """Aligns infrared to visible pictures.

    The maps are computed for each new size of the pictures and cached for the last one.
    """

    def __init__(self, calibration: Calibration | None = None, crop: bool = False) -> None:
        """`crop`: crop both to the largest rectangle that both cameras see; raises UsageError without a calibration."""
        if crop and calibration is None:
            raise UsageError("cropping to the overlap needs a calibration: give one, or do not crop")
        self.calibration = calibration
        self._crop = crop
        self._announced: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._overlap: _Overlap | None = None
        self._warp: _Warp | None = None

    def align(self, ir: Plane, vis: Plane) -> tuple[Plane, Plane]:
        """Align luma planes (h, w) and (H, W) uint8; both results have the shape (H, W), or that of the crop.

        Raises InputError where the aspect ratios are not those of the calibration, or the overlap is too small.
        """
        if self.calibration is None:
            return self.apply(ir, vis.shape), vis
        overlap = self._overlap_of(self.calibration, vis.shape)
        if self._warp is None or not self._warp.fits(ir.shape, overlap):
            self._warp = _Warp(self.calibration, size_of(ir.shape), overlap)
        vis = self.cut(vis)
        return overlap.fill(self._warp.apply(ir), vis), vis

    def align_temperature(self, plane: TemperaturePlane, vis_shape: tuple[int, ...]) -> TemperaturePlane:
        """Align temperatures as `align` does infrared of the same shape; `vis_shape`: (H, W) of the visible picture.

        Outside the area that infrared covers there is no value.  Values are interpolated between neighbours, but never
        with the ends of the scale.  Raises InputError as `align` does.
        """
        values = plane.values
        if self.calibration is None:
            found = (
                values if values.shape == vis_shape else interpolate(values, partial(_resize_values, shape=vis_shape))
            )
            return TemperaturePlane(found, plane.scale)
        overlap = self._overlap_of(self.calibration, vis_shape)
        if self._warp is None or not self._warp.fits(values.shape, overlap):
            self._warp = _Warp(self.calibration, size_of(values.shape), overlap)
        return TemperaturePlane(overlap.keep_covered(interpolate(values, self._warp.apply_values)), plane.scale)

    def cut(self, vis: Plane) -> Plane:
        """Crop a visible picture as `align` does."""
        return vis if self.calibration is None else self._overlap_of(self.calibration, vis.shape).box.cut(vis)

    def finish(self, fused: Plane, vis: Plane) -> Plane:
        """Replace the fused picture by `vis`, as `align` returned it, outside the area that infrared covers, softly."""
        return fused if self._overlap is None else self._overlap.blend(fused, vis)

    def output_shape(self, height: int, width: int) -> Size:
        """(height, width) of the result for visible pictures of this size."""
        if self.calibration is None:
            return height, width
        return self._overlap_of(self.calibration, (height, width)).box.shape

    def cut_chroma(self, chroma: Chroma | None, height: int, width: int) -> Chroma | None:
        """Crop the chroma of a visible frame of (height, width) as `align` crops its luma."""
        if chroma is None or self.calibration is None or not self._crop:
            return chroma
        return self._overlap_of(self.calibration, (height, width)).box.cut_chroma(chroma, (height, width))

    def _overlap_of(self, calibration: Calibration, shape: tuple[int, ...]) -> _Overlap:
        if self._overlap is None or self._overlap.vis_size != shape:
            self._overlap = _Overlap(calibration, size_of(shape), self._crop)
        return self._overlap

    def apply(self, ir: Plane, shape: tuple[int, ...]) -> Plane:
        """Resize (h, w) to `shape` (H, W), averaged where it shrinks, cubic where it grows; logs a warning once."""
        if ir.shape == shape:
            return ir
        if self._announced != (ir.shape, shape):
            self._announced = (ir.shape, shape)
            log.warning(
                "infrared is %dx%d and visible %dx%d: infrared is resized to visible%s",
                ir.shape[1],
                ir.shape[0],
                shape[1],
                shape[0],
                "" if same_aspect(ir.shape, shape) else ", which stretches it: the aspect ratios differ",
            )
        return _resize(ir, shape)


class _Overlap:
    """The map, the crop and the blending weights for visible pictures of one size."""

    def __init__(self, calibration: Calibration, vis_size: Size, crop: bool) -> None:
        """Raises InputError where the overlap is empty, or smaller than the network needs."""
        self.vis_size = vis_size
        scaled = calibration.for_sizes(calibration.ir_size, vis_size)
        coordinates, mask = infrared_coordinates(scaled)
        _check_overlap(mask)
        self.box = largest_box(mask) if crop else Box(0, 0, *vis_size)
        x, y = coordinates.T.reshape(2, *vis_size)
        self.x, self.y = self.box.cut(x), self.box.cut(y)
        """(H, W) infrared coordinates of each visible pixel, px of the calibration's own size."""
        covered = np.ascontiguousarray(self.box.cut(mask).astype(bool))
        self._covered = covered
        self._whole = bool(covered.all())
        self._fill = _with_complement(feather(covered, 0, FILL_PX))
        self._feather = _with_complement(feather(covered, FILL_PX, FEATHER_PX))

    def fill(self, ir: Plane, vis: Plane) -> Plane:
        """Fill infrared with visible luma outside the covered area, (H, W) each, so that the network sees no border."""
        return self._blend(ir, vis, self._fill)

    def blend(self, fused: Plane, vis: Plane) -> Plane:
        """Blend the fused picture into `vis`, (H, W) each; exactly `vis` outside the covered area."""
        return self._blend(fused, vis, self._feather)

    def keep_covered(self, values: Counts) -> Counts:
        """Values (H, W) where infrared covers the picture, and none elsewhere."""
        return values if self._whole else np.where(self._covered, values, np.uint16(NONE))

    def _blend(self, inside: Plane, outside: Plane, weights: tuple[Weights, Weights]) -> Plane:
        if self._whole:
            return inside
        return cast(Plane, cv2.blendLinear(inside, np.ascontiguousarray(outside), *weights))


def _with_complement(weight: Weights) -> tuple[Weights, Weights]:
    return weight, 1 - weight


class _Warp:
    """Warps infrared pictures of one size with OpenCV's fixed-point maps."""

    def __init__(self, calibration: Calibration, ir_size: Size, overlap: _Overlap) -> None:
        calibration.for_sizes(ir_size, calibration.vis_size)  # raises InputError for another aspect ratio
        step = _pixels_per_step(overlap.x, overlap.y) * ir_size[1] / calibration.ir_size[1]
        shrink = 1 / step if step > MAX_STEP else 1.0
        resized = max(round(ir_size[0] * shrink), 2), max(round(ir_size[1] * shrink), 2)
        scale = resize_matrix(calibration.ir_size, resized)
        x = np.clip(overlap.x * scale[0, 0] + scale[0, 2], -2, resized[1] + 1).astype(np.float32)
        y = np.clip(overlap.y * scale[1, 1] + scale[1, 2], -2, resized[0] + 1).astype(np.float32)
        self._coordinates, self._fractions = cv2.convertMaps(x, y, cv2.CV_16SC2)
        self._nearest, _ = cv2.convertMaps(np.rint(x), np.rint(y), cv2.CV_16SC2)
        self._ir_size, self._resized, self._overlap = ir_size, resized, overlap

    def fits(self, shape: tuple[int, ...], overlap: _Overlap) -> bool:
        return self._ir_size == shape and self._overlap is overlap

    def apply(self, ir: Plane) -> Plane:
        ir = ir if ir.shape == self._resized else _resize(ir, self._resized)
        # The border is replicated so that the last pixels can be interpolated; pixels beyond are blended away.
        warped = cv2.remap(ir, self._coordinates, self._fractions, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return cast(Plane, warped)

    def apply_values(self, values: Values, method: int) -> Values:
        """Warp values (h, w) of 8 or 16 bits; `method`: cv2.INTER_NEAREST or cv2.INTER_LINEAR."""
        if values.shape != self._resized:
            values = _resize_values(values, method, self._resized)
        nearest = method == cv2.INTER_NEAREST
        x_y, fractions = (self._nearest, np.zeros(0)) if nearest else (self._coordinates, self._fractions)
        return cast(Values, cv2.remap(values, x_y, fractions, method, borderMode=cv2.BORDER_REPLICATE))


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


def _resize_values(values: Values, method: int, shape: tuple[int, ...]) -> Values:
    shrinks = shape[0] <= values.shape[0] and shape[1] <= values.shape[1]
    if method == cv2.INTER_LINEAR and shrinks:
        method = cv2.INTER_AREA
    elif method == cv2.INTER_NEAREST:
        method = cv2.INTER_NEAREST_EXACT  # the other one is shifted by half a pixel
    return cast(Values, cv2.resize(values, (shape[1], shape[0]), interpolation=method))


def _pixels_per_step(x: Plane | Points, y: Plane | Points) -> float:
    """Infrared pixels per visible pixel in the middle of the picture."""
    row, column = x.shape[0] // 2, x.shape[1] // 2
    dx = float(x[row, column + 1]) - float(x[row, column - 1])
    dy = float(y[row, column + 1]) - float(y[row, column - 1])
    return float(np.hypot(dx, dy)) / 2


def _check_overlap(mask: Mask) -> None:
    rows, columns = mask.any(axis=1).sum(), mask.any(axis=0).sum()
    if min(rows, columns) < MIN_SIDE:
        raise InputError(
            f"infrared covers {columns}x{rows} pixels of the visible picture, and {MIN_SIDE} a side are needed: "
            "check that the calibration belongs to these cameras"
        )


def _resize(plane: Plane, shape: tuple[int, ...]) -> Plane:
    shrinks = shape[0] <= plane.shape[0] and shape[1] <= plane.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cast(Plane, cv2.resize(plane, (shape[1], shape[0]), interpolation=method))
