"""Units that a run gives to the workers, and its handling of their results and deaths."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import KilledWorker
from media import PassThrough, every, read_video, write_video

from streamfuse.batch import run, warm, worker
from streamfuse.batch.options import BatchOptions, check
from streamfuse.batch.recordings import Recording
from streamfuse.batch.run import Entry, Run, Status, idle, plan
from streamfuse.errors import StreamfuseError
from streamfuse.options import FusionOptions
from streamfuse.sinks.video_format import VideoFormat

GOP = {"g": "3", "keyint_min": "3", "sc_threshold": "0"}


class Work(Future[Any]):
    """A unit that was given away."""

    def __init__(self, key: str, do: Callable[[], Any]) -> None:
        super().__init__()
        self.key, self.do, self.status = key, do, "pending"

    def release(self) -> None:
        pass

    def end(self, status: str) -> None:
        self.status = status
        if status == "cancelled":
            self.set_exception(CancelledError())
            return
        try:
            self.set_result(self.do())
        except Exception as error:
            self.set_exception(error)


class Here:
    """Stands in for a Dask cluster; units are done in this process, the newest first."""

    status = "running"
    end = "finished"

    def __init__(self, threads: int = 1, dies: Callable[[Recording], bool] = lambda recording: False) -> None:
        self._threads, self._dies = threads, dies
        self.given: list[Work] = []
        self.log: list[tuple[str, str, int]] = []
        """Kind and recording of every unit done, and the number of units waiting then."""
        self.cancelled: list[Work] = []

    def nthreads(self) -> dict[str, int]:
        return {"tcp://here:1": self._threads} if self._threads else {}

    def subscribe_topic(self, topic: str, handler: Callable[[Any], None]) -> None:
        self.hear = handler

    def submit(self, work: Callable[..., Any], recording: Recording, *args: Any, key: str, pure: bool) -> Work:
        def do() -> Any:
            self.log.append((key.split("-")[0], recording.output.stem, len(self.given)))
            if self._dies(recording):
                raise KilledWorker(key, None, 2)  # type: ignore[arg-type]
            return work(recording, *args)

        self.given.append(Work(key, do))
        return self.given[-1]

    def cancel(self, futures: list[Work], force: bool) -> None:
        self.cancelled += futures

    def tick(self, state: run.State) -> None:
        if self.given:
            self.given.pop().end(self.end)


@pytest.fixture
def fusing(monkeypatch: pytest.MonkeyPatch) -> BatchOptions:
    monkeypatch.setattr(warm, "_idle", {})
    monkeypatch.setattr(warm, "_make_engine", lambda fusing: PassThrough())
    return check(BatchOptions(), [])


def recordings(root: Path, count: int, frames: int = 3) -> list[Recording]:
    video = str(write_video(root / "both.mp4", every(40, frames)))
    return [Recording(root / f"{k}.mp4", video, video) for k in range(count)]


def run_all(here: Here, recordings: list[Recording], fusing: BatchOptions, force: bool = False) -> list[Entry]:
    entries = plan(recordings, fusing, force)
    a_run = Run(here, entries, fusing, force)  # type: ignore[arg-type]
    a_run(here.tick)
    state = a_run.state()
    assert (state.done, state.failed, state.running) == (idle(entries).done, idle(entries).failed, 0)
    assert state.frames == sum(
        entry.figures["frames"] for entry in entries if entry.status is Status.DONE and entry.figures
    )
    return entries


def test_parts_that_finish_in_any_order_are_joined_in_theirs(tmp_path: Path, fusing: BatchOptions) -> None:
    """The second of four has no infrared, and so no file."""
    vis = write_video(tmp_path / "vis.mp4", every(400, 50), options=GOP)
    there = [stamp for stamp in every(400, 50) if not 4500 < stamp < 10_500]
    ir = write_video(tmp_path / "ir.mp4", there, options=GOP)
    recording, unsplit = (Recording(tmp_path / name, str(ir), str(vis)) for name in ("recording.mp4", "unsplit.mp4"))
    here = Here(4)
    (entry,) = run_all(here, [recording], check(BatchOptions(split_s=5), []))
    assert [kind for kind, _, _ in here.log] == ["look", "segment", "segment", "segment", "segment", "join"]
    assert list(entry.segments) == [3, 2, 1, 0]
    run_all(Here(), [unsplit], fusing)
    times, pictures = read_video(recording.output)
    whole_times, whole = read_video(unsplit.output)
    assert times == whole_times
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(pictures, whole, strict=True)) < 1


def test_what_an_earlier_run_made_keeps_its_figures(tmp_path: Path, fusing: BatchOptions) -> None:
    listed = recordings(tmp_path, 1)
    (made,) = run_all(Here(), listed, fusing)
    here = Here()
    (entry,) = run_all(here, listed, fusing)
    assert (entry.status, entry.figures) == (Status.SKIPPED, made.figures)
    assert here.log == []
    other = check(BatchOptions(FusionOptions(video=VideoFormat(crf=30))), [])
    (entry,) = plan(listed, other, False)
    assert (entry.status, entry.code) == (Status.FAILED, 5)
    (entry,) = plan(listed, other, True)
    assert entry.status is Status.LEFT


@pytest.mark.parametrize("split_s", [None, 5.0])
def test_with_force_what_was_made_otherwise_is_replaced(
    tmp_path: Path, fusing: BatchOptions, split_s: float | None
) -> None:
    video = str(write_video(tmp_path / "long.mp4", every(400, 30), options=GOP))
    listed = [Recording(tmp_path / "fused.mp4", video, video)]
    run_all(Here(), listed, fusing)
    before = (tmp_path / "fused.mp4").read_bytes()
    here = Here()
    (entry,) = run_all(
        here, listed, check(BatchOptions(FusionOptions(video=VideoFormat(crf=40)), split_s=split_s), []), True
    )
    assert (entry.status, entry.error) == (Status.DONE, None)
    assert here.log[-1][0] == ("fuse" if split_s is None else "join")
    assert (tmp_path / "fused.mp4").read_bytes() != before
    assert not list(tmp_path.glob(".*.work"))


def test_no_more_is_given_than_there_are_threads(tmp_path: Path, fusing: BatchOptions) -> None:
    here = Here(2)
    entries = run_all(here, recordings(tmp_path, 5), fusing)
    assert [entry.status for entry in entries] == [Status.DONE] * 5
    assert max(others for _, _, others in here.log) == 1


def test_a_recording_whose_workers_died_is_tried_again_with_nothing_else_running(
    tmp_path: Path, fusing: BatchOptions
) -> None:
    deaths = iter([True])
    here = Here(2, lambda recording: recording.output.stem == "1" and next(deaths, False))
    entries = run_all(here, recordings(tmp_path, 4), fusing)
    assert [entry.status for entry in entries] == [Status.DONE] * 4
    assert [(name, others) for _, name, others in here.log if name == "1"][-1] == ("1", 0)
    assert here.log[-1][1] == "1"


@pytest.mark.parametrize("count", [1, 3])
def test_a_recording_whose_workers_always_die_fails_and_no_other(
    tmp_path: Path, fusing: BatchOptions, count: int
) -> None:
    here = Here(2, lambda recording: recording.output.stem == "0")
    entries = run_all(here, recordings(tmp_path, count), fusing)
    assert [entry.status for entry in entries] == [Status.FAILED] + [Status.DONE] * (count - 1)
    assert "every worker that ran it died" in str(entries[0].error)
    assert entries[0].code == 1
    assert [name for _, name, _ in here.log].count("0") == 2


@pytest.mark.parametrize("died", [False, True])
def test_when_a_part_fails_the_others_are_not_begun(
    tmp_path: Path, fusing: BatchOptions, monkeypatch: pytest.MonkeyPatch, died: bool
) -> None:
    """Two units run; the first to end fails, or its worker dies and then the other fails."""
    video = str(write_video(tmp_path / "long.mp4", every(400, 50), options=GOP))
    long, short = Recording(tmp_path / "long-fused.mp4", video, video), recordings(tmp_path, 1)[0]
    fuse = worker.fuse

    def fuse_or_fail(recording: Recording, *args: Any) -> worker.Outcome:
        return (
            worker.Outcome(f"no place for {args[-1]}", 5, "Traceback") if recording is long else fuse(recording, *args)
        )

    monkeypatch.setattr(worker, "fuse", fuse_or_fail)
    deaths = iter([False, died])  # while it looks, and of the first segment
    here = Here(2, lambda recording: recording is long and next(deaths, False))
    entries = run_all(here, [long, short], check(BatchOptions(split_s=5), []))
    failed = entries[0]
    assert (failed.status, failed.code, failed.trace) == (Status.FAILED, 5, "Traceback")
    assert failed.error == f"no place for {int(died)}"
    assert entries[1].status is Status.DONE
    assert [(kind, name) for kind, name, _ in here.log].count(("segment", "long-fused")) == 2 + died


def test_what_a_worker_sends_that_cannot_run_us_fails_that_clip(tmp_path: Path, fusing: BatchOptions) -> None:
    def broken(recording: Recording) -> bool:
        if recording.output.stem == "0":
            raise ModuleNotFoundError("No module named 'streamfuse'\nmore")
        return False

    entries = run_all(Here(1, broken), recordings(tmp_path, 2), fusing)
    assert entries[0].error == "a worker could not run it: ModuleNotFoundError: No module named 'streamfuse'"
    assert (entries[0].code, entries[1].status) == (1, Status.DONE)


def test_a_cluster_that_is_lost_is_said_and_nothing_counts_as_failed(tmp_path: Path, fusing: BatchOptions) -> None:
    here = Here(2)
    here.end, here.status = "cancelled", "closed"
    entries = plan(recordings(tmp_path, 2), fusing, False)
    with pytest.raises(StreamfuseError, match="does not answer any more"):
        Run(here, entries, fusing, False)(here.tick)  # type: ignore[arg-type]
    assert [entry.status for entry in entries] == [Status.LEFT] * 2
    assert here.cancelled == []

    def gone() -> dict[str, int]:
        raise TimeoutError

    here.nthreads = gone  # type: ignore[method-assign]
    with pytest.raises(StreamfuseError, match="does not answer any more"):
        Run(here, entries, fusing, False)(here.tick)  # type: ignore[arg-type]


def test_a_run_that_is_stopped_gives_up_what_runs(tmp_path: Path, fusing: BatchOptions) -> None:
    here = Here(2)
    entries = plan(recordings(tmp_path, 4), fusing, False)
    a_run = Run(here, entries, fusing, False)  # type: ignore[arg-type]
    states = []

    def tick(state: run.State) -> None:
        states.append(state)
        here.hear((0.0, {"key": here.given[0].key, "frames": 2}))
        if len(states) == 2:
            a_run.stop()

    a_run(tick)
    assert here.cancelled == here.given
    assert len(here.cancelled) == 2
    assert [entry.status for entry in entries] == [Status.LEFT] * 4
    assert [(state.running, state.frames, state.workers) for state in states] == [(2, 0, 1), (2, 2, 1)]


def test_a_cluster_without_workers_is_waited_on_and_said_once(
    tmp_path: Path, fusing: BatchOptions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run, "PATIENCE_S", 0.0)
    monkeypatch.setattr(run, "WORKERS_S", 0.0)
    here = Here(0)
    states: list[run.State] = []

    def tick(state: run.State) -> None:
        states.append(state)
        here._threads = int(len(states) >= 3)
        here.tick(state)

    entries = plan(recordings(tmp_path, 1), fusing, False)
    Run(here, entries, fusing, False)(tick)  # type: ignore[arg-type]
    assert entries[0].status is Status.DONE
    assert [record.getMessage() for record in caplog.records] == ["the cluster has no workers: waiting for one"]
