"""What a process holds: memory, threads, file descriptors; and whether that stays the same."""

from __future__ import annotations

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


def vitals() -> Vitals:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Vitals(
        pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        len(os.listdir("/proc/self/task")),  # noqa: PTH208 - of numbers
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    )


def growth_mb(samples: list[Vitals]) -> float:
    """Of memory, from the second to the last quarter: medians, so that one moment counts for nothing."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    return statistics.median(v.rss_mb for v in late) - statistics.median(v.rss_mb for v in early)


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
