"""The types of a picture's luma and chroma."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Plane: TypeAlias = npt.NDArray[np.uint8]
"""(H, W) uint8, one channel; may be a strided view on a decoder's buffer."""
Raw: TypeAlias = npt.NDArray[np.float32]
"""(H, W) float32, the output of the network's last layer; `Engine.output` says what its values mean."""


class Matrix(enum.StrEnum):
    """Colour matrix between RGB and YCbCr; kept so that an output can be tagged with it."""

    BT601 = "bt601"
    BT709 = "bt709"
    BT2020 = "bt2020"


def check_plane(owner: str, name: str, plane: Plane) -> None:
    """Raise ValueError unless `plane`, shown as `owner.name`, is (H, W) uint8."""
    if plane.ndim != 2 or plane.dtype != np.uint8:
        raise ValueError(f"{owner}.{name} must be (H, W) uint8, got {plane.shape} {plane.dtype}")


@dataclass(frozen=True, slots=True, repr=False)
class Chroma:
    """The chroma of a frame, in its original subsampling."""

    u: Plane
    """Cb, (H / sy, W / sx) rounded up, sx and sy 1 or 2."""
    v: Plane
    """Cr, same shape as `u`."""
    full_range: bool = False
    """True: 0..255 about 128 (JPEG).  False: 16..240 about 128 (video)."""
    matrix: Matrix = Matrix.BT601

    def __post_init__(self) -> None:
        check_plane("Chroma", "u", self.u)
        check_plane("Chroma", "v", self.v)
        if self.u.shape != self.v.shape:
            raise ValueError(f"Chroma planes differ in shape: u {self.u.shape}, v {self.v.shape}")

    def __repr__(self) -> str:
        height, width = self.u.shape
        return f"Chroma({width}x{height}, {self.matrix}, {'full' if self.full_range else 'limited'} range)"
