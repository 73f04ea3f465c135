"""Registered training pairs on disk, in the layouts of common data sets.

A directory tree is searched for two directories side by side, one with a name for infrared and one for visible:

    ROOT/{ir,vis}/NAME.png                        paired directories; names equal, or numbered alike
    ROOT/{ir,vis}/NAME.mp4                        paired videos
    ROOT/{infrared,visible}/{train,test}/*.jpg    LLVIP
    ROOT/{train,test}/{ir,vi}/*.png               MSRS
    ROOT/{Ir,Vis}/*.png                           M3FD
    ROOT/setNN/VNNN/{lwir,visible}/*.jpg          KAIST
    ROOT/{IRn.png,VISn.png}                       both in one directory

Test sets (directories named test; KAIST's set06 to set11) are left out, with a note.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.frames import Role
from streamfuse.pairing.recorded import default_tolerance_ns, pair_frames
from streamfuse.sources import VIDEO_SUFFIXES
from streamfuse.sources.file import VideoFile
from streamfuse.sources.limits import MAX_PIXELS
from streamfuse.sources.options import DEFAULT, SourceOptions
from streamfuse.sources.pixels import read_image_file
from streamfuse.sources.sequence import IMAGE_SUFFIXES, match_images

log = logging.getLogger("streamfuse")

INFRARED = ("ir", "infrared", "lwir", "thermal", "inf", "t")
VISIBLE = ("vis", "vi", "visible", "rgb", "color", "v")
HELD_OUT = re.compile(r"^(test|set0[6-9]|set1[01])$", re.IGNORECASE)
_NUMBERED = re.compile(r"^(ir|vis)_?(\d+)$", re.IGNORECASE)

VIDEO_BYTES = 2 << 30
"""Frames of videos are kept in memory, at most so much of it: every nth frame is taken."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two registered images of one scene: files, or planes (H, W) uint8, full range."""

    ir: Path | Plane
    vis: Path | Plane
    max_pixels: int = MAX_PIXELS
    """Largest image file that is read."""
    later: Pair | None = None
    """The next frame of the same video; None for images."""

    def load(self) -> tuple[Plane, Plane]:
        """Load infrared and visible luma, (H, W) uint8 each; raises InputError if their sizes differ."""
        sides = (self.ir, self.vis)
        ir, vis = (read_image_file(one, self.max_pixels)[0] if isinstance(one, Path) else one for one in sides)
        if ir.shape != vis.shape:
            raise InputError(
                f"{self.ir} is {_size(ir)} and {self.vis} is {_size(vis)}: training pairs must be registered"
            )
        return ir, vis


def _size(plane: Plane) -> str:
    return f"{plane.shape[1]}x{plane.shape[0]}"


def find_pairs(roots: Sequence[Path], *, every: int = 1, options: SourceOptions = DEFAULT) -> list[Pair]:
    """Find the pairs of all data sets, in a fixed order; of videos every `every`th frame.

    Raises InputError if there are none.
    """
    pairs: list[Pair] = []
    for root in roots:
        if not root.is_dir():
            raise InputError(f"there is no directory {root}")
        found = [pair for place in _places(root) for pair in _pairs_of(*place, every, options)]
        if not found:
            raise InputError(
                f"{root} holds no training pairs: expected directories side by side, one of {', '.join(INFRARED)} "
                f"and one of {', '.join(VISIBLE)}, or files IRn and VISn"
            )
        pairs += found
    return pairs


def _places(root: Path) -> Iterator[tuple[Path, Path]]:
    """Find directories of infrared and visible files that belong together."""
    children = sorted(child for child in root.iterdir() if child.is_dir() and child.name[0] != ".")
    named = {child.name.lower(): child for child in children}
    ir = next((named[name] for name in INFRARED if name in named), None)
    vis = next((named[name] for name in VISIBLE if name in named), None)
    if ir is not None and vis is not None:
        yield from _matching(ir, vis)
        children = [child for child in children if child not in (ir, vis)]
    elif any(_NUMBERED.match(file.stem) for file in root.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES):
        yield root, root
    for child in children:
        if HELD_OUT.match(child.name):
            log.info("%s is for testing: left out of training", child)
        else:
            yield from _places(child)


def _matching(ir: Path, vis: Path) -> Iterator[tuple[Path, Path]]:
    """Yield matching directories of two trees of the same shape, such as LLVIP's infrared/train and visible/train."""
    yield ir, vis
    for child in sorted(ir.iterdir()):
        if not child.is_dir() or not (vis / child.name).is_dir():
            continue
        if HELD_OUT.match(child.name):
            log.info("%s is for testing: left out of training", child)
        else:
            yield from _matching(child, vis / child.name)


def _pairs_of(ir: Path, vis: Path, every: int, options: SourceOptions) -> Iterator[Pair]:
    if ir == vis:
        yield from _numbered_pairs(ir, options)
        return
    images = [_files(side, IMAGE_SUFFIXES) for side in (ir, vis)]
    if all(images):
        ir_places, vis_places, by_name = match_images(*images)
        if not by_name:
            raise InputError(f"no image of {ir} has the name or number of one in {vis}")
        partner = dict(zip(vis_places, images[1], strict=True))
        matched = [(file, partner[i]) for file, i in zip(images[0], ir_places, strict=True) if i in partner]
        _say_unmatched(ir, len(images[0]) - len(matched), len(images[1]) - len(matched))
        yield from (Pair(*files, options.max_pixels) for files in matched)
    videos = [{file.stem: file for file in _files(side, VIDEO_SUFFIXES)} for side in (ir, vis)]
    common = sorted(videos[0].keys() & videos[1].keys())
    _say_unmatched(ir, len(videos[0]) - len(common), len(videos[1]) - len(common))
    for name in common:
        yield from _video_pairs(videos[0][name], videos[1][name], every, VIDEO_BYTES // len(common), options)


def _files(directory: Path, suffixes: frozenset[str]) -> list[Path]:
    return sorted(file for file in directory.iterdir() if file.suffix.lower() in suffixes and file.name[0] != ".")


def _say_unmatched(ir: Path, infrared: int, visible: int) -> None:
    if infrared or visible:
        log.warning("%s: %d infrared and %d visible files have no partner and are not used", ir, infrared, visible)


def _numbered_pairs(directory: Path, options: SourceOptions) -> Iterator[Pair]:
    sides: dict[Role, dict[int, Path]] = {role: {} for role in Role}
    for file in _files(directory, IMAGE_SUFFIXES):
        if match := _NUMBERED.match(file.stem):
            sides[Role(match[1].lower())][int(match[2])] = file
    ir, vis = sides.values()
    common = sorted(ir.keys() & vis.keys())
    _say_unmatched(directory, len(ir) - len(common), len(vis) - len(common))
    yield from (Pair(ir[number], vis[number], options.max_pixels) for number in common)


def _video_pairs(ir: Path, vis: Path, every: int, most_bytes: int, options: SourceOptions) -> list[Pair]:
    """Every nth pair of two videos, each with the pair after it, in memory.

    Every 2nd of those is kept, and so on, once they exceed `most_bytes`.
    """
    kept: list[Pair] = []
    with VideoFile(ir, options) as first, VideoFile(vis, options) as second:
        tolerance_ns = default_tolerance_ns(first.period_ns, second.period_ns)
        for index, pair in enumerate(pair_frames(first, second, tolerance_ns=tolerance_ns)):
            if index % every > 1:
                continue
            frame = Pair(pair.ir.luma.copy(), pair.vis.luma.copy())
            if kept and index % every == 1 % every:
                kept[-1] = dataclasses.replace(kept[-1], later=frame)
            if index % every:
                continue
            kept.append(frame)
            if 4 * pair.ir.luma.size * len(kept) > most_bytes:
                kept, every = kept[::2], 2 * every
                log.warning("%s is long: one frame in %d is kept in memory", ir, every)
    return kept
