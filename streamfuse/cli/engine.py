"""The options that choose the engine, and where it runs."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, cast

import click

from streamfuse.cli.together import F, together, with_home
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
            help="quality: the whole network; balanced: its deep path on smaller pictures; realtime: a small network. "
            "auto: the best for these weights, and for live sources a faster one if that does not keep up.",
        ),
        click.option(
            "--weights",
            type=click.Path(path_type=Path),
            callback=with_home,
            help="A safetensors file of `streamfuse weights import`; default: the shipped one.",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            help="auto, cpu, cuda or cuda:N; a GPU that is named is never replaced by the CPU.",
        ),
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any, engine: str, precision: str, preset: str, weights: Path | None, device: str, **kwargs: Any
    ) -> Any:
        choice = EngineChoice(engine, precision, preset, weights, device)
        return function(*args, engine=choice, **kwargs)

    return cast(F, wrapper)
