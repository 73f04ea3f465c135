"""Faults that a viewer sees at once and the other metrics do not: shadows, highlights, warmth, noise.

All are of (H, W) uint8 luma: infrared, visible and fused.  `streamfuse.evaluation.maps` draws where.
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
"""Fused levels up to the first are lost where a source has the second or more."""
WHITE, BELOW_WHITE = 253, 240
"""Fused levels from the first on are lost where both sources are below the second."""
BLOCK = 8
"""Pixels a side."""
DARK = 40.0
"""Mean visible level under which a block is dark."""
SURROUNDINGS = 63
"""Pixels a side of the mean that a warm thing is compared with."""
WARM = 24.0
"""Levels by which infrared exceeds its surroundings where something is warm."""
FLAT = 4.0
"""Deviation, grey levels, under which a block of both sources shows nothing but noise."""
ROUNDING = 1 / math.sqrt(12)
"""Deviation of what rounding to whole levels does: no source is quieter."""


def shadows_lost(ir: Plane, vis: Plane, fused: Plane) -> Mask:
    """(H, W): pixels that are black though a source shows something."""
    lost: Mask = (fused <= BLACK) & (np.maximum(ir, vis) >= SHOWN)
    return lost


def highlights_lost(ir: Plane, vis: Plane, fused: Plane) -> Mask:
    """(H, W): pixels that are white though no source is."""
    lost: Mask = (fused >= WHITE) & (np.maximum(ir, vis) < BELOW_WHITE)
    return lost


def shadow_loss(ir: Plane, vis: Plane, fused: Plane) -> float:
    """Per cent of all pixels that are black though a source shows something; 0 is best."""
    return 100 * float(shadows_lost(ir, vis, fused).mean())


def highlight_loss(ir: Plane, vis: Plane, fused: Plane) -> float:
    """Per cent of all pixels that are white though no source is; 0 is best."""
    return 100 * float(highlights_lost(ir, vis, fused).mean())


def shadow_contrast(ir: Plane, vis: Plane, fused: Plane) -> float:
    """Share of the local deviation that is left in 8x8 blocks whose visible mean is under 40; 1: all, 0: none.

    The sum over the blocks of the fused deviation, of each at most the larger source's, over the sum of the latter.
    NaN where no block is dark, or the dark ones hold nothing.
    """
    dark = dark_blocks(vis)
    wanted = np.maximum(block_deviation(ir), block_deviation(vis))[dark]
    kept = np.minimum(block_deviation(fused)[dark], wanted)
    total = float(wanted.sum())
    return float(kept.sum()) / total if total > 0 else math.nan


def warm_contrast(ir: Plane, vis: Plane, fused: Plane) -> float:
    """Contrast of warm things with their surroundings, relative to infrared; 1: the same, 0: none.

    Warm is where infrared exceeds its mean over 63x63 pixels by 24 levels; NaN where nothing is.
    """
    out_ir, out_fused = _above_surroundings(ir), _above_surroundings(fused)
    warm = out_ir >= WARM
    return float(out_fused[warm].sum() / out_ir[warm].sum()) if warm.any() else math.nan


def noise_gain(ir: Plane, vis: Plane, fused: Plane) -> float:
    """Deviation in 8x8 blocks that are flat in both sources, against the quieter one; 1: as quiet.

    The sum over the blocks of the fused deviation over that of the smaller source's.  NaN where no block is flat.
    """
    flat, quieter = flat_blocks(ir, vis)
    return float(block_deviation(fused)[flat].sum() / quieter[flat].sum()) if flat.any() else math.nan


def flat_blocks(ir: Plane, vis: Plane) -> tuple[Mask, Floats]:
    """Mask of the 8x8 blocks that are flat in both sources, and the smaller deviation: (H // 8, W // 8) each."""
    in_ir, in_vis = block_deviation(ir), block_deviation(vis)
    return (in_ir < FLAT) & (in_vis < FLAT), np.maximum(np.minimum(in_ir, in_vis), ROUNDING)


def block_deviation(plane: Plane) -> Floats:
    """(H // 8, W // 8): standard deviation within each block; what does not fill one is left out."""
    deviation: Floats = _blocks(plane).std(axis=(1, 3))
    return deviation


def dark_blocks(vis: Plane) -> Mask:
    """(H // 8, W // 8): mask of the blocks whose visible mean is under 40."""
    dark: Mask = _blocks(vis).mean(axis=(1, 3)) < DARK
    return dark


def _blocks(plane: Plane) -> Floats:
    """(H // 8, 8, W // 8, 8)."""
    rows, columns = (side // BLOCK for side in plane.shape)
    return plane[: rows * BLOCK, : columns * BLOCK].astype(np.float64).reshape(rows, BLOCK, columns, BLOCK)


def _above_surroundings(plane: Plane) -> Floats:
    levels = plane.astype(np.float64)
    border = cv2.BORDER_REPLICATE
    above: Floats = levels - cv2.blur(levels, (SURROUNDINGS, SURROUNDINGS), borderType=border)
    return above
