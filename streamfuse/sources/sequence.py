"""Recordings with one file for each picture: directories, patterns and lists of images.

The stamp of an image comes from its name, so that a missing file leaves a gap in time instead of shifting all later
images.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from streamfuse.errors import InputError
from streamfuse.frames import Clock, Frame
from streamfuse.sources.bags.address import parse_bag
from streamfuse.sources.base import Placement, Source
from streamfuse.sources.decode import decode_image
from streamfuse.sources.options import DEFAULT, SourceOptions
from streamfuse.sources.pixels import Picture, PixelReader
from streamfuse.sources.thermal.fff import DamagedPicture
from streamfuse.sources.thermal.pairs import placement, read_stored, stored_pairs
from streamfuse.sources.thermal.radiometric import Radiometric, read_radiometric

log = logging.getLogger("streamfuse")

RAW_SUFFIXES = frozenset({".fff"})
"""Files that hold the raw values of one infrared picture, and no other picture that is shown."""
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp", ".pgm", ".ppm", ".pnm", ".webp", ".jp2"}
)
READABLE_SUFFIXES = IMAGE_SUFFIXES | RAW_SUFFIXES
DEFAULT_FPS = 25.0
SAME_PX = 1.0
"""Distance up to which two files place infrared at the same position, px of the visible picture."""
UNREADABLE = "unreadable image"
MISSING = "missing image"

Key: TypeAlias = int | str
"""Key of an image, equal for both images of a pair: the number in the name, or the name."""

# Names that are times since the epoch, as robots record them: digits to nanoseconds a unit.
_EPOCH_UNITS = {13: 1_000_000, 16: 1_000, 19: 1}
_SECONDS = re.compile(r"(\d{10})\.(\d{1,9})", re.ASCII)


class ImageSequence(Source):
    """A list of images, each with a stamp, in rising order; 8 or 16 bit, grey or colour, any size.

    A radiometric image gives its infrared picture and, if the file tells them, its temperatures.  A file that is not an
    image, or is damaged, is skipped and counted.  The iteration raises InputError for a picture larger than
    `SourceOptions.max_pixels`.
    """

    clock = Clock.MEDIA

    def __init__(
        self,
        name: str,
        images: Sequence[tuple[Path, int]],
        period_ns: int,
        options: SourceOptions = DEFAULT,
        *,
        missing: int = 0,
        embedded: bool = False,
    ) -> None:
        """`images`: paths and their stamps, ns.  `missing`: number of further images that the sequence should have.
        `embedded`: take the visible pictures that are embedded in radiometric images.

        The stamps are taken as they are: `options.fps` is for those who compute them.
        """
        super().__init__()
        if not images:
            raise InputError(f"{name} has no images ({' '.join(sorted(IMAGE_SUFFIXES))})")
        self.name = name
        self._images = images
        self.files = [path for path, _ in images]
        for (first, stamp_ns), (second, next_ns) in itertools.pairwise(images):
            if next_ns <= stamp_ns:
                raise InputError(f"{first} and {second.name} are the same moment: keep one of them")
        self.period_ns = period_ns
        self.frame_count = len(images)
        self.first_stamp_ns = images[0][1]
        self._start_ns: int | None = None
        self._embedded = embedded
        self._told = False
        self._elsewhere = 0
        """Files whose geometry is another than `placement`."""
        self._farthest_px = 0.0
        self._has_degrees = bool(options.temperature)
        self._max_pixels = options.max_pixels
        self._pixels = PixelReader(options, name, self.repeated)
        if missing:
            self.drops[MISSING] += missing

    def cut_before(self, stamp_ns: int) -> int | None:
        return max((stamp for _, stamp in self._images if stamp <= stamp_ns), default=None)

    def start_at(self, stamp_ns: int) -> None:
        self._start_ns = stamp_ns

    def __iter__(self) -> Iterator[Frame]:
        try:
            yield from self._frames()
        finally:
            if self._elsewhere:
                log.warning(
                    "%s: %d files place infrared elsewhere than the first file, whose geometry was used for all (up to "
                    "%.0f px): `streamfuse fuse` uses each file's own",
                    *(self.name, self._elsewhere, self._farthest_px),
                )

    def _frames(self) -> Iterator[Frame]:
        for index, (path, stamp_ns) in enumerate(self._images):
            if self._start_ns is not None and stamp_ns < self._start_ns:
                continue
            began = time.monotonic_ns()
            try:
                picture = self._read(path, stamp_ns)
            except (OSError, DamagedPicture):
                picture = None
            if picture is None:
                self.drops[UNREADABLE] += 1
                continue
            yield self._recorded(picture, stamp_ns, index, began)

    def _read(self, path: Path, stamp_ns: int) -> Picture | None:
        """Read one picture; None for a file without the picture that is asked for."""
        data = path.read_bytes()
        radiometric = read_radiometric(data, str(path), self._max_pixels)
        if self._embedded:
            if radiometric is None or radiometric.visible is None:
                return None
            return self._pixels.read_image(radiometric.visible, stamp_ns)
        if radiometric is not None:
            self._tell(radiometric)
            self._compare(placement(radiometric))
            return self._pixels.read_counts(radiometric.raw, radiometric.temperature, stamp_ns)
        pixels = decode_image(data, str(path), self._max_pixels)
        return None if pixels is None else self._pixels.read_image(pixels, stamp_ns)

    def describe(self) -> str:
        """Describe the first image, if it is one of a thermal camera."""
        path = self._images[0][0]
        with contextlib.suppress(OSError, InputError):
            if (found := read_radiometric(path.read_bytes(), str(path), self._max_pixels)) is not None:
                return found.describe(note=not self._has_degrees)
        return ""

    def _compare(self, found: Placement | None) -> None:
        """Count a file whose geometry is not the one that is used for all."""
        if self.placement is not None and found is not None and (px := self.placement.distance_px(found)) > SAME_PX:
            self._elsewhere += 1
            self._farthest_px = max(self._farthest_px, px)

    def _tell(self, radiometric: Radiometric) -> None:
        if not self._told:
            self._told = True
            log.info("%s: %s", self.name, radiometric.describe(note=not self._has_degrees))


def is_image_list(text: str) -> bool:
    """Tell whether `text` names a directory, a pattern (%06d), a glob or one image, and not a bag."""
    if parse_bag(text) is not None:
        return False
    path = Path(text)
    if path.is_dir():
        return True
    if path.exists():
        return path.suffix.lower() in READABLE_SUFFIXES
    return is_pattern(text) or any(c in text for c in "*?[") or path.suffix.lower() in READABLE_SUFFIXES


def is_pattern(text: str) -> bool:
    """Tell whether `text` holds a number such as %06d."""
    return _PRINTF.search(text) is not None


def list_images(text: str) -> list[Path]:
    """List the images that `text` names, in natural order (2 before 10); raises InputError if there are none."""
    path = Path(text)
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix.lower() in READABLE_SUFFIXES and file.name[0] != "."]
        if not found and any(child.is_dir() for child in path.iterdir()):
            raise InputError(f"{text} holds directories and no images; for a VOT-RGBT sequence use --vot {text}")
    elif path.is_file():
        found = [path]
    elif _PRINTF.search(text):
        found = [file for file, _ in match_pattern(Path(text))]
    else:
        found = [Path(name) for name in glob.glob(text, recursive=True)]  # noqa: PTH207 - an absolute pattern is fine
        found = [file for file in found if file.suffix.lower() in READABLE_SUFFIXES]
    if not found:
        before, mark, after = text.partition("?")
        if mark and before and Path(before).exists():
            raise InputError(f"there are no images {text}: {before} has no option {after.partition('=')[0]}")
        raise InputError(f"there are no images {text}")
    return sorted(found, key=_natural)


_PRINTF = re.compile(r"%(0?\d{0,2})d", re.ASCII)
_MOST_DIGITS = 18
"""Longest number in a file name, so that it fits into 64 bits."""


def match_pattern(pattern: Path) -> list[tuple[Path, int]]:
    """List the files that a pattern such as color/%08d.png names, with their numbers, rising.

    Only the file name may hold a number, not the directory.
    """
    match = _PRINTF.search(pattern.name)
    if match is None:
        raise InputError(f"{pattern}: the file name needs a number such as %06d")
    before, after = pattern.name[: match.start()], pattern.name[match.end() :]
    width = int(match[1] or 0)
    least = min(width, _MOST_DIGITS) if match[1].startswith("0") else 1
    digits = rf"\d{{{least},{_MOST_DIGITS}}}"
    name = re.compile(re.escape(before) + f"({digits})" + re.escape(after))
    if not pattern.parent.is_dir():
        raise InputError(f"there is no directory {pattern.parent}")
    found = [(file, int(hit[1])) for file in pattern.parent.iterdir() if (hit := name.fullmatch(file.name))]
    return sorted(found, key=lambda item: item[1])


def numbered(pattern: Path, number: int) -> Path:
    """Return the file that a pattern names for a number."""
    match = _PRINTF.search(pattern.name)
    assert match is not None
    return pattern.with_name(f"{pattern.name[: match.start()]}{number:{match[1]}d}{pattern.name[match.end() :]}")


def _natural(path: Path) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def image_keys(paths: Sequence[Path]) -> list[Key]:
    """Return the last number in each name where it numbers the images, else the names without suffix.

    It does where it differs for all and rises in the natural order of the names: not with seconds, which begin again.
    """
    numbers = {path: re.findall(r"\d+", path.stem) for path in sorted(paths, key=_natural)}
    if all(numbers.values()):
        last = [int(found[-1]) for found in numbers.values()]
        if len(last) == len(paths) and all(one < other for one, other in itertools.pairwise(last)):
            return [int(numbers[path][-1]) for path in paths]
    return _stems(paths)


def _stems(paths: Sequence[Path]) -> list[Key]:
    return [path.stem for path in paths]


def match_images(ir: Sequence[Path], vis: Sequence[Path]) -> tuple[list[int], list[int], bool]:
    """Return an index on one common line for every image of two lists: images that belong together get the same.

    They belong together by their names without suffix, or by the numbers in them where more images fit so.  The third
    value is True if the names tell; False if no name of one list fits the other: then they are numbered in order.
    """
    found = [(keys(ir), keys(vis)) for keys in (_stems, image_keys)]
    ir_keys, vis_keys = max(found, key=lambda keys: len(set(keys[0]) & set(keys[1])))
    if not set(ir_keys) & set(vis_keys):
        return list(range(len(ir))), list(range(len(vis))), False
    union = {**dict.fromkeys(ir_keys), **dict.fromkeys(vis_keys)}
    ordered = sorted(union, key=lambda key: _natural(Path(str(key))))
    index = {key: i for i, key in enumerate(ordered)}
    return [index[key] for key in ir_keys], [index[key] for key in vis_keys], True


def _epoch_ns(name: str) -> int | None:
    """Return a time since the epoch in ns, from whole units or seconds with a fraction; None for another name."""
    if hit := _SECONDS.fullmatch(name):
        return int(hit[1]) * 1_000_000_000 + int(hit[2].ljust(9, "0"))
    return int(name) * _EPOCH_UNITS[len(name)] if name.isdecimal() and len(name) in _EPOCH_UNITS else None


def _epoch_stamps(*lists: Sequence[Path]) -> list[list[int]] | None:
    """Return stamps in ns from the first image of all, if every name is a time since the epoch."""
    stamps = []
    for paths in lists:
        found = [_epoch_ns(path.stem) for path in paths]
        if None in found:
            return None
        stamps.append([stamp for stamp in found if stamp is not None])
    start = min(min(found) for found in stamps)
    return [[stamp - start for stamp in found] for found in stamps]


def open_image_pair(
    ir: str, vis: str, options: SourceOptions = DEFAULT, vis_options: SourceOptions | None = None
) -> tuple[ImageSequence, ImageSequence]:
    """Open two lists of images on one time line; `vis_options`: of the visible one, if they differ."""
    lists = list_images(ir), list_images(vis)
    period_ns = _period_ns(options)
    stamps = _epoch_stamps(*lists)
    if stamps is None:
        ir_indices, vis_indices, by_name = match_images(*lists)
        if not by_name:
            log.warning("no infrared image has the name or number of a visible one: pairing them in order")
        stamps = [_stamps(indices, options) for indices in (ir_indices, vis_indices)]
    return tuple(  # type: ignore[return-value]
        ImageSequence(text, sorted(zip(paths, found, strict=True), key=lambda image: image[1]), period_ns, own)
        for text, paths, found, own in zip((ir, vis), lists, stamps, (options, vis_options or options), strict=True)
    )


def open_stored_pair(text: str, options: SourceOptions = DEFAULT) -> tuple[ImageSequence, ImageSequence]:
    """Open one list of images that holds both streams: in each file, or in files that are named alike.

    Raises InputError where there is no visible picture.
    """
    pairs = stored_pairs(text, list_images(text))
    period_ns = _period_ns(options)
    files = [pair.ir for pair in pairs]
    stamps = _stamps(_own_indices(files), options)
    ordered = sorted(zip(stamps, pairs, strict=True), key=lambda item: item[0])
    embedded = pairs[0].vis is None
    found = placement(read_stored(ordered[0][1].ir, options.max_pixels)) if embedded else None
    ir = ImageSequence(text, [(pair.ir, stamp) for stamp, pair in ordered], period_ns, options)
    vis = ImageSequence(
        text, [(pair.vis or pair.ir, stamp) for stamp, pair in ordered], period_ns, options, embedded=embedded
    )
    ir.placement = found
    return ir, vis


def open_images(text: str, options: SourceOptions = DEFAULT) -> ImageSequence:
    """Open one list of images on its own time line."""
    paths = list_images(text)
    stamps = _epoch_stamps(paths)
    if stamps is None:
        stamps = [_stamps(_own_indices(paths), options)]
    images = sorted(zip(paths, stamps[0], strict=True), key=lambda image: image[1])
    return ImageSequence(text, images, _period_ns(options), options)


def _own_indices(paths: Sequence[Path]) -> Sequence[int]:
    """Return the index of each image on the time line of one list: by the numbers in the names, else in order."""
    keys = image_keys(paths)
    if all(isinstance(key, int) for key in keys):
        numbers = [int(key) for key in keys]
        if max(numbers) - min(numbers) < 4 * len(numbers):  # gaps, but no numbering of something else
            return [number - min(numbers) for number in numbers]
    return range(len(paths))


def _period_ns(options: SourceOptions) -> int:
    return round(1e9 / (options.fps or DEFAULT_FPS))


def _stamps(indices: Iterable[int], options: SourceOptions) -> list[int]:
    """Stamps in ns of images by their index on the time line."""
    return [round(index * 1e9 / (options.fps or DEFAULT_FPS)) for index in indices]
