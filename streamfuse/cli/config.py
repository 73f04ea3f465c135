"""Options from a TOML file, and the options in effect as such a file.

Keys and types are those of the command's click options: a new option needs no change here.  A file may also name
sources in a table, so that an address with its password is written once:

    ir = "front-ir"
    [sources]
    front-ir = "rtsp://viewer:${STREAMFUSE_FRONT_PASSWORD}@10.0.0.5/ch1"
"""

from __future__ import annotations

import difflib
import functools
import json
import os
from enum import Enum
from pathlib import Path
from typing import Any, cast

import click
from click.core import ParameterSource

from streamfuse.cli.decorators import F
from streamfuse.errors import StreamfuseError, UsageError
from streamfuse.support.files import Settings, read_settings
from streamfuse.support.urls import mask, redact

SOURCES = "sources"
_PRINT = "print_config"
_FILE = "streamfuse.cli.config.file"
"""Key under which the context keeps the Settings that were read."""


class _SourceType(click.types.StringParamType):
    """A source, or its name in the file's table of sources."""

    name = "source"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        settings: Settings | None = ctx.meta.get(_FILE) if ctx is not None else None
        names = settings.values.get(SOURCES, {}) if settings is not None else {}
        return str(names.get(value, value))


SOURCE = _SourceType()
"""Type of every option that takes a source."""


class _SecretType(click.types.StringParamType):
    """A text that is never shown."""

    name = "secret"


SECRET = _SecretType()


def _read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    settings = read_settings(path)
    _check_sources(settings)
    ctx.meta[_FILE] = settings
    options = _options(ctx)
    defaults = {}
    for key, value in settings.values.items():
        if key == SOURCES:
            continue
        if key not in options:
            raise UsageError(f"{settings.where(key)}: unknown key {key!r}; {_nearest(key, [*options, SOURCES])}")
        option = options[key]
        try:
            written = _as_written(option, value)
            option.process_value(ctx, written)
        except (ValueError, click.ClickException, StreamfuseError) as error:
            what = error.message if isinstance(error, click.ClickException) else str(error)
            what = what.replace(str(value), redact(str(value))).rstrip(".")  # an address may have the wrong key
            raise UsageError(f"{settings.where(key)}: {key}: {what}") from None
        defaults[option.name or key] = written
    ctx.default_map = defaults


config = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file with values for these options; the command line and the environment override it.",
)
"""--config: defaults for the other options of the command."""


def _check_sources(settings: Settings) -> None:
    table = settings.values.get(SOURCES, {})
    if not isinstance(table, dict):
        raise UsageError(f"{settings.where(SOURCES)}: {SOURCES}: must be a table, [{SOURCES}], of NAME = SOURCE")
    for name, value in table.items():
        if not isinstance(value, str) or not value:
            raise UsageError(f"{settings.where(SOURCES, name)}: {SOURCES}.{name}: must be a source in quotes")


def _options(ctx: click.Context) -> dict[str, click.Option]:
    """Return the options that a file may set, by key: the long name without dashes."""
    return {
        name.lstrip("-"): option
        for option in ctx.command.params
        if isinstance(option, click.Option) and option.expose_value and option.name != _PRINT
        for name in option.opts
        if name.startswith("--")
    }


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key.replace("_", "-").lower(), known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"


def _as_written(option: click.Option, value: object) -> Any:
    """Convert a TOML value to its form on the command line, so that the option's type checks both in the same way.

    Raises ValueError for a value that the option cannot have.
    """
    if option.multiple:
        several = value if isinstance(value, list) else [value]
        return [_nested(option, item) for item in several]
    return _nested(option, value)


def _nested(option: click.Option, value: object) -> Any:
    if option.nargs == 1:
        return _scalar(option, value)
    if not isinstance(value, list):
        raise ValueError(f"must be a list of {option.nargs} values")
    return [_scalar(option, item) for item in value]


def _scalar(option: click.Option, value: object) -> str | bool:
    if isinstance(value, dict | list):
        raise ValueError("must be one value")
    flag = isinstance(option.type, click.types.BoolParamType)
    if isinstance(value, bool) != flag:
        raise ValueError("must be true or false" if flag else f"{json.dumps(value)} is no value of this option")
    if isinstance(value, bool):
        return value
    number = isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
    if not isinstance(value, str) and not (number and isinstance(value, int | float)):
        raise ValueError("must be a number" if number else f'must be in quotes, as in "{value}"')
    return str(value)


def print_config(function: F) -> F:
    """Add --print-config: show the options in effect instead of running the command."""

    @click.option(
        "--print-config",
        is_flag=True,
        help="Print the options in effect as a TOML file for --config, with the origin of each, and exit.",
    )
    @functools.wraps(function)
    def wrapper(*args: Any, print_config: bool, **kwargs: Any) -> Any:
        if print_config:
            click.echo(effective(click.get_current_context()))
            return 0
        return function(*args, **kwargs)

    return cast(F, wrapper)


def effective(ctx: click.Context) -> str:
    """Return the options of a parsed command as TOML; logins are masked, variables are left as names."""
    lines = [f"# {ctx.command_path}: the options in effect"]
    for key, option in _options(ctx).items():
        value = ctx.params.get(option.name or key)
        if value is None:
            lines.append(f"# {key} is not set")
            continue
        if option.type is SECRET:
            lines.append(f"# {key} is set, and not shown  # {_origin(ctx, key, option)}")
            continue
        line = f"{key} = {_toml(value)}  # {_origin(ctx, key, option)}"
        lines.append(line if _reads_back(ctx, option, value) else f"# {line}")
    return "\n".join(lines)


def _reads_back(ctx: click.Context, option: click.Option, value: object) -> bool:
    """Tell whether the option accepts its own value: a callback may have converted it."""
    without_file = click.Context(ctx.command)
    try:
        return bool(option.process_value(without_file, _as_written(option, _plain(value))) == value)
    except (ValueError, click.ClickException, StreamfuseError):
        return False


def _origin(ctx: click.Context, key: str, option: click.Option) -> str:
    source = ctx.get_parameter_source(option.name or key)
    if source is ParameterSource.COMMANDLINE:
        return "flag"
    if source is ParameterSource.ENVIRONMENT:
        return f"environment {_variable(ctx, option)}"
    if source is ParameterSource.DEFAULT_MAP:
        return f"file {ctx.meta[_FILE].where(key)}"
    return "default"


def _variable(ctx: click.Context, option: click.Option) -> str:
    named = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
    automatic = f"{ctx.auto_envvar_prefix}_{option.name}".upper()
    return next((name for name in named if os.environ.get(name)), automatic)


def _plain(value: object) -> Any:
    """Convert an option's value to the types of TOML."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float) else os.fspath(cast("str | Path", value))


def _toml(value: object) -> str:
    plain = _plain(value)
    if isinstance(plain, list):
        return f"[{', '.join(_toml(item) for item in plain)}]"
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if not isinstance(plain, str):
        return repr(plain)
    # JSON's escapes are TOML's, but for one; what is no text at all (a file name of other bytes) becomes "?".
    text = json.dumps(mask(plain), ensure_ascii=False).replace("\x7f", "\\u007f")
    return text.encode("utf-8", "replace").decode()
