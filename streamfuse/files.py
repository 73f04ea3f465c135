"""Files that are whole or absent, and settings that people write."""

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
"""Largest TOML file that is read; real ones have some kilobytes."""


def write_whole(path: Path, data: bytes, *, durable: bool = False, aside: Path | None = None) -> None:
    """Write a file, whole or not at all; `durable`: even if the power fails.  Raises OutputError.

    `aside`: its name until it is whole, on the same file system; a killed process leaves it.
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
    """Describe why writing failed, from the system's error number."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if number == errno.EFBIG:
        return "the file has reached the largest size that is allowed here"
    if number in (errno.EACCES, errno.EPERM):
        return "permission denied"
    if number == errno.EROFS:
        return "the file system is read-only"
    return os.strerror(number) if number is not None and number > 0 else otherwise


@dataclass(frozen=True)
class Settings:
    """A TOML file, with the line of each of its keys."""

    path: Path
    text: str
    values: dict[str, Any]

    def where(self, *keys: str) -> str:
        """`FILE:LINE` of a key, or of a key of a table: `where("sources", "front")`."""
        return f"{self.path}:{self._lines.get(keys, 1)}"

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        """tomllib tells no lines, but a key stands right after the longest beginning that is TOML without it."""
        lines: dict[tuple[str, ...], int] = {}
        whole = 0
        beginning = ""
        for number, line in enumerate(self.text.split("\n"), 1):
            beginning += line + "\n"
            try:
                values = tomllib.loads(beginning)
            except tomllib.TOMLDecodeError:
                continue  # within a value of several lines
            for keys in _paths(values):
                lines.setdefault(keys, whole + 1)
            whole = number
        return lines


def _paths(values: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the keys, and the keys of tables; our files have no deeper level."""
    for key, value in values.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, inner) for inner in value)


def read_settings(path: Path) -> Settings:
    """A TOML file; raises UsageError, with the line, for what is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SETTINGS_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_SETTINGS_BYTES:
        raise UsageError(f"{path} has more than {MAX_SETTINGS_BYTES >> 10} KiB: that is no settings file")
    try:
        # What other programs write: a byte order mark, lines that end in CR LF.
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not valid TOML: not UTF-8 ({error.reason})") from None
    try:
        return Settings(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        # "Invalid value (at line 3, column 7)", or "(at end of document)"
        what, _, place = str(error).rpartition(" (at ")
        found = re.match(r"line (\d+), (column \d+)", place)
        line, column = (int(found[1]), found[2]) if found else (text.rstrip("\n").count("\n") + 1, "at its end")
        raise UsageError(f"{path}:{line}: not valid TOML: {what or error} ({column})") from None
    except RecursionError:
        raise UsageError(f"{path}: brackets within brackets, too many of them") from None
    except ValueError:  # Python refuses to read it
        raise UsageError(f"{path}: a number in it has thousands of digits") from None


def read_toml(path: Path) -> dict[str, Any]:
    """The tables and values of a TOML file; raises UsageError, with the line, for what is none."""
    return read_settings(path).values
