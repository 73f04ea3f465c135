"""Checkpoints of a run: safetensors files, written atomically, from which training continues exactly.

A file holds the network (`network.NAME`), the mean of its weights (`mean.NAME`), Adam's moments
(`adam.NAME.exp_avg`, `.exp_avg_sq`, `.step`) and, in its metadata, the step, the seed and the recipe.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from streamfuse.errors import InputError
from streamfuse.files import write_whole

FORMAT = "streamfuse-training-1"


@dataclass(slots=True)
class Progress:
    """Progress of a run."""

    step: int = 0
    """Number of finished steps."""
    best: float = float("inf")
    """Smallest validation loss so far."""


def _moments(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
    return {
        f"adam.{names[parameter]}.{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def save_state(
    path: Path,
    network: nn.Module,
    mean: dict[str, Tensor],
    optimizer: torch.optim.Optimizer | None,
    progress: Progress,
    about: dict[str, Any],
) -> None:
    """Save a checkpoint.  `about`: description of the run; only the same run can continue from it."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"mean.{name}": value for name, value in mean.items()}
    tensors |= _moments(network, optimizer) if optimizer is not None else {}
    metadata = {
        "format": FORMAT,
        "step": str(progress.step),
        "best": repr(progress.best),
        "about": json.dumps(about, sort_keys=True),
    }
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write_whole(path, to_bytes(plain, metadata), durable=True)


def read_format(path: Path) -> str:
    """Return the format in a safetensors file's metadata; raises InputError."""
    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get("format", ""))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged: {error}") from None


def read_state(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors of a checkpoint; raises InputError."""
    if read_format(path) != FORMAT:
        raise InputError(f"{path} is not a checkpoint of streamfuse train")
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    return metadata, tensors


def read_network(path: Path, network: nn.Module) -> None:
    """Fill a network with a checkpoint's result: the mean of its weights, if there is one."""
    _, tensors = read_state(path)
    state = {key.removeprefix("network."): value for key, value in tensors.items() if key.startswith("network.")}
    state |= {key.removeprefix("mean."): value for key, value in tensors.items() if key.startswith("mean.")}
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise InputError(f"{path} is a checkpoint of another network") from None


def load_state(
    path: Path, network: nn.Module, mean: dict[str, Tensor], optimizer: torch.optim.Optimizer, about: dict[str, Any]
) -> Progress:
    """Fill network, mean and optimizer from a checkpoint; raises InputError if it is damaged or of another run."""
    metadata, tensors = read_state(path)
    try:
        before, progress = json.loads(metadata["about"]), Progress(int(metadata["step"]), float(metadata["best"]))
    except (KeyError, ValueError, RecursionError):
        before = progress = None
    if not isinstance(before, dict) or progress is None:
        raise InputError(f"{path} is damaged: it does not say of which run it is")
    if differing := [key for key in about if before.get(key) != about[key]]:
        raise InputError(
            f"{path} is of a run with another {', '.join(differing)}: repeat its options, or train in another directory"
        )
    try:
        network.load_state_dict({key[8:]: value for key, value in tensors.items() if key.startswith("network.")})
        for name in mean:
            mean[name].copy_(tensors[f"mean.{name}"])
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = next(name for name, other in network.named_parameters() if other is parameter)
                state = {key: tensors.get(f"adam.{name}.{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
                if all(value is not None for value in state.values()):
                    optimizer.state[parameter] = {
                        key: value if key == "step" else torch.empty_like(parameter).copy_(value)
                        for key, value in state.items()
                        if value is not None
                    }
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{path} does not fit this network: {error}") from None
    return progress
