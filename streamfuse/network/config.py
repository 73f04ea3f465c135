"""What can be chosen about the network, in words that need no torch."""

from __future__ import annotations

import enum
from dataclasses import dataclass

MIN_SIDE = 16
"""Pixels: the deep features are then 2 pixels wide, the least that reflection padding takes."""


WINDOW_SIDE = 256
"""Pixels: an attention window is 32 deep pixels wide."""


class SkipWeights(enum.StrEnum):
    """How the deep skip weighs the two modalities."""

    SIGNED = "signed"
    """s_ir / (s_ir + s_vis): as published; unbounded where the sums cancel."""
    MAGNITUDE = "magnitude"
    """|s_ir| / (|s_ir| + |s_vis|): in 0..1."""


class SkipBorder(enum.StrEnum):
    """What the shallow skip's 3x3 mean takes for the pixels outside of the picture."""

    ZEROS = "zeros"
    """As published: at the border the mean is too small, which a network is trained with, or shows as a frame."""
    REFLECT = "reflect"
    """The picture's own, mirrored at its outermost ones."""


class SkipArea(enum.StrEnum):
    """Area over which the shallow skip takes the strengths that it weighs the modalities by."""

    PIXEL = "pixel"
    """Every pixel has its own: as published."""
    BLOCK = "block"
    """2x2 pixels share the mean over 6x6: a source that is busy around a pixel is chosen where it crosses 0, too."""


class Window(enum.StrEnum):
    """Attention windows that deep features are cut into."""

    PADDED = "padded"
    """Windows of 32x32 side by side, filled by reflection: as published."""
    FITTED = "fitted"
    """One window as large as the features; beyond 32 pixels a side, windows that overlap by half and are blended."""


class Ends(enum.StrEnum):
    """Output beyond either end of the range, with `Output.DIRECT`."""

    CLIPPED = "clipped"
    """Everything beyond black or white is black or white."""
    BENT = "bent"
    """The last 12 levels at either end bend, so that what is beyond them keeps its order and never is quite black."""


class Output(enum.StrEnum):
    """What the last layer's values mean."""

    MINMAX = "minmax"
    """Any range; stretched to 0..255 over each image: as published."""
    DIRECT = "direct"
    """Luma in 0..1."""


class Attention(enum.StrEnum):
    """How cross-attention weighs the tokens of the other modality."""

    RE_SOFTMAX = "re-softmax"
    """The least similar most: Eq. 3."""
    SOFTMAX = "softmax"
    """The most similar most: the ablation of Table 1."""


class Fusion(enum.StrEnum):
    """What fuses the deep features."""

    CAM = "cam"
    """Self- and cross-attention: section 3.1.2."""
    CNN = "cnn"
    """Four convs: the ablation F_CNN of Table 2."""
    DENSE = "dense"
    """A dense block and a conv: the ablation F_Dense of Table 2."""


class Preset(enum.StrEnum):
    """How much work is done; see `streamfuse.network.scaled`."""

    QUALITY = "quality"
    """The network as it is published."""
    BALANCED = "balanced"
    """The deep path on pictures of a quarter of the side, or less, so that one attention window holds them."""
    REALTIME = "realtime"
    """The same of the small network that stands beside the weights, taught by its pictures."""

    def factor(self, height: int, width: int) -> int:
        """By how much smaller the deep path's pictures are, for pictures of (height, width)."""
        if self is Preset.QUALITY:
            return 1
        factor = 4
        while max(height, width) > factor * WINDOW_SIDE:
            factor *= 2
        return factor


POWERS = (1, 2, 4, 8)
"""Exponents that the shallow skip's strengths may have."""


@dataclass(frozen=True, slots=True)
class CrossFuseConfig:
    depth: int = 1
    """Attention blocks in a row: 1, 2, 3 are the paper's s1-c1, s2-c2, s3-c3."""
    skip_weights: SkipWeights = SkipWeights.SIGNED
    output: Output = Output.MINMAX
    attention: Attention = Attention.RE_SOFTMAX
    fusion: Fusion = Fusion.CAM
    skip_border: SkipBorder = SkipBorder.ZEROS
    shallow: int = 32
    """Channels of the features at full scale."""
    deep: int = 128
    """Channels of the features at 1/8, a multiple of 8: attention heads have 32 values of tokens of 4 pixels."""
    growth: int = 64
    """Channels that each conv of a dense block adds."""
    skip_power: int = 1
    """Exponent of the strengths that the shallow skip weighs the modalities by: 1 as published; 8 nearly selects."""
    skip_infrared: float = 0.5
    """Factor of infrared in the shallow skip: 0.5 as published; 1 treats both modalities alike."""
    skip_area: SkipArea = SkipArea.PIXEL
    window: Window = Window.PADDED
    ends: Ends = Ends.CLIPPED

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not (1 <= self.depth <= 4 and 1 <= self.shallow <= 256 and 1 <= self.growth <= 256):
            raise ValueError("a network has 1 to 4 blocks of attention, and 1 to 256 shallow and growing channels")
        if not 8 <= self.deep <= 512 or self.deep % 8:
            raise ValueError(f"a network has 8 to 512 deep channels, in steps of 8, not {self.deep}")
        if self.skip_power not in POWERS or not 0 < self.skip_infrared <= 2:
            raise ValueError("the shallow skip has a power of 1, 2, 4 or 8, a factor of infrared over 0 and up to 2")
        if self.ends is Ends.BENT and self.output is not Output.DIRECT:
            raise ValueError("only direct output has its ends bent")
