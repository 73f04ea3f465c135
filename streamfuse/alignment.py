"""Infrared pixels onto visible pixels.

With a calibration, infrared is warped as it says; the visible picture stays as it is, and where infrared does not
reach, the result is the visible picture.  Without one, both cameras must look at the same scene through registered
optics; where only the sizes differ, infrared is resized to the visible picture.
"""

from __future__ import annotations

import logging
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Points, Size, resize_matrix, same_aspect
from streamfuse.calibration.model import Calibration
from streamfuse.calibration.overlap import FEATHER_PX, FILL_PX, Box, Mask, feather, infrared_places, largest_box
from streamfuse.color import Chroma, Plane
from streamfuse.errors import InputError, UsageError
from streamfuse.network.config import MIN_SIDE

log = logging.getLogger("streamfuse")

Share = npt.NDArray[np.float32]
"""(H, W), 0..1."""

MAX_STEP = 1.25
"""Infrared pixels to a visible one: where there are more, infrared is averaged before it is sampled."""


class Aligner:
    """Brings infrared and visible frames of one pair onto each other.

    Maps are computed once for each size of the pictures and kept for the last one.
    """

    def __init__(self, calibration: Calibration | None = None, crop: bool = False) -> None:
        """`crop`: cut both to the largest rectangle that both cameras see; needs a calibration (UsageError)."""
        if crop and calibration is None:
            raise UsageError("cropping to the overlap needs a calibration: give one, or leave the cropping out")
        self.calibration = calibration
        self._crop = crop
        self._announced: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._reach: _Reach | None = None
        self._warp: _Warp | None = None

    def align(self, ir: Plane, vis: Plane) -> tuple[Plane, Plane]:
        """Luma planes (h, w) and (H, W) to two of one shape: (H, W), or that of the overlap.

        Raises InputError where the calibration is of pictures of another shape.
        """
        if self.calibration is None:
            return self.apply(ir, vis.shape), vis
        reach = self._reach_of(self.calibration, vis.shape)
        if self._warp is None or not self._warp.fits(ir.shape, reach):
            self._warp = _Warp(self.calibration, _size(ir.shape), reach)
        vis = self.cut(vis)
        return reach.fill(self._warp.apply(ir), vis), vis

    def cut(self, vis: Plane) -> Plane:
        """A visible picture as `align` would give it."""
        return vis if self.calibration is None else self._reach_of(self.calibration, vis.shape).box.cut(vis)

    def finish(self, fused: Plane, vis: Plane) -> Plane:
        """The fused picture where infrared reaches and `vis`, as `align` gave it, where it does not; softly between."""
        return fused if self._reach is None else self._reach.blend(fused, vis)

    def output_shape(self, height: int, width: int) -> Size:
        """The shape of the result for visible pictures of (height, width)."""
        if self.calibration is None:
            return height, width
        return self._reach_of(self.calibration, (height, width)).box.shape

    def cut_chroma(self, chroma: Chroma | None, height: int, width: int) -> Chroma | None:
        """The colour of a visible frame of (height, width), cut as `align` cuts its luma."""
        if chroma is None or self.calibration is None or not self._crop:
            return chroma
        return self._reach_of(self.calibration, (height, width)).box.cut_chroma(chroma, (height, width))

    def _reach_of(self, calibration: Calibration, shape: tuple[int, ...]) -> _Reach:
        if self._reach is None or self._reach.vis_size != shape:
            self._reach = _Reach(calibration, _size(shape), self._crop)
        return self._reach

    def apply(self, ir: Plane, shape: tuple[int, ...]) -> Plane:
        """(h, w) resized to `shape` (H, W), which is said once: averaged where it shrinks, cubic where it grows."""
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


class _Reach:
    """Where infrared reaches in visible pictures of one size."""

    def __init__(self, calibration: Calibration, vis_size: Size, crop: bool) -> None:
        """Raises InputError where that is nowhere, or less than the network needs."""
        self.vis_size = vis_size
        scaled = calibration.for_sizes(calibration.ir_size, vis_size)
        places, mask = infrared_places(scaled)
        _check_overlap(mask)
        self.box = largest_box(mask) if crop else Box(0, 0, *vis_size)
        x, y = places.T.reshape(2, *vis_size)
        self.x, self.y = self.box.cut(x), self.box.cut(y)
        """Infrared places in pixels of the calibration's own size."""
        seen = np.ascontiguousarray(self.box.cut(mask).astype(bool))
        self._whole = bool(seen.all())
        self._fill = _with_rest(feather(seen, 0, FILL_PX))
        self._share = _with_rest(feather(seen, FILL_PX, FEATHER_PX))

    def fill(self, ir: Plane, vis: Plane) -> Plane:
        """(H, W) each: visible luma where infrared does not reach, so that the network sees no border."""
        return self._blend(ir, vis, self._fill)

    def blend(self, fused: Plane, vis: Plane) -> Plane:
        """(H, W) each: exactly `vis` where infrared does not reach."""
        return self._blend(fused, vis, self._share)

    def _blend(self, inside: Plane, outside: Plane, shares: tuple[Share, Share]) -> Plane:
        if self._whole:
            return inside
        return cast(Plane, cv2.blendLinear(inside, np.ascontiguousarray(outside), *shares))


def _with_rest(share: Share) -> tuple[Share, Share]:
    return share, 1 - share


class _Warp:
    """Infrared pictures of one size into the frame of a reach, by OpenCV's fixed-point maps."""

    def __init__(self, calibration: Calibration, ir_size: Size, reach: _Reach) -> None:
        calibration.for_sizes(ir_size, calibration.vis_size)  # raises InputError for another aspect ratio
        step = _pixels_a_step(reach.x, reach.y) * ir_size[1] / calibration.ir_size[1]
        shrink = 1 / step if step > MAX_STEP else 1.0
        resized = max(round(ir_size[0] * shrink), 2), max(round(ir_size[1] * shrink), 2)
        scale = resize_matrix(calibration.ir_size, resized)
        x = np.clip(reach.x * scale[0, 0] + scale[0, 2], -2, resized[1] + 1).astype(np.float32)
        y = np.clip(reach.y * scale[1, 1] + scale[1, 2], -2, resized[0] + 1).astype(np.float32)
        self._places, self._fractions = cv2.convertMaps(x, y, cv2.CV_16SC2)
        self._ir_size, self._resized, self._reach = ir_size, resized, reach

    def fits(self, shape: tuple[int, ...], reach: _Reach) -> bool:
        return self._ir_size == shape and self._reach is reach

    def apply(self, ir: Plane) -> Plane:
        ir = ir if ir.shape == self._resized else _resize(ir, self._resized)
        # Replicated only so that the last pixels can be interpolated: what lies beyond them is blended away.
        warped = cv2.remap(ir, self._places, self._fractions, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return cast(Plane, warped)


def _pixels_a_step(x: Plane | Points, y: Plane | Points) -> float:
    """How many infrared pixels there are from one visible pixel to the next, in the middle of the picture."""
    row, column = x.shape[0] // 2, x.shape[1] // 2
    dx = float(x[row, column + 1]) - float(x[row, column - 1])
    dy = float(y[row, column + 1]) - float(y[row, column - 1])
    return float(np.hypot(dx, dy)) / 2


def _check_overlap(mask: Mask) -> None:
    rows, columns = mask.any(axis=1).sum(), mask.any(axis=0).sum()
    if min(rows, columns) < MIN_SIDE:
        raise InputError(
            f"infrared reaches {columns}x{rows} pixels of the visible picture, and {MIN_SIDE} a side are needed: "
            "check that the calibration is of these cameras"
        )


def _size(shape: tuple[int, ...]) -> Size:
    return shape[0], shape[1]


def _resize(plane: Plane, shape: tuple[int, ...]) -> Plane:
    shrinks = shape[0] <= plane.shape[0] and shape[1] <= plane.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cast(Plane, cv2.resize(plane, (shape[1], shape[0]), interpolation=method))
