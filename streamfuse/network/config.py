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
    """How much of the network's work is done; see `streamfuse.network.scaled`."""

    QUALITY = "quality"
    """All of it."""
    BALANCED = "balanced"
    """The deep path on pictures of half the side."""
    REALTIME = "realtime"
    """The deep path on pictures of a quarter of the side, or less, so that one attention window holds them."""

    def factor(self, height: int, width: int) -> int:
        """By how much smaller the deep path's pictures are, for pictures of (height, width)."""
        if self is not Preset.REALTIME:
            return 1 if self is Preset.QUALITY else 2
        factor = 4
        while max(height, width) > factor * WINDOW_SIDE:
            factor *= 2
        return factor


@dataclass(frozen=True, slots=True)
class CrossFuseConfig:
    depth: int = 1
    """Attention blocks in a row: 1, 2, 3 are the paper's s1-c1, s2-c2, s3-c3."""
    skip_weights: SkipWeights = SkipWeights.SIGNED
    output: Output = Output.MINMAX
    attention: Attention = Attention.RE_SOFTMAX
    fusion: Fusion = Fusion.CAM
