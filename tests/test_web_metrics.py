"""Metrics as Prometheus reads them, and readiness."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from media import ListSource, PassThrough, frame_at
from prometheus_client.parser import text_string_to_metric_families
from web import Run, picture, serving, until

from streamfuse.cli.summary import show_summary
from streamfuse.frames import Clock, Frame, FusedFrame, Role
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sinks.base import Sink
from streamfuse.sinks.preview import PreviewSink
from streamfuse.sources.base import Source, State
from streamfuse.telemetry import AlignmentSummary, SourceSummary
from streamfuse.web.status import NOT_LOADED, not_ready

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def get(sink: PreviewSink, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{sink.port}/{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metrics(sink: PreviewSink) -> Values:
    status, text = get(sink, "metrics")
    assert status == 200
    values: Values = {}
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("streamfuse_")
        assert family.documentation
        for sample in family.samples:
            key = (sample.name.removeprefix("streamfuse_"), frozenset(sample.labels.items()))
            assert key not in values, "twice"
            values[key] = sample.value
    return values


def of(values: Values, name: str, **labels: str) -> float:
    return values[name, frozenset(labels.items())]


def test_values_of_the_metrics() -> None:
    with serving() as sink:
        sink.write(picture())
        values = metrics(sink)
    assert of(values, "frames_read_total", stream="infrared") == 12
    assert of(values, "frames_read_total", stream="visible") == 13
    assert of(values, "frames_paired_total") == 11
    assert of(values, "frames_fused_total") == 10
    assert of(values, "frames_lifted_total") == 4
    assert of(values, "frames_written_total", output="out.mp4") == 9
    assert of(values, "frames_dropped_total", stream="visible", reason="late: by far") == 3
    assert of(values, "source_reconnects_total", stream="infrared") == 2
    states = {state: of(values, "source_state", stream="visible", streamfuse_source_state=state) for state in State}
    assert states == {**dict.fromkeys(State, 0.0), State.LIVE: 1.0}
    assert of(values, "skew_seconds") == 0.004
    assert 0 <= of(values, "frame_age_seconds") < 20
    assert of(values, "source_silence_seconds", stream="infrared") == 0.01
    assert of(values, "ready") == of(values, "engine_loaded") == 1
    assert of(values, "preview_viewers") == 0
    assert of(values, "preview_jpegs_encoded_total", view="fused") == 0
    assert of(values, "process_resident_memory_bytes") > 1e6
    assert of(values, "stage_seconds_bucket", stage="fuse", le="0.01") == 0
    assert of(values, "stage_seconds_bucket", stage="fuse", le="0.025") == 10
    assert of(values, "stage_seconds_bucket", stage="fuse", le="+Inf") == 10
    assert of(values, "stage_seconds_count", stage="fuse") == 10
    assert of(values, "stage_seconds_sum", stage="fuse") == 0.2


def test_distances_of_the_scene_and_of_warm_things(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run()
    found = AlignmentSummary(8.0, True, 5, 2, 0.95, by_object=True, warm=4, apart=1, apart_total=3)
    run.summary = replace(run.summary, alignment=found)
    with serving(run=run) as sink:
        values = metrics(sink)
        status = json.loads(get(sink, "status")[1])
        run.summary = replace(run.summary, alignment=replace(found, by_object=False))
        plane = metrics(sink)
    assert of(values, "distance_meters") == of(plane, "distance_meters") == 8
    assert of(values, "distance_answers_total", answer="kept") == 2
    assert [of(values, "warm_things", distance=of_what) for of_what in ("own", "scene")] == [1, 3]
    assert of(values, "warm_things_apart_total") == 3
    assert not any(name.startswith("warm") for name, _ in plane)
    shown = status["alignment"]
    assert (shown["by_object"], shown["warm"], shown["apart"], shown["apart_total"]) == (True, 4, 1, 3)
    for count, line in (
        (3, "3 warm things with distances of their own"),
        (1, "1 warm thing with a distance of its own"),
    ):
        show_summary(replace(run.summary, alignment=replace(found, apart_total=count)))
        assert f"objects  {line}\n" in capsys.readouterr().err


def test_unknown_values() -> None:
    run = Run()
    run.summary = replace(run.summary, skew_ms=None, engine_loaded=False, stages={}, silent_s={}, sources={})
    with serving(run=run) as sink:
        values = metrics(sink)
        status = json.loads(get(sink, "status")[1])
    assert math.isnan(of(values, "skew_seconds"))
    assert math.isnan(of(values, "frame_age_seconds"))
    assert of(values, "ready") == 0
    assert (status["skew_ms"], status["frame_age_ms"], status["content"], status["fps"]) == (None, None, None, 0)


@pytest.mark.parametrize(
    ("silent_s", "source", "reason"),
    [
        (0.1, SourceSummary(State.LIVE, 0, "", 0.04), None),
        (2.1, SourceSummary(State.LIVE, 0, "", 0.04), "visible: no frame for 2.1 s"),
        (2.1, SourceSummary(State.LIVE, 0, "", 1.0), None),  # a slow stream
        (2.1, None, None),  # a recording, which waits for the engine
        (0.1, SourceSummary(State.STALLED, 0, "", 0.04), "visible: stalled"),
        (0.1, SourceSummary(State.BACKOFF, 0, "", 0.04), "visible: waiting to reconnect"),
        (None, SourceSummary(State.LIVE, 0, "", 0.04), "visible: no frame yet"),
        (None, None, "visible: no frame yet"),
    ],
)
def test_freshness(silent_s: float | None, source: SourceSummary | None, reason: str | None) -> None:
    summary = Run().summary
    sources = {Role.IR: summary.sources[Role.IR], **({Role.VIS: source} if source else {})}
    silence = {Role.IR: 0.1, **({Role.VIS: silent_s} if silent_s is not None else {})}
    assert not_ready(replace(summary, sources=sources, silent_s=silence)) == ([reason] if reason else [])


class Camera(Source):
    """Live source that delivers frames while `on` is set, and whose state the test sets."""

    live = True
    period_ns = 40_000_000

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.on = threading.Event()
        self.now = State.CONNECTING
        self._stopped = threading.Event()

    @property
    def state(self) -> State:
        return self.now

    def interrupt(self) -> None:
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while not self._stopped.wait(0.02):
            if self.on.is_set():
                self.now = State.LIVE
                now_ns = time.monotonic_ns()
                frame = frame_at(0, source=self.name, index=index)
                yield replace(frame, stamp_ns=now_ns, clock=Clock.ARRIVAL, arrival_ns=now_ns)
                index += 1


def test_not_ready_until_both_streams_and_the_engine_are() -> None:
    ir, vis = Camera("camera ir"), Camera("camera vis")
    loading = threading.Event()

    class Loading(PassThrough):
        def prepare(self, height: int, width: int) -> None:
            assert loading.wait(20)

    sink = PreviewSink("127.0.0.1:0")
    pipeline = Pipeline(ir, vis, sinks=[sink], fuser=Fuser(engine=Loading()), tolerance_ms=60)

    def reasons() -> list[str]:
        status, text = get(sink, "readyz")
        answer = json.loads(text)
        assert (status, answer["ready"]) == ((503, False) if answer["reasons"] else (200, True))
        return list(answer["reasons"])

    running = threading.Thread(target=pipeline.run)
    running.start()
    try:
        engine = NOT_LOADED
        assert reasons() == ["infrared: connecting", "visible: connecting", engine]
        ir.on.set()
        until(lambda: reasons() == ["visible: connecting", engine])
        vis.on.set()
        until(lambda: reasons() == [engine])
        loading.set()
        until(lambda: reasons() == [])
        until(lambda: sink.hub.newest is not None)
        values = metrics(sink)
        assert of(values, "frames_fused_total") > 0
        assert of(values, "stage_seconds_count", stage="arrival to fused") > 0
        assert of(values, "source_state", stream="visible", streamfuse_source_state="live") == 1
        vis.on.clear()
        vis.now = State.BACKOFF
        until(lambda: reasons() == ["visible: waiting to reconnect"])
    finally:
        pipeline.stop()
        running.join()
    assert pipeline.summary().written == {}  # the preview is best-effort: its frames do not count as written


def test_drops_of_a_run_have_the_names_of_its_streams_and_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    """Names with a colon in them are whole in the metrics, the JSON and the summary."""

    class Losing(Sink):
        name = "Take 2: night.mp4"

        def __init__(self) -> None:
            self.drops: Counter[str] = Counter()

        def write(self, frame: FusedFrame) -> None:
            self.drops["late: by far"] += 1

        def close(self, *, failed: bool = False) -> None:
            pass

    def source(count: int) -> ListSource:
        listed = ListSource([frame_at(40 * k, index=k, source="Take 2: ir.mp4") for k in range(count)])
        listed.name = "Take 2: ir.mp4"
        listed.repeated["FFC: shutter closed"] = 2
        return listed

    preview = PreviewSink("127.0.0.1:0")
    pipeline = Pipeline(source(5), source(7), sinks=[Losing()], fuser=Fuser(engine=PassThrough()))
    summary = pipeline.run()
    preview.attach(pipeline.summary)
    try:
        values = metrics(preview)
        status = json.loads(get(preview, "status")[1])
    finally:
        preview.close()
    by_reason = {tuple(sorted(labels)): value for (name, labels), value in values.items() if "dropped" in name}
    assert by_reason == {
        (("reason", "after the other stream ended"), ("stream", "visible")): 2,
        (("reason", "late: by far"), ("stream", "Take 2: night.mp4")): 5,
    }
    assert of(values, "frames_repeated_total", stream="infrared", reason="FFC: shutter closed") == 2
    drops = {"visible": {"after the other stream ended": 2}, "Take 2: night.mp4": {"late: by far": 5}}
    assert (status["drops"], status["dropped"]) == (drops, 7)
    assert status["repeated"]["visible"] == {"FFC: shutter closed": 2}
    show_summary(summary)
    said = capsys.readouterr().err
    assert "  5  Take 2: night.mp4: late: by far\n" in said
    assert "  2  visible: after the other stream ended\n" in said


def test_metrics_site_has_no_pictures() -> None:
    sink = PreviewSink(metrics="127.0.0.1:0")
    sink.attach(Run())
    try:
        sink.write(picture())
        assert get(sink, "healthz") == (200, "alive\n")
        assert of(metrics(sink), "frames_fused_total") == 10
        assert [get(sink, path)[0] for path in ("", "snapshot.jpg", "socket")] == [404] * 3
    finally:
        sink.close()
