"""--preview, --preview-token, --metrics and --no-open of the commands that run a pipeline."""

from __future__ import annotations

import functools
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import click

from streamfuse.cli import logs
from streamfuse.cli.config import SECRET
from streamfuse.cli.decorators import F, together
from streamfuse.errors import OutputError, UsageError

if TYPE_CHECKING:
    from streamfuse.sinks.preview import PreviewSink

LOOPBACK = "127.0.0.1"
PORTS = range(8080, 8180)
"""Ports tried in this order if the user gave no address."""


@dataclass(frozen=True, slots=True)
class Preview:
    """Values of the preview options."""

    address: str | None
    metrics: str | None
    token: str | None = field(repr=False)
    open: bool = True
    """Open a browser if the preview is the only output."""

    def sink(self, *, only_output: bool = False) -> PreviewSink | None:
        """Bind and announce the addresses; None where nothing is to be served.

        `only_output`: serve the preview even without --preview, on the first free one of PORTS.  Raises UsageError and
        OutputError.
        """
        if self.address is None and not only_output and self.metrics is None:
            return None
        sink = self._on_free_port() if self.address is None and only_output else self._on(self.address)
        if sink.generated and logs.as_json():
            sink.close()
            raise UsageError(
                "--log-json with an address that other machines reach: give --preview-token, so that no token is logged"
            )
        for what, link in sink.links.items():
            if sink.generated:  # it contains the token, which must not be logged
                click.echo(f"{what}: {link}", err=True)
            else:
                logs.log.info("%s: %s", what, link)
        return sink

    def _on(self, address: str | None) -> PreviewSink:
        from streamfuse.sinks.preview import PreviewSink

        return PreviewSink(address, metrics=self.metrics, token=self.token)

    def _on_free_port(self) -> PreviewSink:
        for port in PORTS:
            try:
                return self._on(f"{LOOPBACK}:{port}")
            except OutputError:
                if _is_free(port):  # the error is about something else
                    raise
        raise OutputError(f"ports {PORTS[0]} to {PORTS[-1]} are in use: give --preview {LOOPBACK}:PORT, or -o FILE")


def _is_free(port: int) -> bool:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True


def preview(function: F) -> F:
    """Add the options to a command, which gets them as one argument `preview`, a Preview."""

    @together(
        click.option(
            "--preview",
            metavar="HOST:PORT",
            help="Show the result in a browser, for example at 127.0.0.1:8080; other addresses need a token.",
        ),
        click.option(
            "--preview-token",
            type=SECRET,
            metavar="TOKEN",
            envvar="STREAMFUSE_PREVIEW_TOKEN",
            help="Secret that viewers must show. Default: none on loopback; on other addresses a random one, which is "
            "printed. Prefer the environment variable STREAMFUSE_PREVIEW_TOKEN: other users can see the command line.",
        ),
        click.option(
            "--metrics",
            metavar="HOST:PORT",
            help="Serve /metrics, /status and /readyz on this address; the preview's address serves them too.",
        ),
        click.option(
            "--open/--no-open",
            "open_browser",
            default=True,
            help="Open the preview in a browser if there is a display; only without -o, --publish and --preview.",
        ),
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        preview: str | None,
        preview_token: str | None,
        metrics: str | None,
        open_browser: bool,
        **kwargs: Any,
    ) -> Any:
        return function(*args, preview=Preview(preview, metrics, preview_token, open_browser), **kwargs)

    return cast(F, wrapper)
