"""The options of publishing, and the sink that they describe."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from streamfuse.cli.together import F, together
from streamfuse.errors import UsageError

if TYPE_CHECKING:
    from streamfuse.sinks.zeromq import ZeroMQSink


@dataclass(frozen=True, slots=True)
class Publication:
    """What the user wants published, and how."""

    url: str
    encoding: str
    quality: int
    keys: Path | None
    clients: Path | None
    stream: str
    insecure: bool

    def open(self, weights: Path | None, calibration: Path | None) -> ZeroMQSink:
        """Bind the address; `weights` and `calibration` are the files in use, None for the shipped one and for none."""
        # Here, since a run that does not publish shall not load ZeroMQ.
        from streamfuse.calibration.model import load
        from streamfuse.network.checkpoint import default_weights, read_info
        from streamfuse.sinks.zeromq import ZeroMQSink
        from streamfuse.zeromq.curve import server_keys
        from streamfuse.zeromq.wire import Encoding

        if self.clients is not None and self.keys is None:
            raise UsageError("--publish-clients says who may subscribe, which needs --publish-keys")
        return ZeroMQSink(
            self.url,
            stream=self.stream,
            encoding=Encoding(self.encoding),
            quality=self.quality,
            keys=server_keys(self.keys, self.clients) if self.keys is not None else None,
            insecure=self.insecure,
            calibration=load(calibration).id if calibration is not None else None,
            model=read_info(weights or default_weights()).digest,
        )


def publish(function: F) -> F:
    """--publish and what belongs to it; the command gets `publish`, a Publication or None."""

    @together(
        click.option(
            "--publish",
            metavar="URL",
            help="Send the frames to other programs by ZeroMQ: tcp://127.0.0.1:5556, ipc:///run/fused.",
        ),
        click.option(
            "--publish-encoding",
            type=click.Choice(["bgr8", "mono8", "yuv420p", "jpeg"]),
            default="bgr8",
            show_default=True,
            help="Of the pixels; the luma of mono8 and yuv420p is exact.",
        ),
        click.option(
            "--publish-quality",
            type=click.IntRange(1, 100),
            default=85,
            show_default=True,
            help="Of jpeg, 1 to 100 (best).",
        ),
        click.option(
            "--publish-keys",
            type=click.Path(path_type=Path),
            help="Encrypt: the server.key_secret of `streamfuse keys new`; needed for addresses in a network.",
        ),
        click.option(
            "--publish-clients",
            type=click.Path(path_type=Path),
            help="Who may subscribe: a directory of public keys; default: clients/ beside the secret key.",
        ),
        click.option(
            "--stream", default="main", show_default=True, metavar="NAME", help="Under which name it is published."
        ),
        click.option("--insecure", is_flag=True, help="Publish into a network without keys: anybody can watch."),
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
        **kwargs: Any,
    ) -> Any:
        publication = None
        if publish is not None:
            publication = Publication(
                publish, publish_encoding, publish_quality, publish_keys, publish_clients, stream, insecure
            )
        return function(*args, publish=publication, **kwargs)

    return cast(F, wrapper)
