"""Choices about the network, importable without torch."""

from __future__ import annotations

import enum
from dataclasses import dataclass

MIN_SIDE = 16
"""Smallest side of a picture: the deep features are then 2 pixels wide, the minimum for reflection padding."""


DEEP_SIDE = 128
"""Longest side of the reduced picture that the deep path sees with presets `balanced` and `realtime`.

It then fits into one attention window, and costs the same for pictures of all sizes."""


class SkipWeights(enum.StrEnum):
    """Weights of the two modalities in the deep skip."""

    SIGNED = "signed"
    """s_ir / (s_ir + s_vis), as published; unbounded where the sums cancel."""
    MAGNITUDE = "magnitude"
    """|s_ir| / (|s_ir| + |s_vis|): in 0..1."""


class SkipBorder(enum.StrEnum):
    """Padding of the shallow skip's 3x3 mean outside the picture."""

    ZEROS = "zeros"
    """Zeros, as published: means at the border are too small, and a network not trained with them shows a frame."""
    REFLECT = "reflect"
    """Reflection at the outermost pixels."""


class SkipArea(enum.StrEnum):
    """Area over which the shallow skip measures gradient strength."""

    PIXEL = "pixel"
    """Each pixel separately, as published."""
    BLOCK = "block"
    """2x2 pixels share the mean over 6x6.  A source that varies nearby is also chosen where its strength is 0."""


class Window(enum.StrEnum):
    """Division of the deep features into attention windows."""

    PADDED = "padded"
    """Adjacent windows of 32x32, padded by reflection, as published."""
    FITTED = "fitted"
    """One window as large as the features; above 32 deep pixels a side, blended windows that overlap by half."""


class Ends(enum.StrEnum):
    """Treatment of output below black and above white, with `Output.DIRECT`."""

    CLIPPED = "clipped"
    """Clipped to black and white."""
    BENT = "bent"
    """Compressed into the last 12 levels at either end: order is kept, and no value reaches black or white."""


class Veil(enum.StrEnum):
    """Treatment of smoke and glare that are white in the visible picture, where infrared sees something behind them."""

    KEPT = "kept"
    """The network gets the visible picture as it is."""
    LIFTED = "lifted"
    """Contrast of infrared is first drawn on the visible picture there; see `streamfuse.engines.veil`."""


class Output(enum.StrEnum):
    """Meaning of the last layer's values."""

    MINMAX = "minmax"
    """Any range, stretched to 0..255 over each image, as published."""
    DIRECT = "direct"
    """Luma in 0..1."""


class Attention(enum.StrEnum):
    """Weights that cross-attention gives to the tokens of the other modality."""

    RE_SOFTMAX = "re-softmax"
    """Largest for the least similar tokens (Eq. 3)."""
    SOFTMAX = "softmax"
    """Largest for the most similar tokens (ablation of Table 1)."""


class Fusion(enum.StrEnum):
    """Module that fuses the deep features."""

    CAM = "cam"
    """Self- and cross-attention (section 3.1.2)."""
    CNN = "cnn"
    """Four convs (ablation F_CNN of Table 2)."""
    DENSE = "dense"
    """A dense block and a conv (ablation F_Dense of Table 2)."""


class Preset(enum.StrEnum):
    """Trade-off between quality and speed; see `streamfuse.network.scaled`."""

    QUALITY = "quality"
    """The network as published."""
    BALANCED = "balanced"
    """The deep path at 1/4 of the width and height, or less: it sees `DEEP_SIDE` pixels a side at most."""
    REALTIME = "realtime"
    """The same with the small network beside the weights, which is distilled from them."""

    def factor(self, height: int, width: int) -> int:
        """Return the reduction of the deep path's width and height, for pictures of (height, width)."""
        if self is Preset.QUALITY:
            return 1
        factor = 4
        while max(height, width) > factor * DEEP_SIDE:
            factor *= 2
        while factor > 1 and min(height, width) < factor * MIN_SIDE:
            factor //= 2
        return factor


POWERS = (1, 2, 4, 8)
"""Possible exponents of the gradient strengths in the shallow skip."""


@dataclass(frozen=True, slots=True)
class CrossFuseConfig:
    depth: int = 1
    """Successive attention blocks: 1, 2, 3 are the paper's s1-c1, s2-c2, s3-c3."""
    skip_weights: SkipWeights = SkipWeights.SIGNED
    output: Output = Output.MINMAX
    attention: Attention = Attention.RE_SOFTMAX
    fusion: Fusion = Fusion.CAM
    skip_border: SkipBorder = SkipBorder.ZEROS
    shallow: int = 32
    """Channels of the features at full scale."""
    deep: int = 128
    """Channels of the features at 1/8 scale, a multiple of 8: a token has 4 pixels, an attention head 32 values."""
    growth: int = 64
    """Channels that each conv of a dense block adds."""
    skip_power: int = 1
    """Exponent of the gradient strengths in the shallow skip: 1 as published; 8 nearly selects one modality."""
    skip_infrared: float = 0.5
    """Factor of infrared in the shallow skip: 0.5 as published; 1 treats both modalities alike."""
    skip_area: SkipArea = SkipArea.PIXEL
    window: Window = Window.PADDED
    ends: Ends = Ends.CLIPPED
    veil: Veil = Veil.KEPT

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not (1 <= self.depth <= 4 and 1 <= self.shallow <= 256 and 1 <= self.growth <= 256):
            raise ValueError("a network has 1 to 4 blocks of attention, and 1 to 256 shallow and growing channels")
        if not 8 <= self.deep <= 512 or self.deep % 8:
            raise ValueError(f"a network has 8 to 512 deep channels, in steps of 8, not {self.deep}")
        if self.skip_power not in POWERS or not 0 < self.skip_infrared <= 2:
            raise ValueError("skip_power is 1, 2, 4 or 8, and skip_infrared above 0 and up to 2")
        if self.ends is Ends.BENT and self.output is not Output.DIRECT:
            raise ValueError("bent ends need direct output")
