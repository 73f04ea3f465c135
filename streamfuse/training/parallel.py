"""A run in several processes, started by `torchrun`: gloo on CPUs, NCCL on GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


@dataclass(frozen=True, slots=True)
class Place:
    """Rank and device of this process."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """True for the process that writes files and logs."""
        return self.rank == 0


@contextmanager
def joined() -> Iterator[Place]:
    """Join the group of processes, if there is one, until the end of the block."""
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Place(0, 1, device)
        return
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Place(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def mean_over_processes(values: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, without gradient."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def _mean_with_gradient(values: Tensor) -> Tensor:
    total: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return total / dist.get_world_size()


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the batch of all processes; torch's SyncBatchNorm works on GPUs only.

    Every process must have the same number of pixels.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        wide = x.float()
        mean = _mean_with_gradient(wide.mean(dim=(0, 2, 3)))
        centred = wide - mean[:, None, None]
        variance = _mean_with_gradient(centred.square().mean(dim=(0, 2, 3)))
        count = dist.get_world_size() * x.numel() // x.shape[1]
        with torch.no_grad():
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        out: Tensor = (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)
        return out


def share_batch_norms(network: nn.Module) -> None:
    """Replace every BatchNorm2d of a network, in place, by one over the batch of all processes."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm2d
