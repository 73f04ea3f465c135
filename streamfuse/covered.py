"""The area of the visible picture that infrared covers, and what is shown outside."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Size
from streamfuse.calibration.grid import UNMOVED, CoordinateGrid
from streamfuse.calibration.model import Calibration
from streamfuse.calibration.overlap import FEATHER_PX, FILL_PX, Box, Mask, feather, largest_box
from streamfuse.calibration.parallax import NEAREST_M
from streamfuse.calibration.similarity import Similarity
from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.network.config import MIN_SIDE
from streamfuse.temperature import NONE, Counts

Weights = npt.NDArray[np.float32]
"""(H, W) blending weight, 0..1."""


class Covered:
    """The covered area of visible pictures of one size: coordinates, crop and blending weights.

    The blending weights are those of the area that infrared covers at every distance that was asked for, so the border
    does not move when the distance does.
    """

    def __init__(self, calibration: Calibration, vis_size: Size, crop: bool, inverse_m: float) -> None:
        """Raises InputError where the overlap is empty, or smaller than the network needs."""
        self.vis_size = vis_size
        scaled = calibration.for_sizes(calibration.ir_size, vis_size)
        self.shift_px_m = float(np.hypot(*scaled.shift_px_m))
        self.grid = CoordinateGrid(scaled)
        self._fill: tuple[Weights, Weights]
        self._feather: tuple[Weights, Weights]
        self._range = (inverse_m, inverse_m)
        self._moved = UNMOVED
        mask = self.grid.coverage(inverse_m)
        _check_overlap(mask)
        self.box = Box(0, 0, *vis_size)
        if crop:
            if calibration.parallax is not None:  # the size of the result cannot change with the distance
                mask = mask & self.grid.coverage(0) & self.grid.coverage(1 / NEAREST_M)
            self.box = largest_box(mask)
        self._use(mask)

    def widen(self, inverse_m: float, moved: Similarity, frames: int) -> None:
        """Let the weights be right for this distance too, and for this drift of the cameras to a pixel.

        Called for every frame; the weights change over `frames` of them.
        """
        low, high = self._range
        if not low <= inverse_m <= high or self._moved.toward(moved, 1.0, self.vis_size) != moved:
            self._range, self._moved = (min(low, inverse_m), max(high, inverse_m)), moved
            self._use(self.grid.coverage(self._range[0], moved) & self.grid.coverage(self._range[1], moved), frames)
        if self._left:
            self._fade()

    def _use(self, mask: Mask, frames: int = 1) -> None:
        """Take the weights of a mask, in the first of `frames` calls of `_fade` if there are weights already."""
        self._covered = np.ascontiguousarray(self.box.cut(mask).astype(bool))
        self._goal = feather(self._covered, 0, FILL_PX), feather(self._covered, FILL_PX, FEATHER_PX)
        self._covers_all = bool(self._covered.all())
        self._left = frames
        if frames == 1:
            self._fade()

    def _fade(self) -> None:
        """Go one frame nearer to the weights of the mask, in equal steps."""
        share = 1 / self._left
        self._left -= 1
        fill, edge = self._goal
        if self._left:
            fill, edge = _between(self._fill[0], fill, share), _between(self._feather[0], edge, share)
        self._fill, self._feather = _with_complement(fill), _with_complement(edge)
        self._whole = not self._left and self._covers_all

    def fill(self, ir: Plane, vis: Plane) -> Plane:
        """Fill infrared with visible luma outside the covered area, (H, W) each, so that the network sees no border."""
        return self._blend(ir, vis, self._fill)

    def blend(self, fused: Plane, vis: Plane) -> Plane:
        """Blend the fused picture into `vis`, (H, W) each; exactly `vis` outside the covered area."""
        return self._blend(fused, vis, self._feather)

    def keep_covered(self, values: Counts) -> Counts:
        """Values (H, W) where infrared covers the picture, and none elsewhere."""
        return values if self._covers_all else np.where(self._covered, values, np.uint16(NONE))

    def _blend(self, inside: Plane, outside: Plane, weights: tuple[Weights, Weights]) -> Plane:
        if self._whole:
            return inside
        return cast(Plane, cv2.blendLinear(inside, np.ascontiguousarray(outside), *weights))


def _between(one: Weights, other: Weights, share: float) -> Weights:
    return cast(Weights, cv2.addWeighted(one, 1 - share, other, share, 0.0))


def _with_complement(weight: Weights) -> tuple[Weights, Weights]:
    return weight, 1 - weight


def _check_overlap(mask: Mask) -> None:
    rows, columns = mask.any(axis=1).sum(), mask.any(axis=0).sum()
    if min(rows, columns) < MIN_SIDE:
        raise InputError(
            f"infrared covers {columns}x{rows} pixels of the visible picture, and {MIN_SIDE} a side are needed: "
            "check that the calibration belongs to these cameras"
        )
