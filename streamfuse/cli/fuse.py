"""`streamfuse fuse`: fuse images that are not streams."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import click

from streamfuse.cli import logs, options
from streamfuse.cli.progress import progress
from streamfuse.errors import DamagedInput, InputError, OutputError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from streamfuse.color import Chroma, Plane
    from streamfuse.fuser import Fuser

    Split: TypeAlias = tuple[Plane, Chroma | None]
    """Luma and chroma of an image."""


@click.command()
@click.argument("ir", type=click.Path(path_type=Path))
@click.argument("vis", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Image or directory to write.")
@options.force
@click.option(
    "--tone",
    default="per-frame",
    show_default=True,
    help="Output range, for networks whose output has no fixed range: per-frame or fixed:LO,HI.",
)
@options.engine
@options.calibration
@options.max_pixels
@options.config
@options.common
def command(
    ir: Path,
    vis: Path | None,
    output: Path,
    force: bool,
    tone: str,
    engine: options.EngineChoice,
    calib: Path | None,
    crop: str | None,
    distance_m: str | None,
    max_pixels: int,
) -> None:
    """Fuse two images, or two directories of images: grey or colour, 8 or 16 bits.

    Images in directories are paired by name, or by the number in the name (IR3.png and VIS3.png).  Each result is a
    PNG file with the name of the visible image.

    Without VIS, IR is an image that a thermal camera wrote, or a directory of such images: the visible picture is in
    the same file (FLIR), or in a file beside it with the same number (DJI: _T beside _W, _V or _Z).

    \b
    streamfuse fuse ir.png vis.png -o fused.png
    streamfuse fuse M3FD/Ir M3FD/Vis -o fused/
    streamfuse fuse FLIR0123.jpg -o fused.png
    """
    if tone == "smooth":
        raise UsageError("tone smooth needs a stream: for images use --tone per-frame or fixed:LO,HI")
    from streamfuse.alignment import AUTO

    if distance_m in AUTO:
        raise UsageError(f"--distance-m {distance_m} needs a stream: for images give metres or far")
    _refuse_recordings(ir, vis)
    try:
        jobs = _plan(ir, vis, output) if vis is not None else _plan_stored(ir, output)
        _check_outputs(jobs, force)
    except OSError as error:
        raise InputError(f"{error.filename or ir} cannot be read: {error.strerror}") from None
    cut = crop == "overlap"
    stored = jobs[0].vis is None and calib is None  # the files hold the calibration, each its own
    with engine.fuser(tone, calib, cut and not stored, distance_m) as fuser:
        failed = _fuse_all(fuser, jobs, max_pixels, cut if stored else None)
    if failed:
        raise DamagedInput(f"{len(failed)} of {len(jobs)} pairs could not be fused: {'; '.join(failed[:3])}")


def _refuse_recordings(*paths: Path | None) -> None:
    """Raise UsageError for a recording, which `run` fuses."""
    from streamfuse.sources import FLIR_RECORDINGS, VIDEO_SUFFIXES

    for path in paths:
        if path is not None and path.suffix.lower() in FLIR_RECORDINGS | VIDEO_SUFFIXES and not path.is_dir():
            raise UsageError(f"{path} is a recording: fuse it with `streamfuse run --ir {path} --vis ... -o fused.mp4`")


class Job(NamedTuple):
    """One result and the images that it is made from."""

    ir: Path
    vis: Path | None
    """None: `ir` holds the visible picture, too."""
    output: Path

    @property
    def inputs(self) -> tuple[Path, ...]:
        return (self.ir,) if self.vis is None else (self.ir, self.vis)


def _plan(ir: Path, vis: Path, output: Path) -> list[Job]:
    for path in (ir, vis):
        if not path.exists():
            raise InputError(f"there is no {path}")
    if ir.is_dir() != vis.is_dir():
        raise InputError(f"{ir} and {vis}: give two images or two directories")
    return _directory_jobs(ir, vis, output) if ir.is_dir() else [Job(ir, vis, output)]


def _plan_stored(ir: Path, output: Path) -> list[Job]:
    from streamfuse.sources.sequence import list_images
    from streamfuse.sources.thermal.pairs import partner, stored_pairs

    if not ir.exists():
        raise InputError(f"there is no {ir}")
    if not ir.is_dir():
        return [Job(ir, partner(ir), output)]
    _check_directory(output, ir)
    pairs = stored_pairs(str(ir), list_images(str(ir)))
    return [Job(pair.ir, pair.vis, output / f"{(pair.vis or pair.ir).stem}.png") for pair in pairs]


def _directory_jobs(ir: Path, vis: Path, output: Path) -> list[Job]:
    from streamfuse.sources.sequence import list_images, match_images

    ir_images, vis_images = list_images(str(ir)), list_images(str(vis))
    ir_indices, vis_indices, by_name = match_images(ir_images, vis_images)
    if not by_name:
        raise InputError(f"no image of {ir} has the name or the number of one of {vis}")
    partner = dict(zip(ir_indices, ir_images, strict=True))
    pairs = [(partner[index], image) for index, image in zip(vis_indices, vis_images, strict=True) if index in partner]
    unpaired = len(ir_images) + len(vis_images) - 2 * len(pairs)
    if unpaired:
        logs.say(f"note: {unpaired} images have no partner and are left out")
    _check_directory(output, ir, vis)
    stems = Counter(image.stem for _, image in pairs)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        raise InputError(f"{vis} has several images named {twice[0]}: their results would have one name")
    return [Job(ir_image, image, output / f"{image.stem}.png") for ir_image, image in pairs]


def _check_directory(output: Path, *inputs: Path) -> None:
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file: results of directories go into a directory")
    if output.is_dir() and any(output.samefile(source) for source in inputs):
        raise OutputError(f"the output {output} is an input: choose another directory")


def _check_outputs(jobs: list[Job], force: bool) -> None:
    from streamfuse.sinks.images import check_writable_image

    for job in jobs:
        output = job.output
        check_writable_image(output)
        if not output.exists():
            continue
        if any(output.samefile(source) for source in job.inputs):
            raise OutputError(f"the output {output} is an input: choose another name")
        if not force:
            raise OutputError(f"{output} exists: choose another name, or replace it with --force")
    try:
        jobs[0].output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {jobs[0].output.parent}: {error.strerror}") from None


def _fuse_all(fuser: Fuser, jobs: list[Job], max_pixels: int, crop: bool | None) -> list[str]:
    """Fuse and write every pair; return the errors of pairs that cannot be read, which do not stop the others.

    `crop`: crop to the overlap by the geometry that each file holds; None: the fuser's calibration is for all.
    """
    from streamfuse.sinks.images import write_image

    failed = []
    with progress("fusing", len(jobs), unit="pairs") as update:
        for done, job in enumerate(jobs):
            update(done)
            try:
                fused = _fuse_pair(fuser, job, max_pixels, crop, say=done == 0)
            except InputError as error:
                if len(jobs) == 1:
                    raise
                failed.append(str(error))
                continue
            write_image(job.output, fused)
    return failed


def _fuse_pair(fuser: Fuser, job: Job, max_pixels: int, crop: bool | None, *, say: bool) -> npt.NDArray[np.uint8]:
    """Fuse one pair; `say`: describe the file of a thermal camera."""
    from streamfuse.color_conversion import to_bgr
    from streamfuse.sources.pixels import read_image_file
    from streamfuse.sources.thermal.radiometric import read_radiometric

    if job.vis is None:
        (ir_luma, _), (vis_luma, chroma) = _read_stored(fuser, job, max_pixels, crop, say=say)
    else:
        ir_luma, _ = read_image_file(job.ir, max_pixels)
        if say and (found := read_radiometric(job.ir.read_bytes(), str(job.ir), max_pixels)) is not None:
            logs.log.info("%s: %s", job.ir.name, found.describe())
        vis_luma, chroma = read_image_file(job.vis, max_pixels)
    luma = fuser.fuse_luma(ir_luma, vis_luma, stamp_ns=0).luma
    chroma = fuser.cut_chroma(chroma, *vis_luma.shape)
    return luma if chroma is None else to_bgr(luma, chroma)


def _read_stored(fuser: Fuser, job: Job, max_pixels: int, crop: bool | None, *, say: bool) -> tuple[Split, Split]:
    """Read both pictures of a radiometric image, and align by its geometry unless `crop` is None."""
    from streamfuse.calibration.stored import stored_calibration
    from streamfuse.sources.pixels import PixelReader
    from streamfuse.sources.thermal.pairs import placement, read_stored

    found = read_stored(job.ir, max_pixels)
    assert found.visible is not None
    if say:
        logs.log.info("%s: %s", job.ir.name, found.describe())
    if crop is not None:
        position = placement(found)
        fuser.use_calibration(None if position is None else stored_calibration(position, str(job.ir)), crop)
    reader = PixelReader()
    return reader.read_counts(found.raw, None, stamp_ns=0)[:2], reader.read_image(found.visible, stamp_ns=0)[:2]
