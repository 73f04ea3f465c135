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
    height, width = luma.shape
    chroma = resize_chroma(chroma, height, width)
    if chroma.full_range and chroma.matrix is Matrix.BT601:
        planes = np.dstack((luma, chroma.v, chroma.u))
        return cast("npt.NDArray[np.uint8]", cv2.cvtColor(planes, cv2.COLOR_YCrCb2BGR))
    kr, kb = _COEFFICIENTS[chroma.matrix]
    scale = np.float32(1 if chroma.full_range else 255 / 224)
    y = luma.astype(np.float32)
    cb = (chroma.u.astype(np.float32) - 128) * scale
    cr = (chroma.v.astype(np.float32) - 128) * scale
    red = y + np.float32(2 * (1 - kr)) * cr
    blue = y + np.float32(2 * (1 - kb)) * cb
    green = (y - np.float32(kr) * red - np.float32(kb) * blue) / np.float32(1 - kr - kb)
    bgr: npt.NDArray[np.uint8] = np.clip(np.rint(np.dstack((blue, green, red))), 0, 255).astype(np.uint8)
    return bgr
