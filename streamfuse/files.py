"""Atomic writing of files, and reading of TOML settings with line numbers for errors."""

from __future__ import annotations

import errno
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from streamfuse.errors import OutputError, UsageError

MAX_SETTINGS_BYTES = 1 << 16
"""Size limit of a TOML file; real ones have some kilobytes."""


def write_whole(path: Path, data: bytes, *, durable: bool = False, aside: Path | None = None) -> None:
    """Write a file atomically: to a temporary file, which is renamed.  Raises OutputError.

    `durable`: the file also survives a power failure.  `aside`: path of the temporary file, on the same file system; it
    remains if the process is killed.
    """
    aside = aside or path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {reason(error.errno, str(error))}") from None


def expand_home(path: Path, option: str) -> Path:
    """Replace `~` or `~user` at the beginning of an option's path; in `--option=~/x` the shell does not.

    Raises UsageError where there is no such user or no home directory, unless a file has that very name.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        if path.exists():
            return path
        raise UsageError(
            f"{option} {path}: the home directory of {path.parts[0]} is not known: give the path without ~"
        ) from None


def reason(number: int | None, otherwise: str) -> str:
    """Describe a failed write by the system's error number; `otherwise`: text for an unknown number."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if number == errno.EFBIG:
        return "the file has reached the largest size allowed here"
    if number in (errno.EACCES, errno.EPERM):
        return "permission denied"
    if number == errno.EROFS:
        return "the file system is read-only"
    return os.strerror(number) if number is not None and number > 0 else otherwise


@dataclass(frozen=True)
class Settings:
    """The contents of a TOML file, with the line number of each key."""

    path: Path
    text: str
    values: dict[str, Any]

    def where(self, *keys: str) -> str:
        """Return `FILE:LINE` of a key, or of a key in a table: `where("sources", "front")`."""
        return f"{self.path}:{self._lines.get(keys, 1)}"

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        """Line numbers by key.

        tomllib does not report them: a key starts on the line after the longest prefix of the file that is valid TOML
        without it.
        """
        lines: dict[tuple[str, ...], int] = {}
        last_valid = 0
        prefix = ""
        for number, line in enumerate(self.text.split("\n"), 1):
            prefix += line + "\n"
            try:
                values = tomllib.loads(prefix)
            except tomllib.TOMLDecodeError:
                continue  # inside a value of several lines
            for keys in _paths(values):
                lines.setdefault(keys, last_valid + 1)
            last_valid = number
        return lines


def _paths(values: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all keys and of the keys in tables; settings are not nested deeper."""
    for key, value in values.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, inner) for inner in value)


def read_settings(path: Path) -> Settings:
    """Read a TOML file; raises UsageError, with the line, if it is invalid."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SETTINGS_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_SETTINGS_BYTES:
        raise UsageError(f"{path} has more than {MAX_SETTINGS_BYTES >> 10} KiB: give a settings file")
    try:
        # Other programs may write a byte order mark and CR LF line ends.
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not valid TOML: not UTF-8 ({error.reason})") from None
    try:
        return Settings(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        # "Invalid value (at line 3, column 7)", or "(at end of document)"
        what, _, position = str(error).rpartition(" (at ")
        found = re.match(r"line (\d+), (column \d+)", position)
        line, column = (int(found[1]), found[2]) if found else (text.rstrip("\n").count("\n") + 1, "at its end")
        raise UsageError(f"{path}:{line}: not valid TOML: {what or error} ({column})") from None
    except RecursionError:
        raise UsageError(f"{path}: brackets are nested too deeply") from None
    except ValueError:  # Python limits the number of digits
        raise UsageError(f"{path}: a number has too many digits") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read the tables and values of a TOML file; raises UsageError, with the line, if it is invalid."""
    return read_settings(path).values
