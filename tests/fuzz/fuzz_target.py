"""What a target of fuzzing is: it takes any bytes, and comes to nothing worse than an error of ours."""

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
    """Any exception that it raises is a finding; what it returns is true where the bytes were understood."""
    seeds: tuple[bytes, ...]
    """Where the fuzzer begins: the first is right, the others nearly so."""
    findings: tuple[bytes, ...] = ()
    """What once came to something worse."""


@cache
def directory() -> Path:
    """Of this process."""
    memory = Path("/dev/shm")  # thousands of small files a second
    made = tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None)
    atexit.register(made.cleanup)
    return Path(made.name)


def file(data: bytes, name: str) -> Path:
    """A file with these bytes; the next one of that name takes its place."""
    path = directory() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def files(pattern: str) -> tuple[bytes, ...]:
    """The contents of files of the checkout."""
    return tuple(path.read_bytes() for path in sorted(ROOT.glob(pattern)))
