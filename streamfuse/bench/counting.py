"""Operations and memory traffic of the network for one pair, counted from its graph without computing anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from streamfuse.network.config import CrossFuseConfig, Preset
from streamfuse.network.crossfuse import CrossFuse
from streamfuse.network.scaled import for_size


@dataclass(frozen=True, slots=True)
class Work:
    """Work of the network as written in `network/crossfuse.py`; an engine that rewrites it does less."""

    flops: int
    """Operations of matrix products and convolutions; a multiplication with its addition counts as two."""
    moved_bytes: int
    """Bytes moved if every operation reads its inputs and writes its outputs once."""
    least_bytes: int
    """Bytes of weights, pictures and result, each counted once."""


class _ByteCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        known = {x.untyped_storage()._cdata for x in given}
        if any(x.untyped_storage()._cdata not in known for x in made):  # else it is a view
            self.total += sum(x.nbytes for x in {id(x): x for x in (*given, *made)}.values())
        return out


def count_work(
    config: CrossFuseConfig, height: int, width: int, dtype: torch.dtype, preset: Preset = Preset.QUALITY
) -> Work:
    """Count the work for one pair of pictures of (height, width), with tensors of `dtype`."""
    with torch.device("meta"):
        network = for_size(CrossFuse(config).eval(), height, width, preset).to(dtype)
        pair = torch.empty(2, 1, 1, height, width, dtype=dtype)
    # In two runs: the flop counter decomposes operations, so bytes would be counted for their components.
    with torch.inference_mode(), FlopCounterMode(display=False) as flops:
        network(pair[0], pair[1])
    with torch.inference_mode(), _ByteCounter() as moved:
        network(pair[0], pair[1])
    weights = sum(parameter.nbytes for parameter in network.parameters())
    return Work(flops.get_total_flops(), moved.total, weights + 3 * height * width * pair.element_size())
