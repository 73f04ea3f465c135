"""The network compiled by PyTorch itself, with Inductor: for GPUs that TensorRT has no package for.

It needs what PyTorch needs to compile: Triton on a GPU, which CUDA builds of PyTorch bring along, and a C++ compiler.
The kernels are launched as one CUDA graph.  What was compiled stays in the cache directory, and a later start takes
seconds in place of minutes.  It also runs on a CPU, where `openvino` is faster.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from streamfuse.engines.base import Precision, first_line, parse_device, pick_precision
from streamfuse.engines.cache import default_directory
from streamfuse.engines.cuda_streams import DEPTH, DTYPES, Program, StreamedEngine
from streamfuse.engines.device import ComputeDevice, CudaDevice, HostDevice
from streamfuse.engines.tensorrt import export, network_to_compile
from streamfuse.errors import EngineUnavailable, is_out_of_memory
from streamfuse.network.config import Preset

log = logging.getLogger("streamfuse")

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
"""The variable that sets the directory in which Inductor keeps compiled code."""
_CHOSEN = CACHE_VARIABLE in os.environ
"""True if the user has chosen a directory; later PyTorch itself sets the variable."""


def create(weights: Path | None, precision: str, threads: int | None, device: str) -> InductorEngine:
    """Create the engine for `streamfuse.engines.create_engine`; device auto is the first GPU."""
    index = 0 if device == "auto" else parse_device(device)
    if index is not None:
        return InductorEngine(weights, precision, CudaDevice(index))
    if threads is not None:
        torch.set_num_threads(threads)
    return InductorEngine(weights, precision, HostDevice(), depth=1)


class InductorEngine(StreamedEngine):
    name = "inductor"
    package = "torch"
    presets = tuple(Preset)
    keeps_builds = True

    def __init__(
        self,
        weights: Path | None,
        precision: str,
        device: ComputeDevice,
        depth: int = DEPTH,
        cache: Path | None = None,
    ) -> None:
        """`cache`: the directory for what is compiled, None for the user's."""
        super().__init__(weights, device, depth)
        self._compute = device
        self.gpu = device.index
        best = Precision.FP32 if device.index is None else Precision.FP16
        self.precision = pick_precision(precision, best, tuple(DTYPES), self.device)
        self._cache = cache or default_directory()

    def _make_program(self, height: int, width: int) -> Program:
        dtype = DTYPES[self.precision]
        network = network_to_compile(self.weights.path, self.precision, height, width, self.preset)
        program, _ = export(network.to(self._compute.torch), height, width)
        pair = self._compute.buffer((2, 1, 1, height, width), dtype)
        raw = self._compute.buffer((1, 1, height, width), dtype)
        # The exported graph has a function of its own: of the network's, PyTorch compiles no more than eight versions.
        compiled = torch.compile(program.module(), fullgraph=True, dynamic=False)

        def launch() -> None:
            with torch.inference_mode():
                raw.copy_(compiled(pair[0], pair[1]))

        log.info("compiling the network for %dx%d pictures; the first time it takes a minute or more", width, height)
        try:
            with self._kept(), self._compute.active():
                return Program(pair, raw, self._compute.graph(launch))
        except (RuntimeError, OSError) as error:
            if is_out_of_memory(error):
                raise
            raise EngineUnavailable(f"PyTorch cannot compile the network: {_cause(error)}") from error

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Within it Inductor keeps what it compiles in our cache, unless the user has chosen another directory."""
        ours = self._cache is not None and not _CHOSEN
        before = os.environ.get(CACHE_VARIABLE)
        if ours:
            os.environ[CACHE_VARIABLE] = f"{self._cache}/inductor"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Inductor warns of what it does itself
                yield
        finally:
            if ours and before is None:
                del os.environ[CACHE_VARIABLE]
            elif ours and before is not None:
                os.environ[CACHE_VARIABLE] = before


def _cause(error: Exception) -> str:
    """Return the innermost error of a failed compilation in one line."""
    while (inner := getattr(error, "inner_exception", None)) is not None:
        error = inner
    return first_line(error)
