"""Smoke that rises from a drain in the road and drifts over the street.

Everything is computed on a coarse grid in design units and enlarged: smoke has no sharp edges, and so
it costs the same for every picture size.
"""

from __future__ import annotations

import cv2
import numpy as np

from streamfuse.sources.scene.paint import Floats, Reals, View, fractal_noise

DRAIN = (236.0, 392.0)
"""Position of the drain in the road, design units."""
REACH_LEFT, REACH_RIGHT, REACH_UP = 120.0, 262.0, 285.0
"""Range of the smoke around the drain, units."""
CELL = 2.5
"""Size of a cell of the coarse grid, units."""
TEXTURE = 256
THICKNESS = 5.0
"""Optical depth of the densest smoke."""


class Smoke:
    """A plume of smoke, which can be drawn at any time."""

    def __init__(self, view: View, rng: np.random.Generator) -> None:
        drain_x = view.seen_x(*DRAIN)
        x0, y0 = view.pixels(drain_x - REACH_LEFT, DRAIN[1] - REACH_UP)
        x1, y1 = view.pixels(drain_x + REACH_RIGHT, DRAIN[1] + 12)
        self.rows = slice(max(int(y0), 0), min(int(y1) + 1, view.height))
        """Rows of the picture that it can cover."""
        self.columns = slice(max(int(x0), 0), min(int(x1) + 1, view.width))
        height, width = self.rows.stop - self.rows.start, self.columns.stop - self.columns.start
        self._size = (width, height)
        left = view.left + self.columns.start / view.scale
        top = view.top + self.rows.start / view.scale
        across, down = max(int(width / view.scale / CELL), 2), max(int(height / view.scale / CELL), 2)
        x = (left + (np.arange(across, dtype=np.float32) + 0.5) * (width / view.scale / across))[None, :]
        y = (top + (np.arange(down, dtype=np.float32) + 0.5) * (height / view.scale / down))[:, None]
        self._across = np.broadcast_to(x - drain_x, (down, across)).astype(np.float32)
        rise = np.broadcast_to(DRAIN[1] - y, (down, across)).astype(np.float32)
        self._rise = np.maximum(rise, 0.0)
        # The wind takes it to the right, the more the higher it is; it widens as it mixes with air.
        self._axis = 0.0012 * self._rise**2 + 0.10 * self._rise
        self._spread = 19.0 + 0.43 * self._rise
        birth = np.clip((rise + 8) / 36, 0.0, 1.0)
        death = np.clip((REACH_UP - rise) / 190, 0.0, 1.0)
        self._density = (birth * birth * (3 - 2 * birth) * death**1.1).astype(np.float32)
        # Cells grow with the plume: equal steps of log(rise) are equal steps of texture.
        self._along = (np.log1p(self._rise / 45) * 105).astype(np.float32)
        self._coarse = fractal_noise(rng, TEXTURE, 1.75)
        self._fine = fractal_noise(rng, TEXTURE, 1.35)

    def opacity(self, time_s: float) -> Floats:
        """Return its opacity at `time_s`, 0..1, float32, of shape `rows` x `columns`."""
        # A live source may pass months of uptime; wrapped before it meets float32, motion stays smooth.
        slow, quick = (0.61 * time_s) % (2 * np.pi), (1.13 * time_s) % (2 * np.pi)
        sway = 7.0 * np.sin(slow - self._rise / 46) + 4.0 * np.sin(quick - self._rise / 27)
        q = (self._across - self._axis - sway * np.minimum(self._rise / 110, 1.0)) / self._spread
        q = q.astype(np.float32)
        # The eddies bend the fine structure, so that it rolls instead of sliding by like a picture.
        eddies = _lookup(self._coarse, q * 30 + 90, self._along * 0.55 + 16.0 * time_s % TEXTURE)
        veil = _lookup(self._coarse, 40 - q * 44 + 5 * eddies, self._along * 0.9 + 27.0 * time_s % TEXTURE)
        wisps = _lookup(self._fine, q * 62 + 9 * eddies, self._along * 1.5 + 41.0 * time_s % TEXTURE)
        body = np.exp(-1.5 * (q + 0.18 * eddies) ** 2) * self._density
        depth = THICKNESS * body * np.maximum(0.92 + 0.40 * veil + 0.20 * wisps, 0.0)
        opacity = np.asarray(1 - np.exp(-depth), np.float32)
        large = cv2.resize(opacity, self._size, interpolation=cv2.INTER_CUBIC)
        return np.clip(large, 0.0, 1.0).astype(np.float32)


def _lookup(texture: Floats, x: Reals, y: Reals) -> Floats:
    """Sample the periodic texture at float positions."""
    x, y = (np.asarray(axis - TEXTURE * np.floor(axis / TEXTURE), np.float32) for axis in (x, y))
    return cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP).astype(np.float32, copy=False)
