"""`streamfuse top`: the state of a run that serves --preview or --metrics, in the terminal.

The server at the address is not trusted: control characters in its answer are escaped before they are printed.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from contextlib import nullcontext
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import click

from streamfuse.cli import options
from streamfuse.cli.config import SECRET
from streamfuse.errors import InputError, UsageError, printable
from streamfuse.frames import Role
from streamfuse.telemetry import each_count

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

TIMEOUT_S = 5.0
MAX_BYTES = 1 << 16
"""Longest answer that is read, bytes; a state has a few thousand."""
_ROLES = {role.label: role for role in Role}
_STATE_STYLES = {"live": "green", "recording": "green", "stalled": "yellow"}


@click.command()
@click.argument("url", default="127.0.0.1:8080")
@click.option("--once", is_flag=True, help="Print the state once and exit.")
@click.option(
    "--interval", type=options.FiniteRange(0.1, 3600), default=1.0, show_default=True, help="Time between updates, s."
)
@click.option("--token", type=SECRET, envvar="STREAMFUSE_PREVIEW_TOKEN", help="The run's --preview-token.")
@options.common
def command(url: str, once: bool, interval: float, token: str | None) -> None:
    """Show rates, latencies, drops and the state of the streams of the run that serves URL.

    \b
    streamfuse top 127.0.0.1:8080
    streamfuse top 'http://camera-box:8080/?token=...' --once
    """
    reader = _Reader(url, token)
    state = reader.read()
    if once:
        show(state, None, reader.name, console())
        return
    _watch(reader, state, interval, console())


def console(file: IO[str] | None = None) -> Console:
    from rich.console import Console

    return Console(file=file, markup=False, emoji=False)


def show(state: dict[str, Any], before: dict[str, Any] | None, name: str, console: Console) -> None:
    console.print(_view(state, before, name))


def _watch(reader: _Reader, state: dict[str, Any], interval: float, console: Console) -> None:
    """Show the state until interrupted; updated in place on a terminal, else printed one after another."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    live = Live(console=console, auto_refresh=False, screen=True) if console.is_terminal else None
    with live or nullcontext():
        view = _view(state, None, reader.name)
        while True:
            if live is not None:
                live.update(view, refresh=True)
            else:
                console.print(view)
            time.sleep(interval)
            try:
                before, now = state, reader.read()
                view = _view(now, before, reader.name)
                state = now
            except InputError as error:  # the run may be started again
                view = Group(_view(state, None, reader.name), Text(str(error), style="red"))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuse redirects: streamfuse sends none, and the token would be sent to the new address."""

    def redirect_request(self, *args: Any) -> None:
        return None


class _Reader:
    def __init__(self, url: str, token: str | None) -> None:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("top: give the address of --preview or --metrics, such as http://127.0.0.1:8080")
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._token = token or next(iter(parse_qs(parts.query).get("token", [])), None)
        # Proxy settings are for the web, not for this.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())

    def read(self) -> dict[str, Any]:
        """Return the run's state.  Raises InputError."""
        request = urllib.request.Request(f"{self.name}/status")
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with self.opener.open(request, timeout=TIMEOUT_S) as answer:
                state = _plain(json.loads(answer.read(MAX_BYTES)))
        except urllib.error.HTTPError as error:
            with error:
                raise InputError(f"{self.name}: {_why(error.code)}") from None
        except (http.client.HTTPException, RecursionError):
            raise InputError(f"{self.name}: this is not streamfuse: check the address") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            words = getattr(reason, "strerror", None) or reason
            raise InputError(
                f"{self.name}: {str(words).lower()}: check that `streamfuse run --preview` runs there"
            ) from None
        if not isinstance(state, dict) or "fused" not in state:
            raise InputError(f"{self.name}: this is not streamfuse: check the address")
        return state


def _plain(value: Any) -> Any:
    """Return a JSON value with its control characters escaped."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {printable(key): _plain(item) for key, item in value.items()}
    return value


def _why(code: int) -> str:
    if code == 401:
        return "a token is needed: give --token, or set STREAMFUSE_PREVIEW_TOKEN"
    return f"answers {code}: this is not streamfuse, or it was started with another host name"


def _view(state: dict[str, Any], before: dict[str, Any] | None, name: str) -> RenderableType:
    """Raises InputError for a state of another form than `streamfuse.web.status` makes."""
    try:
        return _tables(state, before, name)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        raise InputError(f"{name}: unknown form of state: use the same version of streamfuse as the run") from None


def _tables(state: dict[str, Any], before: dict[str, Any] | None, name: str) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    ready = Text("ready", style="green") if state["ready"] else Text("; ".join(state["reasons"]), style="yellow")
    title = Text.assemble((f"streamfuse {state['version']} ", "bold"), f"{name}  ", ready)

    figures = Table.grid(padding=(0, 3))
    figures.add_row(
        f"{state['fps']:.1f} fps",
        f"latency {_ms(state['latency_ms'])}",
        f"skew {_ms(state['skew_ms'], sign=True)}",
        f"shows {_shows(state)}",
        f"{state['viewers']} viewers",
    )
    streams = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("stream", "state", "frames", "a second", "reconnects", "clock"):
        streams.add_column(column, justify="right" if column in ("frames", "a second", "reconnects") else "left")
    for source in state["sources"]:
        role = _ROLES[source["stream"]]
        style = _STATE_STYLES.get(source["state"], "red")
        streams.add_row(
            str(source["stream"]),
            Text(source["state"], style=style),
            str(state["read"].get(role, 0)),
            _rate(state, before, role),
            str(source["reconnects"]),
            str(source["clock"] or ""),
        )
    stages = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    stages.add_column("latency, ms")
    for column in ("p50", "p95", "p99"):
        stages.add_column(column, justify="right")
    for stage, values in state["stages"].items():
        stages.add_row(stage, *(_number(values[f"{column}_ms"]) for column in ("p50", "p95", "p99")))
    parts: list[RenderableType] = [title, "", figures, "", streams, "", stages, "", _counts(state)]
    parts += [f"  {count:6d}  {stream}: {reason}" for stream, reason, count in each_count(state["drops"])]
    return Group(*parts)


def _shows(state: dict[str, Any]) -> str:
    if state["content"] is None:
        return "nothing yet"
    return str(state["content"]) + ("" if state["content"] == "fused" else " passthrough")


def _counts(state: dict[str, Any]) -> str:
    written = "".join(f", {count} written to {output}" for output, count in state["written"].items())
    return f"{state['paired']} pairs, {state['fused']} fused{written}, {state['dropped']} dropped"


def _rate(state: dict[str, Any], before: dict[str, Any] | None, role: Role) -> str:
    if before is None or state["time"] <= before["time"]:
        return ""
    more = state["read"].get(role, 0) - before["read"].get(role, 0)
    return f"{more / (state['time'] - before['time']):.1f}" if more >= 0 else ""  # negative: the run was started again


def _ms(value: float | None, *, sign: bool = False) -> str:
    return "unknown" if value is None else f"{value:{'+' if sign else ''}.1f} ms"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
