"""FLIR's recordings, SEQ and CSQ: FFF containers one after the other, each with the time of its picture.

In a CSQ file the raw values are compressed with JPEG-LS.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from streamfuse.errors import InputError
from streamfuse.frames import DEFAULT_PERIOD_NS, Clock, Frame
from streamfuse.sources.base import Source
from streamfuse.sources.options import DEFAULT, SourceOptions
from streamfuse.sources.pixels import PixelReader
from streamfuse.sources.sequence import UNREADABLE
from streamfuse.sources.thermal import fff
from streamfuse.sources.thermal.radiometric import read_radiometric

log = logging.getLogger("streamfuse")

MOST_GAP = 1 << 20
"""Most bytes between two pictures; ThermaCAM's files have some hundreds."""
MOST_BYTES = 1 << 28
"""Largest container, bytes."""


class _Entry(NamedTuple):
    """The position of a picture in the file."""

    offset: int
    length: int
    stamp_ns: int


class FlirRecording(Source):
    """The infrared pictures of a SEQ or CSQ file, with temperatures; its time line begins at 0."""

    clock = Clock.MEDIA

    def __init__(self, path: Path, options: SourceOptions = DEFAULT) -> None:
        """Find all pictures; raises InputError for a file without any."""
        super().__init__()
        self.name = str(path)
        self.files = [path]
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        self._max_pixels = options.max_pixels
        self._pixels = PixelReader(options, self.name, self.repeated)
        self._start_ns: int | None = None
        try:
            found = list(self._scan(path.stat().st_size))
        except BaseException:
            self._file.close()
            raise
        if not found:
            self._file.close()
            raise InputError(f"{path} holds no FLIR pictures: is it a SEQ or CSQ file of a FLIR camera?")
        self._entries = self._on_time_line(found)
        self.frame_count = len(self._entries)
        self.first_stamp_ns = 0

    def _scan(self, size: int) -> Iterator[tuple[int, int, int | None, int]]:
        """Yield offset, length, time since 1970 (ns) and frame rate (Hz) of each picture."""
        at = self._next(0)
        while at is not None:
            try:
                length, camera = self._measure(at, size)
            except (fff.DamagedPicture, struct.error):
                self.drops[UNREADABLE] += 1
                at = self._next(at + len(fff.MAGIC))
                continue
            if at + length > size:
                self.damage = f"cut off after {(at / 1e6):.1f} MB, within a picture"
                return
            yield at, length, *camera
            at = self._next(at + length)

    def _measure(self, at: int, size: int) -> tuple[int, tuple[int | None, int]]:
        """Return the length of the container at an offset, and time and frame rate of its camera record."""
        order, begin, count = fff.read_header(_read(self._file, at, fff.HEADER_BYTES), self.name)
        if begin > MOST_BYTES:
            raise fff.DamagedPicture(f"{self.name}: a directory lies outside its picture")
        directory = _read(self._file, at + begin, count * fff.ENTRY_BYTES)
        records = fff.read_entries(directory, order, count, self.name)
        end = max((offset + length for offset, length in records.values()), default=0)
        length = max(end, begin + count * fff.ENTRY_BYTES)
        if fff.RAW not in records or length > MOST_BYTES:
            raise fff.DamagedPicture(f"{self.name}: a picture without raw values")
        offset, long = records.get(fff.CAMERA, (0, 0))
        if long < fff.CAMERA_BYTES or at + length > size:
            return length, (None, 0)
        record = _read(self._file, at + offset, fff.CAMERA_BYTES)
        return length, (fff.stamp_of(record), fff.rate_of(record))

    def _next(self, at: int) -> int | None:
        """Return the offset of the next container at or after `at`; None where none is near."""
        found = _read(self._file, at, len(fff.MAGIC))
        if found == fff.MAGIC:
            return at
        position = _read(self._file, at, MOST_GAP).find(fff.MAGIC)
        return None if position < 0 else at + position

    def _on_time_line(self, found: list[tuple[int, int, int | None, int]]) -> list[_Entry]:
        """Take the pictures' own times where all have one and they rise; else their frame rate."""
        times = [stamp_ns for _, _, stamp_ns, _ in found if stamp_ns is not None]
        rate = found[0][3]
        if len(times) == len(found) and all(a < b for a, b in itertools.pairwise(times)):
            stamps = [stamp_ns - times[0] for stamp_ns in times]
            steps = sorted(b - a for a, b in itertools.pairwise(stamps))
            self.period_ns = steps[len(steps) // 2] if steps else DEFAULT_PERIOD_NS
        else:
            self.period_ns = round(1e9 / rate) if rate else DEFAULT_PERIOD_NS
            stamps = [index * self.period_ns for index in range(len(found))]
            if len(found) > 1:
                log.warning("%s: its pictures have no rising times: taken at %.4g fps", self.name, 1e9 / self.period_ns)
        return [_Entry(*item[:2], stamp_ns) for item, stamp_ns in zip(found, stamps, strict=True)]

    def cut_before(self, stamp_ns: int) -> int | None:
        return max((entry.stamp_ns for entry in self._entries if entry.stamp_ns <= stamp_ns), default=None)

    def start_at(self, stamp_ns: int) -> None:
        self._start_ns = stamp_ns

    def describe(self) -> str:
        """Describe the first picture."""
        with contextlib.suppress(OSError, InputError):
            found = read_radiometric(self._read_entry(self._entries[0]), self.name, self._max_pixels)
            return found.describe() if found is not None else ""
        return ""

    def _read_entry(self, entry: _Entry) -> bytes:
        return _read(self._file, entry.offset, entry.length)

    def __iter__(self) -> Iterator[Frame]:
        told = False
        for index, entry in enumerate(self._entries):
            if self._start_ns is not None and entry.stamp_ns < self._start_ns:
                continue
            began = time.monotonic_ns()
            try:
                picture = read_radiometric(self._read_entry(entry), f"{self.name} #{index}", self._max_pixels)
            except (OSError, fff.DamagedPicture):
                picture = None
            if picture is None:
                self.drops[UNREADABLE] += 1
                continue
            if not told:
                told = True
                log.info("%s: %s", self.name, picture.describe())
            read = self._pixels.read_counts(picture.raw, picture.temperature, entry.stamp_ns)
            yield self._recorded(read, entry.stamp_ns, index, began)

    def close(self) -> None:
        self._file.close()


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
