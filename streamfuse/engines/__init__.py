"""Engines by name.  A new one is a file of its own and a line in the table."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.errors import EngineError

if TYPE_CHECKING:
    from streamfuse.engines.base import Engine

_ENGINES = {
    "openvino": "streamfuse.engines.openvino:OpenvinoEngine",
    "torch": "streamfuse.engines.torch:TorchEngine",
}
"""Called with weights, precision and threads; imported when asked for, as each brings a large library along."""


def engine_names() -> list[str]:
    """Every name that `create_engine` takes beside auto."""
    return list(_ENGINES)


def create_engine(
    name: str = "auto", *, weights: Path | None = None, precision: str = "auto", threads: int | None = None
) -> Engine:
    """An engine by its name; auto is torch where there is a CUDA GPU, else openvino.

    `weights`: a safetensors file, None for the shipped one.  `precision`: auto, fp32, bf16 or fp16.  `threads`:
    how many a CPU engine uses, None for one a core.  Raises EngineError for what cannot be had here.
    """
    if name == "auto":
        name = "torch" if _has_cuda() else "openvino"
    if name not in _ENGINES:
        raise EngineError(f"unknown engine {name!r}: use auto, {', '.join(_ENGINES)}")
    if threads is not None and threads < 1:
        raise EngineError(f"threads must be at least 1, got {threads}")
    module, _, factory = _ENGINES[name].partition(":")
    try:
        make = getattr(importlib.import_module(module), factory)
    except ImportError as error:
        raise EngineError(f"engine {name} is not installed here ({error}); pip install {error.name or name}") from error
    engine: Engine = make(weights, precision, threads)
    return engine


def _has_cuda() -> bool:
    # Importing torch takes a second or more, so it is not done to hear "no" on a machine without a driver.
    if not Path("/dev/nvidia0").exists() and shutil.which("nvidia-smi") is None:
        return False
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
