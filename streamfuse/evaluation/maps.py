"""Maps of the faults of a fused picture, drawn over it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane
from streamfuse.evaluation import appearance

COLOURS = {
    "crushed shadow": (255, 90, 30),
    "burnt highlight": (40, 40, 255),
    "shadow contrast under half": (200, 60, 160),
    "noise over twice the quieter source's": (40, 200, 230),
}
"""Colour of each kind of fault: blue, green, red."""
HALF, TWICE = 0.5, 2.0


def draw_faults(ir: Plane, vis: Plane, fused: Plane) -> npt.NDArray[np.uint8]:
    """Draw the faults in COLOURS over the dimmed fused picture: (H, W) uint8 each to (H, W, 3) uint8 BGR."""
    marks = {
        "noise over twice the quieter source's": _whole(_noisy(ir, vis, fused), fused),
        "shadow contrast under half": _whole(_faded(ir, vis, fused), fused),
        "crushed shadow": appearance.shadows_lost(ir, vis, fused),
        "burnt highlight": appearance.highlights_lost(ir, vis, fused),
    }
    drawn = cv2.cvtColor(fused // 2 + 32, cv2.COLOR_GRAY2BGR)
    for kind, mask in marks.items():
        drawn[mask] = (drawn[mask] * 0.4 + np.array(COLOURS[kind]) * 0.6).astype(np.uint8)
    return drawn.astype(np.uint8)


def _noisy(ir: Plane, vis: Plane, fused: Plane) -> appearance.Mask:
    flat, quieter = appearance.flat_blocks(ir, vis)
    noisy: appearance.Mask = flat & (appearance.block_deviation(fused) > TWICE * quieter)
    return noisy


def _faded(ir: Plane, vis: Plane, fused: Plane) -> appearance.Mask:
    """Return the mask of dark blocks that kept less than half of their contrast."""
    wanted = np.maximum(appearance.block_deviation(ir), appearance.block_deviation(vis))
    faded: appearance.Mask = (
        appearance.dark_blocks(vis) & (wanted >= appearance.FLAT) & (appearance.block_deviation(fused) < HALF * wanted)
    )
    return faded


def _whole(blocks: appearance.Mask, like: Plane) -> appearance.Mask:
    """Convert a mask of blocks to one of pixels, (H, W); pixels of incomplete blocks are not marked."""
    whole = np.zeros(like.shape, np.bool_)
    filled = np.kron(blocks, np.ones((appearance.BLOCK, appearance.BLOCK), np.bool_))
    whole[: filled.shape[0], : filled.shape[1]] = filled
    return whole
