"""Speed of an engine by the host's clock: single pairs, and pairs in flight."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane
from streamfuse.engines.base import Engine


@dataclass(frozen=True, slots=True)
class Times:
    """Percentiles of durations, ms."""

    runs: int
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, times_ms: npt.NDArray[np.float64]) -> Times:
        p50, p95, p99 = np.percentile(times_ms, (50, 95, 99))
        return cls(len(times_ms), float(p50), float(p95), float(p99))


def time_pairs(engine: Engine, ir: Plane, vis: Plane, runs: int) -> npt.NDArray[np.float64]:
    """Time `runs` calls of `Engine.fuse` by the host's clock, ms."""
    times = np.empty(runs)
    for run in range(runs):
        begin = time.perf_counter_ns()
        engine.fuse(ir, vis)
        times[run] = (time.perf_counter_ns() - begin) / 1e6
    return times


def rate_in_flight(engine: Engine, ir: Plane, vis: Plane, pairs: int) -> float:
    """Return pairs per second, from pictures to luma in memory, with `engine.depth` pairs in flight.

    The first `engine.depth` pairs are not counted.
    """
    left = 0
    begin = time.perf_counter()
    for count in range(pairs + engine.depth):
        if count == engine.depth:
            begin = time.perf_counter()
        engine.submit(ir, vis)
        left += 1
        if engine.pending == engine.depth:
            engine.collect_picture().picture.stretch(0.0, 1.0)
            left -= 1
    for _ in range(left):
        engine.collect_picture().picture.stretch(0.0, 1.0)
    return pairs / (time.perf_counter() - begin)
