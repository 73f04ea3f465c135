"""What a process holds: memory, threads, file descriptors; and whether that stays the same."""

from __future__ import annotations

import ctypes
import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc, which Linux has")


@dataclass(frozen=True, slots=True)
class Vitals:
    rss_mb: float
    threads: int
    """Of the system, not only Python's."""
    descriptors: int


def vitals(*, trim: bool = False) -> Vitals:
    """`trim`: after what is free, but kept for later by the C library in an arena of each thread, was given back."""
    if trim:
        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
        if malloc_trim is not None:
            malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Vitals(
        pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        len(os.listdir("/proc/self/task")),  # noqa: PTH208 - of numbers
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    )


def growth(samples: list[Vitals], of: str) -> float:
    """Of a field, from the second to the last quarter: medians, so that one moment counts for nothing."""
    values = [float(getattr(sample, of)) for sample in samples]
    quarter = len(values) // 4
    return statistics.median(values[-quarter:]) - statistics.median(values[quarter : 2 * quarter])


def until(true: Callable[[], bool], timeout_s: float = 20.0) -> float:
    """Wait for what others do; how long that took, s."""
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < timeout_s, "it did not come about"
        time.sleep(0.005)
    return time.monotonic() - begin


def python_threads() -> list[str]:
    """Names, for what to look at when there are too many."""
    return sorted(thread.name for thread in threading.enumerate())
