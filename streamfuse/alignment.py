"""Alignment of infrared to visible pixels.

With a calibration, infrared is warped to the visible picture, which stays unchanged; outside the area that infrared
covers, the result is the visible picture.  Without a calibration, the two pictures must be registered; if their sizes
differ, infrared is resized to the visible picture.
"""

from __future__ import annotations

import logging
import math
from functools import partial

from streamfuse.calibration.geometry import Size, same_aspect, size_of
from streamfuse.calibration.grid import UNMOVED
from streamfuse.calibration.model import Calibration
from streamfuse.calibration.similarity import Similarity
from streamfuse.color import Chroma, Plane
from streamfuse.covered import Covered
from streamfuse.errors import UsageError
from streamfuse.layers import Layers, Things
from streamfuse.temperature import TemperaturePlane
from streamfuse.warp import Warp, interpolate, resize, resize_values

log = logging.getLogger("streamfuse")

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
        self._covered: Covered | None = None
        self._warp: Warp | None = None
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
        return MAX_MOVE_PX / max(self._covered_of(self.calibration, vis_shape).shift_px_m, 1e-6)

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
        covered = self._covered_of(self.calibration, vis.shape)
        self._move(covered)
        vis = self.cut(vis)
        warp = self._warp_of(ir.shape, covered)
        warped = warp.apply(ir)
        if things is not None and things.things:
            Layers(things, warp).lay(warped, warp.resize(ir))
        return covered.fill(warped, vis), vis

    def _warp_of(self, shape: tuple[int, ...], covered: Covered) -> Warp:
        """Return the warp of planes of `shape` for the distance and the correction of the last picture."""
        assert self.calibration is not None
        if self._warp is None or not self._warp.fits(shape, covered):
            self._warp = Warp(self.calibration, size_of(shape), covered)
        self._warp.go(self._inverse_m, self._moved)
        return self._warp

    def _move(self, covered: Covered) -> None:
        """Take the distance of the next picture, a step from that of the last one."""
        wanted = self._wanted
        left_px = MAX_MOVE_PX
        if self._moved != self._moved_wanted:
            step_px = MAX_DRIFT_PX * covered.vis_size[1] / 640
            self._moved = self._moved.toward(self._moved_wanted, step_px, covered.vis_size)
            left_px = max(left_px - CORNER * step_px, 0.0)
        jumped, self._jumped = self._jumped, False
        covered.widen(wanted, self._moved, 1 if jumped else FADE_FRAMES)
        most = left_px / max(covered.shift_px_m, 1e-6)
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
                values if values.shape == vis_shape else interpolate(values, partial(resize_values, shape=vis_shape))
            )
            return TemperaturePlane(found, plane.scale)
        covered = self._covered_of(self.calibration, vis_shape)
        warp = self._warp_of(values.shape, covered)
        warped = interpolate(values, warp.apply_values)
        if things is not None and things.things:
            Layers(things, warp).lay_values(warped, values)
        return TemperaturePlane(covered.keep_covered(warped), plane.scale)

    def cut(self, vis: Plane) -> Plane:
        """Crop a visible picture as `align` does."""
        return vis if self.calibration is None else self._covered_of(self.calibration, vis.shape).box.cut(vis)

    def finish(self, fused: Plane, vis: Plane) -> Plane:
        """Replace the fused picture by `vis`, as `align` returned it, outside the area that infrared covers, softly."""
        return fused if self._covered is None else self._covered.blend(fused, vis)

    def output_shape(self, height: int, width: int) -> Size:
        """(height, width) of the result for visible pictures of this size."""
        if self.calibration is None:
            return height, width
        return self._covered_of(self.calibration, (height, width)).box.shape

    def cut_chroma(self, chroma: Chroma | None, height: int, width: int) -> Chroma | None:
        """Crop the chroma of a visible frame of (height, width) as `align` crops its luma."""
        if chroma is None or self.calibration is None or not self._crop:
            return chroma
        return self._covered_of(self.calibration, (height, width)).box.cut_chroma(chroma, (height, width))

    def _covered_of(self, calibration: Calibration, shape: tuple[int, ...]) -> Covered:
        if self._covered is None or self._covered.vis_size != shape:
            self._covered = Covered(calibration, size_of(shape), self._crop, self._inverse_m)
        return self._covered

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
        return resize(ir, shape)


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
