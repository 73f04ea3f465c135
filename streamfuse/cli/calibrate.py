"""`streamfuse calibrate`: where infrared lies in the visible picture, found in one of four ways."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamfuse.cli import logs, options
from streamfuse.cli.calibrate_time import time_command
from streamfuse.cli.together import together
from streamfuse.errors import OutputError, UsageError

if TYPE_CHECKING:
    from streamfuse.calibration.outcome import Outcome
    from streamfuse.color import Plane

PATH = click.Path(path_type=Path)


class Size(click.ParamType[tuple[int, int]]):
    """WIDTHxHEIGHT to (height, width)."""

    name = "WIDTHxHEIGHT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
        if match is None:
            self.fail(f"{value!r}: give WIDTHxHEIGHT, such as 640x480", param, ctx)
        return int(match[2]), int(match[1])


_output = together(
    click.option("-o", "--output", type=PATH, required=True, help="The calibration to write: calib.toml."),
    click.option("--check", type=PATH, help="The check picture; default beside the calibration, as PNG."),
    click.option("--distance-m", type=options.FiniteRange(0.01, 1e6), help="Distance of what was seen, metres."),
    options.force,
    options.max_pixels,
    options.common,
)
_sizes = together(
    click.option("--ir", type=PATH, help="For its size and the check, an infrared picture."),
    click.option("--ir-size", type=Size(), help="The size of an infrared picture, instead of one."),
    click.option("--vis", type=PATH, help="For its size and the check, a visible picture."),
    click.option("--vis-size", type=Size(), help="The size of a visible picture, instead of one."),
)


@click.group()
def command() -> None:
    """Find out where infrared lies in the visible picture, for `streamfuse run --calib`, and when it was taken."""


command.add_command(time_command, "time")


@command.command(short_help="From far scenes as they are; refuses when it is not certain.")
@click.option("--ir", required=True, metavar="SOURCE", help="Infrared: an image, a directory or pattern, or a video.")
@click.option("--vis", required=True, metavar="SOURCE", help="Visible: the same.")
@click.option("--least-pairs", type=click.IntRange(1), default=3, show_default=True, help="With fewer it refuses.")
@_output
def scene(
    ir: str,
    vis: str,
    least_pairs: int,
    output: Path,
    check: Path | None,
    distance_m: float | None,
    force: bool,
    max_pixels: int,
) -> None:
    """Register natural scenes: several, far away, full of edges that both cameras see.

    \b
    streamfuse calibrate scene --ir ir.mp4 --vis vis.mp4 -o calib.toml
    streamfuse calibrate scene --ir lwir/ --vis rgb/ -o calib.toml

    Where the pictures do not tell with certainty, nothing is written and the exit code is 3.
    """
    from streamfuse.calibration.evidence import calibrate_scene

    files = _Files(output, check, force)
    sources = options.SourceOptions(max_pixels=max_pixels)
    files.write(calibrate_scene(ir, vis, sources, distance_m=distance_m, least_pairs=least_pairs))


@command.command(short_help="From pictures of a checkerboard or circles: the most exact.")
@click.option("--ir", required=True, metavar="DIR|PATTERN", help="Infrared pictures of the board.")
@click.option("--vis", required=True, metavar="DIR|PATTERN", help="Visible pictures; names or numbers tell the pairs.")
@click.option(
    "--kind",
    type=click.Choice(["checkerboard", "circles", "asymmetric-circles"]),
    default="checkerboard",
    show_default=True,
    help="What the board shows.",
)
@click.option("--pattern", required=True, metavar="COLUMNSxROWS", help="Inner corners, or circles: 9x6.")
@click.option("--square-mm", type=options.FiniteRange(0.01, 1e5), help="From one corner or circle to the next.")
@click.option("--lenses", is_flag=True, help="Also find the lenses' distortion; needs 8 pairs or more.")
@_output
def board(
    ir: str,
    vis: str,
    kind: str,
    pattern: str,
    square_mm: float | None,
    lenses: bool,
    output: Path,
    check: Path | None,
    distance_m: float | None,
    force: bool,
    max_pixels: int,
) -> None:
    """Use pictures of a board that both cameras see, held at the distance of the scene.

    \b
    streamfuse calibrate board --ir lwir/ --vis rgb/ --pattern 9x6 --distance-m 5 -o calib.toml
    """
    from streamfuse.calibration.boards import calibrate_boards
    from streamfuse.calibration.target import Board, Kind
    from streamfuse.sources.image_pairs import pair_images

    columns, _, rows = pattern.partition("x")
    sides = [int(side) if side.isdecimal() else 0 for side in (columns, rows)]
    if not all(3 <= side <= 50 for side in sides):
        raise UsageError(f"--pattern {pattern!r}: give COLUMNSxROWS of inner corners or circles, such as 9x6")
    files = _Files(output, check, force)
    scenes, notes = pair_images(ir, vis, None)
    for note in notes:
        logs.say(f"note: {note}")
    target = Board(Kind(kind), sides[0], sides[1], square_mm)
    files.write(calibrate_boards(scenes, target, lenses=lenses, distance_m=distance_m, max_pixels=max_pixels))


@command.command(short_help="From points marked by hand in both pictures.")
@click.argument("file", type=PATH)
@_sizes
@_output
def points(
    file: Path,
    ir: Path | None,
    vis: Path | None,
    ir_size: tuple[int, int] | None,
    vis_size: tuple[int, int] | None,
    output: Path,
    check: Path | None,
    distance_m: float | None,
    force: bool,
    max_pixels: int,
) -> None:
    """Use points that were marked in both pictures: FILE has lines ir_x,ir_y,vis_x,vis_y; 4 or more, 8 are better.

    \b
    streamfuse calibrate points points.csv --ir ir.png --vis vis.png -o calib.toml
    """
    from streamfuse.calibration.points import calibrate_points

    files = _Files(output, check, force)
    pictures = _pictures(ir, vis, max_pixels)
    sizes = _known_sizes(pictures, ir_size, vis_size)
    files.write(calibrate_points(file, *sizes, distance_m=distance_m), pictures)


@command.command("import", short_help="From a calibration of OpenCV, ROS or Kalibr.")
@click.argument("files", type=PATH, nargs=-1, required=True)
@click.option("--ir-camera", metavar="NAME", help="Which camera is infrared; default the first.")
@click.option("--vis-camera", metavar="NAME", help="Which camera is visible; default the other.")
@click.option("--millimetres", is_flag=True, help="Distances in the file are millimetres, not metres.")
@_sizes
@_output
def import_file(
    files: tuple[Path, ...],
    ir_camera: str | None,
    vis_camera: str | None,
    millimetres: bool,
    ir: Path | None,
    vis: Path | None,
    ir_size: tuple[int, int] | None,
    vis_size: tuple[int, int] | None,
    output: Path,
    check: Path | None,
    distance_m: float | None,
    force: bool,
    max_pixels: int,
) -> None:
    """Take over a calibration: FILES are one of OpenCV, YAML or XML, two camera_info of ROS, or a camchain of Kalibr.

    \b
    streamfuse calibrate import stereo.yaml --distance-m 20 -o calib.toml
    streamfuse calibrate import ir_info.yaml vis_info.yaml -o calib.toml
    streamfuse calibrate import camchain.yaml --ir-camera cam1 -o calib.toml
    """
    from streamfuse.calibration.imported import Request, calibrate_import

    target = _Files(output, check, force)
    pictures = _pictures(ir, vis, max_pixels)
    if pictures is not None:
        ir_size, vis_size = _known_sizes(pictures, ir_size, vis_size)
    request = Request(ir_camera, vis_camera, ir_size, vis_size, distance_m, millimetres)
    target.write(calibrate_import(files, request), pictures)


def _pictures(ir: Path | None, vis: Path | None, max_pixels: int) -> tuple[Plane, Plane] | None:
    from streamfuse.sources.pixels import read_image_file

    if ir is None or vis is None:
        if ir is not None or vis is not None:
            raise UsageError("give both --ir and --vis, or neither")
        return None
    return read_image_file(ir, max_pixels)[0], read_image_file(vis, max_pixels)[0]


def _known_sizes(
    pictures: tuple[Plane, Plane] | None, ir_size: tuple[int, int] | None, vis_size: tuple[int, int] | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    if pictures is not None:
        if ir_size is not None or vis_size is not None:
            raise UsageError("--ir and --vis tell the sizes: leave out --ir-size and --vis-size")
        return pictures[0].shape, pictures[1].shape
    if ir_size is None or vis_size is None:
        raise UsageError("sizes missing: give --ir-size and --vis-size, or --ir IMAGE and --vis IMAGE")
    return ir_size, vis_size


class _Files:
    """The calibration and its check picture; what cannot be written is said before anything is computed."""

    def __init__(self, output: Path, check: Path | None, force: bool) -> None:
        from streamfuse.sinks.images import check_writable_image

        self._output = output
        self._check = check or output.with_suffix(".png")
        if output.suffix != ".toml":
            raise UsageError(f"-o {output}: a calibration ends in .toml")
        check_writable_image(self._check)
        for path in (self._output, self._check):
            if path.is_dir() or not path.parent.is_dir():
                raise OutputError(f"cannot write {path}: it is a directory, or its directory does not exist")
            if path.exists() and not force:
                raise OutputError(f"{path} exists: choose another name, or replace it with --force")

    def write(self, outcome: Outcome, pictures: tuple[Plane, Plane] | None = None) -> None:
        from streamfuse.calibration.check import draw_check
        from streamfuse.sinks.images import write_image

        pictures = pictures or outcome.pictures
        calibration = outcome.calibration
        if pictures is not None:
            write_image(self._check, draw_check(calibration, *pictures))
        calibration.save(self._output)
        for line in outcome.details:
            logs.say(line, err=False)
        for warning in outcome.warnings:
            logs.say(warning, mark=f"{click.style('warning:', fg='yellow')} ")
        logs.say(f"method    {calibration.method}", err=False)
        error = "not known" if calibration.rms_px is None else f"{calibration.rms_px:.2f} px RMS in the visible picture"
        click.echo(f"error     {error}")
        click.echo(f"valid     {_validity(outcome)}")
        logs.say(f"written   {self._output} (id {calibration.id})", err=False)
        if pictures is not None:
            seen = "infrared edges must lie on the same things of the visible picture"
            logs.say(f"check     {self._check}: {seen}", err=False)
        else:
            click.echo("check     no picture was given: add --ir IMAGE and --vis IMAGE to see whether it is right")
        logs.say(f"next      streamfuse run --calib {self._output} --ir IR --vis VIS -o fused.mp4", err=False)


def _validity(outcome: Outcome) -> str:
    """Where the alignment holds, and how fast it stops to."""
    distance, parallax = outcome.calibration.distance_m, outcome.parallax_px_m
    if distance is None:
        return "at the distance of what was seen (--distance-m notes it); nearer and farther things shift"
    if distance == float("inf"):
        near = (
            "" if parallax is None else f"; at 10 m things lie {parallax / 10:.1f} px off, at 20 m {parallax / 20:.1f}"
        )
        return f"for far scenes{near}"
    if parallax is None:
        return f"at {distance:g} m; nearer and farther things shift"
    return (
        f"at {distance:g} m; at {distance / 2:g} m things lie {parallax / distance:.1f} px off, "
        f"at {2 * distance:g} m {parallax / distance / 2:.1f}"
    )
