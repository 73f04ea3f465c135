"""Messages of the command line on stderr: lines for people, or with --log-json one JSON object per line.

Messages quote untrusted text, such as file names and addresses.  They are therefore written only by `say` and
`_JsonLines`, which escape control characters.
"""

from __future__ import annotations

import functools
import json
import logging
import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, cast

import click

from streamfuse.cli.decorators import F
from streamfuse.errors import printable
from streamfuse.telemetry import Summary

log = logging.getLogger("streamfuse")
FIELDS = "fields"
"""Attribute of a record with additional fields for its JSON object: `log.info(..., extra={FIELDS: {...}})`."""
FLAG = "--log-json"


def say(*lines: str, err: bool = True, mark: str = "") -> None:
    """Write lines to stderr, or to stdout if not `err`; `mark` is put before each and may be coloured."""
    click.echo("\n".join(mark + printable(line) for line in lines), err=err)


class _Notes(logging.Handler):
    """Writes log records as lines for people."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"note: {record.getMessage()}")


class _JsonLines(logging.Handler):
    """Writes log records as JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["traceback"] = logging.Formatter().formatException(record.exc_info)
        text = json.dumps(line, ensure_ascii=False, default=str)
        click.echo("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text), err=True)


def _handle(handler: logging.Handler) -> None:
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.INFO)


def show_notes() -> None:
    """Show the library's log records as lines."""
    _handle(_Notes())


def show_json() -> None:
    """Show all messages as JSON, one object per line: time, level, message and additional fields."""
    _handle(_JsonLines())


def as_json() -> bool:
    """Return True if messages are shown as JSON."""
    return any(isinstance(handler, _JsonLines) for handler in log.handlers)


def silence_notes() -> None:
    """Show no log records, in worker processes that would repeat those of the main process."""
    log.handlers = [logging.NullHandler()]


def log_json(function: F) -> F:
    """--log-json."""

    @click.option(FLAG, is_flag=True, help="Write all messages to stderr as JSON, one object per line.")
    @functools.wraps(function)
    def wrapper(*args: Any, log_json: bool, **kwargs: Any) -> Any:
        if log_json:
            show_json()
        return function(*args, **kwargs)

    return cast(F, wrapper)


def summary_fields(summary: Summary) -> dict[str, Any]:
    """Return the state of a run as the fields of a JSON line; a number that is not known yet is null."""
    fields = {key: _plain(value) for key, value in asdict(summary).items()}
    fields["sources"] = {role.label: _plain(asdict(source)) for role, source in summary.sources.items()}
    for stage in fields["stages"].values():
        del stage["within"]  # for monitoring
    return {**fields, "dropped": summary.dropped}


def log_summary(message: str, summary: Summary) -> None:
    """Log the state of a run as one JSON line."""
    log.info(message, extra={FIELDS: summary_fields(summary)})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
