"""Peak throughput of the CPU or GPU, measured with PyTorch."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from streamfuse.engines.device import CudaDevice, Work
from streamfuse.support.cpus import usable_cpus

RUNS = 7
CPU_SIDE, GPU_SIDE = 2048, 8192
"""Side of the matrices: large enough for the full speed, small enough for a fraction of a second."""
CPU_BYTES, GPU_BYTES = 1 << 28, 1 << 30
"""Bytes to copy: far more than fits into caches."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Peak throughput of a processor."""

    flops_per_s: float
    """Rate of a square matrix product in the engine's precision."""
    bytes_per_s: float
    """Rate of a copy; reading and writing are both counted."""


def measure_peak(dtype: torch.dtype, gpu: int | None) -> Peak:
    """Measure both rates, each the best of RUNS runs; on the CPU with as many threads as this process may use."""
    device = CudaDevice(gpu) if gpu is not None else None
    side, size = (CPU_SIDE, CPU_BYTES) if device is None else (GPU_SIDE, GPU_BYTES)
    where = torch.device("cpu") if device is None else device.torch
    a, b, product = (torch.ones((side, side), dtype=dtype, device=where) for _ in range(3))
    source, target = (torch.zeros(size, dtype=torch.uint8, device=where) for _ in range(2))
    threads = torch.get_num_threads()
    torch.set_num_threads(usable_cpus())
    try:
        return Peak(
            2 * side**3 / _best_s(device, lambda: _multiply(a, b, product)),
            2 * size / _best_s(device, lambda: _copy(source, target)),
        )
    finally:
        torch.set_num_threads(threads)


def _multiply(a: Tensor, b: Tensor, product: Tensor) -> None:
    torch.matmul(a, b, out=product)


def _copy(source: Tensor, target: Tensor) -> None:
    target.copy_(source)


def _best_s(device: CudaDevice | None, work: Work) -> float:
    if device is not None:
        device.synchronize()
        return min(device.time(device.stream(), work, RUNS)) / 1000
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)
