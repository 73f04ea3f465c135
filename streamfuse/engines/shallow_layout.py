"""Memory that a strip of the shallow pass needs, importable without Numba."""

from __future__ import annotations

RING = 8
"""Rows of pixels that a strip keeps."""
PAD = 8
"""Elements of a plane besides its pixels, at least 2."""
LINE = 16
"""Values of a cache line, of which the size of a plane is a multiple: vector instructions are slow across lines."""
PLANES = 2 * RING * 2 + 2 * 4 * 2 + 8 + 8 + 8
"""Planes that a strip needs: pixels, sums over the channels, their means, the picture, scratch."""
PLANES_PER_CHANNEL = 16
"""Strengths of four rows of blocks, differences of two."""


def memory_size(width: int, channels: int, deep_width: int) -> int:
    """Return the number of FP32 values for a picture of `width` and a row of the deep path's result."""
    stride = _lines(-(-width // 2) + PAD)
    return (PLANES + PLANES_PER_CHANNEL * channels) * stride + _lines(deep_width)


def _lines(values: int) -> int:
    return -(-values // LINE) * LINE
