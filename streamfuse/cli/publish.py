"""The options for publishing frames, and the sink that they describe."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from streamfuse.cli.decorators import F, together
from streamfuse.errors import UsageError

if TYPE_CHECKING:
    from streamfuse.sinks.zeromq import ZeroMQSink


@dataclass(frozen=True, slots=True)
class Publication:
    """Values of the options for publishing."""

    url: str
    encoding: str
    quality: int
    keys: Path | None
    clients: Path | None
    stream: str
    insecure: bool
    temperature: bool

    def open(self, weights: Path | None, calibration: Path | None) -> ZeroMQSink:
        """Bind the address and make the sink.

        `weights`: weights file in use, None for the shipped one; `calibration`: calibration file in use, if any.
        """
        # Imported here so that a run that does not publish does not load ZeroMQ.
        from streamfuse.calibration.model import load
        from streamfuse.network.checkpoint import default_weights, read_info
        from streamfuse.sinks.zeromq import ZeroMQSink
        from streamfuse.zeromq.curve import server_keys
        from streamfuse.zeromq.wire import Encoding

        if self.clients is not None and self.keys is None:
            raise UsageError("--publish-clients needs --publish-keys: give the publisher's secret key too")
        return ZeroMQSink(
            self.url,
            stream=self.stream,
            encoding=Encoding(self.encoding),
            quality=self.quality,
            keys=server_keys(self.keys, self.clients) if self.keys is not None else None,
            insecure=self.insecure,
            calibration=load(calibration).id if calibration is not None else None,
            model=read_info(weights or default_weights()).digest,
            temperature=self.temperature,
        )


def publish(function: F) -> F:
    """Add --publish and its options to a command, which gets `publish`, a Publication or None."""

    @together(
        click.option(
            "--publish",
            metavar="URL",
            help="Publish the frames over ZeroMQ, for example on tcp://127.0.0.1:5556 or ipc:///run/fused.",
        ),
        click.option(
            "--publish-encoding",
            type=click.Choice(["bgr8", "mono8", "yuv420p", "jpeg"]),
            default="bgr8",
            show_default=True,
            help="Pixel format; mono8 and yuv420p carry the luma losslessly.",
        ),
        click.option(
            "--publish-quality",
            type=click.IntRange(1, 100),
            default=85,
            show_default=True,
            help="JPEG quality, 1 to 100 (best).",
        ),
        click.option(
            "--publish-keys",
            type=click.Path(path_type=Path),
            help="Encrypt with this server.key_secret, from `streamfuse keys new`; required on network addresses.",
        ),
        click.option(
            "--publish-clients",
            type=click.Path(path_type=Path),
            help="Directory with the public keys of allowed subscribers.  Default: clients/ beside the secret key.",
        ),
        click.option(
            "--stream", default="main", show_default=True, metavar="NAME", help="Name of the published stream."
        ),
        click.option(
            "--publish-temperature",
            is_flag=True,
            help="Send the temperature of every pixel, too, for sources that have temperatures.",
        ),
        click.option("--insecure", is_flag=True, help="Publish on a network address without keys: anybody can watch."),
    )
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        publish: str | None,
        publish_encoding: str,
        publish_quality: int,
        publish_keys: Path | None,
        publish_clients: Path | None,
        stream: str,
        insecure: bool,
        publish_temperature: bool,
        **kwargs: Any,
    ) -> Any:
        publication = None
        if publish is not None:
            publication = Publication(
                *(publish, publish_encoding, publish_quality, publish_keys, publish_clients, stream, insecure),
                publish_temperature,
            )
        return function(*args, publish=publication, **kwargs)

    return cast(F, wrapper)
