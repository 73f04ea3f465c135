"""`streamfuse keys`: keys for publishing on a network."""

from __future__ import annotations

from pathlib import Path

import click

from streamfuse.cli import options


@click.group()
def command() -> None:
    """Make keys for --publish."""


@command.command("new", short_help="Write key pairs for a publisher and a subscriber.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@options.common
def new(directory: Path) -> None:
    """Write a key pair for a publisher and one for a subscriber into DIRECTORY.

    Secret keys (.key_secret) are readable by their owner only.  A subscriber needs server.key and client.key_secret,
    and its public key must be in the publisher's clients/ directory.  Existing files are never replaced.

    \b
    streamfuse keys new keys
    streamfuse run --ir cam0 --vis cam1 --publish tcp://0.0.0.0:5556 --publish-keys keys/server.key_secret
    streamfuse subscribe tcp://HOST:5556 --server-key server.key --client-key client.key_secret
    """
    from streamfuse.zeromq.curve import new_keys

    for file in new_keys(directory):
        click.echo(f"{'secret' if file.suffix == '.key_secret' else 'public'}  {file}")
