"""A fused picture that keeps the range: what the network is drawn to.

Both sources are taken apart into details of growing size (a Laplacian pyramid).  At each size and place the detail of
the source that varies more is taken; what is left at the end is the brighter of the two, pixel by pixel.  Nothing is
subtracted, nothing clamped: what is put together beyond the range is bent back into it.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from streamfuse.network.crossfuse import bend

LEVELS = 4
"""Sizes of detail: 1, 2, 4 and 8 pixels."""
POWER = 6.0
"""Exponent of the energies that choose between details; 1 would mix them."""
SIGMA = 2.0
"""Pixels of its level over which a detail's energy is averaged."""
LEAST_ENERGY = 0.5
"""Grey levels squared: below it, neither detail is preferred."""

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


@functools.lru_cache(maxsize=64)
def _down(length: int) -> Tensor:
    """The matrix (ceil(length / 2), length) that smooths by five binomial weights and takes every second sample."""
    matrix = torch.zeros(-(-length // 2), length)
    for row in range(len(matrix)):
        for reach, weight in enumerate(BINOMIAL, start=-2):
            matrix[row, _mirrored(2 * row + reach, length)] += weight
    return matrix


@functools.lru_cache(maxsize=64)
def _up(length: int) -> Tensor:
    """The matrix (length, ceil(length / 2)) that enlarges with the same weights."""
    matrix = torch.zeros(length, -(-length // 2))
    for row in range(length):
        for reach, weight in enumerate(BINOMIAL, start=-2):
            place = _mirrored(row + reach, length)
            if place % 2 == 0:
                matrix[row, place // 2] += 2 * weight
    return matrix / matrix.sum(1, keepdim=True)


@functools.lru_cache(maxsize=64)
def _smooth(length: int) -> Tensor:
    """The matrix (length, length) of a Gaussian mean of `SIGMA`; the picture goes on by reflection."""
    matrix = torch.zeros(length, length)
    reach = round(3 * SIGMA)
    for row in range(length):
        for step in range(-reach, reach + 1):
            matrix[row, _mirrored(row + step, length)] += float(torch.tensor(-(step**2) / (2 * SIGMA**2)).exp())
    return matrix / matrix.sum(1, keepdim=True)


def _mirrored(place: int, length: int) -> int:
    """Reflection without the outermost sample, as often as needed."""
    if length == 1:
        return 0
    place %= 2 * (length - 1)
    return min(place, 2 * (length - 1) - place)


def _apply(rows: Tensor, x: Tensor, columns: Tensor) -> Tensor:
    return rows.to(x) @ (x @ columns.to(x).T)


def pyramid_target(ir: Tensor, vis: Tensor) -> Tensor:
    """(B, 1, H, W) each, 0..255, to the same."""
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
    fused = torch.maximum(ir, vis)
    for detail in reversed(details):
        height, width = detail.shape[2:]
        fused = _apply(_up(height), fused, _up(width)) + detail
    return bend(fused / 255) * 255
