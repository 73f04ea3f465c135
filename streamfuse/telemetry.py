"""Counters and latencies of a running pipeline; any thread may write or read them."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streamfuse.frames import Clock
from streamfuse.sources.base import State

TO_FUSED = "arrival to fused"
STAGES = ("read ir", "read vis", "align", "fuse", "tone", TO_FUSED, "write", "arrival to written")
"""In the order in which a frame passes them."""

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Durations up to each of these are counted for monitoring, s."""
SKEWS = 1000
"""Of the last pairs, for their median."""
_RESOLUTION = 1.02
"""Ratio of neighbouring buckets: a percentile is right to 1 %."""


class LatencyHistogram:
    """Durations in buckets of equal ratio: fixed memory however long it runs."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.total_ns = 0

    def add(self, duration_ns: int) -> None:
        bucket = round(math.log(max(duration_ns, 1)) / math.log(_RESOLUTION))
        self._buckets[bucket] += 1
        self.count += 1
        self.total_ns += duration_ns

    def percentile_ms(self, percent: float) -> float:
        """The duration that `percent` of all did not exceed, ms; NaN where there was none."""
        wanted = math.ceil(self.count * percent / 100)
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return float(_RESOLUTION**bucket / 1e6)
        return math.nan

    def within(self, bounds_s: Sequence[float]) -> tuple[int, ...]:
        """How many durations did not exceed each of the bounds, to 1 % of these."""
        limits = [math.log(bound_s * 1e9) / math.log(_RESOLUTION) for bound_s in bounds_s]
        buckets = list(self._buckets.items())
        return tuple(sum(count for bucket, count in buckets if bucket <= limit) for limit in limits)


@dataclass(frozen=True, slots=True)
class StageSummary:
    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    total_s: float = 0.0
    within: tuple[int, ...] = ()
    """How many took at most each of BOUNDS_S."""


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """Of a live source."""

    state: State
    reconnects: int
    name: str = ""
    period_s: float | None = None
    """Between its frames, where that is known."""


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
    silent_s: dict[str, float] = field(default_factory=dict)
    """Since the last frame of each source that has given any, by role."""
    engine_loaded: bool = False

    @property
    def dropped(self) -> int:
        return sum(self.drops.values())


class Telemetry:
    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last_read_ns: dict[str, int] = {}
        self._engine_loaded = False
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
            self._last_read_ns[role] = self._clock()
            self._stage(f"read {role}").add(duration_ns)

    def engine_loaded(self) -> None:
        self._engine_loaded = True

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
                    p50_ms=h.percentile_ms(50),
                    p95_ms=h.percentile_ms(95),
                    p99_ms=h.percentile_ms(99),
                    total_s=h.total_ns / 1e9,
                    within=h.within(BOUNDS_S),
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
                silent_s={role: (self._clock() - at_ns) / 1e9 for role, at_ns in self._last_read_ns.items()},
                engine_loaded=self._engine_loaded,
            )
