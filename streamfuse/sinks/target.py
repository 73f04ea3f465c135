"""The file that an output becomes: never half over an older one."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

from streamfuse.errors import OutputError
from streamfuse.files import reason

log = logging.getLogger("streamfuse")

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv"})
"""Suffixes of the containers that can be written."""


class Target:
    """A path to write to.

    A new file is written in place, so that after a crash what was written is where it is expected.
    With `force` an existing file stays whole until the new one is: that is written beside it, under a name that
    was free (NAME.part.SUFFIX), and takes its place in the end.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        """Claims the path at once; raises OutputError if it cannot be written."""
        self.path = path
        if path.is_dir():
            raise OutputError(f"{path} is a directory: name a file in it")
        if not path.parent.is_dir():
            raise OutputError(f"there is no directory {path.parent}: make it first")
        self._replaces = path.exists()
        if self._replaces and not force:
            raise OutputError(f"{path} exists: choose another name, or replace it with --force")
        if self._replaces and not path.is_file():
            raise OutputError(f"{path} is not an ordinary file")
        self.writing = path
        try:
            if self._replaces:
                self.writing = _claim_beside(path)
            else:
                path.open("xb").close()
        except OSError as error:
            raise OutputError(f"cannot write {path}: {reason(error.errno, str(error))}") from None

    def finish(self, *, failed: bool = False) -> None:
        """The file is closed: it takes its name, but not from an older one if the run failed."""
        if self._replaces and failed:
            log.warning("%s is left as it was; what was written before the failure is in %s", self.path, self.writing)
        elif self._replaces:
            try:
                self.writing.replace(self.path)
            except OSError as error:
                raise OutputError(
                    f"{self.writing} is complete but cannot replace {self.path}: {reason(error.errno, str(error))}"
                ) from None

    def discard(self) -> None:
        """Nothing was written: leave no trace."""
        self.writing.unlink(missing_ok=True)


def _claim_beside(path: Path) -> Path:
    """A new, empty file: what a failed run left there, or a user's own file, is not written over."""
    for number in itertools.count(1):
        part = path.with_name(f"{path.stem}.part{number if number > 1 else ''}{path.suffix}")
        try:
            part.open("xb").close()
        except FileExistsError:
            continue
        return part
    raise AssertionError("unreachable")
