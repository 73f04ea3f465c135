"""Rewrites of the network that compute the same with less work, for engines that compile it.

Between its max-pools the network is affine, so chains of convolutions can be composed.  Each class takes
a trained module and stands in for it; results differ from the original's by rounding only, over the whole
image and its borders.  Weights are composed in FP64.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.network.crossfuse import (
    GROWTH,
    PATCH,
    TOKEN,
    WINDOW,
    CrossAttention,
    CrossAttentionBlock,
    CrossAttentionModule,
    CrossFuse,
    Decoder,
    DenseBlock,
    Encoder,
    attend,
    deep_skip,
    layer_norm,
    shallow_skip,
    to_windows,
)

REACH = 4
"""A dense block is four 3x3 convs in a row: an output pixel sees 4 pixels to each side."""
MOST_ROWS = 64
"""Rows that come out of a tile, at most: longer tiles save less and less, and their rounding adds up."""
LEAST = 32
"""Rows or columns under which a picture is nearly all border and the rewrite does not pay."""


class FoldedEncoder(Encoder):
    """An encoder, for one height, whose first dense block is one 9x9 conv done by Fourier transform down the columns.

    Away from the border a dense block is one 9x9 conv.  Down the columns that conv becomes, for each pair of
    real values that the transform of a tile of rows has, a 1x9 conv along the rows: a quarter of the block's
    multiplications.  Within 4 pixels of the border, where every conv of the block reflects its own input,
    the block is computed as it is written.  The second block has four times the input channels and a quarter
    of the pixels: transforming it would cost what it saves.
    """

    analysis: Tensor
    spectrum: Tensor
    synthesis: Tensor
    bias: Tensor

    def __init__(self, encoder: Encoder, height: int) -> None:
        super().__init__()
        self.conv, self.dense1, self.dense2 = encoder.conv, encoder.dense1, encoder.dense2
        rows = height // 4 * 2 - 2 * REACH  # at half scale, even, without the border
        self.pays = rows + 2 * REACH >= LEAST
        self.tiles = max(1, -(-rows // MOST_ROWS))
        self.step = -(-rows // (2 * self.tiles)) * 2  # even, as pooling comes next
        kernel, bias = _compose_dense(encoder.dense1)
        tensors = (*_transforms(kernel, self.step + 2 * REACH), bias[:, None, None])
        for name, tensor in zip(("analysis", "spectrum", "synthesis", "bias"), tensors, strict=True):
            self.register_buffer(name, tensor.float())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        shallow = self.conv(image)  # (B, 32, H, W)
        half = self._dense1_pooled(F.max_pool2d(shallow, 2))  # (B, 128, H/4, W/4)
        return shallow, F.max_pool2d(self.dense2(half), 2)

    def _dense1_pooled(self, x: Tensor) -> Tensor:
        """(B, 32, h, w) to (B, 128, h/2, w/2)."""
        height, width = x.shape[2:]
        if not self.pays or width < LEAST:
            return F.max_pool2d(self.dense1(x), 2)
        # Pooling drops the last row or column of an odd size; the last strips are one longer then.
        reach, below, beside = 2 * REACH, 2 * REACH + height % 2, 2 * REACH + width % 2
        top = F.max_pool2d(_along_border(self.dense1, x[:, :, :reach], "top"), 2)  # (B, 128, 2, w/2)
        bottom = F.max_pool2d(_along_border(self.dense1, x[:, :, -below:], "bottom"), 2)
        left = F.max_pool2d(_along_border(self.dense1, x[:, :, :, :reach], "left"), 2)  # (B, 128, h/2, 2)
        right = F.max_pool2d(_along_border(self.dense1, x[:, :, :, -beside:], "right"), 2)
        inner = slice(REACH // 2, -REACH // 2)
        interior = self._interior_pooled(x)
        middle = torch.cat((left[:, :, inner], interior, right[:, :, inner]), dim=3)
        return torch.cat((top, middle, bottom), dim=2)

    def _interior_pooled(self, x: Tensor) -> Tensor:
        """(B, 32, h, w) to (B, 128, h/2 - 4, w/2 - 4): what is 4 or more pixels from the border."""
        (batch, _, height, width), size = x.shape, self.step + 2 * REACH
        width -= width % 2
        rows, cols = height - height % 2 - 2 * REACH, width - 2 * REACH
        x = x.permute(0, 2, 3, 1)[:, : rows + 2 * REACH, :width]  # (B, h, w, 32)
        x = F.pad(x, (0, 0, 0, 0, 0, self.tiles * self.step - rows))
        x = torch.stack([x[:, i * self.step :][:, :size] for i in range(self.tiles)], dim=1)  # (B, tiles, size, w, 32)
        # openvino keeps a constant matrix in FP32 and widens the large factor to it, at 10 ms: this is no constant.
        x = x.flatten(3)
        zero = x[0, 0, 0, 0] * 0
        x = (self.analysis + zero) @ x  # (B, tiles, size, w * 32)
        x = x.reshape(batch, self.tiles, size, width, -1).transpose(2, 3).flatten(3)  # (B, tiles, w, size * 32)
        x = F.conv2d(x.permute(0, 3, 1, 2), self.spectrum, groups=size // 2)  # (B, size * 128, tiles, cols)
        x = x.permute(0, 2, 3, 1).reshape(batch * self.tiles * cols, size, -1)
        x = (self.synthesis + zero) @ x  # (B * tiles * cols, step, 128)
        # Pooled before the axes are put in order, when there is four times as much to move.
        x = F.max_pool2d(x.reshape(batch * self.tiles, cols, self.step, -1).permute(0, 3, 1, 2), 2)
        x = x.permute(0, 3, 2, 1)  # (B * tiles, step / 2, cols / 2, 128)
        x = x.reshape(batch, self.tiles * self.step // 2, cols // 2, -1)[:, : rows // 2]
        return x.permute(0, 3, 1, 2) + self.bias


def _along_border(block: DenseBlock, x: Tensor, side: str) -> Tensor:
    """A dense block over a strip along one side of the picture; each conv uses up a pixel on the strip's inner edge."""
    pad = {"left": (1, 0, 1, 1), "right": (0, 1, 1, 1), "top": (1, 1, 1, 0), "bottom": (1, 1, 0, 1)}[side]
    dim, start = 3 if side in {"left", "right"} else 2, int(side in {"right", "bottom"})
    for conv in block.grow:
        y = _valid(conv, F.pad(x, pad, mode="reflect"))
        x = torch.cat((x.narrow(dim, start, x.shape[dim] - 1), y), dim=1)
    return _valid(block.adjust, F.pad(x, pad, mode="reflect"))


def _valid(conv: nn.Module, x: Tensor) -> Tensor:
    """`conv` without the padding that it would add."""
    assert isinstance(conv, nn.Conv2d)
    return F.conv2d(x, conv.weight, conv.bias)


def _compose_dense(block: DenseBlock) -> tuple[Tensor, Tensor]:
    """The block's one kernel (outputs, inputs, 9, 9) and bias (outputs), found by what it makes of single pixels."""
    inputs, middle = int(block.adjust.in_channels) - 3 * GROWTH, 2 * REACH
    pixels = torch.zeros(inputs, inputs, 2 * middle + 1, 2 * middle + 1, dtype=torch.float64)
    pixels[range(inputs), range(inputs), middle, middle] = 1
    exact = copy.deepcopy(block).double()
    with torch.no_grad():
        nothing = exact(torch.zeros_like(pixels[:1]))
        seen = slice(middle - REACH, middle + REACH + 1)
        kernel = (exact(pixels) - nothing)[:, :, seen, seen].flip(2, 3).transpose(0, 1)
    return kernel, nothing[0, :, middle, middle]


def _transforms(kernel: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Real Fourier analysis of `size` rows, the kernel's spectrum, and the synthesis of the rows that are whole.

    Analysis: matrix (size, size), its rows in pairs.  Spectrum: grouped conv weights (size * outputs, 2 * inputs,
    1, 9), a group for each pair.  Synthesis: matrix (size - 8, size).
    """
    outputs, inputs, reach, _ = kernel.shape
    pairs = size // 2
    row, frequency = torch.arange(size, dtype=torch.float64), torch.arange(pairs, dtype=torch.float64)
    angle = 2 * math.pi * frequency[:, None] * row / size
    waves = torch.stack((angle.cos(), -angle.sin()), dim=1)  # (pairs, 2, size)
    waves[0, 1] = (math.pi * row).cos()  # the lowest frequency has no sine; the highest, no partner, takes the place

    # Convolution as the network has it is correlation: a product with the conjugate spectrum.
    spectrum = torch.fft.fft(F.pad(kernel, (0, 0, 0, size - reach)), dim=2).conj()  # (outputs, inputs, size, 9)
    real, imaginary = spectrum.real.permute(2, 0, 1, 3), spectrum.imag.permute(2, 0, 1, 3)
    blocks = torch.zeros(pairs, 2, outputs, 2, inputs, reach, dtype=torch.float64)
    blocks[:, 0, :, 0] = blocks[:, 1, :, 1] = real[:pairs]
    blocks[:, 0, :, 1], blocks[:, 1, :, 0] = -imaginary[:pairs], imaginary[:pairs]
    blocks[0, 0, :, 1] = blocks[0, 1, :, 0] = 0
    blocks[0, 1, :, 1] = real[pairs]

    weight = torch.full((pairs, 1, 1), 2.0 / size, dtype=torch.float64)
    weight[0] = 1.0 / size
    synthesis = (waves * weight)[:, :, : size - 2 * REACH].reshape(size, -1).T
    return waves.reshape(size, size), blocks.reshape(size * outputs, 2 * inputs, 1, reach), synthesis.contiguous()


class FoldedAttention(CrossAttentionModule):
    """A CAM whose last blocks leave out, after their attention, the tokens that only fill up the windows.

    At 640x480 these are 336 of 1,536; as keys and values of the others they still count.
    """

    def __init__(self, cam: CrossAttentionModule) -> None:
        super().__init__(depth=0)
        self.self_ir, self.self_vis = cam.self_ir, cam.self_vis
        self.cross_ir, self.cross_vis = cam.cross_ir, cam.cross_vis

    def forward(self, deep_ir: Tensor, deep_vis: Tensor) -> Tensor:
        batch, channels, h, w = deep_ir.shape
        rows, cols = -(-h // PATCH), -(-w // PATCH)  # in tokens
        ir, vis = to_windows(deep_ir), to_windows(deep_vis)
        for block in self.self_ir:
            ir = block(ir)
        for block in self.self_vis:
            vis = block(vis)
        index = _tokens_in_picture(rows, cols)
        crossed = _cross(self.cross_ir, vis, ir, batch, index) + _cross(self.cross_vis, ir, vis, batch, index)
        x = crossed.reshape(batch, rows, cols, channels, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(batch, channels, rows * PATCH, cols * PATCH)[:, :, :h, :w]


def _tokens_in_picture(rows: int, cols: int) -> Tensor:
    """Where each token of the picture, row by row, is among the tokens of all windows."""
    side = WINDOW // PATCH
    down, along = -(-rows // side), -(-cols // side)  # windows
    places = torch.arange(down * along * side * side).reshape(down, along, side, side)
    return places.transpose(1, 2).reshape(down * side, along * side)[:rows, :cols].reshape(-1)


def _cross(module: CrossAttention, other: Tensor, own: Tensor, batch: int, index: Tensor) -> Tensor:
    """As `CrossAttention.forward`, but only for the tokens of `index`: (B, tokens, 512)."""

    def pick(x: Tensor) -> Tensor:
        return x.reshape(batch, -1, TOKEN)[:, index]

    keys = own
    *before, last = (block for block in module.blocks if isinstance(block, CrossAttentionBlock))
    for block in before:
        out, other = block(other, keys, own)
        keys, own = out, layer_norm(module.norm, out)
    q = last.q(layer_norm(last.norm1, other))
    k, v = last.k(layer_norm(last.norm1, keys)), last.v(layer_norm(last.norm1, own))
    x = pick(own) + last.proj(pick(attend(q, k, v, sign=-1.0)))
    return layer_norm(module.norm, x + last.mlp(layer_norm(last.norm2, x)))


class FoldedDecoder(Decoder):
    """A decoder whose convs after the first are one 3x3 conv at 1/8 scale and a pixel shuffle.

    Reflecting a nearest-upsampled picture by one pixel repeats its outermost pixel, and that repetition goes
    through a conv and the next upsampling unchanged.  So all reflections after the first conv equal repeating
    the border pixels of its result, and the composition holds up to the border.
    """

    def __init__(self, decoder: Decoder) -> None:
        nn.Module.__init__(self)
        self.skip_weights = decoder.skip_weights
        self.conv1, self.conv2, self.conv3 = decoder.conv1, decoder.conv2, decoder.conv3
        self.conv4, self.last = decoder.conv4, decoder.last
        for name, tensor in zip(("tail_weight", "tail_bias", "skip_weight"), _compose_decoder(decoder), strict=True):
            self.register_buffer(name, tensor.float())

    tail_weight: Tensor
    tail_bias: Tensor
    skip_weight: Tensor

    def forward(self, x: Tensor, deep: tuple[Tensor, Tensor], shallow: tuple[Tensor, Tensor]) -> Tensor:
        x = self.conv1(deep_skip(x, *deep, self.skip_weights))  # (B, 64, h, w)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), self.tail_weight, self.tail_bias)
        x = F.pixel_shuffle(x, 8)  # (B, 1, 8h, 8w)
        rows, cols = shallow[0].shape[2] - x.shape[2], shallow[0].shape[3] - x.shape[3]
        if rows or cols:
            top, left = rows // 2, cols // 2
            x = F.pad(x, (left, cols - left, top, rows - top), mode="reflect")
        skip = shallow_skip(torch.zeros((), dtype=x.dtype, device=x.device), *shallow)  # (B, 32, H, W)
        return x + F.conv2d(skip, self.skip_weight)


def _compose_decoder(decoder: Decoder) -> tuple[Tensor, Tensor, Tensor]:
    """conv2 to the end as conv weights (64, 64, 3, 3), one output for each pixel of 8x8, and bias (64).

    And what the end makes of the shallow skip: conv weights (1, 32, 1, 1).
    """
    exact = copy.deepcopy(decoder).double()

    def tail(y: Tensor) -> Tensor:
        for layer in (exact.conv2, exact.conv3, exact.conv4):
            y = layer(F.interpolate(y, scale_factor=2.0))
        out: Tensor = exact.last(y)
        return out

    channels = int(decoder.conv1.conv.out_channels)
    pixels = torch.zeros(channels, channels, 5, 5, dtype=torch.float64)
    pixels[range(channels), range(channels), 2, 2] = 1
    with torch.no_grad():
        nothing = tail(torch.zeros_like(pixels[:1]))
        blocks = F.pixel_unshuffle(tail(pixels) - nothing, 8)  # (64 inputs, 64 pixels, 5, 5)
        weight = blocks[:, :, 1:4, 1:4].flip(2, 3).transpose(0, 1)
        bias = nothing[0, 0, 16:24, 16:24].reshape(-1)
        lit = torch.eye(int(decoder.last.conv.in_channels), dtype=torch.float64)[:, :, None, None]
        skip = (exact.last(lit) - exact.last(torch.zeros_like(lit))).transpose(0, 1)
    return weight, bias, skip


def fold(network: CrossFuse, height: int) -> CrossFuse:
    """A network that computes what `network` does on pictures of `height`; they share what is not rewritten."""
    folded = copy.copy(network)
    folded._modules = dict(network._modules)
    folded.encoder_ir = FoldedEncoder(network.encoder_ir, height)
    folded.encoder_vis = FoldedEncoder(network.encoder_vis, height)
    folded.cam = FoldedAttention(network.cam)
    folded.decoder = FoldedDecoder(network.decoder)
    return folded


class OnPictures(nn.Module):
    """A network between (H, W) uint8 luma and (H, W) raw output, so that an engine compiles the conversions too."""

    def __init__(self, network: CrossFuse) -> None:
        super().__init__()
        self.network = network

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        raw: Tensor = self.network(ir.float()[None, None], vis.float()[None, None])
        return raw[0, 0]
