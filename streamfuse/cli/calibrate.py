"""`streamfuse calibrate`: make a calibration by one of four methods, check it, or measure the time offset."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamfuse.cli import logs, options
from streamfuse.cli.calibrate_check import check_command
from streamfuse.cli.calibrate_time import time_command
from streamfuse.cli.decorators import together
from streamfuse.errors import OutputError, UsageError

if TYPE_CHECKING:
    from streamfuse.calibration.outcome import Outcome
    from streamfuse.color import Plane

PATH = click.Path(path_type=Path)


class Size(click.ParamType[tuple[int, int]]):
    """Option type: WIDTHxHEIGHT, converted to (height, width)."""

    name = "WIDTHxHEIGHT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
        if match is None:
            self.fail(f"{value!r}: give WIDTHxHEIGHT, such as 640x480", param, ctx)
        return int(match[2]), int(match[1])


class Baseline(click.ParamType[tuple[float, float]]):
    """Option type: X or X,Y in metres."""

    name = "X[,Y]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        words = value.split(",")
        try:
            right, down = float(words[0]), float(words[1]) if len(words) > 1 else 0.0
        except ValueError:
            right = down = math.nan
        if len(words) > 2 or not 0.001 <= math.hypot(right, down) <= 3:
            self.fail(
                f"{value!r}: give metres to the right and down, such as 0.06 or -0.06,0.02, at most 3", param, ctx
            )
        return right, down


_ANGLE = options.FiniteRange(1, 170)

_output = together(
    click.option("-o", "--output", type=PATH, required=True, help="Calibration file to write, *.toml."),
    click.option("--check", type=PATH, help="Check picture to write.  Default: *.png beside the calibration."),
    click.option("--distance-m", type=options.FiniteRange(0.01, 1e6), help="Distance of the scene or board, metres."),
    options.force,
    options.max_pixels,
    options.common,
)
_sizes = together(
    click.option("--ir", type=PATH, help="Infrared picture, for its size and the check picture."),
    click.option("--ir-size", type=Size(), help="Size of the infrared pictures, instead of --ir."),
    click.option("--vis", type=PATH, help="Visible picture, for its size and the check picture."),
    click.option("--vis-size", type=Size(), help="Size of the visible pictures, instead of --vis."),
)


@click.group()
def command() -> None:
    """Calibrate a camera pair: alignment for `streamfuse run --calib`, and time offset."""


command.add_command(time_command, "time")
command.add_command(check_command, "check")


@command.command(short_help="From pictures of distant scenes, without a target.")
@click.option(
    "--ir",
    required=True,
    multiple=True,
    metavar="SOURCE",
    help="Infrared image, directory, pattern or video; again for each further one of the same cameras.",
)
@click.option(
    "--vis",
    required=True,
    multiple=True,
    metavar="SOURCE",
    help="Visible image, directory, pattern or video; as many, in the same order.",
)
@click.option(
    "--min-pairs",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Number of pairs below which the calibration is refused.",
)
@click.option(
    "--baseline-m",
    type=Baseline(),
    metavar="X[,Y]",
    help="How far the infrared camera is to the right of the visible one, and below it, metres; with --fov-deg.",
)
@click.option("--fov-deg", type=_ANGLE, help="Horizontal angle of view of the visible camera; with --baseline-m.")
@_output
def scene(
    ir: tuple[str, ...],
    vis: tuple[str, ...],
    min_pairs: int,
    baseline_m: tuple[float, float] | None,
    fov_deg: float | None,
    output: Path,
    check: Path | None,
    distance_m: float | None,
    force: bool,
    max_pixels: int,
) -> None:
    """Calibrate from pictures of natural scenes, without a target.

    Several distant scenes are needed, with many edges that both cameras see.

    \b
    streamfuse calibrate scene --ir ir.mp4 --vis vis.mp4 -o calib.toml
    streamfuse calibrate scene --ir lwir/ --vis rgb/ -o calib.toml
    streamfuse calibrate scene --ir lwir/ --vis rgb/ --baseline-m 0.06 --fov-deg 60 -o calib.toml
    streamfuse calibrate scene --ir 1/ir.mp4 --vis 1/vis.mp4 --ir 2/ir.mp4 --vis 2/vis.mp4 -o calib.toml

    With the distance between the cameras and the angle of view the calibration is valid at every distance.  Measure
    from lens to lens, looking the way the cameras look: right and down are positive.

    If the result is uncertain, nothing is written and the exit code is 3.
    """
    from streamfuse.calibration.scene import Ruler, calibrate_scene

    if (baseline_m is None) != (fov_deg is None):
        raise UsageError("give both --baseline-m and --fov-deg, or neither")
    ruler = Ruler(*baseline_m, fov_deg) if baseline_m is not None and fov_deg is not None else None
    files = _Files(output, check, force)
    sources = options.SourceOptions(max_pixels=max_pixels)
    files.write(calibrate_scene(ir, vis, sources, distance_m=distance_m, min_pairs=min_pairs, ruler=ruler))


@command.command(short_help="From pictures of a checkerboard or circles; the most accurate.")
@click.option("--ir", required=True, metavar="DIR|PATTERN", help="Infrared pictures of the board.")
@click.option("--vis", required=True, metavar="DIR|PATTERN", help="Visible pictures, paired by name or number.")
@click.option(
    "--kind",
    type=click.Choice(["checkerboard", "circles", "asymmetric-circles"]),
    default="checkerboard",
    show_default=True,
    help="Pattern of the board.",
)
@click.option("--pattern", required=True, metavar="COLUMNSxROWS", help="Inner corners or circles, such as 9x6.")
@click.option(
    "--square-mm", type=options.FiniteRange(0.01, 1e5), help="Distance between neighbouring corners or circles."
)
@click.option("--fov-deg", type=_ANGLE, help="Horizontal angle of view of the infrared camera; for the distances.")
@click.option("--lenses", is_flag=True, help="Calibrate the lens distortion too; needs 8 pairs or more.")
@_output
def board(
    ir: str,
    vis: str,
    kind: str,
    pattern: str,
    square_mm: float | None,
    fov_deg: float | None,
    lenses: bool,
    output: Path,
    check: Path | None,
    distance_m: float | None,
    force: bool,
    max_pixels: int,
) -> None:
    """Calibrate from pictures of a board that both cameras see, at the distance of the scene.

    \b
    streamfuse calibrate board --ir lwir/ --vis rgb/ --pattern 9x6 --distance-m 5 -o calib.toml
    streamfuse calibrate board --ir lwir/ --vis rgb/ --pattern 9x6 --square-mm 80 -o calib.toml

    With --square-mm and boards near and far, such as 3 m and 12 m, the calibration is valid at every distance.
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
    if fov_deg is not None and (square_mm is None or lenses):
        raise UsageError("--fov-deg is for boards of known --square-mm without --lenses: leave it out")
    found = calibrate_boards(
        scenes, target, lenses=lenses, distance_m=distance_m, fov_deg=fov_deg, max_pixels=max_pixels
    )
    files.write(found)


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
    """Calibrate from points marked in both pictures.

    FILE has lines ir_x,ir_y,vis_x,vis_y: at least 4, better 8 or more.  A fifth number in each line is the point's
    distance in metres, or far: with points near and far the calibration is valid at every distance.

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
@click.option("--ir-camera", metavar="NAME", help="Name of the infrared camera.  Default: the first.")
@click.option("--vis-camera", metavar="NAME", help="Name of the visible camera.  Default: the other.")
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
    """Import another program's calibration.

    FILES: one OpenCV file (YAML or XML), two ROS camera_info files, one Kalibr camchain, or a bag, whose topics of
    pictures are the names of its cameras.

    \b
    streamfuse calibrate import stereo.yaml --distance-m 20 -o calib.toml
    streamfuse calibrate import ir_info.yaml vis_info.yaml -o calib.toml
    streamfuse calibrate import camchain.yaml --ir-camera cam1 -o calib.toml
    streamfuse calibrate import walk.mcap -o calib.toml
    """
    from streamfuse.calibration.imported import Request, calibrate_import
    from streamfuse.sources.bags.bag import is_bag

    target = _Files(output, check, force)
    pictures = _pictures(ir, vis, max_pixels)
    if pictures is not None:
        ir_size, vis_size = _known_sizes(pictures, ir_size, vis_size)
    request = Request(ir_camera, vis_camera, ir_size, vis_size, distance_m, millimetres)
    if len(files) == 1 and is_bag(files[0]):
        from streamfuse.calibration.bag import calibrate_bag

        target.write(calibrate_bag(files[0], request), pictures)
        return
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
            raise UsageError("--ir and --vis give the sizes: leave out --ir-size and --vis-size")
        return pictures[0].shape, pictures[1].shape
    if ir_size is None or vis_size is None:
        raise UsageError("sizes missing: give --ir-size and --vis-size, or --ir IMAGE and --vis IMAGE")
    return ir_size, vis_size


class _Files:
    """The two output files: the calibration and its check picture."""

    def __init__(self, output: Path, check: Path | None, force: bool) -> None:
        """Check that both can be written, before anything is computed; raises UsageError or OutputError."""
        from streamfuse.sinks.images import check_writable_image

        self._output = output
        self._check = check or output.with_suffix(".png")
        if output.suffix != ".toml":
            raise UsageError(f"-o {output}: give a name that ends in .toml")
        check_writable_image(self._check)
        for path in (self._output, self._check):
            if path.is_dir() or not path.parent.is_dir():
                raise OutputError(
                    f"cannot write {path}: it is a directory, or its directory does not exist; give another path"
                )
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
        error = "unknown" if calibration.rms_px is None else f"{calibration.rms_px:.2f} px RMS in the visible picture"
        click.echo(f"error     {error}")
        click.echo(f"valid     {_validity(outcome)}")
        logs.say(f"written   {self._output} (id {calibration.id})", err=False)
        if pictures is not None and calibration.parallax is not None:
            look = "infrared edges must be on the same objects, those at the distance that is written there"
            logs.say(f"check     {self._check}: {look}", err=False)
        elif pictures is not None:
            look = "infrared edges must be on the same objects in the visible picture"
            logs.say(f"check     {self._check}: {look}", err=False)
        else:
            click.echo("check     no picture was given: add --ir IMAGE and --vis IMAGE for a check picture")
        logs.say(f"next      streamfuse run --calib {self._output} --ir IR --vis VIS -o fused.mp4", err=False)


def _validity(outcome: Outcome) -> str:
    """Describe the distance at which the alignment is valid, and the parallax."""
    from streamfuse.calibration.outcome import describe_parallax

    calibration = outcome.calibration
    distance = calibration.distance_m
    if calibration.parallax is not None:
        start = "far" if distance in (None, float("inf")) else f"{distance:g} m"
        return f"at every distance, {start} unless told; parallax {describe_parallax(calibration)}"
    if distance is None:
        return "at the distance of the scene or board (--distance-m records it); nearer and farther objects are shifted"
    if distance == float("inf"):
        return "for far scenes; near objects are shifted"
    return f"at {distance:g} m; nearer and farther objects are shifted"
