"""`streamfuse calibrate check`: whether a calibration still fits its cameras."""

from __future__ import annotations

from pathlib import Path

import click

from streamfuse.cli import logs, options
from streamfuse.errors import InputError, OutputError


@click.command(short_help="Whether a calibration still fits its cameras.")
@click.option("--calib", type=click.Path(path_type=Path), required=True, help="Calibration file.")
@click.option("--ir", required=True, metavar="SOURCE", help="Infrared image, directory, pattern or video.")
@click.option("--vis", required=True, metavar="SOURCE", help="Visible image, directory, pattern or video.")
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    help="Check picture to write.  Default: *.check.png beside the calibration.",
)
@options.force
@options.max_pixels
@options.common
def check_command(calib: Path, ir: str, vis: str, check: Path | None, force: bool, max_pixels: int) -> None:
    """Say whether a calibration still fits its cameras, from pictures of any scene with edges that both see.

    \b
    streamfuse calibrate check --calib calib.toml --ir ir.mp4 --vis vis.mp4

    The check picture shows infrared edges over the visible picture, as calibrated and as the cameras are now.  If the
    calibration does not fit, or the pictures do not tell, the exit code is 3.
    """
    from streamfuse.calibration.check import draw_several
    from streamfuse.calibration.checking import check_fit, describe_misfit
    from streamfuse.calibration.model import load
    from streamfuse.calibration.scene import load_pairs
    from streamfuse.sinks.images import check_writable_image, write_image

    picture = check or calib.with_suffix(".check.png")
    check_writable_image(picture)
    if picture.exists() and not force:
        raise OutputError(f"{picture} exists: choose another name with --check, or replace it with --force")
    calibration = load(calib)
    scenes = load_pairs(ir, vis, options.SourceOptions(max_pixels=max_pixels))
    pairs = scenes.pairs
    for note in scenes.notes:
        logs.say(f"note: {note}")
    first = pairs[0]
    calibration.for_sizes((first[0].shape[0], first[0].shape[1]), (first[1].shape[0], first[1].shape[1]))
    verdict = check_fit(calibration, pairs)
    distance = verdict.distance_m
    panels = [("as calibrated", calibration.at(distance)), ("as the cameras are now", verdict.corrected.at(distance))]
    write_image(picture, draw_several(panels, *first, "edges must be on the same objects"))
    if distance is not None:
        click.echo(f"distance  most of the scene is {f'{distance:.1f} m away' if distance < 1e4 else 'far'}")
    click.echo(f"check     {picture}")
    if verdict.misfit is None:
        raise InputError(
            "these pictures do not tell whether the calibration fits: give several with many edges that both cameras "
            "see; if edges are far apart in the check picture, calibrate again"
        )
    words = describe_misfit(verdict.misfit, calibration.vis_size)
    if not verdict.fits:
        raise InputError(f"the calibration does not fit any more, by {words}: calibrate again")
    click.echo(f"fits      to {words}")
