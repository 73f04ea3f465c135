"""Smoke and glare that are white in the visible picture, and what infrared sees behind them.

A network that chooses the stronger source at each place shows white smoke as it is, and hides the person behind it.
Where the visible picture is white and flat and something in infrared stands out there, the white is darkened a little,
and infrared's contrast is drawn on it.  Everywhere else, and in nearly all pictures, nothing is changed.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane

Floats = npt.NDArray[np.float32]

SIDE = 160
"""Longest side of the pictures on which a veil is looked for, pixels."""
WHITE, ALL_WHITE = 215.0, 235.0
"""Visible levels from which a place begins to be white, and is white altogether."""
FLAT, ROUGH = 6.0, 14.0
"""Local deviation up to which white has no structure, and from which it shows a thing's surface."""
STANDS_OUT = 24.0
"""Grey levels by which something must be warmer than its surroundings."""
ENOUGH = 1.5
"""Mean of the levels beyond `STANDS_OUT` in the surroundings with which a veil is lifted altogether."""
ROOM = 36.0
"""Grey levels by which white is darkened, and by which warm things are then brighter at most."""
SHOWN = 0.7
"""Share of infrared's contrast that is drawn."""
NEAR, AROUND, FAR = 5, 15, 41
"""Sides of the means: of flatness, of the surroundings, and of the region that is darkened."""


def _find_veil(ir: Plane, vis: Plane) -> Floats | None:
    """Return where something is behind white, 0..1, (h, w) of at most `SIDE` pixels a side; None if nowhere.

    `ir`, `vis`: luma, (H, W) uint8, of the same size.
    """
    height, width = vis.shape
    scale = max(1.0, max(height, width) / SIDE)
    size = round(width / scale), round(height / scale)
    seen = _shrunk(vis, size)
    if float(seen.max()) < WHITE:
        return None
    level = _mean(seen, NEAR)
    deviation = np.sqrt(np.maximum(_mean(seen * seen, NEAR) - level * level, 0))
    white = np.clip((level - WHITE) / (ALL_WHITE - WHITE), 0, 1) * np.clip((ROUGH - deviation) / (ROUGH - FLAT), 0, 1)
    # Only what is white all around: at the edge of a bright sky, roofs and trees are warm.
    white = cv2.erode(white, np.ones((NEAR, NEAR), np.uint8))
    if not white.any():
        return None
    warm = _shrunk(ir, size)
    stands_out = np.maximum(warm - _mean(warm, AROUND) - STANDS_OUT, 0) * white
    behind = np.clip(_mean(_mean(stands_out, FAR), FAR) / ENOUGH, 0, 1)
    if float(behind.max()) < 0.02:
        return None
    return _mean(cv2.dilate(white, np.ones((NEAR, NEAR), np.uint8)) * behind, NEAR)


def _shrunk(plane: Plane, size: tuple[int, int]) -> Floats:
    """Return means over blocks, (width, height) of `size`; of tall blocks only some rows are read, which is faster."""
    step = max(plane.shape[0] // (2 * size[1]), 1)
    return cv2.resize(plane[::step], size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _mean(plane: Floats, side: int) -> Floats:
    blurred = cv2.blur(plane, (side, side), borderType=cv2.BORDER_REFLECT_101)
    return blurred.astype(np.float32, copy=False)


def lift_veil(ir: Plane, vis: Plane) -> Plane:
    """Return `vis` with what is behind white drawn on it; `vis` itself if there is no such place.

    `ir`, `vis`: luma, (H, W) uint8, of the same size.
    """
    veil = _find_veil(ir, vis)
    if veil is None:
        return vis
    size = vis.shape[::-1]
    around = _mean(_shrunk(ir, (veil.shape[1], veil.shape[0])), AROUND)
    contrast = SHOWN * (ir - cv2.resize(around, size, interpolation=cv2.INTER_LINEAR))
    change = (np.clip(contrast, -ROOM / 2, ROOM) - ROOM) * cv2.resize(veil, size, interpolation=cv2.INTER_LINEAR)
    return cv2.add(vis, change, dtype=cv2.CV_8U).astype(np.uint8, copy=False)
