"""Makes torch_tensorrt usable for compiling on a machine without an NVIDIA driver.

It asks torch.cuda for the GPU and loads a library that depends on CUDA's.  This module reports a GPU and hides the
library; compiling needs neither.
"""

from __future__ import annotations

import os
import types
from collections.abc import Callable
from unittest import mock

import torch

_GPU = types.SimpleNamespace(
    name="none", major=8, minor=6, total_memory=16 << 30, multi_processor_count=64, is_integrated=0
)
_ANSWERS: dict[str, Callable[..., object]] = {
    "get_device_capability": lambda device=None: (8, 6),
    "get_device_properties": lambda device=None: _GPU,
    "get_device_name": lambda device=None: _GPU.name,
    "current_device": lambda: 0,
}


def install() -> None:
    for name, answer in _ANSWERS.items():
        setattr(torch.cuda, name, answer)
    if torch.version.cuda is not None:
        return
    torch._C._CudaDeviceProperties = types.SimpleNamespace  # type: ignore[assignment, misc]  # for an annotation
    is_file = os.path.isfile
    with mock.patch("os.path.isfile", lambda path: "libtorchtrt" not in os.fspath(path) and is_file(path)):
        import torch_tensorrt  # noqa: F401
