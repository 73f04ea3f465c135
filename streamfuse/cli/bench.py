"""`streamfuse bench`: how fast an engine is on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

from streamfuse.cli import options
from streamfuse.errors import OutputError


@click.command()
@options.engine
@click.option("--size", default="640x480", show_default=True, callback=options.parse_size, help="WIDTHxHEIGHT.")
@click.option(
    "--frames", type=click.IntRange(2, 100_000), default=50, show_default=True, help="Pairs for each of the figures."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
@options.force
@options.common
def command(
    engine: str,
    precision: str,
    preset: str,
    weights: Path | None,
    device: str,
    size: tuple[int, int],
    frames: int,
    json_file: Path | None,
    force: bool,
) -> None:
    """Measure an engine: alone, with pairs in flight, from files to a file, and against what this machine can do.

    \b
    streamfuse bench
    streamfuse bench --engine torch --precision fp32 --size 320x240 --frames 20 --json torch.json
    """
    from streamfuse.bench.measure import bench
    from streamfuse.bench.report import markdown
    from streamfuse.engines import create_engine
    from streamfuse.files import write_whole
    from streamfuse.network.checkpoint import default_weights, read_info

    if json_file is not None and json_file.exists() and not force:
        raise OutputError(f"{json_file} exists: choose another place, or replace it with --force")
    config = read_info(weights or default_weights()).config
    with create_engine(engine, weights=weights, precision=precision, device=device, preset=preset) as made:
        result = bench(made, config, *size, frames, say=lambda text: click.echo(f"measuring: {text}", err=True))
    click.echo(markdown(result))
    if json_file is not None:
        write_whole(json_file, (json.dumps(result.as_dict(), indent=2) + "\n").encode())
