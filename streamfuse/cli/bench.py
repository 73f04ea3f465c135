"""`streamfuse bench`: how fast an engine is on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from streamfuse.cli import logs, options
from streamfuse.errors import OutputError, UsageError


@click.command()
@options.engine
@options.size
@click.option(
    "--frames",
    type=click.IntRange(2, 100_000),
    default=50,
    show_default=True,
    help="Pairs for each measurement.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="JSON file for all figures.")
@click.option("--sweep", is_flag=True, help="Measure every engine, precision, preset and size; takes minutes.")
@options.force
@options.common
def command(
    engine: options.EngineChoice,
    size: tuple[int, int],
    frames: int,
    json_file: Path | None,
    sweep: bool,
    force: bool,
) -> None:
    """Measure the speed of an engine.

    The report gives the time of the network only, with several pairs in flight, and from files to a file, and the
    share of this machine's peak that the network reaches.

    \b
    streamfuse bench
    streamfuse bench --engine torch --precision fp32 --size 320x240 --frames 20 --json torch.json
    streamfuse bench --sweep --json all.json
    """
    from streamfuse.bench.measure import bench
    from streamfuse.bench.report import markdown
    from streamfuse.network.checkpoint import default_weights, read_info
    from streamfuse.network.config import Preset

    if json_file is not None and json_file.exists() and not force:
        raise OutputError(f"{json_file} exists: choose another name, or replace it with --force")
    if sweep:
        if {engine.engine, engine.precision, engine.preset} != {"auto"}:
            raise UsageError("--sweep measures every engine, precision and preset: leave those options out")
        _sweep(engine.device, engine.weights, frames, json_file)
        return
    info = read_info(engine.weights or default_weights())
    with engine.open() as made:
        runs = (info.lite() if made.preset is Preset.REALTIME else None) or info
        result = bench(made, runs.config, *size, frames, say=_say, weights=engine.weights)
    click.echo(markdown(result))
    if json_file is not None:
        _write(json_file, result.as_dict())


def _sweep(device: str, weights: Path | None, frames: int, json_file: Path | None) -> None:
    from streamfuse.bench import sweep
    from streamfuse.engines import has_gpu

    if device == "auto":
        device = "cuda" if has_gpu() else "cpu"
    rows = sweep.sweep(sweep.cases(device), device, weights, frames, _say)
    click.echo(sweep.markdown(rows))
    if json_file is not None:
        _write(json_file, rows)


def _say(text: str) -> None:
    logs.say(f"measuring: {text}")


def _write(path: Path, figures: Any) -> None:
    from streamfuse.files import write_whole

    write_whole(path, (json.dumps(figures, indent=2, allow_nan=False) + "\n").encode())
