"""Where infrared reaches in the visible picture, and what to do at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import LENS_TOLERANCE_PX, Lens, Points, Size, inverse, project
from streamfuse.calibration.model import Calibration
from streamfuse.color import Chroma, Plane
from streamfuse.errors import InputError
from streamfuse.network.config import MIN_SIDE

Mask: TypeAlias = npt.NDArray[np.bool_]
"""(H, W): True where infrared reaches."""

FILL_PX = 8
"""Over so many pixels inside of the reach the infrared picture turns from visible luma, which fills the outside, to its
own.  Across that the network draws a rim, +2 to -23 grey levels on a street where its own step is -18; what it draws
there is not shown."""
FEATHER_PX = 40
"""Up to so many pixels inside of the reach the result turns from the visible picture to the fused one: steps of 18
levels over 16 pixels are still seen as a line."""
MAX_CELLS = 300_000
"""Larger pictures are searched for their rectangle in blocks, which may cost it a few pixels of a side."""


@dataclass(frozen=True, slots=True)
class Box:
    """Part of the visible picture; all four are even, so that chroma of any subsampling can be cut the same way."""

    top: int
    left: int
    height: int
    width: int

    @property
    def shape(self) -> Size:
        return self.height, self.width

    def cut(self, plane: npt.NDArray[np.generic]) -> Plane:
        part = plane[self.top : self.top + self.height, self.left : self.left + self.width]
        return cast(Plane, part)

    def cut_chroma(self, chroma: Chroma, shape: tuple[int, ...]) -> Chroma:
        """`shape`: (H, W) of the luma that the chroma belongs to; 4:2:0, 4:2:2, 4:4:0 and 4:4:4."""
        sy, sx = (1 if side == full else 2 for side, full in zip(chroma.u.shape, shape, strict=True))
        part = Box(self.top // sy, self.left // sx, self.height // sy, self.width // sx)
        return Chroma(part.cut(chroma.u), part.cut(chroma.v), chroma.full_range, chroma.matrix)


def infrared_places(calibration: Calibration) -> tuple[Points, Mask]:
    """For every visible pixel the infrared one, (H * W, 2), and whether the infrared picture reaches there, (H, W)."""
    height, width = calibration.vis_size
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    visible: Points = np.stack((x.ravel(), y.ravel()), axis=1)
    flat = visible
    seen = np.ones(len(visible), bool)
    if calibration.vis_lens is not None:
        flat = calibration.vis_lens.undistort(visible)
        seen &= _near(calibration.vis_lens.distort(flat), visible)
    places = _from_visible(calibration, flat)
    if calibration.ir_lens is not None:
        places, unbent = _bend(calibration.ir_lens, places)
        seen &= unbent
    last = np.array(calibration.ir_size[::-1]) - 0.5  # the far edge of the last pixel
    with np.errstate(invalid="ignore"):
        seen &= np.all((places >= -0.5 - 1e-6) & (places <= last + 1e-6), axis=1)
    return np.where(np.isfinite(places), places, -1e4), seen.reshape(height, width)


def _from_visible(calibration: Calibration, points: Points) -> Points:
    """Back through the homography; NaN for what lies behind the infrared camera."""
    places = project(inverse(calibration.homography), points)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(places) < 1e6, places, np.nan)


def _bend(lens: Lens, places: Points) -> tuple[Points, npt.NDArray[np.bool_]]:
    known = np.asarray(np.isfinite(places).all(axis=1))
    bent = lens.distort(np.where(known[:, None], places, 0.0))
    known &= np.isfinite(bent).all(axis=1) & (np.abs(bent) < 1e6).all(axis=1)
    bent = np.where(known[:, None], bent, 0.0)
    return np.where(known[:, None], bent, np.nan), known & _near(lens.undistort(bent), places)


def _near(one: Points, other: Points) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(one - other).max(axis=1) < LENS_TOLERANCE_PX)


def feather(reach: Mask, begin_px: int, end_px: int) -> npt.NDArray[np.float32]:
    """(H, W): 0 outside of the reach and up to `begin_px` inside of it, 1 from `end_px`, smooth between.

    The visible picture's own border is no end of the reach.
    """
    if reach.all():
        return np.ones(reach.shape, np.float32)
    inside = cv2.distanceTransform(reach.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    t = np.clip((inside.astype(np.float32) - 1 - begin_px) / (end_px - begin_px), 0, 1)
    return cast("npt.NDArray[np.float32]", t * t * (3 - 2 * t))


def largest_box(reach: Mask) -> Box:
    """The largest upright rectangle of reached pixels, by area; raises InputError where it is too small to fuse."""
    height, width = reach.shape
    block = 2
    while (height // block) * (width // block) > MAX_CELLS:
        block += 2
    rows, columns = height // block, width // block
    blocks = reach[: rows * block, : columns * block].reshape(rows, block, columns, block)
    cells = np.asarray(blocks.all(axis=(1, 3)))
    best = (0, 0, 0, 0, 0)
    heights = np.zeros(columns, np.int64)
    for row in range(rows):
        heights = np.where(cells[row], heights + 1, 0)
        best = max(best, _largest_under(heights.tolist(), row))
    _, top, left, tall, wide = (value * block for value in best)
    if min(tall, wide) < MIN_SIDE:
        raise InputError(
            f"infrared and visible overlap in {wide}x{tall} pixels, and {MIN_SIDE} a side are needed: "
            "check that the calibration is of these cameras"
        )
    return Box(top, left, tall, wide)


def _largest_under(heights: list[int], row: int) -> tuple[int, int, int, int, int]:
    """The largest rectangle that ends in `row`, from how far up each column reaches: area, top, left, height, width."""
    best = (0, 0, 0, 0, 0)
    rising: list[tuple[int, int]] = []  # where a bar of that height could start
    for column, height in enumerate([*heights, 0]):
        start = column
        while rising and rising[-1][1] >= height:
            start, tall = rising.pop()
            wide = column - start
            if tall * wide > best[0]:
                best = (tall * wide, row + 1 - tall, start, tall, wide)
        rising.append((start, height))
    return best
