"""The sink that writes numbered images: `-o out/%06d.png`."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.errors import OutputError, UsageError
from streamfuse.frames import FusedFrame
from streamfuse.sinks.base import Sink
from streamfuse.sources.sequence import IMAGE_SUFFIXES, match_pattern, numbered
from streamfuse.support.files import write_whole


class ImageSink(Sink):
    """Writes an image per frame, grey where the visible frame is grey, else in colour; numbered from 1 as in FFmpeg."""

    def __init__(self, pattern: Path, *, force: bool = False) -> None:
        self.name = str(pattern)
        self._pattern = pattern
        check_writable_image(pattern)
        if not pattern.parent.is_dir():
            raise OutputError(f"there is no directory {pattern.parent}: make it first")
        if not os.access(pattern.parent, os.W_OK):
            raise OutputError(f"cannot write into {pattern.parent}: permission denied; choose another directory")
        existing = match_pattern(pattern)
        if existing and not force:
            raise OutputError(f"{existing[0][0]} exists: choose another pattern, or replace it with --force")

    def write(self, frame: FusedFrame) -> None:
        path = numbered(self._pattern, frame.index + 1)
        write_image(path, frame.luma if frame.chroma is None else frame.to_bgr())

    def close(self, *, failed: bool = False) -> None:
        pass  # every image was finished when it was written


def check_writable_image(path: Path) -> None:
    """Raise UsageError unless the suffix is that of an image format that can be written."""
    if path.suffix.lower() not in IMAGE_SUFFIXES or not cv2.haveImageWriter(f"x{path.suffix.lower()}"):
        raise UsageError(f"{path}: unknown kind of image: use {' '.join(sorted(IMAGE_SUFFIXES))}")


def write_image(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write an image, (H, W) grey or (H, W, 3) BGR uint8, atomically; raises OutputError."""
    write_whole(path, encode_image(str(path), path.suffix, pixels))


def encode_image(name: str, suffix: str, pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode an image, (H, W) grey or (H, W, 3) BGR uint8, as a suffix asks; raises OutputError, which shows `name`."""
    done, data = cv2.imencode(suffix, pixels)
    if not done:
        raise OutputError(
            f"cannot write {name}: this format does not support {pixels.shape[1]}x{pixels.shape[0]} pixels; use .png"
        )
    return data.tobytes()
