"""Options that several commands share, and the way to read them from a TOML file."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from streamfuse.errors import UsageError
from streamfuse.files import read_toml

F = TypeVar("F", bound=Callable[..., Any])


class _Notes(logging.Handler):
    """What the library says once becomes a line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"note: {record.getMessage()}", err=True)


def show_notes() -> None:
    """Let the library speak to the user of the command line."""
    logger = logging.getLogger("streamfuse")
    logger.handlers = [_Notes()]
    logger.propagate = False
    logger.setLevel(logging.INFO)


def silence_notes() -> None:
    """For processes beside the first one, which would say the same."""
    logging.getLogger("streamfuse").handlers = [logging.NullHandler()]


def common(function: F) -> F:
    """--debug, which `streamfuse.cli.main` reads: it must also know when parsing itself fails."""
    return click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")(function)


def engine(function: F) -> F:
    """--engine, --precision and --weights."""
    for option in reversed(
        (
            click.option("--engine", default="auto", show_default=True, help="auto, openvino or torch."),
            click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16 or fp16."),
            click.option(
                "--weights",
                type=click.Path(path_type=Path),
                help="A safetensors file of `streamfuse weights import`; default: the shipped one.",
            ),
        )
    ):
        function = option(function)
    return function


def calibration(function: F) -> F:
    """--calib and --crop."""
    for option in reversed(
        (
            click.option(
                "--calib",
                type=click.Path(path_type=Path),
                help="A file of `streamfuse calibrate`: where infrared lies in the visible picture.",
            ),
            click.option("--crop", type=click.Choice(["overlap"]), help="Cut the result to what both cameras see."),
        )
    ):
        function = option(function)
    return function


def force(function: F) -> F:
    return click.option("--force", is_flag=True, help="Replace an output that exists.")(function)


def config(function: F) -> F:
    """--config FILE: defaults for the other options of the command."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=_read_config,
        help="A TOML file with these options, such as pipelines/archive.toml; flags and environment come first.",
    )(function)


def _read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    values = read_toml(path)
    options = {
        name.lstrip("-"): option
        for option in ctx.command.params
        if isinstance(option, click.Option) and option.expose_value
        for name in option.opts
        if name.startswith("--")
    }
    defaults = {}
    for key, value in values.items():
        if key not in options:
            raise UsageError(f"{path}: unknown key {key!r}; known are {', '.join(sorted(options))}")
        if isinstance(value, dict | list):
            raise UsageError(f"{path}: {key} must be one value")
        defaults[options[key].name or key] = value
    ctx.default_map = defaults


class FiniteRange(click.FloatRange):
    """A range that NaN and infinity are outside of."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


MAX_SIDE = 4096


def parse_size(ctx: click.Context, param: click.Parameter, text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT to (height, width)."""
    width, _, height = text.partition("x")
    sides = [int(side) if side.isdecimal() else 0 for side in (width, height)]
    if not all(32 <= side <= MAX_SIDE for side in sides):
        raise UsageError(f"--size {text!r}: give WIDTHxHEIGHT, 32 to {MAX_SIDE} pixels a side")
    return int(height), int(width)


def on_terminal() -> bool:
    return sys.stderr.isatty()
