"""Counters and latencies of a running pipeline.  Any thread may write and read them."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from streamfuse.frames import Clock, Role
from streamfuse.sources.base import State

TO_FUSED = "arrival to fused"
STAGES = (*(f"read {role}" for role in Role), "align", "fuse", "tone", TO_FUSED, "write", "arrival to written")
"""Names of the stages, in the order in which a frame passes them."""

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the duration histogram for monitoring, s."""
SKEWS = 1000
"""Number of most recent pairs over which the median skew is taken."""
_RESOLUTION = 1.02
"""Ratio of neighbouring buckets: percentiles are accurate to 1 %."""

Counts: TypeAlias = dict[str, dict[str, int]]
"""Frame counts by stream, then by reason.  A stream is "infrared", "visible" or the name of an output."""


def each_count(counts: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, str, int]]:
    """Yield (stream, reason, count) in alphabetical order."""
    for stream, reasons in sorted(counts.items()):
        for reason, count in sorted(reasons.items()):
            yield stream, reason, count


def add_counts(total: Counts, stream: str, reasons: Mapping[str, int]) -> None:
    """Add the counts of one stream to `total`; counts of 0 are left out."""
    for reason, count in reasons.items():
        if count:
            own = total.setdefault(stream, {})
            own[reason] = own.get(reason, 0) + count


class LatencyHistogram:
    """Histogram of durations with buckets of equal ratio; its memory does not grow with the number of durations."""

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
        """Return the duration that `percent` of all durations do not exceed, ms; NaN if there are none."""
        wanted = math.ceil(self.count * percent / 100)
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return float(_RESOLUTION**bucket / 1e6)
        return math.nan

    def within(self, bounds_s: Sequence[float]) -> tuple[int, ...]:
        """Return the number of durations up to each bound; bounds are accurate to 1 %."""
        limits = [math.log(bound_s * 1e9) / math.log(_RESOLUTION) for bound_s in bounds_s]
        buckets = list(self._buckets.items())
        return tuple(sum(count for bucket, count in buckets if bucket <= limit) for limit in limits)


@dataclass(frozen=True, slots=True)
class StageSummary:
    """Durations of one stage."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    total_s: float = 0.0
    within: tuple[int, ...] = ()
    """Numbers of durations up to each of BOUNDS_S."""


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """State of a live source."""

    state: State
    reconnects: int
    name: str = ""
    period_s: float | None = None
    """Frame interval, s; None while it is not known."""


@dataclass(frozen=True, slots=True)
class AlignmentSummary:
    """How infrared is aligned."""

    distance_m: float | None = None
    """Distance for which infrared was warped last, m; infinity for far; None without parallax."""
    automatic: bool = False
    """True where the distance is that of the scene, found all the time."""
    answered: int = 0
    """Pairs that told the distance of the scene."""
    kept: int = 0
    """Pairs that did not, so that the last distance was kept."""
    confidence: float | None = None
    """Confidence of the last answer, 0..1."""
    error_px: float | None = None
    """Misfit of the calibration by a drift of the cameras, px at a width of 640; None while it is not known."""
    by_object: bool = False
    """True where warm things are looked for that have another distance than the scene."""
    warm: int = 0
    """Warm things in the last picture."""
    apart: int = 0
    """Those of them that are warped for a distance of their own."""
    apart_total: int = 0
    """How many things had one so far."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts and latencies of a run at one moment."""

    read: dict[Role, int]
    """Frames delivered by each source."""
    pairs: int
    fused: int
    written: dict[str, int]
    """Frames written by each output, by its name."""
    drops: Counts
    """Dropped frames by stream and reason."""
    elapsed_s: float
    """Time from the start of the first fused frame to the end of the last one, s."""
    fps: float
    stages: dict[str, StageSummary]
    passthrough: dict[Role, int] = field(default_factory=dict)
    """Frames that were passed through without fusion while the other stream was away."""
    repeated: Counts = field(default_factory=dict)
    """Frames that repeat the last good picture (FFC), by stream and reason."""
    skew_ms: float | None = None
    """Median of infrared minus visible time over the last pairs, ms; None before the first pair."""
    clocks: dict[Role, Clock] = field(default_factory=dict)
    """Clocks of the last pair."""
    sources: dict[Role, SourceSummary] = field(default_factory=dict)
    """States of the live sources; empty for recordings."""
    silent_s: dict[Role, float] = field(default_factory=dict)
    """Time since the last frame of each source that has delivered one, s."""
    engine_loaded: bool = False
    alignment: AlignmentSummary | None = None
    """How infrared is aligned; None without a calibration."""
    alarms: dict[str, int] = field(default_factory=dict)
    """Times that each alarm was raised."""
    lifted: int = 0
    """Pictures in which white smoke or glare was darkened and what infrared sees behind it was drawn."""

    @property
    def dropped(self) -> int:
        """Number of dropped frames of all streams and reasons."""
        return sum(count for _, _, count in each_count(self.drops))


class Telemetry:
    """Counters of one run; every method may be called by any thread."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last_read_ns: dict[Role, int] = {}
        self._engine_loaded = False
        self._read: Counter[Role] = Counter()
        self._written: Counter[str] = Counter()
        self._drops: Counts = {}
        self._stages: dict[str, LatencyHistogram] = {}
        self._passthrough: Counter[Role] = Counter()
        self._skews_ns: deque[int] = deque(maxlen=SKEWS)
        self._clocks: dict[Role, Clock] = {}
        self._pairs = 0
        self._fused = 0
        self._begin_ns = self._end_ns = 0

    def frame_read(self, role: Role, duration_ns: int) -> None:
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
            self._clocks = {Role.IR: ir_clock, Role.VIS: vis_clock}

    def frame_passed_through(self, role: Role) -> None:
        """Count a frame that is passed through without fusion because the other stream is away."""
        with self._lock:
            self._passthrough[role] += 1

    def frame_fused(self, begin_ns: int, end_ns: int, timings_ns: dict[str, int]) -> None:
        with self._lock:
            self._fused += 1
            self._begin_ns = self._begin_ns or begin_ns
            self._end_ns = end_ns
            for stage, duration_ns in timings_ns.items():
                self._stage(stage).add(duration_ns)

    def frame_written(self, output: str, duration_ns: int, age_ns: int) -> None:
        """Count a written frame.  `age_ns`: time since the earlier frame of the pair arrived."""
        with self._lock:
            self._written[output] += 1
            self._stage("write").add(duration_ns)
            self._stage("arrival to written").add(age_ns)

    def drop(self, stream: str, reason: str, count: int = 1) -> None:
        """Count dropped frames.  `stream`: the label of a role, or the name of an output."""
        if count > 0:
            with self._lock:
                add_counts(self._drops, stream, {reason: count})

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
                drops={stream: dict(reasons) for stream, reasons in self._drops.items()},
                elapsed_s=elapsed_s,
                fps=self._fused / elapsed_s if elapsed_s > 0 else 0.0,
                stages=stages,
                passthrough=dict(self._passthrough),
                skew_ms=statistics.median(self._skews_ns) / 1e6 if self._skews_ns else None,
                clocks=dict(self._clocks),
                silent_s={role: (self._clock() - at_ns) / 1e9 for role, at_ns in self._last_read_ns.items()},
                engine_loaded=self._engine_loaded,
            )
