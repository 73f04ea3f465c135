"""Threads, queues and life cycle, with an engine that computes nothing."""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from media import MS, ListSource, PassThrough, every, frame_at, number_of, read_video, write_images, write_video

from streamfuse.color import Plane
from streamfuse.errors import DamagedInput, EngineError, InputError, OutputError, UsageError
from streamfuse.frames import FusedFrame, Role
from streamfuse.fuser import Fuser
from streamfuse.pairing.live import Policy
from streamfuse.pipeline import Pipeline
from streamfuse.sinks import open_sink
from streamfuse.sinks.base import Sink
from streamfuse.sinks.preview import PreviewSink
from streamfuse.sinks.video import VideoSink
from streamfuse.sinks.zeromq import ZeroMQSink
from streamfuse.sources import open_pair
from streamfuse.sources.vot import open_vot
from streamfuse.telemetry import STAGES


class Keep(Sink):
    """A sink that keeps its frames."""

    name = "kept"

    def __init__(self) -> None:
        self.frames: list[FusedFrame] = []
        self.closed: list[bool] = []

    def write(self, frame: FusedFrame) -> None:
        self.frames.append(frame)

    def close(self, *, failed: bool = False) -> None:
        self.closed.append(failed)


def fuser() -> Fuser:
    return Fuser(engine=PassThrough(), tone="per-frame")


def frames(count: int, period_ms: float = 40, start_ms: float = 0, **kind: object) -> ListSource:
    stamps = every(period_ms, count, start_ms)
    return ListSource([frame_at(t, index=k, colour=True) for k, t in enumerate(stamps)], **kind)  # type: ignore[arg-type]


def no_threads_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("streamfuse")]


def test_every_pair_is_fused_in_order_under_the_visible_colour(tmp_path: Path) -> None:
    ir = write_video(tmp_path / "ir.mp4", every(40, 30))
    vis = write_video(tmp_path / "vis.mp4", every(40, 30), u=100, v=160)
    out = tmp_path / "out.mp4"
    summary = Pipeline(ir, vis, sinks=[open_sink(str(out))], fuser=fuser()).run()
    times, pictures = read_video(out)
    assert times == pytest.approx(every(40, 30), abs=0.02)
    assert [number_of(picture) for picture in pictures] == list(range(30))
    assert (summary.pairs, summary.fused, summary.written, summary.drops) == (30, 30, {str(out): 30}, {})
    assert set(summary.stages) == set(STAGES)
    assert no_threads_left()


def test_iteration_gives_fused_frames() -> None:
    with Pipeline(frames(12), frames(12), fuser=fuser()) as pipeline:
        got = list(pipeline)
    assert [frame.index for frame in got] == list(range(12))
    assert [number_of(frame.luma) for frame in got] == list(range(12))
    assert got[3].vis_stamp_ns == got[3].ir_stamp_ns == 120 * MS
    assert got[3].timings_ns.keys() == {"align", "fuse", "tone"}
    assert got[3].to_bgr().shape == (48, 64, 3)


def test_leaving_the_iteration_early_stops_everything() -> None:
    ir, vis = frames(500), frames(500)
    with Pipeline(ir, vis, fuser=fuser()) as pipeline:
        for frame in pipeline:
            if frame.index == 3:
                break
    assert ir.closed
    assert vis.closed
    assert no_threads_left()


def test_pipeline_that_was_never_started_closes_its_sources(tmp_path: Path) -> None:
    ir, vis = frames(1), frames(1)
    out = tmp_path / "out.mp4"
    with Pipeline(ir, vis, sinks=[open_sink(str(out))], fuser=fuser()):
        pass
    assert ir.closed
    assert vis.closed
    assert not out.exists()


def test_recordings_wait_instead_of_dropping() -> None:
    """A reader may be at most four frames ahead, and nothing is lost."""
    gate = threading.Event()

    class Gated(PassThrough):
        def fuse(self, ir: Plane, vis: Plane) -> npt.NDArray[np.float32]:
            assert gate.wait(20)
            return super().fuse(ir, vis)

    ir, vis = frames(100), frames(100)
    sink = Keep()
    pipeline = Pipeline(ir, vis, sinks=[sink], fuser=Fuser(engine=Gated()))
    read_while_blocked: list[int] = []

    def look(_: object) -> None:
        if not gate.is_set():
            read_while_blocked.append(pipeline.summary().read.get(Role.IR, 0))
            if len(read_while_blocked) >= 3:
                gate.set()

    summary = pipeline.run(look)
    assert max(read_while_blocked) <= 4 + 3  # in the channel, in the pairing, in the reader
    assert len(sink.frames) == 100
    assert summary.drops == {}


def test_shorter_stream_ends_the_run_and_the_rest_is_counted(tmp_path: Path) -> None:
    ir = write_video(tmp_path / "ir.mp4", every(40, 10))
    vis = write_video(tmp_path / "vis.mp4", every(40, 60))
    summary = Pipeline(ir, vis, fuser=fuser()).run()
    assert summary.pairs == 10
    assert summary.drops == {"visible": {"after the other stream ended": 50}}


def test_different_rates_and_offset() -> None:
    with Pipeline(frames(9, 100, start_ms=1000), frames(40, 25), ir_offset_ms=-1000, fuser=fuser()) as pipeline:
        stamps = [((frame.ir_stamp_ns or 0) // MS, frame.time_ns // MS) for frame in pipeline]
    assert stamps == [(1000 + t, t) for t in range(0, 900, 100)]


def test_no_pairs_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"no infrared frame is within 20\.0 ms.*--ir-offset-ms -5000"):
        Pipeline(frames(5, start_ms=5000), frames(5), fuser=fuser()).run()


def test_empty_source_is_named() -> None:
    with pytest.raises(InputError, match="empty gave no frames"):
        Pipeline(ListSource([]), frames(5), fuser=fuser()).run()


def test_limit() -> None:
    sink = Keep()
    summary = Pipeline(frames(100), frames(100), sinks=[sink], frames=7, fuser=fuser()).run()
    assert len(sink.frames) == 7
    assert summary.pairs == 7
    assert sink.closed == [False]


def test_infrared_is_resized_with_one_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ir = write_video(tmp_path / "ir.mp4", every(40, 5), size=(24, 32))
    vis = write_video(tmp_path / "vis.mp4", every(40, 5))
    with caplog.at_level(logging.WARNING, "streamfuse"), Pipeline(ir, vis, fuser=fuser()) as pipeline:
        shapes = {frame.luma.shape for frame in pipeline}
    assert shapes == {(48, 64)}
    assert caplog.text.count("infrared is 32x24 and visible 64x48") == 1


def test_colour_infrared_is_reduced_to_luma(tmp_path: Path) -> None:
    ir = write_images(tmp_path / "ir", ["1.png", "2.png"], colour=True)
    vis = write_images(tmp_path / "vis", ["1.png", "2.png"])
    with Pipeline(ir, vis, fuser=fuser()) as pipeline:
        for frame in pipeline:
            assert frame.chroma is None
            assert number_of(frame.luma) == frame.index


def test_damaged_recording_is_fused_then_reported(tmp_path: Path) -> None:
    vis = write_video(tmp_path / "vis.mkv", every(40, 40), grain=True)
    short = tmp_path / "short.mkv"
    short.write_bytes(vis.read_bytes()[: vis.stat().st_size // 2])
    sink = Keep()
    with pytest.raises(DamagedInput, match=r"short\.mkv: cut off at .* frames were fused"):
        Pipeline(short, vis, sinks=[sink], fuser=fuser()).run()
    assert 5 < len(sink.frames) < 40
    assert sink.closed == [False]  # the output contains everything that was read


class BrokenEngine(PassThrough):
    def fuse(self, ir: Plane, vis: Plane) -> npt.NDArray[np.float32]:
        if number_of(vis) == 3:
            raise EngineError("out of luck")
        return super().fuse(ir, vis)


class BrokenSink(Keep):
    def write(self, frame: FusedFrame) -> None:
        super().write(frame)
        if frame.index == 3:
            raise OutputError("the disk is full")


class BrokenSource(ListSource):
    def __iter__(self):  # type: ignore[no-untyped-def]
        yield from self._frames[:3]
        raise InputError("the cable was pulled")


def test_engine_error_ends_the_run_and_is_passed_to_the_sink() -> None:
    sink = Keep()
    with pytest.raises(EngineError, match="out of luck"):
        Pipeline(frames(50), frames(50), sinks=[sink], fuser=Fuser(engine=BrokenEngine())).run()
    assert [frame.index for frame in sink.frames] == [0, 1, 2]
    assert sink.closed == [True]
    assert no_threads_left()


class Overlapping(PassThrough):
    """An engine with up to three pairs in flight."""

    depth = 3

    def __init__(self) -> None:
        self.in_flight: list[int] = []

    def submit(self, ir: Plane, vis: Plane, tag: object = None) -> None:
        super().submit(ir, vis, tag)
        self.in_flight.append(self.pending)


def test_recordings_keep_several_pairs_in_flight() -> None:
    engine, sink = Overlapping(), Keep()
    summary = Pipeline(frames(12), frames(12), sinks=[sink], fuser=Fuser(engine=engine)).run()
    assert [number_of(frame.luma) for frame in sink.frames] == [frame.index for frame in sink.frames] == [*range(12)]
    assert [frame.vis_stamp_ns for frame in sink.frames] == [40 * MS * k for k in range(12)]
    for role in ("infrared", "visible"):
        assert [number_of(getattr(frame, role)) for frame in sink.frames] == [*range(12)]
    assert engine.in_flight == [1, 2] + [3] * 10
    assert (engine.pending, summary.pairs, summary.fused) == (0, 12, 12)


def test_pairs_in_flight_are_finished_before_the_size_changes() -> None:
    def sizes() -> ListSource:
        shapes = [(48, 64)] * 2 + [(64, 80)] * 3
        return ListSource(
            [replace(frame_at(40 * k, index=k), luma=np.full(s, k, np.uint8)) for k, s in enumerate(shapes)]
        )

    engine, sink = Overlapping(), Keep()
    Pipeline(sizes(), sizes(), sinks=[sink], fuser=Fuser(engine=engine)).run()
    assert [frame.luma[0, 0] for frame in sink.frames] == [0, 1, 2, 3, 4]
    assert engine.in_flight == [1, 2, 1, 2, 3]


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_pairs_in_flight_are_written_at_the_end(limit: int) -> None:
    sink = Keep()
    Pipeline(frames(20), frames(20), sinks=[sink], fuser=Fuser(engine=Overlapping()), frames=limit).run()
    assert [frame.index for frame in sink.frames] == [*range(limit)]


def test_live_pairs_are_written_immediately() -> None:
    engine, sink = Overlapping(), Keep()
    arrivals = {
        role: [replace(frame_at(40 * k, index=k), arrival_ns=time.monotonic_ns()) for k in range(3)]
        for role in ("ir", "vis")
    }
    sources = [ListSource(listed, live=True) for listed in arrivals.values()]
    Pipeline(*sources, sinks=[sink], fuser=Fuser(engine=engine), frames=2, policy=Policy.ORDERED).run()
    assert set(engine.in_flight) == {1}


def test_single_pictures_are_refused_while_pairs_are_in_flight() -> None:
    picture = np.zeros((48, 64), np.uint8)
    fuser = Fuser(engine=Overlapping())
    with pytest.raises(EngineError, match="no pair is in flight"):
        fuser.finish_luma()
    fuser.begin_luma(picture, picture, 0)
    with pytest.raises(EngineError, match="finish them before"):
        fuser.fuse(picture, picture)
    assert fuser.finish_luma().luma.shape == (48, 64)


def test_sink_error_ends_the_run_and_closes_the_others() -> None:
    broken, sink = BrokenSink(), Keep()
    broken.name = "broken"
    with pytest.raises(OutputError, match="disk is full"):
        Pipeline(frames(500), frames(500), sinks=[broken, sink], fuser=fuser()).run()
    assert broken.closed == [True]
    assert sink.closed == [True]
    assert no_threads_left()


def test_source_error_is_raised_by_the_iteration_too() -> None:
    broken = BrokenSource([frame_at(40 * k, index=k) for k in range(10)])
    with (
        pytest.raises(InputError, match="cable was pulled"),
        Pipeline(broken, frames(10), fuser=fuser()) as pipeline,
    ):
        list(pipeline)
    assert no_threads_left()


def test_stop_drains_and_counts() -> None:
    sink = Keep()
    ir, vis = frames(5000), frames(5000)
    pipeline = Pipeline(ir, vis, sinks=[sink], fuser=fuser())

    def stop(summary: object) -> None:
        pipeline.stop()

    summary = pipeline.run(stop)
    assert summary.fused == len(sink.frames)
    assert sink.closed == [True]  # not complete: an older output stays
    for role in Role:
        assert summary.read[role] == summary.pairs + sum(summary.drops.get(role.label, {}).values())


def test_live_and_recorded_do_not_mix(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "out.mp4"))
    with pytest.raises(InputError, match="no common clock"):
        Pipeline(frames(5, live=True), frames(5), sinks=[sink], fuser=fuser())
    assert not list(tmp_path.iterdir())


def test_source_error_reaches_the_sink_before_the_end() -> None:
    broken, sink = BrokenSource([frame_at(40 * k, index=k) for k in range(10)]), Keep()
    with pytest.raises(InputError, match="cable was pulled"):
        Pipeline(broken, frames(10), sinks=[sink], fuser=fuser()).run()
    assert sink.closed == [True]


def test_missing_images_are_counted_beside_those_left_unread(tmp_path: Path) -> None:
    write_images(tmp_path / "ir", [f"{k:08d}.png" for k in range(1, 6)])
    write_images(tmp_path / "color", [f"{k:08d}.png" for k in range(1, 31)])
    (tmp_path / "sequence").write_text("channels.ir=ir/%08d.png\nchannels.color=color/%08d.png\nlength=40\n")
    summary = Pipeline(*open_vot(tmp_path), fuser=fuser()).run()
    assert summary.pairs == 5
    assert summary.drops == {
        "infrared": {"missing image": 35},
        "visible": {"missing image": 10, "after the other stream ended": 25},
    }


def test_live_source_never_waits_and_drops_are_counted() -> None:
    gate = threading.Event()

    class Gated(PassThrough):
        def fuse(self, ir: Plane, vis: Plane) -> npt.NDArray[np.float32]:
            assert gate.wait(20)
            return super().fuse(ir, vis)

    class Live(ListSource):
        def __iter__(self):  # type: ignore[no-untyped-def]
            for frame in self._frames:
                yield replace(frame, arrival_ns=time.monotonic_ns())
            gate.set()  # reached although the engine is blocked

    def source() -> Live:
        return Live([frame_at(40 * k, index=k) for k in range(60)], live=True)

    sink = Keep()
    summary = Pipeline(source(), source(), sinks=[sink], fuser=Fuser(engine=Gated())).run()
    assert summary.drops["infrared"]["the engine was busy"] > 40
    assert sink.frames[-1].vis_stamp_ns == 59 * 40 * MS  # the newest frame is shown
    assert summary.read == {"ir": 60, "vis": 60}


def test_age_counts_from_the_earlier_frame_and_starts_with_a_ready_engine() -> None:
    """Frames from before the engine was ready exceed the budget; they are counted and not shown."""
    ready = threading.Event()

    class Slow(PassThrough):
        def prepare(self, height: int, width: int) -> None:
            assert ready.wait(20)

    class Live(ListSource):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield replace(self._frames[0], arrival_ns=time.monotonic_ns())
            threading.Event().wait(0.06)  # the budget of the first frame
            ready.set()
            for frame in self._frames[1:]:
                yield replace(frame, arrival_ns=time.monotonic_ns())

    def source() -> Live:
        return Live([frame_at(40 * k, index=k) for k in range(3)], live=True)

    sink = Keep()
    summary = Pipeline(source(), source(), sinks=[sink], fuser=Fuser(engine=Slow()), max_age_ms=50).run()
    for role in Role:
        assert summary.drops[role.label]["older than the age budget"] == 1
    assert sink.frames[0].vis_stamp_ns == 80 * MS


@pytest.mark.parametrize("late", ["ir", "vis"])
def test_the_age_of_a_pair_is_that_of_its_earlier_frame(late: str) -> None:
    now = time.monotonic_ns()
    arrivals = {"ir": now, "vis": now} | {late: now + 30 * MS}
    sources = {
        role: ListSource([replace(frame_at(0), arrival_ns=arrival)], live=True) for role, arrival in arrivals.items()
    }
    sink = Keep()
    Pipeline(sources["ir"], sources["vis"], sinks=[sink], fuser=fuser()).run()
    assert sink.frames[0].arrival_ns == now


def test_expected_pairs() -> None:
    assert Pipeline(frames(9, period_ns=100 * MS), frames(40, period_ns=25 * MS), fuser=fuser()).expected_pairs == 9
    assert Pipeline(frames(50), frames(40), frames=10, fuser=fuser()).expected_pairs == 10


def test_runs_once() -> None:
    pipeline = Pipeline(frames(2), frames(2), fuser=fuser())
    pipeline.run()
    with pytest.raises(RuntimeError, match="once"):
        pipeline.run()


def test_a_second_start_leaves_the_first_iteration_running() -> None:
    with Pipeline(frames(12), frames(12), fuser=fuser()) as pipeline:
        iteration = iter(pipeline)
        got = [next(iteration)]
        for start in (lambda: next(iter(pipeline)), pipeline.run):
            with pytest.raises(RuntimeError, match="once"):
                start()
        got += iteration
    assert [frame.index for frame in got] == list(range(12))


def test_a_closed_pipeline_does_not_start() -> None:
    pipeline = Pipeline(frames(2), frames(2), fuser=fuser())
    pipeline.close()
    with pytest.raises(RuntimeError, match="once"):
        next(iter(pipeline))


# What a constructor opened before it failed

WRONG: list[dict[str, Any]] = [
    *({"tolerance_ms": value} for value in (math.nan, math.inf, -1.0)),
    *({"ir_offset_ms": value} for value in (math.nan, -math.inf, 1e300)),
    *({"max_age_ms": value} for value in (math.nan, math.inf, -1.0)),
    *({"frames": 0}, {"policy": "newest"}, {"on_loss": "panic"}),
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_wrong_arguments_are_refused_and_nothing_stays_open(wrong: dict[str, Any], tmp_path: Path) -> None:
    ir, vis, kept = frames(2), frames(2), Keep()
    engine = Closing()
    (name,) = wrong
    with pytest.raises(UsageError, match=rf"^{name} must be|^unknown {name}"):
        Pipeline(ir, vis, sinks=[kept, open_sink(str(tmp_path / "out.mp4"))], fuser=Fuser(engine=engine), **wrong)
    assert (ir.closed, vis.closed, kept.closed) == (True, True, [True])
    assert not engine.closed  # a given fuser stays the caller's
    assert not list(tmp_path.iterdir())


def test_given_sources_are_closed_if_they_cannot_be_paired() -> None:
    for ir, vis in ((frames(2), "vis.mp4"), (frames(2, live=True), frames(2))):
        with pytest.raises((TypeError, InputError)):
            Pipeline(ir, vis, fuser=fuser())
        assert ir.closed
        assert not isinstance(vis, ListSource) or vis.closed


def test_sources_opened_by_the_pipeline_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = frames(2, live=True), frames(2)
    monkeypatch.setattr("streamfuse.pipeline.open_pair", lambda *names, **options: opened)
    with pytest.raises(InputError, match="no common clock"):
        Pipeline("ir.mp4", "vis.mp4", fuser=fuser())
    assert [source.closed for source in opened] == [True, True]


@pytest.mark.parametrize("started", [0, 2, 4])
def test_no_memory_for_another_thread(started: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start, names = threading.Thread.start, list[str]()

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("streamfuse"):
            names.append(thread.name)
            if len(names) > started:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    kept = [Keep(), Keep()]
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Pipeline(frames(2), frames(2), sinks=list(kept), fuser=fuser()).run()
    assert len(names) == started + 1
    assert [len(keep.closed) for keep in kept] == [1, 1]
    assert kept[1].closed == [True]


def test_a_sink_that_refuses_the_run_closes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Keep):
        def attach(self, state: object) -> None:
            raise OutputError("no")

    engine = Closing()
    monkeypatch.setattr("streamfuse.fuser.create_engine", lambda *args, **options: engine)
    ir, vis, kept, refusing = frames(2), frames(2), Keep(), Refusing()
    with pytest.raises(OutputError):
        Pipeline(ir, vis, sinks=[kept, refusing])
    assert (ir.closed, vis.closed, kept.closed, refusing.closed) == (True, True, [True], [True])
    assert engine.closed  # that of the default fuser


class Closing(PassThrough):
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        super().close()
        self.closed = True


@pytest.mark.parametrize("wrong", [{"tone": "loud"}, {"preset": "best"}, {"preset": "realtime"}], ids=str)
def test_failing_fuser_closes_its_own_engine(wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    engine, given = Closing(), Closing()
    made: list[object] = []

    def make(*args: object, **options: object) -> Closing:
        made.append(engine)
        return engine

    monkeypatch.setattr("streamfuse.fuser.create_engine", make)
    with pytest.raises((UsageError, EngineError)):
        Fuser(**wrong)
    assert (len(made), engine.closed) == (1, True)
    with pytest.raises((UsageError, EngineError)):
        Fuser(engine=given, **wrong)
    assert not given.closed
    with pytest.raises(InputError):
        Fuser(calibration="absent.toml")
    assert len(made) == 1  # a bad calibration is noticed before the engine is made


def test_failing_default_fuser_closes_sources_and_sinks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise EngineError("no engine")

    monkeypatch.setattr("streamfuse.fuser.create_engine", fail)
    ir, vis, kept = frames(2), frames(2), Keep()
    with pytest.raises(EngineError, match="no engine"):
        Pipeline(ir, vis, sinks=[kept])
    assert (ir.closed, vis.closed, kept.closed) == (True, True, [True])


# The fuser


def test_fuser_keeps_the_shape_and_the_colour() -> None:
    vis = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    ir = np.full((48, 64), 128, np.uint8)
    with fuser() as fuse:
        colour, grey = fuse.fuse(ir, vis), fuse.fuse(ir, vis[..., 0])
        assert fuse.fuse(np.full((20, 30, 3), 128, np.uint8), vis).shape == vis.shape
        with pytest.raises(InputError, match="1x1: the network needs 16 pixels"):
            fuse.fuse(ir, np.zeros((1, 1), np.uint8))
    assert colour.shape == vis.shape
    assert grey.shape == (48, 64)
    assert np.all(grey == 128)


@pytest.mark.parametrize(
    "picture", [None, np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)]
)
def test_fuser_refuses_invalid_pictures(picture: object) -> None:
    with fuser() as fuse, pytest.raises(InputError, match="the visible picture must be"):
        fuse.fuse(np.zeros((4, 4), np.uint8), picture)  # type: ignore[arg-type]


# Memory


@pytest.mark.parametrize("kind", ["run", "iterated", "left", "live", "served"])
def test_memory_is_freed_without_the_garbage_collector(kind: str, tmp_path: Path) -> None:
    """The collector runs rarely, and a decoder takes some megabytes."""
    video = write_video(tmp_path / "a.mp4", every(40, 4))
    live = "?live=1&size=64x48&fps=100"
    names = (f"synthetic:ir{live}", f"synthetic:vis{live}") if kind == "live" else (str(video), str(video))
    sinks: list[Sink] = [VideoSink(tmp_path / "out.mp4")]
    if kind == "served":
        sinks = [PreviewSink("127.0.0.1:0"), ZeroMQSink("tcp://127.0.0.1:*")]
    gc.collect()
    gc.disable()
    try:
        sources = open_pair(*names)
        pipeline = Pipeline(*sources, sinks=sinks, fuser=Fuser(engine=PassThrough(), tone="per-frame"), frames=3)
        held: list[weakref.ref[object]] = [weakref.ref(thing) for thing in (pipeline, *sources)]
        held += [weakref.ref(sink) for sink in sinks[kind == "served" :]]  # the web server needs the collector
        if kind in ("run", "live", "served"):
            pipeline.run()
        else:
            with pipeline:
                for _ in pipeline:
                    if kind == "left":
                        break
        del pipeline, sources, sinks
        assert [reference() for reference in held] == [None] * len(held)
    finally:
        gc.enable()
