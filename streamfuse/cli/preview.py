"""--preview, --preview-token and --metrics of the commands that run a pipeline."""

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
    """What the command line says about it."""

    address: str | None
    metrics: str | None
    token: str | None = field(repr=False)

    def sinks(self) -> list[Sink]:
        """None or one, whose addresses have been said.  Raises UsageError and OutputError."""
        if self.address is None and self.metrics is None:
            return []
        from streamfuse.sinks.preview import PreviewSink

        sink = PreviewSink(self.address, metrics=self.metrics, token=self.token)
        if sink.generated and logs.as_json():
            sink.close()
            raise UsageError("--log-json with an address that others reach: give --preview-token, to keep it unlogged")
        for what, link in sink.links.items():
            if sink.generated:  # it holds the token, which is for the user and for no log
                click.echo(f"{what}: {link}", err=True)
            else:
                logs.log.info("%s: %s", what, link)
        return [sink]


def preview(function: F) -> F:
    """The options, handed to the command as one `preview`, a Preview."""

    @together(
        click.option(
            "--preview",
            metavar="HOST:PORT",
            help="Show the result in a browser, such as on 127.0.0.1:8080; from other machines it takes a token.",
        ),
        click.option(
            "--preview-token",
            type=SECRET,
            metavar="TOKEN",
            envvar="STREAMFUSE_PREVIEW_TOKEN",
            help="What viewers must show; default: none on this machine, else one is made and printed. "
            "Rather in the environment, STREAMFUSE_PREVIEW_TOKEN: others may see a command line.",
        ),
        click.option(
            "--metrics", metavar="HOST:PORT", help="Serve /metrics, /status, /readyz without the preview, or apart."
        ),
    )
    @functools.wraps(function)
    def wrapper(*args: Any, preview: str | None, preview_token: str | None, metrics: str | None, **kwargs: Any) -> Any:
        return function(*args, preview=Preview(preview, metrics, preview_token), **kwargs)

    return cast(F, wrapper)
