"""The options that say which engine runs, and where."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from streamfuse.cli.together import F, together

if TYPE_CHECKING:
    from streamfuse.engines.base import Engine
    from streamfuse.fuser import Fuser


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What the command line says about it."""

    engine: str = "auto"
    precision: str = "auto"
    preset: str = "auto"
    weights: Path | None = None
    """None for the shipped ones."""
    device: str = "auto"

    def open(self) -> Engine:
        """Raises EngineError and UsageError."""
        from streamfuse.engines import create_engine

        return create_engine(
            self.engine, weights=self.weights, precision=self.precision, device=self.device, preset=self.preset
        )

    def fuser(self, tone: str, calib: Path | None = None, crop: str | None = None) -> Fuser:
        """With the --calib and --crop of the command line.  Raises EngineError, InputError and UsageError."""
        from streamfuse.fuser import Fuser

        return Fuser(
            self.weights, self.engine, self.precision, tone, calib, crop == "overlap", self.preset, self.device
        )


def engine(function: F) -> F:
    """The options, handed to the command as one `engine`, an EngineChoice."""

    @together(
        click.option("--engine", default="auto", show_default=True, help="auto, openvino, tensorrt or torch."),
        click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16, fp16 or int8."),
        click.option(
            "--preset",
            type=click.Choice(["auto", "quality", "balanced", "realtime"]),
            default="auto",
            show_default=True,
            help="All of the network, its deep path on smaller pictures, or a small network in its place; auto is "
            "what the weights are best run at, and for live sources less where that does not keep up.",
        ),
        click.option(
            "--weights",
            type=click.Path(path_type=Path),
            help="A safetensors file of `streamfuse weights import`; default: the shipped one.",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            help="auto, cpu, cuda or cuda:N; a GPU that is named is not replaced by the CPU.",
        ),
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any, engine: str, precision: str, preset: str, weights: Path | None, device: str, **kwargs: Any
    ) -> Any:
        return function(*args, engine=EngineChoice(engine, precision, preset, weights, device), **kwargs)

    return cast(F, wrapper)
