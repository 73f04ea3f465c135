"""Files that are whole or absent, and settings that people write."""

from __future__ import annotations

import errno
import os
import tomllib
from pathlib import Path
from typing import Any

from streamfuse.errors import OutputError, UsageError


def write_whole(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file, whole or not at all; `durable`: even if the power fails.  Raises OutputError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
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


def reason(number: int | None, otherwise: str) -> str:
    """Why writing failed, from the system's error number, in words that say what to do."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if number == errno.EFBIG:
        return "the file has reached the largest size that is allowed here"
    if number in (errno.EACCES, errno.EPERM):
        return "permission denied"
    if number == errno.EROFS:
        return "the file system is read-only"
    return os.strerror(number) if number is not None and number > 0 else otherwise


def read_toml(path: Path) -> dict[str, Any]:
    """The tables and values of a TOML file; raises UsageError for what is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
