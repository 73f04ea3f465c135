"""Creation of engines by name.  To add an engine, write its module and add a line to `_ENGINES`."""

from __future__ import annotations

import importlib
import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.errors import EngineError, EngineUnavailable, is_out_of_memory

if TYPE_CHECKING:
    from streamfuse.engines.base import Engine

_ENGINES = {
    "openvino": "streamfuse.engines.openvino",
    "tensorrt": "streamfuse.engines.tensorrt",
    "inductor": "streamfuse.engines.inductor",
    "torch": "streamfuse.engines.torch",
}
"""Modules with a function `create(weights, precision, threads, device)`; imported on demand, because each loads a large
library."""


def engine_names() -> list[str]:
    """Return the names that `create_engine` accepts besides auto."""
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
    """Create an engine; auto is the first that works: tensorrt, inductor or torch on a CUDA GPU, openvino on the CPU.

    `weights`: a safetensors file, None for the shipped one.  `precision`: auto, fp32, bf16, fp16 or int8.  `threads`:
    number of threads of a CPU engine, None for one per core.  `device`: auto, cpu, cuda or cuda:N; with cuda there is
    no fallback to the CPU.  `preset`: auto (the one recommended for the weights), quality, balanced or realtime.
    Raises EngineError for an engine, a precision or a preset that is not available, UsageError for an unknown device
    or preset.
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
        with ExitStack() as made:
            made.callback(engine.close)
            if chosen is not None:
                engine.use(chosen)
            made.pop_all()
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
    except (ImportError, OSError) as error:  # llvmlite raises OSError for a library that cannot be loaded
        reasons = (error, error.__cause__, error.__context__)
        if any(isinstance(reason, Exception) and is_out_of_memory(reason) for reason in reasons):
            raise EngineError(f"out of memory while loading engine {name}: allow more memory") from error
        package = getattr(error, "name", None) or name
        raise EngineUnavailable(f"engine {name} is not installed ({error}): pip install {package}") from error
    engine: Engine = create(weights, precision, threads, device)
    return engine


def has_gpu() -> bool:
    """Return True if there seems to be an NVIDIA GPU; a quick check, because importing torch takes a second."""
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
