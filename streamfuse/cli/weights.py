"""`streamfuse weights`: import published checkpoints to safetensors, and pack and show weights files."""

from __future__ import annotations

from pathlib import Path

import click

from streamfuse.cli import logs, options
from streamfuse.errors import OutputError, UsageError


@click.group()
def command() -> None:
    """Import, pack and inspect weights files."""


@command.command("import", short_help="Convert published checkpoints to a safetensors file.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-o", "file", type=click.Path(path_type=Path), required=True, help="File to write, *.safetensors.")
@click.option("--ir-file", default="auto_encoder_ir.model", show_default=True, help="Infrared auto-encoder.")
@click.option("--vis-file", default="auto_encoder_vi.model", show_default=True, help="Visible auto-encoder.")
@click.option("--fusion-file", default="fusetrans.model", show_default=True, help="Attention module and decoder.")
@click.option("--depth", type=click.IntRange(1, 4), default=1, show_default=True, help="Number of attention blocks.")
@click.option(
    "--skip-weights",
    type=click.Choice(["signed", "magnitude"]),
    default="signed",
    show_default=True,
    help="Weighting of the modalities in the deep skip connection; signed for published networks.",
)
@click.option(
    "--output",
    type=click.Choice(["minmax", "direct"]),
    default="minmax",
    show_default=True,
    help="Scaling of the network's output; minmax for published networks.",
)
@click.option("--fp32", is_flag=True, help="Store FP32 instead of FP16; the file is twice as large.")
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
    """Convert the three published checkpoint files in DIRECTORY to one safetensors file.

    The files are read without executing code from them.

    \b
    streamfuse weights import checkpoints/ -o mine.safetensors
    streamfuse weights import checkpoints/ -o mine.safetensors --fusion-file epoch_31.model
    """
    from streamfuse.network import checkpoint
    from streamfuse.network.config import CrossFuseConfig, Output, SkipWeights
    from streamfuse.network.published import import_published

    _check_new(file, force)
    config = CrossFuseConfig(depth, SkipWeights(skip_weights), Output(output))
    network = import_published(directory, config, {"ir": ir_file, "vis": vis_file, "fusion": fusion_file})
    checkpoint.save(network, file, storage=checkpoint.Storage.FP32 if fp32 else checkpoint.Storage.FP16)
    _describe(file)


@command.command("pack", short_help="Store a weights file at 8 bits a value.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "packed", type=click.Path(path_type=Path), required=True, help="File to write, *.safetensors.")
@options.force
@options.common
def pack(file: Path, packed: Path, force: bool) -> None:
    """Store the weights of FILE at 8 bits a value: half the size of FP16, and nearly the same picture.

    Engines compute as they do with the same weights in FP16; this is about the file, not about `--precision int8`.

    \b
    streamfuse weights pack runs/ours/weights.safetensors -o ours.safetensors
    """
    from streamfuse.network import checkpoint

    _check_new(packed, force)
    info = checkpoint.read_info(file)
    extra = {key: value for key, value in info.metadata.items() if key in ("preset", "trained")}
    checkpoint.save(checkpoint.load(file), packed, storage=checkpoint.Storage.INT8, extra=extra)
    _describe(packed)


def _check_new(file: Path, force: bool) -> None:
    if file.suffix != ".safetensors":
        raise UsageError(f"-o {file}: give a name that ends in .safetensors")
    if file.exists() and not force:
        raise OutputError(f"{file} exists: choose another name, or replace it with --force")


@command.command("info", short_help="Show the contents of a weights file.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@options.common
def info(file: Path | None) -> None:
    """Show the contents of a weights file.  Without FILE, show the shipped one.

    \b
    streamfuse weights info
    streamfuse weights info mine.safetensors
    """
    from streamfuse.network.checkpoint import default_weights, load

    path = file or default_weights()
    load(path)  # checks the names and shapes of all tensors, and that all values are finite
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
