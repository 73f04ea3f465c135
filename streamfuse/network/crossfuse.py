"""The CrossFuse network.

H. Li, X.-J. Wu, "CrossFuse: A Novel Cross Attention Mechanism based Infrared and Visible Image
Fusion Approach", Information Fusion 103 (2024) 102147.  Equation numbers are that paper's; a comment marks
each place where the published checkpoints need another form than the equation.

Shapes in the comments: B images, H x W pixels, h x w = H//8 x W//8 deep pixels, N windows.  Numbers of channels are
those of the published network; `CrossFuseConfig` may choose fewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.network.config import (
    MIN_SIDE,
    Attention,
    CrossFuseConfig,
    Ends,
    Fusion,
    Output,
    SkipArea,
    SkipBorder,
    SkipWeights,
    Window,
)
from streamfuse.network.windows import PATCH, from_fitted, from_windows, to_fitted, to_windows

HEAD = 32  # values a token has in each head
EPS = 1e-6


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")


class DenseBlock(nn.Module):
    """Three convs, each of which sees the input and all earlier outputs, and a fourth over all.  No activations."""

    def __init__(self, inputs: int, outputs: int, growth: int) -> None:
        super().__init__()
        self.grow = nn.ModuleList(conv3x3(inputs + i * growth, growth) for i in range(3))
        self.adjust = conv3x3(inputs + 3 * growth, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.grow:
            x = torch.cat((x, conv(x)), dim=1)
        out: Tensor = self.adjust(x)
        return out


class Encoder(nn.Module):
    """Shallow features at full scale and deep features at 1/8 scale of one modality (section 3.1.1)."""

    def __init__(self, config: CrossFuseConfig) -> None:
        super().__init__()
        self.conv = conv3x3(1, config.shallow)
        self.dense1 = DenseBlock(config.shallow, config.deep, config.growth)
        self.dense2 = DenseBlock(config.deep, config.deep, config.growth)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Encode `image`, (B, 1, H, W), 0..1."""
        shallow = self.conv(image)  # (B, 32, H, W)
        return shallow, self.deepen(shallow)

    def deepen(self, shallow: Tensor) -> Tensor:
        """Compute deep features from shallow ones."""
        half = self.dense1(F.max_pool2d(shallow, 2))  # (B, 128, H/2, W/2)
        quarter = self.dense2(F.max_pool2d(half, 2))  # (B, 128, H/4, W/4)
        return F.max_pool2d(quarter, 2)  # (B, 128, h, w)


class Mlp(nn.Module):
    def __init__(self, token: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(token, 4 * token)
        self.fc2 = nn.Linear(4 * token, token)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Normalise in FP32 for any dtype of the weights, because the squares overflow FP16."""
    y = F.layer_norm(x.float(), norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)
    return y.to(x.dtype)


def split_heads(x: Tensor) -> Tensor:
    return x.reshape(*x.shape[:-1], -1, HEAD).transpose(1, 2)  # (N, 256, 512) to (N, heads, 256, 32)


def attend(q: Tensor, k: Tensor, v: Tensor, sign: float) -> Tensor:
    """softmax(sign * q k^T / sqrt(d)) v over (N, tokens, 512): sign 1 is Eq. 1-2, sign -1 is re-softmax, Eq. 3.

    Re-softmax gives the most weight to the *least* similar tokens of the other modality, which add the most.
    """
    q, k, v = split_heads(q), split_heads(k), split_heads(v)
    scores = (q * (sign * q.shape[-1] ** -0.5)) @ k.transpose(-2, -1)  # (N, heads, 256, 256)
    weights = scores.float().softmax(dim=-1).to(v.dtype)
    out: Tensor = (weights @ v).transpose(1, 2).flatten(2)  # (N, 256, 512)
    return out


class SelfAttentionBlock(nn.Module):
    def __init__(self, token: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(token, eps=EPS)
        self.qkv = nn.Linear(token, 3 * token)
        self.proj = nn.Linear(token, token)
        self.norm2 = nn.LayerNorm(token, eps=EPS)
        self.mlp = Mlp(token)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 256, 512) for (N, 256, 512)."""
        # Not chunk: TensorRT-RTX fails on the slices of a small biased product, as in one window with few tokens.
        q, k, v = self.qkv(layer_norm(self.norm1, x)).unflatten(2, (3, -1)).unbind(2)
        x = x + self.proj(attend(q, k, v, sign=1.0))
        out: Tensor = x + self.mlp(layer_norm(self.norm2, x))
        return out


class CrossAttentionBlock(nn.Module):
    def __init__(self, token: int, attention: Attention) -> None:
        super().__init__()
        self.sign = -1.0 if attention is Attention.RE_SOFTMAX else 1.0
        self.norm1 = nn.LayerNorm(token, eps=EPS)
        self.q = nn.Linear(token, token)
        self.k = nn.Linear(token, token)
        self.v = nn.Linear(token, token)
        self.proj = nn.Linear(token, token)
        self.norm2 = nn.LayerNorm(token, eps=EPS)
        self.mlp = Mlp(token)

    def forward(self, other: Tensor, keys: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Return `own` complemented from `other`, and LN1(other) for the next block.

        All are (N, 256, 512): queries come from `other`, keys from `keys`, values and the residual from `own`.
        """
        query = layer_norm(self.norm1, other)
        q = self.q(query)
        k = self.k(layer_norm(self.norm1, keys))
        v = self.v(layer_norm(self.norm1, own))
        x = own + self.proj(attend(q, k, v, self.sign))
        return x + self.mlp(layer_norm(self.norm2, x)), query


class CrossAttention(nn.Module):
    """The cross-attention blocks of one modality and their final norm."""

    def __init__(self, token: int, depth: int, attention: Attention) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CrossAttentionBlock(token, attention) for _ in range(depth))
        self.norm = nn.LayerNorm(token, eps=EPS)

    def forward(self, other: Tensor, own: Tensor) -> Tensor:
        keys = own
        for block in self.blocks:
            out, other = block(other, keys, own)
            keys, own = out, layer_norm(self.norm, out)
        return own


class CrossAttentionModule(nn.Module):
    """CAM (section 3.1.2): self-attention within each modality, then cross-attention between them.

    Between the two self-attentions the paper shifts the windows by half a window.  The published code
    rolls each window within itself by 16 deep pixels, which is 8 whole tokens.  Attention does not depend on
    positions, so rolling, attending and rolling back equals attending, and no shift is done here.
    """

    def __init__(
        self,
        deep: int,
        depth: int,
        attention: Attention = Attention.RE_SOFTMAX,
        window: Window = Window.PADDED,
    ) -> None:
        super().__init__()
        token = deep * PATCH * PATCH
        self.window = window
        # A and B of the paper, `depth` blocks each, one after the other.
        self.self_ir = nn.ModuleList(SelfAttentionBlock(token) for _ in range(2 * depth))
        self.self_vis = nn.ModuleList(SelfAttentionBlock(token) for _ in range(2 * depth))
        self.cross_ir = CrossAttention(token, depth, attention)
        self.cross_vis = CrossAttention(token, depth, attention)

    def forward(self, deep_ir: Tensor, deep_vis: Tensor) -> Tensor:
        """Two (B, 128, h, w) to one."""
        batch, _, h, w = deep_ir.shape
        cut, join = (to_windows, from_windows) if self.window is Window.PADDED else (to_fitted, from_fitted)
        ir, vis = cut(deep_ir), cut(deep_vis)  # (N, 256, 512) each
        for block in self.self_ir:
            ir = block(ir)
        for block in self.self_vis:
            vis = block(vis)
        crossed = self.cross_ir(other=vis, own=ir) + self.cross_vis(other=ir, own=vis)
        return join(crossed, batch, h, w)


class ConvFusion(nn.Module):
    """The replacements of the CAM in Table 2: four convs (F_CNN), or a dense block and a conv (F_Dense)."""

    def __init__(self, config: CrossFuseConfig) -> None:
        super().__init__()
        deep = config.deep
        if config.fusion is Fusion.CNN:
            self.layers = nn.Sequential(conv3x3(2 * deep, deep), *(conv3x3(deep, deep) for _ in range(3)))
        else:
            self.layers = nn.Sequential(DenseBlock(2 * deep, deep, config.growth), conv3x3(deep, deep))

    def forward(self, deep_ir: Tensor, deep_vis: Tensor) -> Tensor:
        """Two (B, 128, h, w) to one."""
        out: Tensor = self.layers(torch.cat((deep_ir, deep_vis), dim=1))
        return out


def channel_sum_mean(x: Tensor, border: SkipBorder = SkipBorder.ZEROS) -> Tensor:
    """s: 3x3 mean of the sum over the channels, (B, C, H, W) to (B, 1, H, W), in FP32.

    Eq. 4-6 filter each channel separately; the published filter has the weight 1/9 between all channels.
    """
    return mean3x3(x.float().sum(dim=1, keepdim=True), border)


def mean3x3(x: Tensor, border: SkipBorder) -> Tensor:
    """3x3 mean of (B, C, H, W); the divisor is 9 at the border too."""
    if border is SkipBorder.REFLECT:
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    return F.avg_pool2d(x, 3, stride=1, padding=1)


def deep_skip(x: Tensor, ir: Tensor, vis: Tensor, form: SkipWeights) -> Tensor:
    """x + w_ir * ir + w_vis * vis, each (B, 128, h, w).  Weights in FP32: the epsilon is subnormal in FP16."""
    s_ir, s_vis = channel_sum_mean(ir), channel_sum_mean(vis)
    if form is SkipWeights.MAGNITUDE:
        s_ir, s_vis = s_ir.abs(), s_vis.abs()
    total = s_ir + s_vis + EPS
    return x + (s_ir / total).to(x.dtype) * ir + (s_vis / total).to(x.dtype) * vis


@dataclass(frozen=True, slots=True)
class ShallowSkip:
    """Sum of both modalities' shallow features, weighted by gradient strength.

    With the published power of 1 and factor of 0.5: w_ir / 2 * ir + w_vis * vis, w_ir = g_ir / (g_ir + g_vis).  Eq. 4-6
    have no 1/2.  A higher power p replaces g by g^p.
    """

    border: SkipBorder
    power: int
    infrared: float
    area: SkipArea

    @classmethod
    def of(cls, config: CrossFuseConfig) -> ShallowSkip:
        return cls(config.skip_border, config.skip_power, config.skip_infrared, config.skip_area)

    def __call__(self, ir: Tensor, vis: Tensor) -> Tensor:
        """Weigh two (B, 32, H, W) and return one."""
        return self.weigh(ir, vis, channel_sum_mean(ir, self.border), channel_sum_mean(vis, self.border))

    def weigh(self, ir: Tensor, vis: Tensor, s_ir: Tensor, s_vis: Tensor) -> Tensor:
        """Weigh features by strengths computed from their `channel_sum_mean`s."""
        return self.mix(ir, vis, (ir.float() - s_ir).abs(), (vis.float() - s_vis).abs())

    def mix(self, ir: Tensor, vis: Tensor, g_ir: Tensor, g_vis: Tensor) -> Tensor:
        """Weigh features by their gradient strengths."""
        if self.area is SkipArea.BLOCK:
            rows, cols = ir.shape[2:]
            share = F.interpolate(self.share(*map(_in_blocks, (g_ir, g_vis))), scale_factor=2.0)[:, :, :rows, :cols]
            return self.blend(ir, vis, share)
        if self.power == 1:
            total = g_ir + g_vis + EPS
            return self.infrared * (g_ir / total).to(ir.dtype) * ir + (g_vis / total).to(vis.dtype) * vis
        return self.blend(ir, vis, self.share(g_ir, g_vis))

    def share(self, g_ir: Tensor, g_vis: Tensor) -> Tensor:
        """Return the weight of infrared, 0..1; visible has the rest.  Powers that overflow give 0."""
        return 1 / (1 + raise_to(g_vis / (g_ir + EPS), self.power))

    def blend(self, ir: Tensor, vis: Tensor, share: Tensor) -> Tensor:
        share = share.to(ir.dtype)
        return share * (self.infrared * ir) + (1 - share) * vis


def _in_blocks(strength: Tensor) -> Tensor:
    """Means over 6x6 pixels in steps of 2, (B, C, H, W) to (B, C, ceil(H / 2), ceil(W / 2))."""
    rows, cols = (side % 2 for side in strength.shape[2:])
    if rows or cols:
        strength = F.pad(strength, (0, cols, 0, rows), mode="replicate")
    return around_block(F.avg_pool2d(strength, 2))


def around_block(strength: Tensor) -> Tensor:
    """Mean over 3x3 blocks, with reflection at the border."""
    return mean3x3(strength, SkipBorder.REFLECT)


def raise_to(x: Tensor, power: int) -> Tensor:
    """Raise x to a power of `POWERS` by multiplications; engines compute other powers by logarithms."""
    return x if power == 1 else raise_to(x * x, power // 2)


KNEE = 12 / 255
"""Part of the range at either end that `bend` compresses."""


def bend(raw: Tensor) -> Tensor:
    """Map real values to luma in 0..1: hyperbolas at both ends, which join with equal value and slope."""
    below, above = F.relu(KNEE - raw), F.relu(raw - (1 - KNEE))
    return raw + below * below / (KNEE + below) - above * above / (KNEE + above)


class DecoderConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = conv3x3(inputs, outputs) if kernel == 3 else nn.Conv2d(inputs, outputs, kernel)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out


class Decoder(nn.Module):
    """Fused deep features to an image, with intensity-aware skips (section 3.1.3)."""

    def __init__(self, config: CrossFuseConfig) -> None:
        super().__init__()
        shallow, deep = config.shallow, config.deep
        self.skip_weights, self.skip = config.skip_weights, ShallowSkip.of(config)
        self.conv1 = DecoderConv(deep, deep // 2)
        self.conv2 = DecoderConv(deep // 2, deep // 2)
        self.conv3 = DecoderConv(deep // 2, shallow)
        self.conv4 = DecoderConv(shallow, shallow)
        self.last = DecoderConv(shallow, 1, kernel=1)

    def forward(self, x: Tensor, deep: tuple[Tensor, Tensor], shallow: tuple[Tensor, Tensor]) -> Tensor:
        x = self.enlarge(x, deep)
        rows, cols = shallow[0].shape[2] - x.shape[2], shallow[0].shape[3] - x.shape[3]
        if rows or cols:  # the max-pools rounded an odd size down
            top, left = rows // 2, cols // 2
            x = F.pad(x, (left, cols - left, top, rows - top), mode="reflect")
        x = x + self.skip(*shallow)  # (B, 32, H, W)
        out: Tensor = self.last(x)
        return out

    def enlarge(self, x: Tensor, deep: tuple[Tensor, Tensor]) -> Tensor:
        """Enlarge fused and encoded deep features, each (B, 128, h, w), to (B, 32, 8h, 8w)."""
        x = deep_skip(x, *deep, self.skip_weights)  # (B, 128, h, w)
        x = F.interpolate(self.conv1(x), scale_factor=2.0)  # (B, 64, 2h, 2w), nearest
        x = F.interpolate(self.conv2(x), scale_factor=2.0)  # (B, 64, 4h, 4w)
        x = F.interpolate(self.conv3(x), scale_factor=2.0)  # (B, 32, 8h, 8w)
        out: Tensor = self.conv4(x)
        return out


class CrossFuse(nn.Module):
    """The whole network.

    Raises ValueError from `forward` for images under 16 pixels a side.
    """

    def __init__(self, config: CrossFuseConfig | None = None) -> None:
        super().__init__()
        self.config = config or CrossFuseConfig()
        self.encoder_ir = Encoder(self.config)
        self.encoder_vis = Encoder(self.config)
        self.cam: CrossAttentionModule | ConvFusion
        if self.config.fusion is Fusion.CAM:
            self.cam = CrossAttentionModule(
                self.config.deep, self.config.depth, self.config.attention, self.config.window
            )
        else:
            self.cam = ConvFusion(self.config)
        self.decoder = Decoder(self.config)

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        """Compute raw output (B, 1, H, W) from infrared and visible luma, each (B, 1, H, W), 0..255.

        See `Output` for the meaning of the raw values and `to_luma` for their conversion to 0..255.
        """
        if min(ir.shape[2:]) < MIN_SIDE:
            raise ValueError(f"the network needs at least {MIN_SIDE}x{MIN_SIDE} pixels, got {tuple(ir.shape)}")
        shallow_ir, deep_ir = self.encoder_ir(ir / 255)
        shallow_vis, deep_vis = self.encoder_vis(vis / 255)
        x = self.cam(deep_ir, deep_vis)
        return self.bound(self.decoder(x, (deep_ir, deep_vis), (shallow_ir, shallow_vis)))

    def bound(self, raw: Tensor) -> Tensor:
        """Return the decoder's output, with its ends bent if the configuration says so."""
        return bend(raw) if self.config.ends is Ends.BENT else raw


def to_luma(raw: Tensor, output: Output) -> Tensor:
    """Convert raw output (B, 1, H, W) to luma 0..255, float, not rounded; each image separately, as published."""
    if output is Output.DIRECT:
        return (raw * 255).clamp(0, 255)
    low, high = raw.amin(dim=(1, 2, 3), keepdim=True), raw.amax(dim=(1, 2, 3), keepdim=True)
    return (raw - low) / (high - low + EPS) * 255
