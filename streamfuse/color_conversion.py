"""Conversion between full and limited range, and between BGR and YCbCr.

The paper fuses luma and puts the visible picture's chroma back (section 4.3.2).
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.color import Chroma, Matrix, Plane


def _table(low: int, high: int, *, widen: bool) -> Plane:
    levels = np.arange(256, dtype=np.float64)
    mapped = (levels - low) * (255 / (high - low)) if widen else levels * ((high - low) / 255) + low
    return np.clip(np.rint(mapped), 0, 255).astype(np.uint8)


def _chroma_table(scale: float) -> Plane:
    """Lookup table that scales chroma about 128, (256,) uint8."""
    levels = (np.arange(256, dtype=np.float64) - 128) * scale + 128
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


_WIDEN_LUMA = _table(16, 235, widen=True)
_NARROW_LUMA = _table(16, 235, widen=False)
_NARROW_CHROMA = _chroma_table(224 / 255)
_WIDEN_CHROMA = _chroma_table(255 / 224)

# Kr, Kb of ITU-R BT.601, BT.709, BT.2020 (non-constant luminance).
_COEFFICIENTS = {Matrix.BT601: (0.299, 0.114), Matrix.BT709: (0.2126, 0.0722), Matrix.BT2020: (0.2627, 0.0593)}


def widen_luma(limited: Plane) -> Plane:
    """Convert luma from limited range (16..235) to full range (0..255); values outside are clipped."""
    return cast(Plane, cv2.LUT(limited, _WIDEN_LUMA))


def narrow_luma(full: Plane) -> Plane:
    """Convert luma from full range (0..255) to limited range (16..235); the exact inverse of `widen_luma`."""
    return cast(Plane, cv2.LUT(full, _NARROW_LUMA))


def narrow_chroma(chroma: Chroma) -> Chroma:
    """Convert chroma to limited range (16..240)."""
    return _look_up(chroma, _NARROW_CHROMA, full_range=False) if chroma.full_range else chroma


def widen_chroma(chroma: Chroma) -> Chroma:
    """Convert chroma to full range; `narrow_chroma` is its exact inverse for 16..240."""
    return chroma if chroma.full_range else _look_up(chroma, _WIDEN_CHROMA, full_range=True)


def _look_up(chroma: Chroma, table: Plane, full_range: bool) -> Chroma:
    u, v = (cast(Plane, cv2.LUT(plane, table)) for plane in (chroma.u, chroma.v))
    return Chroma(u, v, full_range, chroma.matrix)


def resize_chroma(chroma: Chroma, height: int, width: int) -> Chroma:
    """Resize chroma to planes of (height, width), by area averaging down and linear interpolation up."""
    if chroma.u.shape == (height, width):
        return chroma
    shrink = height <= chroma.u.shape[0] and width <= chroma.u.shape[1]
    method = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    u, v = (cast(Plane, cv2.resize(plane, (width, height), interpolation=method)) for plane in (chroma.u, chroma.v))
    return Chroma(u, v, chroma.full_range, chroma.matrix)


def split_bgr(bgr: npt.NDArray[np.uint8]) -> tuple[Plane, Chroma]:
    """Convert (H, W, 3) uint8 BGR to full-range BT.601 luma (H, W) and chroma (H, W)."""
    y, cr, cb = (np.ascontiguousarray(plane) for plane in cv2.split(cv2.cvtColor(bgr, cv2.COLOR_BGR2YCrCb)))
    return cast(Plane, y), Chroma(cast(Plane, cb), cast(Plane, cr), full_range=True, matrix=Matrix.BT601)


def to_bgr(luma: Plane, chroma: Chroma | None) -> npt.NDArray[np.uint8]:
    """Convert full-range luma (H, W) and its chroma, in any subsampling, range and matrix, to (H, W, 3) uint8 BGR."""
    if chroma is None:
        return cast("npt.NDArray[np.uint8]", cv2.cvtColor(luma, cv2.COLOR_GRAY2BGR))
    chroma = resize_chroma(chroma, *luma.shape)
    kr, kb = _COEFFICIENTS[chroma.matrix]
    kg = 1 - kr - kb
    scale = 1 if chroma.full_range else 255 / 224
    red, blue = 2 * (1 - kr) * scale, 2 * (1 - kb) * scale  # of V in R, of U in B
    rows = ((blue, 0.0), (-kb * blue / kg, -kr * red / kg), (0.0, red))
    matrix = np.array([(1.0, u, v, -128 * (u + v)) for u, v in rows])
    return cast("npt.NDArray[np.uint8]", cv2.transform(cv2.merge((luma, chroma.u, chroma.v)), matrix))


def to_bt601(luma: Plane, chroma: Chroma) -> tuple[Plane, Chroma]:
    """Convert full-range luma (H, W) and its chroma, in any range and matrix, to full range and BT.601.

    The chroma keeps its size; what the luma gains from it is interpolated.
    """
    if chroma.matrix is Matrix.BT601:
        return luma, widen_chroma(chroma)
    kr, kb = _COEFFICIENTS[chroma.matrix]
    to_kr, to_kb = _COEFFICIENTS[Matrix.BT601]
    scale = 1 if chroma.full_range else 255 / 224
    # Effects of U and V on B - Y, R - Y and G - Y, then on the luma of BT.601, Y601 - Y.
    kg = 1 - kr - kb
    u, v = np.array((2 * (1 - kb), 0, -2 * kb * (1 - kb) / kg)), np.array((0, 2 * (1 - kr), -2 * kr * (1 - kr) / kg))
    gain = np.array((to_kb, to_kr, 1 - to_kr - to_kb)) @ np.stack((u, v), 1)
    rows = gain, ((u[0], v[0]) - gain) / (2 * (1 - to_kb)), ((u[1], v[1]) - gain) / (2 * (1 - to_kr))
    # As three sums of whole planes, which OpenCV adds up several times faster than it multiplies by a matrix.
    sums = (cv2.addWeighted(chroma.u, a, chroma.v, b, 128 * (1 - a - b)) for a, b in (row * scale for row in rows))
    added, new_u, new_v = sums
    added = cv2.resize(added, luma.shape[::-1], interpolation=cv2.INTER_LINEAR)
    moved = cast(Plane, cv2.addWeighted(luma, 1, added, 1, -128))
    return moved, Chroma(cast(Plane, new_u), cast(Plane, new_v), full_range=True, matrix=Matrix.BT601)
