"""Storage of matrices at 8 bits a value.

A matrix or the kernels of a conv, (rows, ...), become INT8 and one FP32 scale a row, under NAME and NAME.scale; the
value is integer times scale.  The scale of a row is that of a few with the least squared error: rounding costs less
than a larger range where only a few values are large.  Everything small, such as biases and norms, stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from streamfuse.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

SCALE = ".scale"
LEAST = 2048
"""Values from which a tensor is worth packing."""
MOST = 127
RANGES = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Ends of the range that are tried, relative to a row's largest value; what is beyond is clipped."""


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with the large matrices among them as INT8 and scales."""
    import torch

    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() < 2 or tensor.numel() < LEAST:
            packed[name] = tensor
            continue
        rows = tensor.float().flatten(1)
        largest = rows.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny * MOST)
        scales = torch.stack([largest * end / MOST for end in RANGES])
        errors = torch.stack([(_rounded(rows, scale) * scale[:, None] - rows).square().sum(1) for scale in scales])
        scale = scales.gather(0, errors.argmin(0)[None])[0]
        packed[name] = _rounded(rows, scale).to(torch.int8).view_as(tensor)
        packed[name + SCALE] = scale
    return packed


def _rounded(rows: Tensor, scale: Tensor) -> Tensor:
    return (rows / scale[:, None]).round().clamp(-MOST, MOST)


def unpack(tensors: Mapping[str, Tensor], label: str) -> dict[str, Tensor]:
    """Return all tensors as FP32 without scales.  Raises WeightsError for INT8 without a scale for each row."""
    import torch

    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dtype is not torch.int8:
            if not (name.endswith(SCALE) and name.removesuffix(SCALE) in tensors):
                plain[name] = tensor.float()
            continue
        scale = tensors.get(name + SCALE)
        if scale is None or tensor.dim() < 2 or scale.shape != tensor.shape[:1] or not scale.is_floating_point():
            raise WeightsError(f"{label} is damaged: {name} has 8 bits a value, and {name + SCALE} not one scale a row")
        plain[name] = tensor.float() * scale.float().view(-1, *(1,) * (tensor.dim() - 1))
    return plain
