"""`streamfuse calibrate time`: the constant time offset between two streams without a common clock."""

from __future__ import annotations

import shlex

import click

from streamfuse.cli import options


@click.command(short_help="Time offset between two streams without a common clock.")
@click.option("--ir", type=options.SOURCE, required=True, help="Infrared source, as for `streamfuse run`.")
@click.option("--vis", type=options.SOURCE, required=True, help="Visible source, as for `streamfuse run`.")
@click.option(
    "--seconds",
    type=options.FiniteRange(1, 600),
    default=20.0,
    show_default=True,
    help="Length of the streams to use.",
)
@click.option(
    "--max-lag-ms",
    type=options.FiniteRange(10, 60_000),
    default=2000.0,
    show_default=True,
    help="Largest offset to search for.",
)
@click.option("--fps", type=options.RATE, help="Frame rate of image sequences.  Default: 25.")
@options.max_pixels
@options.config
@options.common
def time_command(ir: str, vis: str, seconds: float, max_lag_ms: float, fps: float | None, max_pixels: int) -> None:
    """Measure the constant time offset between an infrared and a visible stream from motion that both see.

    Wave a hand through both pictures for ten seconds, irregularly.  The result is the value for --ir-offset-ms of
    `streamfuse run`, which is added to every infrared stamp.

    \b
    streamfuse calibrate time --ir ir.mp4 --vis vis.mp4
    """
    from streamfuse.calibration.time_offset import measure
    from streamfuse.sources import open_pair
    from streamfuse.urls import mask

    # Opened as a pair, as in `run`: the stamps of two lists of images depend on each other.
    found = measure(
        *open_pair(ir, vis, options.SourceOptions(fps, max_pixels=max_pixels)),
        seconds=seconds,
        max_lag_s=max_lag_ms / 1000,
    )
    click.echo(
        f"offset {found.offset_ms:.1f} ms, confidence {found.confidence:.2f} (correlation {found.correlation:.2f}, "
        f"{found.lead:.2f} above the next; the halves differ by {found.halves_ms:.1f} ms)"
    )
    rate = f" --fps {fps:g}" if fps is not None else ""
    click.echo(
        f"next: streamfuse run --ir {shlex.quote(mask(ir))} --vis {shlex.quote(mask(vis))}{rate} "
        f"--ir-offset-ms {found.offset_ms:.1f} -o fused.mp4"
    )
