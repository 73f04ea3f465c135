"""`streamfuse fuse`: fuse images that are not streams."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamfuse.cli import logs, options
from streamfuse.cli.progress import progress
from streamfuse.errors import DamagedInput, InputError, OutputError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from streamfuse.fuser import Fuser


@click.command()
@click.argument("ir", type=click.Path(path_type=Path))
@click.argument("vis", type=click.Path(path_type=Path))
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
    vis: Path,
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

    \b
    streamfuse fuse ir.png vis.png -o fused.png
    streamfuse fuse M3FD/Ir M3FD/Vis -o fused/
    """
    if tone == "smooth":
        raise UsageError("tone smooth needs a stream: for images use --tone per-frame or fixed:LO,HI")
    if distance_m == "auto":
        raise UsageError("--distance-m auto needs a stream: for images give metres or far")
    try:
        jobs = _plan(ir, vis, output)
        _check_outputs(jobs, force)
    except OSError as error:
        raise InputError(f"{error.filename or ir} cannot be read: {error.strerror}") from None
    with engine.fuser(tone, calib, crop == "overlap", distance_m) as fuser:
        failed = _fuse_all(fuser, jobs, max_pixels)
    if failed:
        raise DamagedInput(f"{len(failed)} of {len(jobs)} pairs could not be fused: {'; '.join(failed[:3])}")


Job = tuple[Path, Path, Path]
"""Infrared, visible, output."""


def _plan(ir: Path, vis: Path, output: Path) -> list[Job]:
    for path in (ir, vis):
        if not path.exists():
            raise InputError(f"there is no {path}")
    if ir.is_dir() != vis.is_dir():
        raise InputError(f"{ir} and {vis}: give two images or two directories")
    return _directory_jobs(ir, vis, output) if ir.is_dir() else [(ir, vis, output)]


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
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file: results of directories go into a directory")
    if output.is_dir() and any(output.samefile(source) for source in (ir, vis)):
        raise OutputError(f"the output {output} is an input: choose another directory")
    stems = Counter(image.stem for _, image in pairs)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        raise InputError(f"{vis} has several images named {twice[0]}: their results would have one name")
    return [(ir_image, image, output / f"{image.stem}.png") for ir_image, image in pairs]


def _check_outputs(jobs: list[Job], force: bool) -> None:
    from streamfuse.sinks.images import check_writable_image

    for ir, vis, output in jobs:
        check_writable_image(output)
        if not output.exists():
            continue
        if any(output.samefile(source) for source in (ir, vis)):
            raise OutputError(f"the output {output} is an input: choose another name")
        if not force:
            raise OutputError(f"{output} exists: choose another name, or replace it with --force")
    try:
        jobs[0][2].parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {jobs[0][2].parent}: {error.strerror}") from None


def _fuse_all(fuser: Fuser, jobs: list[Job], max_pixels: int) -> list[str]:
    """Fuse and write every pair; return the errors of pairs that cannot be read, which do not stop the others."""
    from streamfuse.sinks.images import write_image

    failed = []
    with progress("fusing", len(jobs), unit="pairs") as update:
        for done, (ir, vis, output) in enumerate(jobs):
            update(done)
            try:
                fused = _fuse_pair(fuser, ir, vis, max_pixels)
            except InputError as error:
                if len(jobs) == 1:
                    raise
                failed.append(str(error))
                continue
            write_image(output, fused)
    return failed


def _fuse_pair(fuser: Fuser, ir: Path, vis: Path, max_pixels: int) -> npt.NDArray[np.uint8]:
    from streamfuse.color_conversion import to_bgr
    from streamfuse.sources.pixels import read_image_file

    ir_luma, _ = read_image_file(ir, max_pixels)
    vis_luma, chroma = read_image_file(vis, max_pixels)
    luma = fuser.fuse_luma(ir_luma, vis_luma, stamp_ns=0).luma
    chroma = fuser.cut_chroma(chroma, *vis_luma.shape)
    return luma if chroma is None else to_bgr(luma, chroma)
