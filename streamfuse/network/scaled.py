"""The network with its deep path on a smaller copy of the pictures: a fraction of the work for nearly the same picture.

Encoders, attention and decoder chain, which are all but a thousandth of the multiplications, see pictures averaged
over 2x2, 4x4 or more pixels; the shallow path, which carries the fine detail, stays at full scale.  What comes of the
deep features is a smooth picture, and is enlarged.  This is not what the network was trained as: weights/README.md has
its figures.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.network.config import MIN_SIDE, Preset
from streamfuse.network.crossfuse import CrossFuse, conv3x3, skip_by_strength
from streamfuse.network.folding import FoldedDecoder, fold

FACTORS = (1, 2, 4, 8, 16, 32)
"""By which the deep path's pictures may be smaller."""


class DeepScaled(nn.Module):
    """For pictures of one size; deep features from pictures smaller by `factor`."""

    def __init__(self, network: CrossFuse, height: int, width: int, factor: int, *, folded: bool = True) -> None:
        """Shares the weights of `network`; `folded`: its encoders and attention are rewritten to do less.

        Raises ValueError for another factor.  Pictures whose smaller copy the network could not take keep the whole.
        """
        super().__init__()
        if factor not in FACTORS:
            raise ValueError(f"the deep path can be smaller by {', '.join(map(str, FACTORS))}, not {factor}")
        if min(height, width) < factor * MIN_SIDE:
            factor = 1
        self.factor = factor
        deep = fold(network, -(-height // factor), -(-width // factor)) if folded else network
        self.encoder_ir, self.encoder_vis, self.cam = deep.encoder_ir, deep.encoder_vis, deep.cam
        self.decoder = FoldedDecoder(network.decoder)
        self.sum_ir, self.sum_vis = _summed(network.encoder_ir.conv), _summed(network.encoder_vis.conv)

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        """As `CrossFuse.forward`."""
        ir, vis = ir / 255, vis / 255
        deep_ir, deep_vis = self.encoder_ir(self._smaller(ir))[1], self.encoder_vis(self._smaller(vis))[1]
        x = self.decoder.picture(self.cam(deep_ir, deep_vis), (deep_ir, deep_vis))
        x = self._full_size(x, *ir.shape[2:])
        shallow = self.encoder_ir.conv(ir), self.encoder_vis.conv(vis)
        # The sum over the channels is that of their kernels: 32 channels need not be read again.
        skip = skip_by_strength(*shallow, _mean(self.sum_ir(ir)), _mean(self.sum_vis(vis)))
        return x + F.conv2d(skip, self.decoder.skip_weight)

    def _smaller(self, image: Tensor) -> Tensor:
        """Averaged over factor x factor pixels, sides rounded up: the last pixels are repeated."""
        if self.factor == 1:
            return image
        rows, cols = (-side % self.factor for side in image.shape[2:])
        if rows or cols:
            image = F.pad(image, (0, cols, 0, rows), mode="replicate")
        return F.avg_pool2d(image, self.factor)

    def _full_size(self, x: Tensor, height: int, width: int) -> Tensor:
        if self.factor == 1:
            return self.decoder.fit(x, height, width)
        # The rows and columns that pooling dropped are repeated, so that the scale is exactly `factor`.
        rows, cols = -(-height // self.factor) - x.shape[2], -(-width // self.factor) - x.shape[3]
        if rows or cols:
            x = F.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2), mode="replicate")
        x = F.interpolate(x, scale_factor=float(self.factor), mode="bilinear", align_corners=False)
        return x[:, :, :height, :width]


def for_size(network: CrossFuse, height: int, width: int, preset: Preset, *, folded: bool) -> nn.Module:
    """What a preset makes of `network` for pictures of one size; `folded`: rewritten to compute the same with less."""
    factor = preset.factor(height, width)
    if factor > 1:
        return DeepScaled(network, height, width, factor, folded=folded)
    return fold(network, height, width) if folded else network


def _summed(conv: nn.Conv2d) -> nn.Conv2d:
    """One conv of one output channel: the sum of the outputs of `conv`."""
    assert conv.bias is not None
    one = conv3x3(conv.in_channels, 1)
    assert one.bias is not None
    one.weight.data = conv.weight.data.double().sum(0, keepdim=True).to(conv.weight.dtype)
    one.bias.data = conv.bias.data.double().sum(0, keepdim=True).to(conv.weight.dtype)
    return one.requires_grad_(False)


def _mean(x: Tensor) -> Tensor:
    """3x3 mean with zero padding, divisor always 9: see `channel_sum_mean`."""
    return F.avg_pool2d(x.float(), 3, stride=1, padding=1)
