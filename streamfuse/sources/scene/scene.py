"""The demo scene: a street at night, seen by an infrared and by a visible camera at the same spot.

The sign is legible only in the visible picture; the people, the car's engine and everything behind the smoke appear
only in the infrared picture.  The fused picture must show all of them.
"""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.sources.scene.actors import Walker, draw
from streamfuse.sources.scene.backdrop import Backdrop, soft
from streamfuse.sources.scene.paint import Bytes, Floats, View
from streamfuse.sources.scene.smoke import Smoke
from streamfuse.sources.scene.street import paint_street

WALKERS = (
    Walker(ground_y=311, height_m=1.78, speed=1.35, start=0.10, coat=True, clothes_heat=182),
    Walker(ground_y=319, height_m=1.66, speed=-1.10, start=0.56, hat=True, clothes_heat=170),
    Walker(ground_y=319, height_m=1.18, speed=-1.10, start=0.53, backpack=True, clothes_heat=188),
    Walker(ground_y=444, height_m=1.72, speed=-1.25, start=0.38, coat=True, clothes_heat=172),
    Walker(ground_y=466, height_m=1.82, speed=1.45, start=0.86, backpack=True, clothes_heat=184),
)
"""Walkers, the farthest first."""

NOISE_MARGIN = 64
"""Margin of the noise picture, pixels: each frame takes a window at a random position of it."""
IR_NOISE, VIS_NOISE = 1.7, 2.0
"""Standard deviation of the sensor noise, luma steps."""
COLUMN_NOISE = 0.5
"""Standard deviation of the fixed column noise of the infrared detector, luma steps."""
SMOKE_IR_OPACITY, SMOKE_IR_HEAT = 0.10, 92.0
_SMOKE, _IR, _VIS = 10, 11, 12
"""Indices of the random streams; each use has its own, so the channels are independent."""


class Scene:
    """Draws either camera's picture of any moment; the same arguments always give the same bytes.

    `height` and `width` in pixels, 32 or more.  What stands still is drawn with the first picture and
    kept for each camera that is asked for.  Use it from one thread.
    """

    def __init__(self, height: int, width: int, seed: int = 0, baseline_m: float = 0.0) -> None:
        """`baseline_m`: how far the infrared camera is to the right of the visible one, m."""
        self._view = View(height, width)
        self._ir_view = View(height, width, baseline_m)
        self._seed = seed
        self._smoke = Smoke(self._view, self._rng(_SMOKE))
        self._ir_smoke = Smoke(self._ir_view, self._rng(_SMOKE)) if baseline_m else self._smoke

    def infrared(self, time_s: float, index: int) -> Bytes:
        """White-hot luma, (H, W) uint8 full range, at `time_s` seconds; `index` (0..) picks the noise."""
        backdrop, near, noise = self._infrared_layers
        picture = backdrop.copy()
        for walker in WALKERS:
            if (figure := draw(walker, self._ir_view, time_s)) is None:
                continue
            cutout, rows, columns = figure
            if not walker.near:
                cutout *= 1 - near[rows, columns, None]
            cutout = soft(cutout, 0.75 * self._view.scale)
            cover = cutout[..., 1] / 255
            # Limbs turn away from the camera at their edges and look cooler there.
            depth = soft(cover, 0.030 * walker.body_pixels(self._view))
            patch = picture[rows, columns]
            patch *= 1 - cover
            patch += cutout[..., 0] * (0.68 + 0.36 * depth)
        patch = picture[self._ir_smoke.rows, self._ir_smoke.columns]
        patch += (SMOKE_IR_HEAT - patch) * (SMOKE_IR_OPACITY * self._ir_smoke.opacity(time_s))
        return self._noisy(_bytes(picture), noise, _IR, index)

    def visible(self, time_s: float, index: int) -> Bytes:
        """Colour, (H, W, 3) uint8 BGR, at `time_s` seconds; `index` (0..) picks the noise."""
        backdrop, cloth, near, fog, noise = self._visible_layers
        picture = backdrop.copy()
        for walker in WALKERS:
            if (figure := draw(walker, self._view, time_s)) is None:
                continue
            cutout, rows, columns = figure
            if not walker.near:
                cutout *= 1 - near[rows, columns, None]
            patch = picture[rows, columns]
            shade = cloth[rows, columns] * (cutout[..., 2:3] * (1 / 255))
            patch[...] = _bytes(patch * (1 - cutout[..., 1:2] * (1 / 255)) + shade)
        opacity = self._smoke.opacity(time_s)
        patch = picture[self._smoke.rows, self._smoke.columns]
        patch[...] = cv2.blendLinear(np.ascontiguousarray(patch), fog, 1 - opacity, opacity)
        return self._noisy(picture, noise, _VIS, index)

    def grounds(self, time_s: float) -> Floats:
        """For every pixel of the visible picture, the design y of the ground where its thing stands, (H, W) float32.

        The horizon for the sky.  `paint.distance_m` makes distances of it.  Smoke is looked through.
        """
        grounds = paint_street(self._view, np.random.default_rng([self._seed, 0]), depth=True).grounds()
        for walker in WALKERS:
            if (figure := draw(walker, self._view, time_s)) is not None:
                cutout, rows, columns = figure
                cover = cutout[..., 1] / 255
                if not walker.near:
                    cover = cover * (1 - self._backdrop.near[rows, columns])
                patch = grounds[rows, columns]
                patch[cover > 0.5] = walker.ground_y
        return grounds

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *stream])

    @cached_property
    def _backdrop(self) -> Backdrop:
        return Backdrop(self._view, self._seed)

    @cached_property
    def _infrared_layers(self) -> tuple[Floats, Floats, tuple[Bytes, Bytes]]:
        """(H, W) luma 0..255 of the static scene; (H, W) 0..1 coverage of the far pavement; noise."""
        rng = self._rng(_IR)
        columns = rng.normal(0.0, COLUMN_NOISE, (1, self._view.width))
        painted = Backdrop(self._ir_view, self._seed) if self._ir_view.baseline_m else self._backdrop
        backdrop = (painted.infrared() + columns).astype(np.float32)
        # Neighbouring detectors share a little of their noise.
        noise = cv2.GaussianBlur(rng.standard_normal(self._noise_shape, np.float32), (3, 3), 0.6)
        return backdrop, painted.near, _halves(IR_NOISE / noise.std() * noise)

    @cached_property
    def _visible_layers(self) -> tuple[Bytes, Floats, Floats, Bytes, tuple[Bytes, Bytes]]:
        """(H, W, 3) BGR of the static scene; (H, W, 3) 0..255 colour of white cloth at every pixel; (H, W) 0..1
        coverage of the far pavement; (h, w, 3) colour of the smoke in its range; noise."""
        rng = self._rng(_VIS)
        dither = rng.uniform(-0.5, 0.5, (self._view.height, self._view.width, 1))  # or a dark sky shows bands
        backdrop = _bytes(self._backdrop.visible() * 255 + dither)
        fog = _bytes(self._backdrop.fog()[self._smoke.rows, self._smoke.columns] * 255)
        grey = rng.standard_normal((*self._noise_shape, 1), np.float32)
        colour = rng.standard_normal((*self._noise_shape, 3), np.float32)
        noise = _halves(VIS_NOISE * (0.85 * grey + 0.5 * colour))
        return backdrop, self._backdrop.cloth() * 255, self._backdrop.near, fog, noise

    @property
    def _noise_shape(self) -> tuple[int, int]:
        return self._view.height + NOISE_MARGIN, self._view.width + NOISE_MARGIN

    def _noisy(self, picture: Bytes, noise: tuple[Bytes, Bytes], stream: int, index: int) -> Bytes:
        row, column = self._rng(stream, index).integers(0, NOISE_MARGIN + 1, 2)
        window = (slice(row, row + self._view.height), slice(column, column + self._view.width))
        brighter, darker = noise
        cv2.add(picture, brighter[window], picture)
        cv2.subtract(picture, darker[window], picture)
        return picture


def _halves(noise: npt.NDArray[np.floating]) -> tuple[Bytes, Bytes]:
    """Split noise into a positive and a negative picture: saturating byte arithmetic is far faster than float."""
    return _bytes(noise), _bytes(-noise)


def _bytes(values: npt.NDArray[np.floating]) -> Bytes:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
