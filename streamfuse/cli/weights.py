"""`streamfuse weights`: published checkpoints in, safetensors out, and what a file holds."""

from __future__ import annotations

from pathlib import Path

import click

from streamfuse.cli import logs, options
from streamfuse.errors import OutputError, UsageError


@click.group()
def command() -> None:
    """Import and inspect weights files."""


@command.command("import", short_help="Published checkpoints into a safetensors file.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-o", "file", type=click.Path(path_type=Path), required=True, help="The .safetensors file to write.")
@click.option("--ir-file", default="auto_encoder_ir.model", show_default=True, help="Infrared auto-encoder.")
@click.option("--vis-file", default="auto_encoder_vi.model", show_default=True, help="Visible auto-encoder.")
@click.option("--fusion-file", default="fusetrans.model", show_default=True, help="Attention module and decoder.")
@click.option("--depth", type=click.IntRange(1, 4), default=1, show_default=True, help="Attention blocks in a row.")
@click.option(
    "--skip-weights",
    type=click.Choice(["signed", "magnitude"]),
    default="signed",
    show_default=True,
    help="How the deep skip weighs the modalities; published networks: signed.",
)
@click.option(
    "--output",
    type=click.Choice(["minmax", "direct"]),
    default="minmax",
    show_default=True,
    help="What the network's output is; published networks: minmax.",
)
@click.option("--fp32", is_flag=True, help="Store FP32; default FP16, half the size.")
@options.force
@options.common
def import_weights(
    directory: Path,
    file: Path,
    ir_file: str,
    vis_file: str,
    fusion_file: str,
    depth: int,
    skip_weights: str,
    output: str,
    fp32: bool,
    force: bool,
) -> None:
    """Read the three published checkpoint files of DIRECTORY and write one safetensors file.

    The files are read without running any code in them.

    \b
    streamfuse weights import checkpoints/ -o mine.safetensors
    streamfuse weights import checkpoints/ -o mine.safetensors --fusion-file epoch_31.model
    """
    from streamfuse.network import checkpoint
    from streamfuse.network.config import CrossFuseConfig, Output, SkipWeights
    from streamfuse.network.published import import_published

    if file.suffix != ".safetensors":
        raise UsageError(f"-o {file}: a weights file ends in .safetensors")
    if file.exists() and not force:
        raise OutputError(f"{file} exists: choose another name, or replace it with --force")
    config = CrossFuseConfig(depth, SkipWeights(skip_weights), Output(output))
    network = import_published(directory, config, {"ir": ir_file, "vis": vis_file, "fusion": fusion_file})
    checkpoint.save(network, file, half=not fp32)
    _describe(file)


@command.command("info")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@options.common
def info(file: Path | None) -> None:
    """Show what a weights file holds; without FILE, the shipped one.

    \b
    streamfuse weights info
    streamfuse weights info mine.safetensors
    """
    from streamfuse.network.checkpoint import default_weights, load

    path = file or default_weights()
    load(path)  # names and shapes of every tensor, and that all values are finite
    _describe(path)


def _describe(path: Path) -> None:
    from streamfuse.network.checkpoint import read_info

    found = read_info(path)
    rows = {
        "file": str(path),
        "sha256": found.digest,
        "parameters": f"{found.parameters:,} ({', '.join(found.dtypes)})",
        **{key: value for key, value in sorted(found.metadata.items())},
    }
    width = max(len(key) for key in rows)
    for key, value in rows.items():
        logs.say(f"{key:<{width}}  {value}", err=False)
