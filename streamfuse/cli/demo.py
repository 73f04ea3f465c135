"""`streamfuse demo`: the whole program on a drawn scene."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamfuse.cli import logs, options
from streamfuse.cli.run import stopping_on_signals, watch
from streamfuse.errors import OutputError
from streamfuse.frames import Role

if TYPE_CHECKING:
    from streamfuse.frames import Frame

ROWS = 4
"""Rows of the contact sheet: moments of the scene."""


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("streamfuse-demo"),
    show_default=True,
    help="Directory for ir.mp4, vis.mp4, fused.mp4 and sheet.png.",
)
@click.option(
    "--seconds", type=options.FiniteRange(0.2, 600), default=5.0, show_default=True, help="Length of the scene."
)
@click.option("--fps", type=click.IntRange(1, 120), default=20, show_default=True, help="Frames per second.")
@options.size
@options.force
@options.engine
@options.common
def command(
    output: Path,
    seconds: float,
    fps: int,
    size: tuple[int, int],
    force: bool,
    engine: options.EngineChoice,
) -> int:
    """Render a street at night as an infrared and a visible camera see it, and fuse the two.

    Only infrared shows the people in the dark and the warm car; only the visible stream shows the sign.

    \b
    streamfuse demo
    streamfuse demo --seconds 10 --size 1280x960 -o demo
    """
    from streamfuse.bench.recording import record
    from streamfuse.pipeline import Pipeline
    from streamfuse.sinks import open_sink

    names = ("ir.mp4", "vis.mp4", "fused.mp4", "sheet.png")
    try:
        existing = [output / name for name in names if (output / name).exists()]
        if existing and not force:
            raise OutputError(f"{existing[0]} exists: choose another directory with -o, or replace with --force")
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {output}: {error.strerror}") from None
    ir, vis, fused, sheet = (output / name for name in names)
    fuser = engine.fuser("smooth")
    height, width = size
    query = f"?seconds={seconds:g}&fps={fps}&size={width}x{height}"
    for role, path in zip(Role, (ir, vis), strict=True):
        logs.say(f"rendering {path}")
        record(f"synthetic:{role}{query}", path, force=force)
    logs.say(f"fusing {fused}")
    sink = open_sink(str(fused), force=force, period_ns=round(1e9 / fps), inputs=[ir, vis])
    pipeline = Pipeline(ir, vis, sinks=[sink], fuser=fuser)
    with stopping_on_signals(pipeline.stop) as received:
        code = watch(pipeline, received)
    if code == 0:
        _draw_sheet(ir, vis, fused, sheet)
        click.echo(f"look at {sheet} and {fused}")
    return code


def _draw_sheet(ir: Path, vis: Path, fused: Path, sheet: Path) -> None:
    from streamfuse.color_conversion import to_bgr
    from streamfuse.evaluation.sheet import contact_sheet
    from streamfuse.sinks.images import write_image

    columns = [_moments(path) for path in (ir, vis, fused)]
    rows = [[to_bgr(frame.luma, frame.chroma) for frame in moment] for moment in zip(*columns, strict=True)]
    labels = [f"{frame.stamp_ns / 1e9:.2f} s" for frame in columns[0]]
    write_image(sheet, contact_sheet(rows, ("infrared", "visible", "fused"), labels))


def _moments(path: Path) -> list[Frame]:
    """Read up to `ROWS` frames, spread evenly over a recording."""
    from streamfuse.sources.file import VideoFile

    with VideoFile(path) as source:
        total = source.frame_count or 1
        count = min(ROWS, total)
        wanted = {(2 * i + 1) * total // (2 * count) for i in range(count)}
        return [frame for frame in source if frame.index in wanted]
