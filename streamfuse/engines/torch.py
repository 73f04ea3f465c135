"""The network in PyTorch as it is written, on a CUDA GPU if there is one, else on the CPU.

On a CPU this is the reference that other engines are held to; `openvino` is faster there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from streamfuse.engines.base import NetworkEngine, Precision, Raw, pick_precision, read_cpu
from streamfuse.frames import Plane
from streamfuse.network.checkpoint import load

if TYPE_CHECKING:
    from streamfuse.network.crossfuse import CrossFuse

_DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


class TorchEngine(NetworkEngine):
    name = "torch"

    def __init__(self, weights: Path | None = None, precision: str = "auto", threads: int | None = None) -> None:
        """`threads` holds for all of PyTorch in this process: it has one pool."""
        super().__init__(weights)
        self._cuda = torch.cuda.is_available()
        if self._cuda:
            self.device = f"CUDA GPU {torch.cuda.get_device_name()}"
            best = Precision.FP16
        else:
            self.device = f"CPU {read_cpu().model}"
            best = Precision.BF16 if read_cpu().has_bf16 else Precision.FP32
        self.precision = pick_precision(precision, best, tuple(_DTYPES), self.device)
        if threads is not None:
            torch.set_num_threads(threads)
        self._network: CrossFuse | None = None
        self._pair = torch.empty(0, dtype=torch.uint8)

    def _build(self, height: int, width: int) -> None:
        if self._network is None:
            network = load(self.weights.path).to("cuda" if self._cuda else "cpu", _DTYPES[self.precision])
            # A seventh faster on a CPU.  The stubs do not know the argument.
            self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._pair = torch.zeros((2, 1, 1, height, width), dtype=torch.uint8, pin_memory=self._cuda)
        if self._cuda:  # the first run of a size looks for the fastest kernels
            self._run()

    def _infer(self, ir: Plane, vis: Plane) -> Raw:
        pair = self._pair.numpy()
        pair[0, 0, 0], pair[1, 0, 0] = ir, vis  # their memory may be strided or read-only, which torch does not take
        return self._run()

    def _run(self) -> Raw:
        if self._network is None:
            raise RuntimeError("not prepared")
        with torch.inference_mode():
            ir, vis = self._pair.to("cuda" if self._cuda else "cpu").to(_DTYPES[self.precision])
            raw: Raw = self._network(ir, vis)[0, 0].float().cpu().numpy()
        return raw

    def close(self) -> None:
        super().close()
        self._network = None
        self._pair = torch.empty(0, dtype=torch.uint8)
