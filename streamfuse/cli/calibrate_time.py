"""`streamfuse calibrate time`: the constant time between two streams that share no clock."""

from __future__ import annotations

import shlex

import click

from streamfuse.cli import options


@click.command(short_help="The time between two streams that have no common clock.")
@click.option("--ir", type=options.SOURCE, required=True, help="Infrared: as for `streamfuse run`.")
@click.option("--vis", type=options.SOURCE, required=True, help="Visible: as for `streamfuse run`.")
@click.option(
    "--seconds",
    type=options.FiniteRange(1, 600),
    default=20.0,
    show_default=True,
    help="How much of the streams is looked at.",
)
@click.option(
    "--max-lag-ms",
    type=options.FiniteRange(10, 60_000),
    default=2000.0,
    show_default=True,
    help="The largest offset that is looked for.",
)
@click.option("--fps", type=options.RATE, help="Rate of images; default 25.")
@options.max_pixels
@options.config
@options.common
def time_command(ir: str, vis: str, seconds: float, max_lag_ms: float, fps: float | None, max_pixels: int) -> None:
    """Find the constant time between an infrared and a visible stream from what moves in both.

    Wave a hand through both pictures for ten seconds, irregularly.  The result is the value for --ir-offset-ms, which
    is added to every infrared stamp.

    \b
    streamfuse calibrate time --ir ir.mp4 --vis vis.mp4
    """
    from streamfuse.calibration.time_offset import measure
    from streamfuse.sources import open_pair
    from streamfuse.urls import mask

    # As `run` opens them: the stamps of two lists of images depend on each other.
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
