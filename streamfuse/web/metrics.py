"""The state of a run in the format of Prometheus; docs/preview.md lists the metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector

from streamfuse import __version__
from streamfuse.frames import Role
from streamfuse.sources.base import State
from streamfuse.telemetry import BOUNDS_S, AlignmentSummary, Counts, Summary, each_count
from streamfuse.web.hub import Hub, View
from streamfuse.web.status import not_ready

_P = "streamfuse_"
Label = TypeVar("Label", bound=tuple[str, ...])


def make_registry(state: Callable[[], Summary], hub: Hub) -> CollectorRegistry:
    """Make a registry for `prometheus_client.generate_latest` that calls `state` at each read."""
    registry = CollectorRegistry()
    registry.register(_Run(state, hub))
    ProcessCollector(namespace="streamfuse", registry=registry)
    return registry


class _Run(Collector):
    def __init__(self, state: Callable[[], Summary], hub: Hub) -> None:
        self._state = state
        self._hub = hub

    def describe(self) -> list[Metric]:
        return []  # lets the registry learn the names without collecting everything

    def collect(self) -> Iterator[Metric]:
        summary = self._state()
        build = InfoMetricFamily(_P + "build", "The program.")
        build.add_metric([], {"version": __version__})
        yield build
        yield from _frames(summary)
        yield _stages(summary)
        yield from _sources(summary)
        yield from self._now(summary)
        raised = {(alarm,): count for alarm, count in summary.alarms.items()}
        yield _counter("alarms", "Times that an alarm was raised.", ["alarm"], raised)

    def _now(self, summary: Summary) -> Iterator[Metric]:
        hub = self._hub
        yield _gauge("ready", "1 when both streams are fresh and the engine is loaded.", not not_ready(summary))
        yield _gauge("engine_loaded", "1 when the engine is loaded.", summary.engine_loaded)
        skew_s = math.nan if summary.skew_ms is None else summary.skew_ms / 1e3
        yield _gauge("skew_seconds", "Infrared minus visible time, median of the last pairs.", skew_s)
        yield from _alignment(summary.alignment)
        shown = hub.newest
        age_s = math.nan if shown is None else (hub.now_ns() - shown.frame.arrival_ns) / 1e9
        yield _gauge("frame_age_seconds", "Time since the newest fused picture's frames arrived.", age_s)
        yield _gauge("preview_viewers", "Viewers of the preview.", hub.viewers)
        jpegs = {(str(view),): hub.encoded[view] for view in View}
        yield _counter("preview_jpegs_encoded", "Pictures that were encoded for viewers.", ["view"], jpegs)


def _frames(summary: Summary) -> Iterator[Metric]:
    by_stream = ["stream"]
    read = {(role.label,): summary.read.get(role, 0) for role in Role}
    passthrough = {(role.label,): summary.passthrough.get(role, 0) for role in Role}
    written = {(output,): count for output, count in summary.written.items()}
    yield _counter("frames_read", "Frames that a stream delivered.", by_stream, read)
    yield _counter("frames_paired", "Pairs that were made.", [], {(): summary.pairs})
    yield _counter("frames_fused", "Pictures that were fused.", [], {(): summary.fused})
    yield _counter("frames_passthrough", "Frames shown without fusion: other stream away.", by_stream, passthrough)
    yield _counter("frames_lifted", "Pictures with something drawn on white smoke.", [], {(): summary.lifted})
    yield _counter("frames_written", "Pictures that an output took.", ["output"], written)
    reasons = [*by_stream, "reason"]
    yield _counter("frames_dropped", "Frames that were dropped.", reasons, _by_reason(summary.drops))
    yield _counter("frames_repeated", "Frames that repeat the last good one.", reasons, _by_reason(summary.repeated))


def _by_reason(counts: Counts) -> dict[tuple[str, str], int]:
    return {(stream, reason): count for stream, reason, count in each_count(counts)}


def _stages(summary: Summary) -> Metric:
    family = HistogramMetricFamily(_P + "stage_seconds", "Duration of a stage for a frame.", labels=["stage"])
    for name, stage in summary.stages.items():
        counts = [*zip(map(str, BOUNDS_S), stage.within, strict=True), ("+Inf", stage.count)]
        family.add_metric([name], [(bound, float(count)) for bound, count in counts], stage.total_s)
    return family


def _sources(summary: Summary) -> Iterator[Metric]:
    states = StateSetMetricFamily(_P + "source_state", "State of a live stream.", labels=["stream"])
    for role, source in summary.sources.items():
        states.add_metric([role.label], {str(state): state is source.state for state in State})
    yield states
    reconnects = {(role.label,): source.reconnects for role, source in summary.sources.items()}
    yield _counter("source_reconnects", "Number of reconnects of a live stream.", ["stream"], reconnects)
    silence = GaugeMetricFamily(
        _P + "source_silence_seconds", "Time since the last frame of a stream.", labels=["stream"]
    )
    for role, silent_s in summary.silent_s.items():
        silence.add_metric([role.label], silent_s)
    yield silence


def _alignment(alignment: AlignmentSummary | None) -> Iterator[Metric]:
    if alignment is None:
        return
    if alignment.error_px is not None:
        text = "How far infrared is off since the calibration, pixels at a picture width of 640."
        yield _gauge("alignment_error_px", text, alignment.error_px)
    if alignment.distance_m is not None:
        yield _gauge("distance_meters", "Distance for which infrared is warped; +Inf for far.", alignment.distance_m)
    if alignment.automatic:
        answers = {("sure",): alignment.answered, ("kept",): alignment.kept}
        yield _counter("distance_answers", "Pairs that told the distance, or did not.", ["answer"], answers)
    if alignment.by_object:
        family = GaugeMetricFamily(_P + "warm_things", "Warm things in the last picture.", labels=["distance"])
        family.add_metric(["own"], alignment.apart)
        family.add_metric(["scene"], alignment.warm - alignment.apart)
        yield family
        text = "Warm things that got a distance of their own."
        yield _counter("warm_things_apart", text, [], {(): alignment.apart_total})


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_P + name, text, value=float(value))


def _counter(name: str, text: str, labels: list[str], values: Mapping[Label, int]) -> Metric:
    """Make a counter; the output format appends `_total` to its name."""
    family = CounterMetricFamily(_P + name, text, labels=labels)
    for label, value in values.items():
        family.add_metric(label, value)
    return family
