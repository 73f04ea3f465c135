"""Counters and latencies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamfuse.frames import Clock, Role
from streamfuse.telemetry import LatencyHistogram, Telemetry


def test_percentiles_are_accurate_to_a_percent() -> None:
    durations = np.random.default_rng(0).lognormal(16, 1, 5000)  # about 9 ms
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.add(int(duration))
    for percent in (50, 95, 99):
        exact = np.percentile(durations, percent, method="inverted_cdf") / 1e6
        assert histogram.percentile_ms(percent) == pytest.approx(exact, rel=0.011)


def test_histogram_memory_is_bounded() -> None:
    histogram = LatencyHistogram()
    for duration in range(1, 3_000_000, 37):
        histogram.add(duration)
    assert len(histogram._buckets) < 1000


def test_empty_histogram() -> None:
    assert math.isnan(LatencyHistogram().percentile_ms(50))


def test_summary_adds_up() -> None:
    telemetry = Telemetry()
    telemetry.frame_read(Role.IR, 1_000_000)
    telemetry.pair_made(8_000_000, Clock.SENDER, Clock.ARRIVAL)
    telemetry.frame_fused(0 + 10, 10 + 500_000_000, {"fuse": 400_000_000})
    telemetry.frame_written("out", 2_000_000, 600_000_000)
    telemetry.drop("visible", "late", 2)
    telemetry.drop("visible", "late")
    telemetry.drop("visible", "never", 0)
    summary = telemetry.summary()
    assert summary.read == {"ir": 1}
    assert summary.written == {"out": 1}
    assert summary.drops == {"visible": {"late": 3}}
    assert summary.dropped == 3
    assert (summary.skew_ms, summary.clocks) == (8.0, {"ir": "sender", "vis": "arrival"})
    assert summary.fps == pytest.approx(2.0)
    assert list(summary.stages) == ["read ir", "fuse", "write", "arrival to written"]
    assert summary.stages["fuse"].p99_ms == pytest.approx(400, rel=0.01)
