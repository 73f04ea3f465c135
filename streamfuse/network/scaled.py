"""The network with its deep path at reduced size: a fraction of the work for nearly the same picture.

Encoders, attention and decoder, which do all but a thousandth of the multiplications, see pictures averaged over 4x4
or more pixels; the shallow path, which carries the fine detail, stays at full scale.  The deep features contribute a
smooth picture, which is enlarged.  The shipped networks were trained in this form; weights/README.md has the figures.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.network.config import MIN_SIDE, Preset
from streamfuse.network.crossfuse import (
    CrossFuse,
    Decoder,
    conv3x3,
    mean3x3,
)
from streamfuse.network.folding import FoldedDecoder, fold_attention

FACTORS = (1, 2, 4, 8, 16, 32)
"""Possible reductions of the deep path's width and height."""


class DeepScaled(nn.Module):
    """A network for pictures of one size, with deep features from pictures reduced by `factor`.

    This form can be trained; `FoldedDeepScaled` computes the same with less work.
    """

    def __init__(self, network: CrossFuse, height: int, width: int, factor: int) -> None:
        """Shares the modules of `network`.  The factor becomes 1 where the reduced picture would be too small.

        Raises ValueError for a factor that is not in FACTORS.
        """
        super().__init__()
        if factor not in FACTORS:
            raise ValueError(f"the deep path can be smaller by {', '.join(map(str, FACTORS))}, not {factor}")
        self.factor = 1 if min(height, width) < factor * MIN_SIDE else factor
        self.encoder_ir, self.encoder_vis, self.cam = network.encoder_ir, network.encoder_vis, network.cam
        self.decoder, self._bound = network.decoder, network.bound

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        """Compute the same as `CrossFuse.forward`, with the deep path at the smaller scale."""
        ir, vis = ir / 255, vis / 255
        return self.finish(self.deep_picture(ir, vis), ir, vis)

    def deep_picture(self, ir: Tensor, vis: Tensor) -> Tensor:
        """Compute the part of the deep features, (B, 1, 8h, 8w), not enlarged, from two (B, 1, H, W) in 0..1."""
        return self.from_smaller(self._smaller(ir), self._smaller(vis))

    def from_smaller(self, ir: Tensor, vis: Tensor) -> Tensor:
        """Compute the same from two pictures that are already smaller by `factor`."""
        deep = self.encoder_ir(ir)[1], self.encoder_vis(vis)[1]
        return self._picture(self.cam(*deep), deep)

    def finish(self, x: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
        """Compute the output from the result of `deep_picture` and the same two pictures."""
        return self._bound(self._finish(x, ir, vis))

    def _finish(self, x: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
        """Add the part of the deep features, enlarged, and that of the shallow ones: (B, 1, H, W)."""
        return self._full_size(x, *ir.shape[2:]) + self._detail(ir, vis)

    def _picture(self, x: Tensor, deep: tuple[Tensor, Tensor]) -> Tensor:
        """Compute the part of the picture that depends on the deep features, (B, 1, 8h, 8w)."""
        out: Tensor = self.decoder.last(self.decoder.enlarge(x, deep))
        return out

    def _detail(self, ir: Tensor, vis: Tensor) -> Tensor:
        """Compute the part of the picture that depends on the shallow features, (B, 1, H, W)."""
        shallow = self.encoder_ir.conv(ir), self.encoder_vis.conv(vis)
        return F.conv2d(self.decoder.skip(*shallow), _skip(self.decoder))

    def _smaller(self, image: Tensor) -> Tensor:
        """Average over factor x factor pixels; sides are rounded up by repeating the last pixels."""
        if self.factor == 1:
            return image
        rows, cols = (-side % self.factor for side in image.shape[2:])
        if rows or cols:
            image = F.pad(image, (0, cols, 0, rows), mode="replicate")
        return F.avg_pool2d(image, self.factor)

    def _full_size(self, x: Tensor, height: int, width: int) -> Tensor:
        if self.factor == 1:
            return FoldedDecoder.fit(x, height, width)
        x = self._whole(x, height, width)
        x = F.interpolate(x, scale_factor=float(self.factor), mode="bilinear", align_corners=False)
        return x[:, :, :height, :width]

    def _whole(self, x: Tensor, height: int, width: int) -> Tensor:
        """Repeat rows and columns in place of those that pooling dropped, so that the scale is exactly `factor`."""
        rows, cols = -(-height // self.factor) - x.shape[2], -(-width // self.factor) - x.shape[3]
        if rows or cols:
            # Not F.pad: PyTorch's compiler (Inductor, 2.11 to 2.13) fails on its replication of what was shuffled.
            x = _repeat_ends(x, 2, rows // 2, rows - rows // 2)
            x = _repeat_ends(x, 3, cols // 2, cols - cols // 2)
        return x


class FoldedDeepScaled(DeepScaled):
    """The same with composed weights, which takes less work."""

    decoder: FoldedDecoder

    def __init__(self, network: CrossFuse, height: int, width: int, factor: int) -> None:
        super().__init__(network, height, width, factor)
        self.decoder = FoldedDecoder(network.decoder)
        self.sum_ir, self.sum_vis = (_summed(conv) for conv in (network.encoder_ir.conv, network.encoder_vis.conv))

    def _picture(self, x: Tensor, deep: tuple[Tensor, Tensor]) -> Tensor:
        return self.decoder.picture(x, deep)

    def _detail(self, ir: Tensor, vis: Tensor) -> Tensor:
        shallow = self.encoder_ir.conv(ir), self.encoder_vis.conv(vis)
        # Summing the kernels gives the sum over the channels without reading 32 channels again.
        skip = self.decoder.skip
        means = (mean3x3(one.float(), skip.border) for one in (self.sum_ir(ir), self.sum_vis(vis)))
        return F.conv2d(skip.weigh(*shallow, *means), self.decoder.skip_weight)


class DeepPicture(nn.Module):
    """The deep path alone, for engines that compute the shallow path themselves, with rewrites for a CPU."""

    def __init__(self, network: CrossFuse, height: int, width: int, factor: int) -> None:
        super().__init__()
        self._scaled = FoldedDeepScaled(network, height, width, factor)
        # For pictures this small the rewritten encoders are slower, by 1 ms of 33.
        self._scaled.cam = fold_attention(network.cam)

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        """Compute `DeepScaled.deep_picture`, (8h, 8w), of two (H / factor, W / factor) in 0..1, sides rounded up."""
        picture: Tensor = self._scaled.from_smaller(ir[None, None], vis[None, None])[0, 0]
        return picture


def _repeat_ends(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """`x` with its first slice along `dim` repeated `before` times more, and its last one `after` times."""
    length = x.shape[dim]
    first, last = x.narrow(dim, 0, 1), x.narrow(dim, length - 1, 1)
    return torch.cat((*[first] * before, x, *[last] * after), dim=dim)


def for_size(network: CrossFuse, height: int, width: int, preset: Preset) -> nn.Module:
    """Return the form of `network` that `preset` runs for pictures of one size."""
    factor = preset.factor(height, width)
    return FoldedDeepScaled(network, height, width, factor) if factor > 1 else network


def _skip(decoder: Decoder) -> Tensor:
    """Return the effect of the last conv and its norm in evaluation on the shallow skip, (1, 32, 1, 1)."""
    last = decoder.last
    assert last.norm.running_var is not None
    scale: Tensor = last.norm.weight / (last.norm.running_var + last.norm.eps).sqrt()
    return last.conv.weight * scale


def _summed(conv: nn.Conv2d) -> nn.Conv2d:
    """Return a conv with one output channel, the sum of the outputs of `conv`."""
    assert conv.bias is not None
    one = conv3x3(conv.in_channels, 1)
    assert one.bias is not None
    one.weight.data = conv.weight.data.double().sum(0, keepdim=True).to(conv.weight.dtype)
    one.bias.data = conv.bias.data.double().sum(0, keepdim=True).to(conv.weight.dtype)
    return one.requires_grad_(False)
