"""Conversion of deep features to tokens of attention windows, and back.

Shapes: B images, h x w deep pixels, N windows.  A token is a patch of 2x2 pixels of all channels, (c, row, col),
channel-major: 512 values of 128 channels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 32  # side of an attention window, deep pixels
PATCH = 2  # side of a token, deep pixels


def reflected_indices(length: int, padded: int) -> list[int]:
    """Return 0..length-1, continued to the right by reflection as often as needed."""
    return [int(i) for i in np.pad(np.arange(length), (0, padded - length), mode="reflect")]


def to_windows(deep: Tensor) -> Tensor:
    """Convert (B, 128, h, w) to tokens (N, 256, 512) of adjacent windows, the last ones padded: `Window.PADDED`."""
    batch, channels, h, w = deep.shape
    rows, cols = -(-h // WINDOW), -(-w // WINDOW)
    if h % WINDOW:
        deep = deep[:, :, reflected_indices(h, rows * WINDOW), :]
    if w % WINDOW:
        deep = deep[:, :, :, reflected_indices(w, cols * WINDOW)]
    x = deep.reshape(batch, channels, rows, WINDOW, cols, WINDOW).permute(0, 2, 4, 1, 3, 5)
    return to_tokens(x.reshape(batch * rows * cols, channels, WINDOW, WINDOW))


def from_windows(tokens: Tensor, batch: int, h: int, w: int) -> Tensor:
    """The inverse of `to_windows`; the padding is cut off."""
    rows, cols = -(-h // WINDOW), -(-w // WINDOW)
    x = from_tokens(tokens, WINDOW, WINDOW)
    x = x.reshape(batch, rows, cols, -1, WINDOW, WINDOW).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(batch, -1, rows * WINDOW, cols * WINDOW)[:, :, :h, :w]


def to_fitted(deep: Tensor) -> Tensor:
    """Convert (B, 128, h, w) to tokens (N, tokens, 512) of fitted windows: `Window.FITTED`."""
    (top, height), (left, width) = _positions(deep.shape[2]), _positions(deep.shape[3])
    if height > deep.shape[2]:  # one window, of an odd side
        deep = deep[:, :, reflected_indices(deep.shape[2], height), :]
    if width > deep.shape[3]:
        deep = deep[:, :, :, reflected_indices(deep.shape[3], width)]
    windows = [deep[:, :, row : row + height, column : column + width] for row in top for column in left]
    return to_tokens(torch.stack(windows, dim=1).flatten(0, 1))


def from_fitted(tokens: Tensor, batch: int, h: int, w: int) -> Tensor:
    """The inverse of `to_fitted`: overlapping windows are blended, with the largest weight in the middle of each."""
    (top, height), (left, width) = _positions(h), _positions(w)
    x = from_tokens(tokens, height, width)
    if len(x) == batch:
        return x[:, :, :h, :w]
    x = x.reshape(batch, len(top) * len(left), *x.shape[1:])
    down, along = (_shares(starts, side, tokens) for starts, side in ((top, h), (left, w)))
    out = torch.zeros(())
    for index, window in enumerate(x.unbind(1)):
        row, column = divmod(index, len(left))
        at = left[column], w - width - left[column], top[row], h - height - top[row]
        part = F.pad(window[:, :, :h, :w], [max(side, 0) for side in at])
        out = out + part * (down[row][:, None] * along[column])
    return out


def _positions(length: int) -> tuple[list[int], int]:
    """Return the first pixels of the windows along a side, and their size: one window, or several that overlap."""
    if length <= WINDOW:
        return [0], length + length % PATCH
    steps = -(-(length - WINDOW) // (WINDOW // 2))
    return [round(step * (length - WINDOW) / steps) for step in range(steps + 1)], WINDOW


def _shares(starts: list[int], length: int, like: Tensor) -> Tensor:
    """Return the weights of the windows along a side, (windows, length), which fall to their ends and add up to 1."""
    if len(starts) == 1:
        return torch.ones(1, length, dtype=like.dtype, device=like.device)
    tent = [min(i + 0.5, WINDOW - i - 0.5) for i in range(WINDOW)]
    weights = torch.zeros(len(starts), length)
    for window, start in zip(weights, starts, strict=True):
        window[start : start + WINDOW] = torch.tensor(tent)
    return (weights / weights.sum(0)).to(like)


def to_tokens(x: Tensor) -> Tensor:
    """Convert windows (N, 128, height, width), of even sides, to (N, tokens, 512)."""
    count, channels, height, width = x.shape
    x = x.reshape(count, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    x = x.permute(0, 2, 4, 1, 3, 5)  # (N, rows of tokens, columns of tokens, c, patch row, patch col)
    return x.reshape(count, height * width // PATCH**2, channels * PATCH**2)


def from_tokens(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `to_tokens`."""
    channels = tokens.shape[-1] // PATCH**2
    x = tokens.reshape(-1, height // PATCH, width // PATCH, channels, PATCH, PATCH)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, height, width)
