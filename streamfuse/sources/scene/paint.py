"""Drawing for the demo scene: one coordinate system for every picture size, and polygons with light and heat.

The scene is laid out once, in a design space of 640 x 480 units (x right, y down).  A `View` maps it to
pixels so that all of it fits; a picture of another shape simply sees more street or more sky.  A
`Painter` draws each thing once with what both cameras need of it: how it reflects light, what light it
gives off, how warm it is, and whether it hides what passes behind.  So the two streams cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Bgr: TypeAlias = tuple[int, int, int]
Points: TypeAlias = Sequence[tuple[float, float]]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[np.float32]
Reals: TypeAlias = npt.NDArray[np.floating]
"""Arguments of either float width; results are `Floats`."""

DESIGN_WIDTH, DESIGN_HEIGHT = 640.0, 480.0
HORIZON = 215.0
"""Horizon, design y: above the heads, as the camera is."""
CAMERA_HEIGHT_M = 2.7
FACADE_Y = 300.0
"""Foot of the houses, where the far pavement begins, design y."""

BLACK: Bgr = (0, 0, 0)
SHIFT = 6
"""cv2 takes coordinates as integers with so many fractional bits: 1/64 pixel keeps slow motion smooth."""
SUPERSAMPLE_UP_TO = 2_500_000
"""Larger pictures are drawn at 1x: their anti-aliased edges are fine and 2x would need gigabytes."""


BEYOND = 48.0
"""Design units beyond the picture's edges to which the ground is painted: a camera `LARGEST_BASELINE_M` to the side
sees the nearest ground that much further."""
LARGEST_BASELINE_M = 0.5


def units_per_metre(ground_y: float) -> float:
    """Return the height of an upright metre on the ground at design y `ground_y`, in units; 0 above the horizon."""
    return max(ground_y - HORIZON, 0.0) / CAMERA_HEIGHT_M


def focal_units(fov_deg: float) -> float:
    """Return the focal length in design units of cameras that see the design's width under `fov_deg` degrees."""
    return DESIGN_WIDTH / 2 / math.tan(math.radians(fov_deg) / 2)


def distance_m(ground_y: Reals, fov_deg: float) -> Reals:
    """Return the distances of things that stand on the ground at these design y, m; infinity from the horizon up.

    The camera stands `CAMERA_HEIGHT_M` above the ground and looks level, so ground at distance d appears
    focal length x height / d below the horizon.
    """
    below = np.maximum(np.asarray(ground_y, np.float64) - HORIZON, 0)
    with np.errstate(divide="ignore"):
        return focal_units(fov_deg) * CAMERA_HEIGHT_M / below


_LIES = -1.0
"""Mark of pixels of the ground itself, in place of where they stand."""


@dataclass(frozen=True, slots=True)
class View:
    """Maps design units to pixels of a picture of `height` x `width`."""

    height: int
    width: int
    baseline_m: float = 0.0
    """Position of the camera to the right of the one for which the scene is laid out, m."""

    def seen_x(self, x: float, ground_y: float) -> float:
        """Design x at which this camera sees what is at `x` and stands on the ground at design y `ground_y`."""
        return x - self.baseline_m * units_per_metre(ground_y)

    @property
    def scale(self) -> float:
        """Pixels per design unit."""
        return min(self.width / DESIGN_WIDTH, self.height / DESIGN_HEIGHT)

    @property
    def left(self) -> float:
        """Design x of the picture's left edge; 0 or less."""
        return (DESIGN_WIDTH - self.width / self.scale) / 2

    @property
    def right(self) -> float:
        return self.left + self.width / self.scale

    @property
    def top(self) -> float:
        """Design y of the top edge; 0 or less.  Most of the spare height becomes sky, not asphalt."""
        return 0.7 * (DESIGN_HEIGHT - self.height / self.scale)

    @property
    def bottom(self) -> float:
        return self.top + self.height / self.scale

    def pixels(self, x: float, y: float) -> tuple[float, float]:
        """Design position to pixel position, the picture's corner at (0, 0)."""
        return (x - self.left) * self.scale, (y - self.top) * self.scale

    def grid(self) -> tuple[Floats, Floats]:
        """Design x (1, W) and y (H, 1) of the pixel centres."""
        xs = self.left + (np.arange(self.width, dtype=np.float32) + 0.5) / self.scale
        ys = self.top + (np.arange(self.height, dtype=np.float32) + 0.5) / self.scale
        return xs.astype(np.float32)[None, :], ys.astype(np.float32)[:, None]


def rounded(points: Points, passes: int = 2) -> list[tuple[float, float]]:
    """Round a closed outline by cutting its corners `passes` times (Chaikin 1974)."""
    outline = np.asarray(points, np.float64)
    for _ in range(passes):
        following = np.roll(outline, -1, axis=0)
        cut = np.stack([0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following], axis=1)
        outline = cut.reshape(-1, 2)
    return [(float(x), float(y)) for x, y in outline]


def ellipse(x: float, y: float, rx: float, ry: float) -> list[tuple[float, float]]:
    turn = np.linspace(0.0, 2 * np.pi, 40, endpoint=False)
    return [(x + rx * float(np.cos(t)), y + ry * float(np.sin(t))) for t in turn]


def fractal_noise(rng: np.random.Generator, size: int, roughness: float) -> Floats:
    """Cloudy noise with the spectrum 1/f^roughness, (size, size), mean 0, deviation 1; it tiles."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf  # no constant part
    noise = np.fft.irfft2(spectrum / frequency**roughness, s=(size, size))
    return np.asarray(noise / noise.std(), np.float32)


class Painter:
    """Draws polygons given in design units.  Later ones cover earlier ones, in every layer."""

    def __init__(self, view: View, depth: bool = False) -> None:
        """`depth`: keep for every pixel where its thing stands, for `grounds`."""
        self.view = view
        self.stand: float | None = FACADE_Y
        """Design y of the ground where the things stand that are drawn next; None: they lie on the ground."""
        self._factor = 2 if view.height * view.width <= SUPERSAMPLE_UP_TO else 1
        height, width = view.height * self._factor, view.width * self._factor
        self._albedo = np.zeros((height, width, 3), np.uint8)
        self._glow = np.zeros((height, width, 3), np.uint8)
        self._heat = np.zeros((height, width), np.uint8)
        self._masks = np.zeros((height, width, 3), np.uint8)
        self._stands = np.full((height, width), HORIZON, np.float32) if depth else None

    def polygon(
        self,
        points: Points,
        albedo: Bgr,
        heat: int | None,
        glow: Bgr = BLACK,
        near: bool = False,
        wet: int = 0,
    ) -> None:
        """Fill a polygon.

        `albedo` and `glow` are BGR 0..255, reflected and emitted light; `heat` is infrared luma, None to
        leave the temperature as it is (paint on an even surface); `near` things stand before the far
        pavement and hide who walks there; `wet` 0..255 is how much the surface mirrors.
        """
        scale = self.view.scale * self._factor
        corner = np.array([self.view.left, self.view.top])
        # A pixel's centre is at n + 0.5 in the picture and at n for cv2.
        seen = [(self.view.seen_x(x, y if self.stand is None else self.stand), y) for x, y in points]
        exact = (np.asarray(seen, np.float64) - corner) * scale - 0.5
        fixed = np.rint(exact * (1 << SHIFT)).astype(np.int32)
        layers: list[tuple[Bytes, tuple[int, ...]]] = [
            (self._albedo, albedo),
            (self._glow, glow),
            (self._masks, (255 if near else 0, wet, 255)),
        ]
        if heat is not None:
            layers.append((self._heat, (heat,)))
        for canvas, value in layers:
            cv2.fillPoly(canvas, [fixed], value, cv2.LINE_AA, SHIFT)
        if self._stands is not None:
            cv2.fillPoly(self._stands, [fixed], (_LIES if self.stand is None else self.stand,), cv2.LINE_8, SHIFT)

    def rect(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        albedo: Bgr,
        heat: int | None,
        glow: Bgr = BLACK,
        near: bool = False,
        wet: int = 0,
    ) -> None:
        if x1 > self.view.left - BEYOND and x0 < self.view.right + BEYOND:  # most of a wide street is out of view
            self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], albedo, heat, glow, near, wet)

    def lettering(self, text: str, x: float, y: float, height: float, weight: float, glow: Bgr) -> float:
        """Write glowing text and return its width in units; the temperature does not change.

        `x`, `y`: top left corner.  `height`: height of capitals, units.  `weight`: stroke width over `height`.
        """
        # Hershey strokes, drawn very large with round ends and reduced, look like a signwriter's sans.
        capital = 210
        stroke = round(weight * capital)
        (text_width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 10.0, stroke)
        stencil = np.zeros((capital + 2 * stroke, text_width + 2 * stroke), np.uint8)
        cv2.putText(
            stencil,
            text,
            (stroke, capital + stroke),
            cv2.FONT_HERSHEY_SIMPLEX,
            10.0,
            255,
            stroke,
            cv2.LINE_AA,
        )
        used = np.flatnonzero(stencil.any(axis=0))
        stencil = stencil[:, used[0] : used[-1] + 1]
        width = height * stencil.shape[1] / stencil.shape[0]
        self._stamp(stencil, x, y, width, height, glow)
        return width

    def _stamp(self, stencil: Bytes, x: float, y: float, width: float, height: float, glow: Bgr) -> None:
        """Blend in `glow` through the stencil, which is scaled to the given rectangle."""
        scale = self.view.scale * self._factor
        left, top = (x - self.view.left) * scale, (y - self.view.top) * scale
        c0, r0 = max(int(left), 0), max(int(top), 0)
        canvas = self._glow[r0 : int(top + height * scale) + 2, c0 : int(left + width * scale) + 2]
        if not canvas.size:
            return
        # warpAffine does not average: first reduce coarsely, then blur what one target pixel will span.
        coarse = max(int(stencil.shape[1] / (width * scale) / 2), 1)
        reduced = (max(stencil.shape[1] // coarse, 1), max(stencil.shape[0] // coarse, 1))
        stencil = cv2.resize(stencil, reduced, interpolation=cv2.INTER_AREA).astype(np.uint8)
        shrink = stencil.shape[1] / (width * scale)
        if shrink > 1:
            stencil = cv2.GaussianBlur(stencil, (0, 0), 0.45 * shrink).astype(np.uint8)
        matrix = np.array([[shrink, 0, (c0 - left + 0.5) * shrink], [0, shrink, (r0 - top + 0.5) * shrink]])
        size = (canvas.shape[1], canvas.shape[0])
        cover = cv2.warpAffine(stencil, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        alpha = cover.astype(np.float32)[..., None] / 255
        canvas[...] = np.rint(canvas * (1 - alpha) + np.asarray(glow, np.float32) * alpha)

    def grounds(self) -> Floats:
        """Return, for every pixel, the design y of the ground where its thing stands, (H, W); the horizon for sky.

        Raises AssertionError unless the painter keeps the depth.
        """
        assert self._stands is not None
        size = (self.view.width, self.view.height)
        stands = cv2.resize(self._stands, size, interpolation=cv2.INTER_NEAREST).astype(np.float32)
        return np.where(stands == _LIES, self.view.grid()[1], stands)

    def layers(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return the layers at picture size, float32: albedo (H, W, 3) 0..1, glow (H, W, 3) 0..1, heat (H, W) 0..255,
        masks (H, W, 3) 0..1 of near, wet and solid objects."""
        size = (self.view.width, self.view.height)

        def reduced(layer: Bytes, unit: float) -> Floats:
            return cv2.resize(layer, size, interpolation=cv2.INTER_AREA).astype(np.float32) * np.float32(1 / unit)

        return reduced(self._albedo, 255), reduced(self._glow, 255), reduced(self._heat, 1), reduced(self._masks, 255)
