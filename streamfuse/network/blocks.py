"""The shallow path of a narrow network with 2x2 pixels as channels.

Engines lay channels side by side and work on many at once: a picture of one channel, a kernel from one channel to a
few and an enlargement leave most of them idle.  With blocks of pixels for channels the same numbers come of convs
from 4 channels to 32 on a quarter of the places.  Measured with 8 shallow channels at 640x480 on a busy CPU
that multiplies BF16: 0.58 of the time of the whole small network (least of 60 runs).  With 32 nothing was gained.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.network.config import SkipArea, SkipBorder
from streamfuse.network.crossfuse import ShallowSkip, around_block

BLOCK = 2
"""Pixels a side."""
_PIXELS = BLOCK * BLOCK
WIDEST = 16
"""Shallow channels up to which it pays."""


class BlockedDetail(nn.Module):
    """What comes of the shallow features and, enlarged by `factor`, of the deep ones."""

    def __init__(
        self, conv_ir: nn.Conv2d, conv_vis: nn.Conv2d, skip_weight: Tensor, skip: ShallowSkip, factor: int
    ) -> None:
        """`skip_weight`: (1, C, 1, 1), what the end of the decoder makes of the shallow skip; `factor`: even."""
        super().__init__()
        channels = skip_weight.shape[1]
        self.times = factor // BLOCK
        # Of two pixels a repeated block's nearer one is the picture's last but one: mirrored at the outermost.
        self.beyond = "replicate" if skip.border is SkipBorder.REFLECT else "constant"
        self.skip = skip
        for name, conv in (("ir", conv_ir), ("vis", conv_vis)):
            for key, tensor in _shallow(conv).items():
                self.register_buffer(f"{key}_{name}", tensor)
        eye = torch.eye(_PIXELS, dtype=skip_weight.dtype)
        mix = skip_weight[0, None, :, 0, 0, None] * eye[:, None]  # (pixels, C, pixels)
        self.register_buffer("mix", mix.reshape(_PIXELS, channels * _PIXELS, 1, 1))
        self.register_buffer("bilinear", _bilinear(factor))

    mix: Tensor
    bilinear: Tensor

    def forward(self, low: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
        """(B, 1, h, w), and two (B, 1, H, W) in 0..1 with H, W multiples of `BLOCK`, to (B, 1, H, W)."""
        rows, cols = (side // BLOCK for side in ir.shape[2:])
        (a, g_ir), (b, g_vis) = self._features(ir, "ir"), self._features(vis, "vis")
        if self.skip.area is SkipArea.BLOCK:
            around = (around_block(g.unflatten(1, (-1, _PIXELS)).mean(2)) for g in (g_ir, g_vis))
            skip = self.skip.blend(a, b, self.skip.share(*around).repeat_interleave(_PIXELS, dim=1))
        else:
            skip = self.skip.mix(a, b, g_ir, g_vis)
        deep = F.conv2d(F.pad(low, (1, 1, 1, 1), mode="replicate"), self.bilinear)
        if self.times > 1:
            deep = F.pixel_shuffle(deep, self.times)
        return F.pixel_shuffle(F.conv2d(skip, self.mix) + deep[:, :, :rows, :cols], BLOCK)

    def _features(self, image: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Shallow features x and their strength |x - s|, each (B, C * 4, H/2, W/2)."""
        x = F.pixel_unshuffle(F.pad(image, (BLOCK,) * 4, mode="reflect"), BLOCK)
        kernel, bias, total, total_bias, strength = (
            getattr(self, f"{key}_{name}") for key in ("kernel", "bias", "total", "total_bias", "strength")
        )
        # Outside of the picture the sum over the channels is 0, or its own mirror image, but not that of the mirrored
        # picture that x is: so it is a step of its own.
        both = torch.cat((x, F.pad(F.conv2d(x, total, total_bias), (1, 1, 1, 1), mode=self.beyond)), dim=1)
        return F.conv2d(x, kernel, bias), F.conv2d(both, strength, bias).abs()


def _shallow(conv: nn.Conv2d) -> dict[str, Tensor]:
    """The first conv, the sum of its outputs, and, of both blocks and sums, its outputs less the mean of the sums."""
    assert conv.bias is not None
    weight, bias = conv.weight.detach().double(), conv.bias.detach().double()
    kernel = _on_blocks(weight)
    mean = _on_blocks(torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64))
    found = {
        "kernel": kernel,
        "bias": bias.repeat_interleave(_PIXELS),
        "total": _on_blocks(weight.sum(0, keepdim=True)),
        "total_bias": bias.sum().repeat(_PIXELS),
        "strength": torch.cat((kernel, -mean.repeat(len(weight), 1, 1, 1)), dim=1),
    }
    return {key: tensor.float() for key, tensor in found.items()}


def _on_blocks(weight: Tensor) -> Tensor:
    """A kernel (C, 1, 3, 3) on pixels as one on blocks, (C * 4, 4, 3, 3), ordered as `F.pixel_unshuffle` does."""
    out = weight.new_zeros(len(weight), BLOCK, BLOCK, BLOCK, BLOCK, 3, 3)  # C, pixel made, pixel seen, block seen
    for row in range(BLOCK):
        for column in range(BLOCK):
            for down in range(3):
                for along in range(3):
                    y, x = row + down - 1, column + along - 1
                    place = (y % BLOCK, x % BLOCK, y // BLOCK + 1, x // BLOCK + 1)
                    out[(slice(None), row, column, *place)] = weight[:, 0, down, along]
    return out.reshape(len(weight) * _PIXELS, _PIXELS, 3, 3)


def _bilinear(factor: int) -> Tensor:
    """Enlargement as a conv (factor * factor, 1, 3, 3), before `F.pixel_shuffle` by factor / 2 and then by 2."""
    line = torch.zeros(factor, 3)
    for place in range(factor):
        at = (place + 0.5) / factor - 0.5
        low = math.floor(at)
        line[place, low + 1] = 1 - (at - low)
        line[place, low + 2] = at - low
    both = line[:, None, :, None] * line[None, :, None, :]  # (factor, factor, 3, 3)
    times = factor // BLOCK
    apart = both.reshape(times, BLOCK, times, BLOCK, 3, 3).permute(1, 3, 0, 2, 4, 5)
    return apart.reshape(factor * factor, 1, 3, 3)
