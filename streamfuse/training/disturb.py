"""Augmentation other than cropping: light, night, glare, smoke, faint or inverted infrared, and noise.

Planes are (H, W) FP32, 0..255.  Changes of the scene, such as light and smoke, are seen by the network and the losses.
Sensor noise is seen only by the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.training.recipe import Recipe

Floats = npt.NDArray[np.float32]

WHITE = 255.0
LAMP = 200.0
"""Least grey level of a lamp, which night does not darken."""


@dataclass(frozen=True, slots=True)
class Weather:
    """Random changes of a scene; consecutive frames have the same, except for a slight drift of the exposure."""

    gains: tuple[float, float]
    offsets: tuple[float, float]
    dark: float
    """Factor of the visible light at night; 1: day."""
    gamma: float
    inverted: bool
    faint: float
    """Factor of infrared's contrast."""
    glare: tuple[float, float, float, float] | None
    """Row and column (shares of the sides), radius (of the larger), height in grey levels."""
    smoke: Floats | None
    """Coarse grid of opacity, 0..1."""
    smoke_level: float
    shift: tuple[float, float]
    """Shift of infrared, rows and columns."""


def draw_weather(recipe: Recipe, rng: np.random.Generator) -> Weather:
    """Draw random changes with the probabilities of a recipe."""
    light = recipe.light
    night = rng.random() < recipe.night
    return Weather(
        gains=(1 + light * rng.uniform(-1, 1), 1 + light * rng.uniform(-1, 1)),
        offsets=(128 * light * rng.uniform(-1, 1), 128 * light * rng.uniform(-1, 1)),
        dark=float(np.exp(rng.uniform(np.log(0.08), np.log(0.7)))) if night else 1.0,
        gamma=rng.uniform(0.8, 1.6) if night else 1.0,
        inverted=bool(rng.random() < recipe.inverted),
        faint=rng.uniform(0.1, 0.6) if rng.random() < recipe.faint else 1.0,
        glare=_draw_glare(rng) if rng.random() < recipe.glare else None,
        smoke=_draw_smoke(rng) if rng.random() < recipe.smoke else None,
        smoke_level=rng.uniform(90, 280),
        shift=(rng.uniform(-1, 1) * recipe.shift, rng.uniform(-1, 1) * recipe.shift),
    )


def _draw_glare(rng: np.random.Generator) -> tuple[float, float, float, float]:
    return rng.random(), rng.random(), rng.uniform(0.02, 0.25), rng.uniform(100, 400)


def _draw_smoke(rng: np.random.Generator) -> Floats:
    grid = rng.normal(0, 1, (int(rng.integers(3, 7)),) * 2) + rng.uniform(-0.5, 1.0)
    opaque: Floats = (rng.uniform(0.4, 1.0) * np.clip(grid, 0, 1)).astype(np.float32)
    return opaque


def weathered(ir: Floats, vis: Floats, weather: Weather) -> tuple[Floats, Floats]:
    """Apply the changes to infrared and visible; the result is rounded and clipped as by a camera."""
    if weather.dark < 1:
        darkened = WHITE * weather.dark * (vis / WHITE) ** np.float32(weather.gamma)
        vis = np.where(vis > LAMP, vis, darkened.astype(np.float32))
    if weather.smoke is not None:
        opaque = np.clip(cv2.resize(weather.smoke, vis.shape[::-1], interpolation=cv2.INTER_CUBIC), 0, 1)
        vis = vis + opaque * (np.float32(weather.smoke_level * max(weather.dark, 0.3)) - vis)
    if weather.glare is not None:
        vis = _with_glare(vis, *weather.glare)
    if weather.inverted:
        ir = np.float32(WHITE) - ir
    ir = ir.mean(dtype=np.float32) + np.float32(weather.faint) * (ir - ir.mean(dtype=np.float32))
    if any(weather.shift):
        move = np.array([[1, 0, weather.shift[1]], [0, 1, weather.shift[0]]], np.float32)
        ir = cv2.warpAffine(ir, move, ir.shape[::-1], borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    (gain_ir, gain_vis), (offset_ir, offset_vis) = weather.gains, weather.offsets
    ir = (ir - 128) * np.float32(gain_ir) + np.float32(128 + offset_ir)
    # At night black stays black: a longer exposure amplifies the light that there is, and its noise
    pivot = 128 if weather.dark == 1 else 0
    vis = (vis - pivot) * np.float32(gain_vis) + np.float32(pivot + (offset_vis if weather.dark == 1 else 0))
    return _as_camera(ir), _as_camera(vis)


def _with_glare(vis: Floats, row: float, column: float, radius: float, height: float) -> Floats:
    rows, columns = (np.arange(side, dtype=np.float32) for side in vis.shape)
    reach = radius * max(vis.shape)
    down = np.exp(-(((rows - row * len(rows)) / reach) ** 2) / 2)
    along = np.exp(-(((columns - column * len(columns)) / reach) ** 2) / 2)
    lit: Floats = vis + np.float32(height) * np.outer(down, along).astype(np.float32)
    return lit


def with_noise(plane: Floats, level: float, dark: float, rng: np.random.Generator) -> Floats:
    """Add sensor noise of deviation `level`, which grows as the light falls (`dark`) and with the pixel's level."""
    amplified = min(1 / dark, 8.0) - 1
    read = level * (1 + 0.4 * amplified)
    shot = 0.06 * amplified * level
    deviation = np.sqrt(np.float32(read**2) + np.float32(shot) * plane)
    return _as_camera(plane + deviation * rng.standard_normal(plane.shape, dtype=np.float32))


def _as_camera(plane: Floats) -> Floats:
    rounded: Floats = np.clip(np.rint(plane), 0, WHITE).astype(np.float32)
    return rounded
