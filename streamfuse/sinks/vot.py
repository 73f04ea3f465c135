"""The sink that writes a VOT sequence: `-o vot:DIR`, so that trackers can be run on fused video.

    DIR/sequence             a description: name, channel, frame rate, number and size of frames
    DIR/color/00000001.jpg   a frame in each file
    DIR/groundtruth.txt      of an input that is a VOT sequence (--vot), a line for each frame; so are *.tag and *.value

A frame that was dropped is missing here, too, with its lines; the others are numbered anew, without gaps.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from streamfuse.errors import InputError, OutputError
from streamfuse.frames import DEFAULT_PERIOD_NS, FusedFrame
from streamfuse.sinks.about import NOTHING, About
from streamfuse.sinks.base import Sink
from streamfuse.sinks.images import write_image
from streamfuse.sources.sequence import match_pattern, numbered
from streamfuse.sources.vot import annotation_files, read_annotation
from streamfuse.support.files import reason, write_whole

log = logging.getLogger("streamfuse")

SCHEME = "vot:"
PATTERN = "color/%08d.jpg"


class VotSink(Sink):
    """Writes a VOT sequence into a directory, which is created; with `force`, one that is there is written over."""

    def __init__(
        self, directory: Path, *, force: bool = False, period_ns: int | None = None, about: About = NOTHING
    ) -> None:
        """`period_ns`: nominal time between frames.  Raises OutputError, and InputError for annotations of the input
        that cannot be read.
        """
        self.name = f"{SCHEME}{directory}"
        self._directory = directory
        self._pattern = directory / PATTERN
        self._period_ns = period_ns or DEFAULT_PERIOD_NS
        if directory.exists() and not directory.is_dir():
            raise OutputError(f"{directory} is a file: name a directory for {self.name}")
        if directory.is_dir() and any(directory.iterdir()) and not force:
            raise OutputError(
                f"{directory} is not empty: choose another directory, or replace its sequence with --force"
            )
        found = annotation_files(about.sequence) if about.sequence is not None else {}
        if about.sequence is not None and directory.resolve() == about.sequence.resolve():
            raise OutputError(f"{self.name} would overwrite the input {about.sequence}: choose another directory")
        self._annotations = {name: read_annotation(path) for name, path in found.items()}
        self._lines: list[int] = []
        """Line, from 0, of each frame in the annotations of the input."""
        self._size = (0, 0)
        try:
            self._pattern.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {self._pattern.parent}: {reason(error.errno, str(error))}") from None

    def write(self, frame: FusedFrame) -> None:
        if not self._lines:  # before its end is known, so that a killed run leaves a sequence
            self._size = frame.luma.shape
            self._describe(None)
        elif frame.luma.shape != self._size:
            raise OutputError(
                f"{self.name}: frame {frame.index} has another size than the first: write it as images, out/%06d.jpg"
            )
        stamp_ns = frame.vis_stamp_ns if frame.vis_stamp_ns is not None else frame.time_ns
        self._lines.append(round(stamp_ns / self._period_ns))
        picture = frame.luma if frame.chroma is None else frame.to_bgr()
        write_image(numbered(self._pattern, len(self._lines)), picture)

    def close(self, *, failed: bool = False) -> None:
        if not self._lines:
            with contextlib.suppress(OSError):  # unless there is something in them
                self._pattern.parent.rmdir()
                self._directory.rmdir()
            return
        self._describe(len(self._lines))
        for name, lines in self._annotations.items():
            kept = [lines[line] for line in self._lines if line < len(lines)]
            write_whole(self._directory / name, "".join(f"{line}\n" for line in kept).encode())
        if not failed:
            self._remove_longer()
        if not any(name.startswith("groundtruth") for name in self._annotations):
            log.info(
                "%s has no ground truth: a tracker needs %s, with x,y,width,height of a frame in each line",
                *(self.name, self._directory / "groundtruth.txt"),
            )

    def _describe(self, length: int | None) -> None:
        rate = 1e9 / self._period_ns
        rate = round(rate) if abs(rate - round(rate)) < 1e-3 else rate  # the toolkit reads whole numbers only
        height, width = self._size
        values: dict[str, object] = {
            "name": self._directory.resolve().name,
            "channels.color": PATTERN,
            "fps": f"{rate:.9g}",
            "format": "default",
            "width": width,
            "height": height,
        }
        if length is not None:
            values["length"] = length
        text = "".join(f"{key}={value}\n" for key, value in values.items())
        write_whole(self._directory / "sequence", text.encode())

    def _remove_longer(self) -> None:
        """Remove frames of an older, longer sequence."""
        try:
            for path, number in match_pattern(self._pattern):
                if number > len(self._lines):
                    path.unlink()
        except (OSError, InputError) as error:
            raise OutputError(f"{self.name}: frames of an older sequence cannot be removed: {error}") from None


def check_inputs(directory: Path, inputs: Sequence[Path]) -> None:
    """Raise OutputError if the sequence would be written over a file that is read."""
    frames = (directory / PATTERN).parent.resolve()
    for path in inputs:
        if path.resolve().parent == frames:
            raise OutputError(f"the output {SCHEME}{directory} would overwrite the input {path}: choose another name")
