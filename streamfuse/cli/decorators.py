"""Helpers that combine options into decorators of a command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from streamfuse.files import expand_home

F = TypeVar("F", bound=Callable[..., Any])


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Combine options into one decorator; `--help` lists them in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def with_home(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Callback of an option that takes a path: replace `~`; raises UsageError where that is not possible."""
    return None if path is None else expand_home(path, param.opts[0])
