"""Options that select the engine and its device."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, cast

import click

from streamfuse.cli.decorators import F, together, with_home
from streamfuse.options import EngineChoice


def engine(function: F) -> F:
    """Add the engine's options, passed to the command as one `engine`, an EngineChoice."""

    @together(
        click.option(
            "--engine", default="auto", show_default=True, help="auto, openvino, tensorrt, inductor or torch."
        ),
        click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16, fp16 or int8."),
        click.option(
            "--preset",
            type=click.Choice(["auto", "quality", "balanced", "realtime"]),
            default="auto",
            show_default=True,
            help="quality: the whole network at full size; balanced: its deep path on smaller pictures; realtime: a "
            "separate, small network. auto: the preset recommended for the weights; for live sources, and for "
            "recordings that are only previewed, a faster one if that is too slow.",
        ),
        click.option(
            "--weights",
            type=click.Path(path_type=Path),
            callback=with_home,
            help="Weights file, *.safetensors; default: the shipped one.",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            help="auto, cpu, cuda or cuda:N; only auto falls back to the CPU.",
        ),
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any, engine: str, precision: str, preset: str, weights: Path | None, device: str, **kwargs: Any
    ) -> Any:
        choice = EngineChoice(engine, precision, preset, weights, device)
        return function(*args, engine=choice, **kwargs)

    return cast(F, wrapper)
