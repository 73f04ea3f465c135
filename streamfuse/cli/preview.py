"""Options --preview, --preview-token and --metrics of the commands that run a pipeline."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import click

from streamfuse.cli import logs
from streamfuse.cli.config import SECRET
from streamfuse.cli.together import F, together
from streamfuse.errors import UsageError

if TYPE_CHECKING:
    from streamfuse.sinks.base import Sink


@dataclass(frozen=True, slots=True)
class Preview:
    """Values of the preview options."""

    address: str | None
    metrics: str | None
    token: str | None = field(repr=False)

    def sinks(self) -> list[Sink]:
        """Return no sink or one, after its links were printed.  Raises UsageError and OutputError."""
        if self.address is None and self.metrics is None:
            return []
        from streamfuse.sinks.preview import PreviewSink

        sink = PreviewSink(self.address, metrics=self.metrics, token=self.token)
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
        return [sink]


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
            "printed. Better set as STREAMFUSE_PREVIEW_TOKEN: other users can see the command line.",
        ),
        click.option(
            "--metrics", metavar="HOST:PORT", help="Serve /metrics, /status and /readyz on an address of their own."
        ),
    )
    @functools.wraps(function)
    def wrapper(*args: Any, preview: str | None, preview_token: str | None, metrics: str | None, **kwargs: Any) -> Any:
        return function(*args, preview=Preview(preview, metrics, preview_token), **kwargs)

    return cast(F, wrapper)
