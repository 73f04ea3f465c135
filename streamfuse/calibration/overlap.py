"""The overlap of infrared and visible: coordinate map, coverage mask, blending weights and crop rectangle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import LENS_TOLERANCE_PX, Lens, Matrix3, Points, Size, inverse, project
from streamfuse.calibration.model import Calibration
from streamfuse.color import Chroma, Plane
from streamfuse.errors import InputError
from streamfuse.network.config import MIN_SIDE

Mask: TypeAlias = npt.NDArray[np.bool_]
"""(H, W) True where infrared covers the visible picture."""

FILL_PX = 8
"""Width of the band inside the covered area over which the network's infrared input is blended from visible luma, which
fills the outside, to infrared.  In that band the network draws a rim (+2 to -23 grey levels on a street where its own
step is -18), so the result shows the visible picture there."""
FEATHER_PX = 40
"""Distance from the edge of the covered area at which the result is entirely the fused picture; a step of 18 grey
levels over 16 pixels is still visible as a line."""
MAX_CELLS = 300_000
"""Larger masks are searched for the crop rectangle in blocks, which may cost a few pixels a side."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the visible picture, px; all four values are even, so chroma of any subsampling can be cropped."""

    top: int
    left: int
    height: int
    width: int

    @property
    def shape(self) -> Size:
        """(height, width)."""
        return self.height, self.width

    def cut(self, plane: npt.NDArray[np.generic]) -> Plane:
        """View of a plane (H, W) inside the rectangle."""
        cropped = plane[self.top : self.top + self.height, self.left : self.left + self.width]
        return cast(Plane, cropped)

    def cut_chroma(self, chroma: Chroma, shape: tuple[int, ...]) -> Chroma:
        """Crop chroma of 4:2:0, 4:2:2, 4:4:0 or 4:4:4; `shape`: (H, W) of the luma that it belongs to."""
        sy, sx = (1 if side == full else 2 for side, full in zip(chroma.u.shape, shape, strict=True))
        box = Box(self.top // sy, self.left // sx, self.height // sy, self.width // sx)
        return Chroma(box.cut(chroma.u), box.cut(chroma.v), chroma.full_range, chroma.matrix)


def infrared_coordinates(calibration: Calibration) -> tuple[Points, Mask]:
    """Infrared coordinates of every visible pixel, (H * W, 2) px, and the coverage mask, (H, W).

    A calibration with parallax is taken at its own distance.
    """
    calibration = calibration.at()
    height, width = calibration.vis_size
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    visible: Points = np.stack((x.ravel(), y.ravel()), axis=1)
    flat = visible
    covered = np.ones(len(visible), bool)
    if calibration.vis_lens is not None:
        flat = calibration.vis_lens.undistort(visible)
        covered &= seen_by(calibration.vis_lens, flat, visible)
    coordinates = from_visible(calibration.homography, flat)
    if calibration.ir_lens is not None:
        coordinates, unbent = bend(calibration.ir_lens, coordinates)
        covered &= unbent
    last = np.array(calibration.ir_size[::-1]) - 0.5  # the far edge of the last pixel
    with np.errstate(invalid="ignore"):
        covered &= np.all((coordinates >= -0.5 - 1e-6) & (coordinates <= last + 1e-6), axis=1)
    return np.where(np.isfinite(coordinates), coordinates, -1e4), covered.reshape(height, width)


def from_visible(homography: Matrix3, points: Points) -> Points:
    """Map points back through the homography; NaN for points behind the infrared camera."""
    coordinates = project(inverse(homography), points)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(coordinates) < 1e6, coordinates, np.nan)


def bend(lens: Lens, coordinates: Points) -> tuple[Points, npt.NDArray[np.bool_]]:
    """Distort points; also return which of them the lens can see."""
    valid = np.asarray(np.isfinite(coordinates).all(axis=1))
    bent = lens.distort(np.where(valid[:, None], coordinates, 0.0))
    valid &= np.isfinite(bent).all(axis=1) & (np.abs(bent) < 1e6).all(axis=1)
    bent = np.where(valid[:, None], bent, 0.0)
    return np.where(valid[:, None], bent, np.nan), valid & _near(lens.undistort(bent), coordinates)


def seen_by(lens: Lens, flat: Points, points: Points) -> npt.NDArray[np.bool_]:
    """Return which points, (n, 2) px, the lens can see; `flat`: the same, undistorted."""
    return _near(lens.distort(flat), points)


def _near(one: Points, other: Points) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(one - other).max(axis=1) < LENS_TOLERANCE_PX)


def feather(mask: Mask, begin_px: int, end_px: int) -> npt.NDArray[np.float32]:
    """Blending weight, (H, W): 0 outside the mask and up to `begin_px` inside it, 1 from `end_px`, smooth between.

    The border of the visible picture does not count as an edge of the mask.
    """
    if mask.all():
        return np.ones(mask.shape, np.float32)
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    t = np.clip((inside.astype(np.float32) - 1 - begin_px) / (end_px - begin_px), 0, 1)
    return cast("npt.NDArray[np.float32]", t * t * (3 - 2 * t))


def largest_box(mask: Mask) -> Box:
    """Largest upright rectangle of covered pixels, by area; raises InputError where it is too small to fuse."""
    height, width = mask.shape
    block = 2
    while (height // block) * (width // block) > MAX_CELLS:
        block += 2
    rows, columns = height // block, width // block
    blocks = mask[: rows * block, : columns * block].reshape(rows, block, columns, block)
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
            "check that the calibration belongs to these cameras"
        )
    return Box(top, left, tall, wide)


def _largest_under(heights: list[int], row: int) -> tuple[int, int, int, int, int]:
    """Largest rectangle that ends in `row`, as (area, top, left, height, width).

    `heights`: how many covered cells each column has from `row` upwards.
    """
    best = (0, 0, 0, 0, 0)
    rising: list[tuple[int, int]] = []  # (leftmost column, height) of the open rectangles, heights rising
    for column, height in enumerate([*heights, 0]):
        start = column
        while rising and rising[-1][1] >= height:
            start, tall = rising.pop()
            wide = column - start
            if tall * wide > best[0]:
                best = (tall * wide, row + 1 - tall, start, tall, wide)
        rising.append((start, height))
    return best
