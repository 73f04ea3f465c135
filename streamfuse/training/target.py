"""The training target: a fused picture, computed by a formula, that keeps the range.

Both sources are split into Laplacian pyramids.  At each level and position the detail is taken from the source that
varies more; the base is the brighter of the two, pixel by pixel, with bright visible levels compressed, so that warm
things stand out from white smoke and sky.  Nothing is clamped: values beyond the range are compressed into it.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from streamfuse.network.crossfuse import bend

LEVELS = 4
"""Levels of the pyramids: details of 1, 2, 4 and 8 pixels."""
KNEE, SLOPE = 190.0, 0.5
"""Visible base level above which the rest of the level is multiplied by `SLOPE`."""
POWER = 6.0
"""Exponent of the energies that weigh the details; a high one selects, 1 mixes them."""
SIGMA = 2.0
"""Width of the Gaussian mean of a detail's energy, pixels of its level."""
LEAST_ENERGY = 0.5
"""Energy below which neither detail is preferred, grey levels squared."""

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


@functools.lru_cache(maxsize=64)
def _down(length: int) -> Tensor:
    """Return the matrix (ceil(length / 2), length) that smooths by five binomial weights and halves the size."""
    matrix = torch.zeros(-(-length // 2), length)
    for row in range(len(matrix)):
        for reach, weight in enumerate(BINOMIAL, start=-2):
            matrix[row, _mirrored(2 * row + reach, length)] += weight
    return matrix


@functools.lru_cache(maxsize=64)
def _up(length: int) -> Tensor:
    """Return the matrix (length, ceil(length / 2)) that enlarges with the same weights."""
    matrix = torch.zeros(length, -(-length // 2))
    for row in range(length):
        for reach, weight in enumerate(BINOMIAL, start=-2):
            column = _mirrored(row + reach, length)
            if column % 2 == 0:
                matrix[row, column // 2] += 2 * weight
    return matrix / matrix.sum(1, keepdim=True)


@functools.lru_cache(maxsize=64)
def _smooth(length: int) -> Tensor:
    """Return the matrix (length, length) of a Gaussian mean of `SIGMA`, with reflection at the border."""
    matrix = torch.zeros(length, length)
    reach = round(3 * SIGMA)
    for row in range(length):
        for step in range(-reach, reach + 1):
            matrix[row, _mirrored(row + step, length)] += float(torch.tensor(-(step**2) / (2 * SIGMA**2)).exp())
    return matrix / matrix.sum(1, keepdim=True)


def _mirrored(index: int, length: int) -> int:
    """Reflect an index at the outermost samples, as often as needed."""
    if length == 1:
        return 0
    index %= 2 * (length - 1)
    return min(index, 2 * (length - 1) - index)


def _apply(rows: Tensor, x: Tensor, columns: Tensor) -> Tensor:
    return rows.to(x) @ (x @ columns.to(x).T)


def pyramid_target(ir: Tensor, vis: Tensor) -> Tensor:
    """Compute the target of infrared and visible luma, all (B, 1, H, W), 0..255."""
    details = []
    for _ in range(LEVELS):
        height, width = ir.shape[2:]
        both = torch.cat((ir, vis), dim=1)
        smaller = _apply(_down(height), both, _down(width))
        detail = both - _apply(_up(height), smaller, _up(width))
        energy = _apply(_smooth(height), detail.square(), _smooth(width)) + LEAST_ENERGY
        logs = energy.log()
        share = torch.sigmoid(POWER * (logs[:, :1] - logs[:, 1:]))
        details.append(share * detail[:, :1] + (1 - share) * detail[:, 1:])
        ir, vis = smaller.chunk(2, dim=1)
    fused = torch.maximum(ir, torch.where(vis > KNEE, KNEE + SLOPE * (vis - KNEE), vis))
    for detail in reversed(details):
        height, width = detail.shape[2:]
        fused = _apply(_up(height), fused, _up(width)) + detail
    return bend(fused / 255) * 255
