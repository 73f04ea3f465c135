"""Alignment of infrared to visible pixels.

With a calibration, infrared is warped to the visible picture, which stays unchanged; outside the area that infrared
covers, the result is the visible picture.  Without a calibration, the two pictures must be registered; if their sizes
differ, infrared is resized to the visible picture.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse import layers
from streamfuse.calibration.geometry import Points, Size, resize_matrix, same_aspect, size_of
from streamfuse.calibration.grid import UNMOVED, CoordinateGrid, Map
from streamfuse.calibration.model import Calibration
from streamfuse.calibration.overlap import FEATHER_PX, FILL_PX, Box, Mask, feather, largest_box
from streamfuse.calibration.parallax import NEAREST_M
from streamfuse.calibration.similarity import Similarity
from streamfuse.color import Chroma, Plane
from streamfuse.errors import InputError, UsageError
from streamfuse.layers import Layers, Things
from streamfuse.network.config import MIN_SIDE
from streamfuse.temperature import NONE, OVER, Counts, TemperaturePlane

log = logging.getLogger("streamfuse")

Weights = npt.NDArray[np.float32]
"""(H, W) blending weight, 0..1."""

MAX_MOVE_PX = 0.5
"""Largest movement of the warp from one frame to the next, visible pixels: slower than the eye notices, and fast enough
to come from far to 3 m in a second with cameras 6 cm apart."""
MAX_DRIFT_PX = 0.1
"""Largest movement of the warp from one frame to the next by a correction, px at a width of 640."""
FADE_FRAMES = 30
"""Frames over which the border changes to that of a larger range of distances or another drift: at once it is seen as a
step of the picture's brightness, because a border that enters the picture is as wide as the transition."""
CORNER = 1.75
"""How much more than its root mean square over the picture a turn or scale displaces a corner."""
Values: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""(h, w), values of a scale."""

MAX_STEP = 1.25
"""Infrared pixels per visible pixel above which infrared is averaged before it is sampled."""


class Aligner:
    """Aligns infrared to visible pictures.

    The warp is that of a distance, which any thread may change at any time (`set_distance`); then it moves there
    smoothly, frame by frame.  Without parallax in the calibration there is one warp for all distances.
    """

    def __init__(
        self, calibration: Calibration | None = None, crop: bool = False, distance_m: float | None = None
    ) -> None:
        """`crop`: crop both to the largest rectangle that both cameras see.

        `distance_m`: distance of what must coincide, m, infinity for far; None: that of the calibration.  Raises
        UsageError for a crop without a calibration and for a distance without parallax.
        """
        if crop and calibration is None:
            raise UsageError("cropping to the overlap needs a calibration: give one, or do not crop")
        self.calibration = calibration
        self._crop = crop
        self._announced: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._overlap: _Overlap | None = None
        self._warp: _Warp | None = None
        self._jumped = False
        self._wanted = self._inverse_m = 0.0
        """1 / distance that is asked for, and that of the last warp, 1/m."""
        if calibration is not None and calibration.parallax is not None:
            self._wanted = self._inverse_m = 1 / (calibration.distance_m or math.inf)
        self._moved_wanted = self._moved = UNMOVED
        if distance_m is not None:
            self.set_distance(distance_m, jump=True)

    def calibrate(self, calibration: Calibration) -> None:
        """Align by a calibration without parallax from now on; not to be called while there is another one."""
        assert self.calibration is None
        assert calibration.parallax is None
        self.calibration = calibration

    @property
    def distance_m(self) -> float | None:
        """Distance for which the last picture was warped, m; None without parallax."""
        if self.calibration is None or self.calibration.parallax is None:
            return None
        return 1 / self._inverse_m if self._inverse_m else math.inf

    def set_distance(self, distance_m: float, jump: bool = False) -> None:
        """Warp for another distance, m, infinity for far.  Any thread may call it.

        The warp moves there by at most `MAX_MOVE_PX` a frame; with `jump` at once.  Raises UsageError for a distance
        that is not above 0, and where the calibration has no parallax.
        """
        check_distance(self.calibration, distance_m)
        if jump:
            self._inverse_m = 1 / distance_m
            self._jumped = True
        self._wanted = 1 / distance_m

    def step_inverse_m(self, vis_shape: tuple[int, ...]) -> float:
        """Return by how much 1 / distance may change from one picture to the next, 1/m, for pictures (H, W)."""
        assert self.calibration is not None
        return MAX_MOVE_PX / max(self._overlap_of(self.calibration, vis_shape).shift_px_m, 1e-6)

    @property
    def moved(self) -> Similarity:
        """Correction with which the last picture was warped."""
        return self._moved

    def set_correction(self, moved: Similarity) -> None:
        """Displace infrared by a drift of the cameras since the calibration.  Any thread may call it.

        The warp goes there by at most `MAX_DRIFT_PX` a frame.
        """
        self._moved_wanted = moved

    def align(self, ir: Plane, vis: Plane, things: Things | None = None) -> tuple[Plane, Plane]:
        """Align luma planes (h, w) and (H, W) uint8; both results have the shape (H, W), or that of the crop.

        `things`: those of `ir` that are warped for distances of their own, with parallax only.  Raises InputError where
        the aspect ratios are not those of the calibration, or the overlap is too small.
        """
        if self.calibration is None:
            return self.apply(ir, vis.shape), vis
        overlap = self._overlap_of(self.calibration, vis.shape)
        self._move(overlap)
        vis = self.cut(vis)
        warp = self._warp_of(ir.shape, overlap)
        warped = warp.apply(ir)
        if things is not None and things.things:
            Layers(things, warp).lay(warped, warp.resize(ir))
        return overlap.fill(warped, vis), vis

    def _warp_of(self, shape: tuple[int, ...], overlap: _Overlap) -> _Warp:
        """Return the warp of planes of `shape` for the distance and the correction of the last picture."""
        assert self.calibration is not None
        if self._warp is None or not self._warp.fits(shape, overlap):
            self._warp = _Warp(self.calibration, size_of(shape), overlap)
        self._warp.go(self._inverse_m, self._moved)
        return self._warp

    def _move(self, overlap: _Overlap) -> None:
        """Take the distance of the next picture, a step from that of the last one."""
        wanted = self._wanted
        left_px = MAX_MOVE_PX
        if self._moved != self._moved_wanted:
            step_px = MAX_DRIFT_PX * overlap.vis_size[1] / 640
            self._moved = self._moved.toward(self._moved_wanted, step_px, overlap.vis_size)
            left_px = max(left_px - CORNER * step_px, 0.0)
        jumped, self._jumped = self._jumped, False
        overlap.widen(wanted, self._moved, 1 if jumped else FADE_FRAMES)
        most = left_px / max(overlap.shift_px_m, 1e-6)
        self._inverse_m = min(max(wanted, self._inverse_m - most), self._inverse_m + most)

    def align_temperature(
        self, plane: TemperaturePlane, vis_shape: tuple[int, ...], things: Things | None = None
    ) -> TemperaturePlane:
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
        warp = self._warp_of(values.shape, overlap)
        warped = interpolate(values, warp.apply_values)
        if things is not None and things.things:
            Layers(things, warp).lay_values(warped, values)
        return TemperaturePlane(overlap.keep_covered(warped), plane.scale)

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
            self._overlap = _Overlap(calibration, size_of(shape), self._crop, self._inverse_m)
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


def parse_distance(value: float | str) -> float:
    """Return a distance in metres, infinity for "far"; raises UsageError for anything else."""
    try:
        distance_m = math.inf if value == "far" else float(value)
    except ValueError:
        distance_m = math.nan
    if not distance_m > 0 or (distance_m == math.inf and isinstance(value, str) and value != "far"):
        raise UsageError(f"the distance {value!r} is not possible: give metres above 0, such as 8, or far")
    return distance_m


AUTO = ("auto", "auto-plane")
"""Distances that are looked for all the time: that of the scene and of each warm thing, or of the scene only."""


def check_distance(calibration: Calibration | None, distance_m: float) -> None:
    """Raise UsageError unless a warp for this distance can be computed."""
    parse_distance(distance_m)
    need_parallax(calibration)


def need_parallax(calibration: Calibration | None) -> None:
    """Raise UsageError unless there is a calibration with parallax."""
    if calibration is None:
        raise UsageError("a distance needs a calibration: give one that has the parallax, as calib/README.md says")
    if calibration.parallax is None:
        raise UsageError(
            "this calibration is for one distance only: calibrate with boards or points at two distances, or with "
            "--baseline-m and --fov-deg, or leave the distance out"
        )


class _Overlap:
    """The coordinates, the crop and the blending weights for visible pictures of one size.

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


class _Warp:
    """Warps infrared pictures of one size; the maps are kept for the last distance.

    The maps are of floating point: OpenCV's fixed-point maps cost more to make than they save (0.2 ms at 640x480), and
    with cubic interpolation they save nothing.
    """

    def __init__(self, calibration: Calibration, ir_size: Size, overlap: _Overlap) -> None:
        calibration.for_sizes(ir_size, calibration.vis_size)  # raises InputError for another aspect ratio
        step = _pixels_per_step(*overlap.grid.coordinates(0.0)) * ir_size[1] / calibration.ir_size[1]
        shrink = 1 / step if step > MAX_STEP else 1.0
        self._resized = max(round(ir_size[0] * shrink), 2), max(round(ir_size[1] * shrink), 2)
        self._scale = resize_matrix(calibration.ir_size, self._resized)
        self._ir_size, self._overlap = ir_size, overlap
        self._calibrated_size = calibration.ir_size
        self._place: tuple[float, Similarity] | None = None
        self._x: cv2.typing.MatLike
        self._y: cv2.typing.MatLike

    def fits(self, shape: tuple[int, ...], overlap: _Overlap) -> bool:
        return self._ir_size == shape and self._overlap is overlap

    def go(self, inverse_m: float, moved: Similarity) -> None:
        """Compute the maps for a distance and a correction, unless they are those of the last one."""
        if self._place == (inverse_m, moved):
            return
        x, y = self._overlap.grid.coordinates(inverse_m, moved, self._scale)
        self._x, self._y = self._overlap.box.cut(x), self._overlap.box.cut(y)
        self._place = inverse_m, moved

    @property
    def size(self) -> Size:
        """(h, w) to which infrared is resized before it is warped."""
        return self._resized

    def resize(self, ir: Plane) -> Plane:
        """Resize infrared to the size from which it is warped."""
        return ir if ir.shape == self._resized else _resize(ir, self._resized)

    def box_of(self, corners: Points, inverse_m: float | None) -> tuple[layers.Box, Points]:
        """Place a rectangle of infrared, as `layers.Placing` says."""
        assert self._place is not None
        now_m, moved = self._place
        size = np.array(self._calibrated_size[::-1])
        placed = self._overlap.grid.place(corners * size - 0.5, now_m if inverse_m is None else inverse_m, moved)
        box = self._overlap.box
        placed = np.nan_to_num(placed - (box.left, box.top), nan=-1.0).clip(-1e6, 1e6)
        (left, top), (right, bottom) = np.floor(placed.min(axis=0)), np.ceil(placed.max(axis=0)) + 1
        rows = slice(max(int(top), 0), min(int(bottom), box.height))
        return (rows, slice(max(int(left), 0), min(int(right), box.width))), placed

    def maps_of(self, box: layers.Box, inverse_m: float | None) -> tuple[Map, Map]:
        """Map a box to infrared, as `layers.Placing` says."""
        if inverse_m is None:
            return cast(Map, self._x[box]), cast(Map, self._y[box])
        assert self._place is not None
        around, (rows, columns) = self._overlap.box, box
        patch = Box(
            around.top + rows.start, around.left + columns.start, rows.stop - rows.start, columns.stop - columns.start
        )
        x, y = self._overlap.grid.patch(patch, inverse_m, self._place[1])
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
            values = _resize_values(values, method, self._resized)
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


def _resize_values(values: Values, method: int, shape: tuple[int, ...]) -> Values:
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
