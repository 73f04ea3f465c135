"""The static part of the demo scene for both cameras: painted layers become light and heat."""

from __future__ import annotations

import cv2
import numpy as np

from streamfuse.sources.scene import street
from streamfuse.sources.scene.houses import CAFE_WINDOW
from streamfuse.sources.scene.paint import FACADE_Y, Floats, Reals, View, fractal_noise


def _bgr(blue: float, green: float, red: float) -> Floats:
    """Return a BGR colour as an array, (3,); 1 is white."""
    return np.array([blue, green, red], np.float32)


CLOTH_LIMIT = 20 / 255
"""Upper limit of the light that people reflect."""
_AMBIENT = _bgr(0.150, 0.100, 0.078)
_SODIUM = _bgr(0.40, 0.74, 1.00)
"""Colour of the lamps, BGR."""


class Backdrop:
    """The painted street of one view, and its two renderings."""

    def __init__(self, view: View, seed: int) -> None:
        self._view = view
        self._seed = seed
        self._xs, self._ys = view.grid()
        painter = street.paint_street(view, np.random.default_rng([seed, 0]))
        self._albedo, self._glow, self._heat, masks = painter.layers()
        self.near: Floats = masks[..., 0].copy()
        """Coverage of the far pavement by objects in front of it, (H, W) float32 0..1."""
        self._wet, self._solid = masks[..., 1:2], masks[..., 2]
        self._clouds = self._cloud_texture(self._xs)

    def _cloud_texture(self, xs: Floats) -> Floats:
        """(H, W), about -1..1: one texture for the clouds and for stains on every surface; `xs`: design x."""
        size = 512
        texture = fractal_noise(np.random.default_rng([self._seed, 1]), size, 1.7)
        shape = (self._view.height, self._view.width)
        x = np.broadcast_to(np.mod(xs * 0.8, size), shape).astype(np.float32)
        y = np.broadcast_to(np.mod(self._ys * 1.9, size), shape).astype(np.float32)
        clouds = cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return np.asarray(0.6 * clouds, np.float32)

    def _parallax(self) -> Floats:
        """Shift of the house fronts and of the ground below them by the camera's position, (H, 1) design units."""
        grounds = np.maximum(self._ys, FACADE_Y)
        return np.array([[-self._view.seen_x(0.0, float(y))] for y in grounds.ravel()], np.float32)

    def infrared(self) -> Floats:
        """White-hot luma, (H, W) float32 0..255, in the slightly soft focus of a germanium lens."""
        xs, ys = self._xs, self._ys
        # The sky is coldest overhead and warmer through the thick air above the roofs.
        stains = self._clouds
        if self._view.baseline_m:
            stains = self._cloud_texture(self._xs + self._parallax())
        sky: Reals = 14 + 26 * np.clip(ys / 230, 0, 1) ** 1.5 + 5 * np.maximum(self._clouds, 0)
        picture: Reals = self._heat + (1 - self._solid) * sky + (self._solid - self.near) * 3.0 * stains
        left, ground = self._view.seen_x(*street.CAR), street.CAR[1]
        for x, y, rx, ry, rise, on_car in (
            (38, 40, 34, 12, 88, True),  # engine under the bonnet
            (4, 27, 11, 13, 74, True),  # radiator
            (40, 3, 46, 5, 34, False),  # the road below them
            (42, 14, 26, 8, 20, True),
            (198, 11, 20, 7, 62, True),  # exhaust
            (218, 8, 16, 7, 26, False),
        ):
            spot: Reals = rise * np.exp(-(((xs - left - x) / rx) ** 2) - ((ys - ground + y) / ry) ** 2)
            picture = picture + (spot * self.near if on_car else spot)
        for lamp in street.lamp_positions(self._view):
            seen_x = self._view.seen_x(lamp, street.KERB_Y)
            reach = ((xs - seen_x) ** 2 + (ys - street.LAMP_HEAD_Y) ** 2) / 17**2
            picture = picture + 34 / (1 + reach) ** 1.5 * (0.3 + 0.7 * self._solid)
        blurred = soft(picture, 0.9 * self._view.scale)
        corner = ((xs - 320) / 420) ** 2 + ((ys - 240) / 420) ** 2
        return np.asarray(blurred * (1 - 0.10 * np.minimum(corner, 1.2)), np.float32)

    def visible(self) -> Floats:
        """(H, W, 3) float32 BGR 0..1."""
        solid = self._solid[..., None]
        picture = self._albedo * self.light() * (1 + 0.10 * self._clouds[..., None])
        picture = picture + self._glow + (1 - solid) * self._sky()
        picture = picture + self._mirrored(picture) * self._wet
        return film(picture + self._bloom())

    def cloth(self) -> Floats:
        """Colour of white cloth at every pixel, (H, W, 3) float32 BGR 0..1."""
        return np.asarray(np.minimum(self.light() * 0.42, CLOTH_LIMIT), np.float32)

    def fog(self) -> Floats:
        """Colour of thick smoke at every pixel, (H, W, 3) float32 BGR 0..1; in the air it takes the lamps' light."""
        fog: Reals = np.broadcast_to(_bgr(0.215, 0.195, 0.19), (self._view.height, self._view.width, 3))
        for x in street.lamp_positions(self._view):
            reach = (((self._xs - x) / 95) ** 2 + ((self._ys - street.LAMP_HEAD_Y - 40) / 130) ** 2)[..., None]
            fog = fog + 0.36 / (1 + reach) ** 1.5 * _bgr(0.62, 0.84, 1.0)
        return film(fog)

    def light(self) -> Floats:
        """Light that falls on surfaces, (H, W, 3): the night sky, the lamps, the cafe, the sign."""
        xs, ys = self._xs, self._ys
        upright = ys < FACADE_Y
        light: Reals = np.broadcast_to(_AMBIENT, (self._view.height, self._view.width, 3))
        for x in street.lamp_positions(self._view):
            wall = 0.80 / (1 + ((xs - x) / 58) ** 2 + ((ys - street.LAMP_HEAD_Y - 26) / 66) ** 2) ** 2
            pool = 0.95 / (1 + ((xs - x) / 84) ** 2 + ((ys - street.KERB_Y) / 36) ** 2) ** 2
            light = light + np.where(upright, wall, pool)[..., None] * _SODIUM
        x0, _, x1, _ = CAFE_WINDOW
        pool = 0.55 / (1 + ((xs - (x0 + x1) / 2) / 52) ** 2 + ((ys - 310) / 15) ** 2) ** 2
        light = light + np.where(upright, 0, pool)[..., None] * _bgr(0.34, 0.66, 1.0)
        x0, y0, x1, y1 = street.SIGN
        halo = 0.30 / (1 + ((xs - (x0 + x1) / 2) / 96) ** 2 + ((ys - (y0 + y1) / 2) / 34) ** 2) ** 2
        light = light + np.where(upright, halo, 0)[..., None] * _bgr(1.0, 0.62, 0.40)
        return np.asarray(light, np.float32)

    def _sky(self) -> Floats:
        """A gradient, thin clouds lit by the town, a moon and stars, (H, W, 3)."""
        view = self._view
        high = np.clip(1 - self._ys / 225, 0, 1.4)[..., None]  # 0 at the roofs, 1 high up
        town, zenith = _bgr(0.165, 0.098, 0.088), _bgr(0.072, 0.030, 0.018)
        sky = zenith + (town - zenith) * np.exp(-2.2 * high)
        sky = sky * (1 + 0.28 * np.maximum(self._clouds, -0.7)[..., None])
        rng = np.random.default_rng([self._seed, 2])
        area = (view.right - view.left) * (230 - view.top)
        for _ in range(min(int(area / 1600), 4000)):
            x, y = rng.uniform(view.left, view.right), rng.uniform(view.top, 215)
            brightness = (0.12 + 0.75 * rng.random() ** 4) * np.clip(1.2 - y / 190, 0.1, 1)
            _add_dot(sky, *view.pixels(float(x), float(y)), float(brightness) * min(view.scale, 1.0))
        moon = np.hypot(self._xs - 262, self._ys - 46)
        disc = np.clip((9.5 - moon) * view.scale + 0.5, 0, 1)[..., None]
        dusk = np.clip(((self._xs - 262) * 0.75 + (self._ys - 46) * 0.45) / 9.5 + 0.62, 0.05, 1.0)
        seas = 1 + 0.10 * np.sin((self._xs - 262) / 2.1) * np.sin((self._ys - 40) / 2.6)
        face = (np.sqrt(dusk) * seas)[..., None] * _bgr(0.78, 0.86, 0.88)
        halo = (0.20 / (1 + (moon / 15) ** 2) ** 1.4)[..., None] * _bgr(1.0, 0.86, 0.76)
        return np.asarray(sky * (1 - disc) + face * disc + halo, np.float32)

    def _mirrored(self, picture: Floats) -> Floats:
        """Reflection of the street in the wet road, stretched downwards as on rough asphalt, (H, W, 3)."""
        depth = (self._ys - street.KERB_Y) * 2.3
        _, row = self._view.pixels(0, 0)
        rows = (street.KERB_Y - depth) * self._view.scale + row - 0.5
        shape = (self._view.height, self._view.width)
        map_y = np.broadcast_to(rows, shape).astype(np.float32)
        map_x = np.broadcast_to(np.arange(shape[1]), shape).astype(np.float32)
        image = cv2.remap(picture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        scale = self._view.scale
        image = cv2.GaussianBlur(image, (0, 0), sigmaX=max(1.6 * scale, 0.3), sigmaY=max(9 * scale, 0.3))
        ripple = 1 + 0.35 * np.clip(self._clouds, -1.5, 1.5)[..., None]
        return np.asarray(0.62 * image * ripple * np.exp(-np.maximum(depth, 0) / 260)[..., None], np.float32)

    def _bloom(self) -> Floats:
        """Glare of bright objects in a lens, (H, W, 3)."""
        scale = self._view.scale
        spill = 0.20 * _wide_blur(self._glow, 2.2 * scale)
        spill += 0.16 * _wide_blur(self._glow, 9.0 * scale)
        spill += 0.16 * _wide_blur(self._glow, 34.0 * scale)
        for x in street.lamp_positions(self._view):
            reach = np.hypot(self._xs - x, self._ys - street.LAMP_HEAD_Y)[..., None]
            core = 0.85 / (1 + (reach / 7.5) ** 2) ** 1.6 + 0.20 / (1 + (reach / 38) ** 2) ** 1.5
            spill += (core * _SODIUM).astype(np.float32)
        return np.asarray(spill, np.float32)


def soft(picture: Reals, sigma: float) -> Floats:
    """Blur by `sigma` pixels."""
    return cv2.GaussianBlur(picture, (0, 0), max(sigma, 0.25)).astype(np.float32, copy=False)


def film(light: Reals) -> Floats:
    """Tone curve from light to picture, both 0..1: linear in the dark, compressed where it is bright."""
    knee = 0.6
    bright = 1 - (1 - knee) * np.exp(-(light - knee) / (1 - knee))
    return np.where(light < knee, light, bright).astype(np.float32)


def _wide_blur(picture: Floats, sigma: float) -> Floats:
    """Blur by a wide Gaussian quickly, on a smaller copy."""
    height, width = picture.shape[:2]
    shrink = max(int(sigma / 4), 1)
    small = (max(width // shrink, 1), max(height // shrink, 1))
    reduced = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    blurred = soft(reduced.astype(np.float32), sigma * small[0] / width)
    return cv2.resize(blurred, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)


def _add_dot(picture: Reals, x: float, y: float, brightness: float) -> None:
    """Light one point at a float position."""
    column, row = int(x - 0.5), int(y - 0.5)
    fx, fy = x - 0.5 - column, y - 0.5 - row
    weights = np.outer([1 - fy, fy], [1 - fx, fx])[..., None] * brightness
    patch = picture[max(row, 0) : row + 2, max(column, 0) : column + 2]
    patch += weights[: patch.shape[0], : patch.shape[1]]
