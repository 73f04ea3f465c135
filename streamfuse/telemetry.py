"""Counters and latencies of a running pipeline; any thread may write or read them."""

from __future__ import annotations

import math
import statistics
import threading
from collections import Counter, deque
from dataclasses import dataclass, field

from streamfuse.frames import Clock
from streamfuse.sources.base import State

STAGES = ("read ir", "read vis", "align", "fuse", "tone", "write", "arrival to written")
"""In the order in which a frame passes them."""

SKEWS = 1000
"""Of the last pairs, for their median."""
_RESOLUTION = 1.02
"""Ratio of neighbouring buckets: a percentile is right to 1 %."""


class LatencyHistogram:
    """Durations in buckets of equal ratio: fixed memory however long it runs."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0

    def add(self, duration_ns: int) -> None:
        bucket = round(math.log(max(duration_ns, 1)) / math.log(_RESOLUTION))
        self._buckets[bucket] += 1
        self.count += 1

    def percentile_ms(self, percent: float) -> float:
        """The duration that `percent` of all did not exceed, ms; NaN where there was none."""
        wanted = math.ceil(self.count * percent / 100)
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return float(_RESOLUTION**bucket / 1e6)
        return math.nan


@dataclass(frozen=True, slots=True)
class StageSummary:
    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """Of a live source."""

    state: State
    reconnects: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did, at the moment it was asked."""

    read: dict[str, int]
    """Frames that each source delivered, by role: "ir", "vis"."""
    pairs: int
    fused: int
    written: dict[str, int]
    """Frames that each output took, by name."""
    drops: dict[str, int]
    """Frames that went nowhere, by "stream: reason"."""
    elapsed_s: float
    """From the first fused frame's start to the last one's end."""
    fps: float
    stages: dict[str, StageSummary]
    alone: dict[str, int] = field(default_factory=dict)
    """Frames given as they are while the other stream was away, by role."""
    held: dict[str, int] = field(default_factory=dict)
    """Pictures that were shown again because a source had no new one, by "stream: reason"."""
    skew_ms: float | None = None
    """Median of infrared minus visible time over the last pairs."""
    clocks: dict[str, Clock] = field(default_factory=dict)
    """Of the last pair, by role."""
    sources: dict[str, SourceSummary] = field(default_factory=dict)
    """Of live sources, "infrared" and "visible"."""

    @property
    def dropped(self) -> int:
        return sum(self.drops.values())


class Telemetry:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: Counter[str] = Counter()
        self._written: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._stages: dict[str, LatencyHistogram] = {}
        self._alone: Counter[str] = Counter()
        self._skews_ns: deque[int] = deque(maxlen=SKEWS)
        self._clocks: dict[str, Clock] = {}
        self._pairs = 0
        self._fused = 0
        self._begin_ns = self._end_ns = 0

    def frame_read(self, role: str, duration_ns: int) -> None:
        with self._lock:
            self._read[role] += 1
            self._stage(f"read {role}").add(duration_ns)

    def pair_made(self, skew_ns: int, ir_clock: Clock, vis_clock: Clock) -> None:
        with self._lock:
            self._pairs += 1
            self._skews_ns.append(skew_ns)
            self._clocks = {"ir": ir_clock, "vis": vis_clock}

    def frame_alone(self, role: str) -> None:
        """A frame that is given as it is."""
        with self._lock:
            self._alone[role] += 1

    def frame_fused(self, begin_ns: int, end_ns: int, timings_ns: dict[str, int]) -> None:
        with self._lock:
            self._fused += 1
            self._begin_ns = self._begin_ns or begin_ns
            self._end_ns = end_ns
            for stage, duration_ns in timings_ns.items():
                self._stage(stage).add(duration_ns)

    def frame_written(self, output: str, duration_ns: int, age_ns: int) -> None:
        """`age_ns`: from arrival of the pair's earlier frame to now."""
        with self._lock:
            self._written[output] += 1
            self._stage("write").add(duration_ns)
            self._stage("arrival to written").add(age_ns)

    def drop(self, stream: str, reason: str, count: int = 1) -> None:
        if count > 0:
            with self._lock:
                self._drops[f"{stream}: {reason}"] += count

    def _stage(self, name: str) -> LatencyHistogram:
        return self._stages.setdefault(name, LatencyHistogram())

    def summary(self) -> Summary:
        with self._lock:
            elapsed_s = (self._end_ns - self._begin_ns) / 1e9
            stages = {
                name: StageSummary(
                    h.count,
                    *(h.percentile_ms(percent) for percent in (50, 95, 99)),
                )
                for name, h in sorted(self._stages.items(), key=lambda item: STAGES.index(item[0]))
            }
            return Summary(
                read=dict(self._read),
                pairs=self._pairs,
                fused=self._fused,
                written=dict(self._written),
                drops=dict(self._drops),
                elapsed_s=elapsed_s,
                fps=self._fused / elapsed_s if elapsed_s > 0 else 0.0,
                stages=stages,
                alone=dict(self._alone),
                skew_ms=statistics.median(self._skews_ns) / 1e6 if self._skews_ns else None,
                clocks=dict(self._clocks),
            )
