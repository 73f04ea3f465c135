"""Engines by name.  A new one is a file of its own and a line in the table."""

from __future__ import annotations

import importlib
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.errors import EngineError, EngineUnavailable, is_out_of_memory

if TYPE_CHECKING:
    from streamfuse.engines.base import Engine

_ENGINES = {
    "inductor": "streamfuse.engines.inductor",
    "openvino": "streamfuse.engines.openvino",
    "tensorrt": "streamfuse.engines.tensorrt",
    "torch": "streamfuse.engines.torch",
}
"""Modules with a function `create` of weights, precision, threads and device; imported when asked for, as each brings
a large library along."""


def engine_names() -> list[str]:
    """Every name that `create_engine` takes beside auto."""
    return list(_ENGINES)


def create_engine(
    name: str = "auto",
    *,
    weights: Path | None = None,
    precision: str = "auto",
    threads: int | None = None,
    device: str = "auto",
    preset: str = "auto",
) -> Engine:
    """An engine by its name; auto is the first that works of tensorrt, inductor and torch on a CUDA GPU, and openvino.

    `weights`: a safetensors file, None for the shipped one.  `precision`: auto, fp32, bf16, fp16 or int8.  `threads`:
    how many a CPU engine uses, None for one a core.  `device`: auto, cpu, cuda or cuda:N; a GPU that was asked
    for is not replaced by the CPU.  `preset`: auto (what the weights are best run at), quality, balanced or realtime.
    Raises EngineError for what cannot be had here, UsageError for the device.
    """
    from streamfuse.engines.base import parse_device, parse_precision
    from streamfuse.engines.presets import parse_preset

    parse_precision(precision)
    chosen = None if preset == "auto" else parse_preset(preset)
    if device != "auto":
        parse_device(device)
    if name != "auto" and name not in _ENGINES:
        raise EngineError(f"unknown engine {name!r}: use auto, {', '.join(_ENGINES)}")
    if threads is not None and threads < 1:
        raise EngineError(f"threads must be at least 1, got {threads}")

    def make(name: str, device: str) -> Engine:
        engine = _create(name, weights, precision, threads, device)
        if chosen is not None:
            engine.use(chosen)
        return engine

    if name != "auto":
        return make(name, device)
    if device == "cpu" or (device == "auto" and not has_gpu()):
        return make("openvino", "cpu")
    gpu = "cuda" if device == "auto" else device
    choices = [(f"{name} on the GPU", partial(make, name, gpu)) for name in ("tensorrt", "inductor", "torch")]
    if device == "auto":
        choices.append(("openvino on the CPU", partial(make, "openvino", "cpu")))
    from streamfuse.engines.auto import AutoEngine

    return AutoEngine(choices)


def _create(name: str, weights: Path | None, precision: str, threads: int | None, device: str) -> Engine:
    try:
        create = importlib.import_module(_ENGINES[name]).create
    except ImportError as error:
        if is_out_of_memory(error):
            raise EngineError(f"out of memory: engine {name} could not be loaded; allow it more") from error
        package = error.name or name
        raise EngineUnavailable(f"engine {name} is not installed here ({error}); pip install {package}") from error
    engine: Engine = create(weights, precision, threads, device)
    return engine


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU, as far as can be told at once: importing torch to hear "no" takes a second."""
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
