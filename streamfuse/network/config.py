"""What can be chosen about the network, in words that need no torch."""

from __future__ import annotations

import enum
from dataclasses import dataclass

MIN_SIDE = 16
"""Pixels: the deep features are then 2 pixels wide, the least that reflection padding takes."""


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


@dataclass(frozen=True, slots=True)
class CrossFuseConfig:
    depth: int = 1
    """Attention blocks in a row: 1, 2, 3 are the paper's s1-c1, s2-c2, s3-c3."""
    skip_weights: SkipWeights = SkipWeights.SIGNED
    output: Output = Output.MINMAX
    attention: Attention = Attention.RE_SOFTMAX
    fusion: Fusion = Fusion.CAM
