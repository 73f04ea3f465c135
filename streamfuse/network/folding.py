"""Rewrites of the network that compute the same with less work, for engines that compile it.

Between its max-pools the network is affine, so chains of convolutions can be composed.  Each class is made from
a trained module and replaces it; results differ from the original's only by rounding, also at the borders of the
image.  Weights are composed in FP64.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.network.config import Window
from streamfuse.network.crossfuse import (
    ConvFusion,
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
)
from streamfuse.network.windows import PATCH, WINDOW, to_windows

REACH = 4
"""Reach of a dense block, four successive 3x3 convs: an output pixel depends on 4 pixels to each side."""
MOST_ROWS = 64
"""Largest number of output rows of a tile: longer tiles save less and less, and rounding errors add up."""
LEAST = 32
"""Least number of rows and columns: smaller pictures are nearly all border, and the rewrite is not faster."""


class FoldedEncoder(Encoder):
    """An encoder for one size whose first dense block is a 9x9 conv, computed by Fourier transform along the columns.

    Away from the border a dense block equals one 9x9 conv.  After a Fourier transform of tiles of rows along the
    columns, each pair of real values needs only a 1x9 conv along the rows: a quarter of the block's multiplications.
    Within 4 pixels of the border every conv of the block reflects its own input; there the block equals four other
    convs, one for each side, from the outermost 8 rows to 4, and the corners are computed by the original block.  The
    second dense block is not transformed: it has four times the input channels and a quarter of the pixels, so the
    transform would cost about as much as it saves.
    """

    analysis: Tensor
    spectrum: Tensor
    synthesis: Tensor
    bias: Tensor
    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor

    def __init__(self, encoder: Encoder, height: int, width: int) -> None:
        nn.Module.__init__(self)
        self.conv, self.dense1, self.dense2 = encoder.conv, encoder.dense1, encoder.dense2
        self.half_size = (height // 2, width // 2)
        if min(self.half_size) < LEAST:
            return
        # Pooling drops the last row or column of an odd size; the borders there depend on a ninth row or column.
        self.odd = (self.half_size[0] % 2, self.half_size[1] % 2)
        rows = self.half_size[0] - self.odd[0] - 2 * REACH
        self.tiles = -(-rows // MOST_ROWS)
        self.step = -(-rows // (2 * self.tiles)) * 2  # even, because pooling follows
        kernel, bias = _compose_dense(encoder.dense1)
        tensors = (*_transforms(kernel, self.step + 2 * REACH), bias[:, None, None])
        for name, tensor in zip(("analysis", "spectrum", "synthesis", "bias"), tensors, strict=True):
            self.register_buffer(name, tensor.float())
        for turned, names in enumerate((("top", "bottom"), ("left", "right"))):
            for name, weights in zip(
                names, _compose_borders(encoder.dense1, 8 + self.odd[turned], bool(turned)), strict=True
            ):
                self.register_buffer(name, weights)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        shallow = self.conv(image)  # (B, 32, H, W)
        half = self._dense1_pooled(F.max_pool2d(shallow, 2))  # (B, 128, H/4, W/4)
        return shallow, F.max_pool2d(self.dense2(half), 2)

    def _dense1_pooled(self, x: Tensor) -> Tensor:
        """(B, 32, h, w) to (B, 128, h/2, w/2)."""
        if x.shape[2:] != self.half_size:
            raise ValueError(f"folded for {self.half_size} at half scale, got {tuple(x.shape[2:])}")
        if min(self.half_size) < LEAST:
            return F.max_pool2d(self.dense1(x), 2)
        turned = x.transpose(2, 3)
        top = self._border_pooled(x[:, :, :8], self.top)  # (B, 128, 2, w/2 - 4), like the bottom
        bottom = self._border_pooled(x[:, :, -8 - self.odd[0] :], self.bottom)
        left = self._border_pooled(turned[:, :, :8], self.left).transpose(2, 3)  # (B, 128, h/2 - 4, 2), like the right
        right = self._border_pooled(turned[:, :, -8 - self.odd[1] :], self.right).transpose(2, 3)
        ends = (slice(9), slice(-9, None))
        corners = self.dense1(torch.cat([x[:, :, rows, cols] for rows in ends for cols in ends]))  # (4 * B, 128, 9, 9)
        lines = [(slice(4), slice(5 - odd, 9 - odd)) for odd in self.odd]
        places = [(rows, cols) for rows in lines[0] for cols in lines[1]]
        nw, ne, sw, se = (
            F.max_pool2d(corner[:, :, rows, cols], 2)
            for corner, (rows, cols) in zip(torch.chunk(corners, 4), places, strict=True)
        )
        north, south = torch.cat((nw, top, ne), dim=3), torch.cat((sw, bottom, se), dim=3)
        return torch.cat((north, torch.cat((left, self._interior_pooled(x), right), dim=3), south), dim=2)

    def _border_pooled(self, strip: Tensor, weights: Tensor) -> Tensor:
        """Compute the 4 pixels along a side, without its corners: (B, 32, 8 or 9, w) to (B, 128, 2, w/2 - 4)."""
        x = F.conv2d(strip.flatten(1, 2)[:, :, None], weights)  # (B, 128 * 4, 1, w - 8)
        return F.max_pool2d(x.reshape(x.shape[0], -1, 4, x.shape[3]) + self.bias, 2)

    def _interior_pooled(self, x: Tensor) -> Tensor:
        """Compute the pixels 4 or more from the border: (B, 32, h, w) to (B, 128, h/2 - 4, w/2 - 4)."""
        batch, size = x.shape[0], self.step + 2 * REACH
        rows, cols = (side - odd - 2 * REACH for side, odd in zip(self.half_size, self.odd, strict=True))
        x = F.pad(x[:, :, : rows + 2 * REACH, : cols + 2 * REACH], (0, 0, 0, self.tiles * self.step - rows))
        x = torch.stack([x[:, :, i * self.step :][:, :, :size] for i in range(self.tiles)], dim=1)
        # OpenVINO keeps a constant matrix in FP32 and converts the large factor to it, which takes 10 ms.  So the
        # matrix is made non-constant.
        zero = x[0, 0, 0, 0, 0] * 0
        x = (self.analysis + zero) @ x  # (B, tiles, 32, size, w)
        x = x.permute(0, 1, 4, 3, 2).flatten(3)  # (B, tiles, w, size * 32)
        x = F.conv2d(x.permute(0, 3, 1, 2), self.spectrum, groups=size // 2)  # (B, size * 128, tiles, cols)
        x = x.permute(0, 2, 3, 1).reshape(batch * self.tiles * cols, size, -1)
        x = (self.synthesis + zero) @ x  # (B * tiles * cols, step, 128)
        # Pool before reordering the axes: afterwards there is a quarter of the data to move.
        x = F.max_pool2d(x.reshape(batch * self.tiles, cols, self.step, -1).permute(0, 3, 1, 2), 2)
        x = x.permute(0, 3, 2, 1)  # (B * tiles, step / 2, cols / 2, 128)
        x = x.reshape(batch, self.tiles * self.step // 2, cols // 2, -1)[:, : rows // 2]
        return x.permute(0, 3, 1, 2) + self.bias


def _compose_dense(block: DenseBlock) -> tuple[Tensor, Tensor]:
    """Compose a block to one kernel (outputs, inputs, 9, 9) and bias (outputs)."""
    response, bias = _respond(copy.deepcopy(block).double(), _SIDE, [_SIDE // 2])
    return response[0, :, :, 1:-1].flip(2, 3).transpose(0, 1), bias


def _compose_borders(block: DenseBlock, rows: int, turned: bool) -> tuple[Tensor, Tensor]:
    """Compose conv weights (outputs * 4, inputs * rows, 1, 9) from a strip of rows along a border to its outer 4 rows.

    The strip at the first border has 8 rows, that at the last one `rows`, 8 or 9.  `turned`: for columns, which are
    given as rows.  The strip is treated as a picture, which is reflected at its inner edge too; that makes at most 4
    rows invalid.  Composed in FP32: FP64 would take seconds, and the border is not transformed.
    """
    response, _ = _respond(block, rows, list(range(rows)), turned)
    response = response.transpose(0, 1).flip(4)  # (inputs, rows, outputs, rows, 9)
    near, far = response[:, :8, :, :4], response[:, :, :, 4:8]
    first, last = (part.permute(2, 3, 0, 1, 4).flatten(2, 3).flatten(0, 1)[:, :, None] for part in (near, far))
    return first, last


_SIDE = 11
"""Columns of a picture in which the 9x9 response to a bright pixel in the middle is not affected by reflections."""


def _respond(block: DenseBlock, rows: int, lit: list[int], turned: bool = False) -> tuple[Tensor, Tensor]:
    """Return the block's impulse responses to a pixel in the middle of each row in `lit`, and its output for zeros.

    Responses are (lit, inputs, outputs, rows, 9), one picture of `rows` rows for each input channel; the output for
    zeros is (outputs).  `turned`: rows and columns are exchanged for the block.
    """
    inputs = int(block.grow[0].in_channels)  # type: ignore[arg-type]
    pixels = torch.zeros(len(lit), inputs, inputs, rows, _SIDE, dtype=block.adjust.weight.dtype)
    for index, row in enumerate(lit):
        pixels[index, range(inputs), range(inputs), row, _SIDE // 2] = 1
    pixels = pixels.flatten(0, 1)
    if turned:
        pixels = pixels.transpose(2, 3)
    with torch.no_grad():
        darkness = block(torch.zeros_like(pixels[:1]))
        response = block(pixels) - darkness
    if turned:
        response = response.transpose(2, 3)
    return response[:, :, :, 1:-1].unflatten(0, (len(lit), inputs)), darkness[0, :, 0, 0]


def _transforms(kernel: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parts of a convolution of `size` rows in the Fourier domain: analysis, spectrum and synthesis.

    Analysis: the real Fourier transform, a matrix (size, size) with two rows for each frequency.  Spectrum: that of
    the kernel, weights of a grouped conv (size * outputs, 2 * inputs, 1, 9), one group for each frequency.  Synthesis:
    the inverse transform of the rows that need no padding, a matrix (size - 8, size).
    """
    outputs, inputs, reach, _ = kernel.shape
    pairs = size // 2
    row, frequency = torch.arange(size, dtype=torch.float64), torch.arange(pairs, dtype=torch.float64)
    angle = 2 * math.pi * frequency[:, None] * row / size
    waves = torch.stack((angle.cos(), -angle.sin()), dim=1)  # (pairs, 2, size)
    waves[0, 1] = (
        math.pi * row
    ).cos()  # the lowest frequency has no sine; the highest, which has no partner, takes its position

    # Convolution in a network is correlation: a product with the conjugate spectrum.
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
    """A CAM whose last blocks drop, after their attention, the tokens that only pad the windows.

    At 640x480 these are 336 of 1,536; they are still keys and values for the other tokens.  Fitted windows have none.
    """

    def __init__(self, cam: CrossAttentionModule) -> None:
        """Raises ValueError for a CAM whose windows are not padded."""
        if cam.window is not Window.PADDED:
            raise ValueError("only padded windows contain tokens that can be dropped")
        nn.Module.__init__(self)
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


def fold_attention(cam: CrossAttentionModule | ConvFusion) -> CrossAttentionModule | ConvFusion:
    """Return the rewritten CAM, or the same module if rewriting saves nothing."""
    if isinstance(cam, CrossAttentionModule) and cam.window is Window.PADDED:
        return FoldedAttention(cam)
    return cam


def _tokens_in_picture(rows: int, cols: int) -> Tensor:
    """Return the index of each token of the picture, row by row, among the tokens of all windows."""
    side = WINDOW // PATCH
    down, along = -(-rows // side), -(-cols // side)  # windows
    places = torch.arange(down * along * side * side).reshape(down, along, side, side)
    return places.transpose(1, 2).reshape(down * side, along * side)[:rows, :cols].reshape(-1)


def _cross(module: CrossAttention, other: Tensor, own: Tensor, batch: int, index: Tensor) -> Tensor:
    """Compute `CrossAttention.forward` only for the tokens of `index`: (B, tokens, 512)."""

    def pick(x: Tensor) -> Tensor:
        return x.reshape(batch, -1, x.shape[2])[:, index]

    keys = own
    *before, last = (block for block in module.blocks if isinstance(block, CrossAttentionBlock))
    for block in before:
        out, other = block(other, keys, own)
        keys, own = out, layer_norm(module.norm, out)
    q = last.q(layer_norm(last.norm1, other))
    k, v = last.k(layer_norm(last.norm1, keys)), last.v(layer_norm(last.norm1, own))
    x = pick(own) + last.proj(pick(attend(q, k, v, last.sign)))
    return layer_norm(module.norm, x + last.mlp(layer_norm(last.norm2, x)))


class FoldedDecoder(Decoder):
    """A decoder in which one 3x3 conv at 1/8 scale and a pixel shuffle replace all convs after the first.

    This is exact at the border too.  A reflection of a nearest-upsampled picture by one pixel only repeats its border
    pixel, and a conv and another upsampling keep that repetition.  It is therefore enough to repeat the border pixels
    of the first conv's result.
    """

    def __init__(self, decoder: Decoder) -> None:
        nn.Module.__init__(self)
        self.skip_weights, self.skip = decoder.skip_weights, decoder.skip
        self.conv1, self.conv2, self.conv3 = decoder.conv1, decoder.conv2, decoder.conv3
        self.conv4, self.last = decoder.conv4, decoder.last
        for name, tensor in zip(("tail_weight", "tail_bias", "skip_weight"), _compose_decoder(decoder), strict=True):
            self.register_buffer(name, tensor.float())

    tail_weight: Tensor
    tail_bias: Tensor
    skip_weight: Tensor

    def forward(self, x: Tensor, deep: tuple[Tensor, Tensor], shallow: tuple[Tensor, Tensor]) -> Tensor:
        x = self.picture(x, deep)
        x = self.fit(x, *shallow[0].shape[2:])
        return x + F.conv2d(self.skip(*shallow), self.skip_weight)

    @staticmethod
    def fit(x: Tensor, height: int, width: int) -> Tensor:
        """Extend to (height, width) by reflection, because the max-pools round odd sizes down."""
        rows, cols = height - x.shape[2], width - x.shape[3]
        if rows or cols:
            top, left = rows // 2, cols // 2
            x = F.pad(x, (left, cols - left, top, rows - top), mode="reflect")
        return x

    def picture(self, x: Tensor, deep: tuple[Tensor, Tensor]) -> Tensor:
        """Compute the part of the picture that depends on the deep features, (B, 1, 8h, 8w)."""
        x = self.conv1(deep_skip(x, *deep, self.skip_weights))  # (B, 64, h, w)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), self.tail_weight, self.tail_bias)
        return F.pixel_shuffle(x, 8)


def _compose_decoder(decoder: Decoder) -> tuple[Tensor, Tensor, Tensor]:
    """Compose the layers from conv2 on to conv weights (64, 64, 3, 3), an output for each pixel of 8x8, and bias (64).

    The third result is their effect on the shallow skip: conv weights (1, 32, 1, 1).
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


def fold(network: CrossFuse, height: int, width: int, *, spectral: bool = True) -> CrossFuse:
    """Return a network that computes the same as `network` for pictures of one size; both share modules.

    `spectral`: compute convolutions by Fourier transform where that is faster; spectra are not accurate in INT8.
    """
    folded = copy.copy(network)
    folded._modules = dict(network._modules)
    if spectral:
        folded.encoder_ir = FoldedEncoder(network.encoder_ir, height, width)
        folded.encoder_vis = FoldedEncoder(network.encoder_vis, height, width)
    folded.cam = fold_attention(network.cam)
    folded.decoder = FoldedDecoder(network.decoder)
    return folded


class OnPictures(nn.Module):
    """A network from (H, W) uint8 luma to (H, W) raw output, so that an engine compiles the conversions too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        raw: Tensor = self.network(ir.float()[None, None], vis.float()[None, None])
        return raw[0, 0]
