"""The engines that run the network in PyTorch, on a CUDA GPU or on the CPU.

On the CPU this is the reference for other engines; `openvino` is faster.  On a GPU the kernels are launched as one CUDA
graph; the alternative there is `tensorrt`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from streamfuse.color import Plane
from streamfuse.engines.base import Engine, NetworkEngine, Precision, parse_device, pick_precision, read_cpu
from streamfuse.engines.cuda_streams import DEPTH, DTYPES, Program, StreamedEngine
from streamfuse.engines.device import ComputeDevice, CudaDevice
from streamfuse.errors import EngineUnavailable
from streamfuse.network.checkpoint import load
from streamfuse.network.config import Preset
from streamfuse.network.scaled import for_size
from streamfuse.tone import HostPicture

_N = TypeVar("_N", bound=nn.Module)


def create(weights: Path | None, precision: str, threads: int | None, device: str) -> Engine:
    """Create an engine as `streamfuse.engines.create_engine` does; device auto is the first GPU, else the CPU."""
    if device == "auto":
        try:
            return TorchCudaEngine(weights, precision, CudaDevice())
        except EngineUnavailable:
            return TorchEngine(weights, precision, threads)
    index = parse_device(device)
    if index is None:
        return TorchEngine(weights, precision, threads)
    return TorchCudaEngine(weights, precision, CudaDevice(index))


class TorchEngine(NetworkEngine):
    """The network in PyTorch on the CPU."""

    name = package = "torch"
    presets = tuple(Preset)

    def __init__(self, weights: Path | None = None, precision: str = "auto", threads: int | None = None) -> None:
        """`threads`: applies to all of PyTorch in this process, which has one thread pool."""
        super().__init__(weights)
        self.device = f"CPU {read_cpu().model}"
        best = Precision.BF16 if read_cpu().has_bf16 else Precision.FP32
        self.precision = pick_precision(precision, best, tuple(DTYPES), self.device)
        if threads is not None:
            torch.set_num_threads(threads)
        self._network: nn.Module | None = None
        self._pair = torch.empty(0, dtype=torch.uint8)

    def _build(self, height: int, width: int) -> None:
        # Loaded again for each preset: its derived weights must be computed from the exact ones, on the CPU.
        network = for_size(load(self.weights.path), height, width, self.preset)
        self._network = _channels_last(network.to(DTYPES[self.precision]))
        self._pair = torch.zeros((2, 1, 1, height, width), dtype=torch.uint8)

    def _infer(self, ir: Plane, vis: Plane) -> HostPicture:
        if self._network is None:
            raise RuntimeError("not prepared")
        pair = self._pair.numpy()
        pair[0, 0, 0], pair[1, 0, 0] = ir, vis  # the planes may be strided or read-only, which torch rejects
        with torch.inference_mode():
            return HostPicture(self._network(*self._pair.to(DTYPES[self.precision]))[0, 0].float().numpy())

    def close(self) -> None:
        super().close()
        self._network = None
        self._pair = torch.empty(0, dtype=torch.uint8)


class TorchCudaEngine(StreamedEngine):
    """The network in PyTorch on a CUDA GPU."""

    name = package = "torch"
    presets = tuple(Preset)

    def __init__(self, weights: Path | None, precision: str, device: ComputeDevice, depth: int = DEPTH) -> None:
        super().__init__(weights, device, depth)
        self._compute = device
        self.gpu = device.index
        self.precision = pick_precision(precision, Precision.FP16, tuple(DTYPES), self.device)

    def _make_program(self, height: int, width: int) -> Program:
        dtype = DTYPES[self.precision]
        network = for_size(load(self.weights.path), height, width, self.preset)
        network = _channels_last(network.to(self._compute.torch, dtype))
        pair = self._compute.buffer((2, 1, 1, height, width), dtype)
        raw = self._compute.buffer((1, 1, height, width), dtype)

        def launch() -> None:
            with torch.inference_mode():
                raw.copy_(network(pair[0], pair[1]))

        return Program(pair, raw, self._compute.graph(launch))


def _channels_last(network: _N) -> _N:
    # A seventh faster on a CPU.  PyTorch's type stubs lack the argument.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
