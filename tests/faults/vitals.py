"""Memory, threads and file descriptors of this process, and their growth."""

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
    """Threads of the system, not only Python's."""
    descriptors: int


def vitals(*, trim: bool = False) -> Vitals:
    """Measure this process.  `trim`: first return the free memory that the C library keeps in each thread's arena."""
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
    """Return the growth of a field from the second to the last quarter; medians, so that outliers do not count."""
    values = [float(getattr(sample, of)) for sample in samples]
    quarter = len(values) // 4
    return statistics.median(values[-quarter:]) - statistics.median(values[quarter : 2 * quarter])


def until(true: Callable[[], bool], timeout_s: float = 20.0) -> float:
    """Wait until `true` returns True; return the time that took, s."""
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < timeout_s, "the condition was not reached in time"
        time.sleep(0.005)
    return time.monotonic() - begin


def python_threads() -> list[str]:
    """Return the names of Python's threads, for messages about too many."""
    return sorted(thread.name for thread in threading.enumerate())
