"""Fuzz targets: functions that accept any bytes and raise nothing but a StreamfuseError, which they handle."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Target:
    run: Callable[[bytes], object]
    """The function; any exception is a finding.  Its result is true if the bytes were valid."""
    seeds: tuple[bytes, ...]
    """Initial inputs: the first is valid, the others nearly so."""
    findings: tuple[bytes, ...] = ()
    """Inputs that raised another exception in the past."""


@cache
def directory() -> Path:
    """Return this process's temporary directory."""
    memory = Path("/dev/shm")  # thousands of small files a second
    made = tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None)
    atexit.register(made.cleanup)
    return Path(made.name)


def file(data: bytes, name: str) -> Path:
    """Write a file with these bytes; it replaces an earlier one of that name."""
    path = directory() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def files(pattern: str) -> tuple[bytes, ...]:
    """Return the contents of the checkout's files that match `pattern`."""
    return tuple(path.read_bytes() for path in sorted(ROOT.glob(pattern)))
