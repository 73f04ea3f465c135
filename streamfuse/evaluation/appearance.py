"""Metrics of faults that a viewer sees at once: lost shadows and highlights, lost contrast, noise.

All take (H, W) uint8 luma: infrared, visible and fused.  `streamfuse.evaluation.maps` draws the faults.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BLACK, SHOWN = 2, 10
"""Highest fused level that counts as a lost shadow, and the lowest level of a source for which it does."""
WHITE, BELOW_WHITE = 253, 240
"""Lowest fused level that counts as a lost highlight, and the level that both sources must be below."""
BLOCK = 8
"""Side of a block, pixels."""
DARK = 40.0
"""Mean visible level under which a block is dark."""
SURROUNDINGS = 63
"""Side of the square whose mean a warm pixel is compared with, pixels."""
WARM = 24.0
"""Least difference of infrared to its surroundings for a warm pixel, grey levels."""
FLAT = 4.0
"""Standard deviation under which a block shows nothing but noise, grey levels."""
ROUNDING = 1 / math.sqrt(12)
"""Standard deviation of rounding to whole levels, the least noise of a source."""


def shadows_lost(ir: Plane, vis: Plane, fused: Plane) -> Mask:
    """Return the mask (H, W) of pixels that are black though a source shows something."""
    lost: Mask = (fused <= BLACK) & (np.maximum(ir, vis) >= SHOWN)
    return lost


def highlights_lost(ir: Plane, vis: Plane, fused: Plane) -> Mask:
    """Return the mask (H, W) of pixels that are white though no source is."""
    lost: Mask = (fused >= WHITE) & (np.maximum(ir, vis) < BELOW_WHITE)
    return lost


def shadow_loss(ir: Plane, vis: Plane, fused: Plane) -> float:
    """Percentage of pixels that are black though a source shows something; 0 is best."""
    return 100 * float(shadows_lost(ir, vis, fused).mean())


def highlight_loss(ir: Plane, vis: Plane, fused: Plane) -> float:
    """Percentage of pixels that are white though no source is; 0 is best."""
    return 100 * float(highlights_lost(ir, vis, fused).mean())


def shadow_contrast(ir: Plane, vis: Plane, fused: Plane) -> float:
    """Share of the local deviation that is kept in 8x8 blocks whose visible mean is under 40; 1: all, 0: none.

    The sum over the blocks of the fused deviation, limited to the larger source's, divided by the sum of the latter.
    NaN if no block is dark, or the dark blocks are constant.
    """
    dark = dark_blocks(vis)
    wanted = np.maximum(block_deviation(ir), block_deviation(vis))[dark]
    kept = np.minimum(block_deviation(fused)[dark], wanted)
    total = float(wanted.sum())
    return float(kept.sum()) / total if total > 0 else math.nan


def warm_contrast(ir: Plane, vis: Plane, fused: Plane) -> float:
    """Contrast of warm pixels with their surroundings, relative to infrared; 1: the same, 0: none.

    A pixel is warm if infrared exceeds its mean over 63x63 pixels by 24 levels or more.  NaN if none is.
    """
    out_ir, out_fused = _above_surroundings(ir), _above_surroundings(fused)
    warm = out_ir >= WARM
    return float(out_fused[warm].sum() / out_ir[warm].sum()) if warm.any() else math.nan


def noise_gain(ir: Plane, vis: Plane, fused: Plane) -> float:
    """Standard deviation in 8x8 blocks that are flat in both sources, relative to the quieter one; 1: as quiet.

    The sum over the blocks of the fused deviation, divided by that of the smaller source's.  NaN if no block is flat.
    """
    flat, quieter = flat_blocks(ir, vis)
    return float(block_deviation(fused)[flat].sum() / quieter[flat].sum()) if flat.any() else math.nan


def flat_blocks(ir: Plane, vis: Plane) -> tuple[Mask, Floats]:
    """Return the mask of 8x8 blocks that are flat in both sources, and the smaller deviation, (H // 8, W // 8) each."""
    in_ir, in_vis = block_deviation(ir), block_deviation(vis)
    return (in_ir < FLAT) & (in_vis < FLAT), np.maximum(np.minimum(in_ir, in_vis), ROUNDING)


def block_deviation(plane: Plane) -> Floats:
    """Return the standard deviation of each block, (H // 8, W // 8); incomplete blocks are left out."""
    deviation: Floats = _blocks(plane).std(axis=(1, 3))
    return deviation


def dark_blocks(vis: Plane) -> Mask:
    """Return the mask (H // 8, W // 8) of blocks whose visible mean is under 40."""
    dark: Mask = _blocks(vis).mean(axis=(1, 3)) < DARK
    return dark


def _blocks(plane: Plane) -> Floats:
    """Return a plane as blocks, (H // 8, 8, W // 8, 8)."""
    rows, columns = (side // BLOCK for side in plane.shape)
    return plane[: rows * BLOCK, : columns * BLOCK].astype(np.float64).reshape(rows, BLOCK, columns, BLOCK)


def _above_surroundings(plane: Plane) -> Floats:
    levels = plane.astype(np.float64)
    border = cv2.BORDER_REPLICATE
    above: Floats = levels - cv2.blur(levels, (SURROUNDINGS, SURROUNDINGS), borderType=border)
    return above
