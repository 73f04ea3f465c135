"""The file that a sink writes, which replaces an existing file only when it is complete."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

from streamfuse.errors import OutputError
from streamfuse.support.files import reason

log = logging.getLogger("streamfuse")

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv"})
"""Suffixes of the containers that can be written."""


def muxer_of(path: Path) -> str | None:
    """Return the name of FFmpeg's muxer where its own choice by the suffix is not right: .m4v would be an iPod's."""
    return "mp4" if path.suffix.lower() == ".m4v" else None


class Target:
    """A path to write to.

    A new file is written under its own name, so that after a crash the data is where it is expected.  With `force`, an
    existing file is kept until the new one is complete: that is written beside it under an unused name
    (NAME.part.SUFFIX) and replaces it at the end.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        """Create the file at once; raises OutputError if it cannot be written."""
        self.path = path
        if path.is_dir():
            raise OutputError(f"{path} is a directory: name a file in it")
        if not path.parent.is_dir():
            raise OutputError(f"there is no directory {path.parent}: make it first")
        self._replaces = path.exists()
        if self._replaces and not force:
            raise OutputError(f"{path} exists: choose another name, or replace it with --force")
        if self._replaces and not path.is_file():
            raise OutputError(f"{path} is not a regular file: choose another name")
        self.writing = path
        """The file to write to until `finish`."""
        try:
            if self._replaces:
                self.writing = _claim_beside(path)
            else:
                path.open("xb").close()
        except OSError as error:
            raise OutputError(f"cannot write {path}: {reason(error.errno, str(error))}") from None

    def finish(self, *, failed: bool = False) -> None:
        """Replace an existing file by the one written, unless the run failed; call it after closing the file."""
        if self._replaces and failed:
            log.warning("%s is unchanged; the frames written before the failure are in %s", self.path, self.writing)
        elif self._replaces:
            try:
                self.writing.replace(self.path)
            except OSError as error:
                raise OutputError(
                    f"{self.writing} is complete but cannot replace {self.path}: {reason(error.errno, str(error))}"
                ) from None

    def discard(self) -> None:
        """Delete the file, because nothing was written to it."""
        self.writing.unlink(missing_ok=True)


def _claim_beside(path: Path) -> Path:
    """Create an empty file under an unused name, so that files of earlier failed runs are kept."""
    for number in itertools.count(1):
        part = path.with_name(f"{path.stem}.part{number if number > 1 else ''}{path.suffix}")
        try:
            part.open("xb").close()
        except FileExistsError:
            continue
        return part
    raise AssertionError("unreachable")
