"""Two recordings at once in one worker process do not affect each other."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from media import PassThrough, every, write_images, write_video

from streamfuse import notes
from streamfuse.batch import warm, worker
from streamfuse.batch.options import BatchOptions, check, made_of
from streamfuse.batch.recordings import Recording
from streamfuse.batch.worker import Outcome
from streamfuse.options import FusionOptions
from streamfuse.sinks.encoder import why_not
from streamfuse.sinks.video_format import VideoFormat
from streamfuse.sources.base import Source
from streamfuse.sources.file import VideoFile
from streamfuse.sources.options import SourceOptions


@pytest.fixture
def running_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two units open their sources only when both have begun, and end when both have opened them."""
    monkeypatch.setattr(warm, "_make_engine", lambda options: PassThrough())
    monkeypatch.setattr(warm, "_idle", {})
    begun, opened = threading.Barrier(2, timeout=60), threading.Barrier(2, timeout=60)
    open_recording = worker.open_recording

    def open_together(recording: Recording, fusion: FusionOptions) -> tuple[Source, Source]:
        begun.wait()
        try:
            return open_recording(recording, fusion)
        finally:
            opened.wait()

    monkeypatch.setattr(worker, "open_recording", open_together)


def fuse_both(*units: tuple[Recording, BatchOptions]) -> list[Outcome]:
    def fuse(unit: tuple[Recording, BatchOptions]) -> Outcome:
        return worker.fuse(*unit, made_of(*unit), False)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(fuse, units))


@pytest.mark.usefixtures("running_together")
def test_each_recording_has_its_own_pixel_limit(tmp_path: Path) -> None:
    video = str(write_video(tmp_path / "a.mp4", every(40, 5)))
    plain = check(BatchOptions(), [])
    strict = replace(plain, fusion=replace(plain.fusion, sources=SourceOptions(max_pixels=100)))
    refused, fused = (Recording(tmp_path / name, video, video) for name in ("refused.mp4", "fused.mp4"))
    outcomes = fuse_both((refused, strict), (fused, plain))
    assert "more than 100 are refused" in (outcomes[0].error or "")
    assert outcomes[1].error is None
    with VideoFile(Path(video)) as source:  # the limit does not persist
        assert len(list(source)) == 5


@pytest.mark.usefixtures("running_together")
def test_each_recording_has_its_own_notes(tmp_path: Path) -> None:
    """One note from the thread of the unit, one from a thread of its pipeline, and the other recording has neither."""
    if why_not("h264_nvenc") is None:
        pytest.skip("needs a machine without NVENC")
    video = str(write_video(tmp_path / "a.mp4", every(40, 5)))
    ir = str(write_images(tmp_path / "ir", ["1.png", "2.png"]))
    vis = str(write_images(tmp_path / "vis", ["11.png", "12.png"]))
    plain = check(BatchOptions(), [])
    hardware = replace(plain, fusion=replace(plain.fusion, video=VideoFormat(hardware=True)))
    noisy, quiet = Recording(tmp_path / "noisy.mp4", ir, vis), Recording(tmp_path / "quiet.mp4", video, video)
    for again in ("", "-again"):  # the process has logged it once: the next recording gets it too
        one = replace(noisy, output=tmp_path / f"noisy{again}.mp4")
        two = replace(quiet, output=tmp_path / f"quiet{again}.mp4")
        loud, still = fuse_both((one, hardware), (two, plain))
        assert loud.figures is not None, loud.error
        assert still.figures is not None, still.error
        said = loud.figures["notes"]
        assert len(said) == 2
        assert "pairing them in order" in said[0]
        assert said[1].startswith("h264_nvenc is not available")
        assert still.figures["notes"] == []
    assert not any(isinstance(handler, notes._Collector) for handler in logging.getLogger("streamfuse").handlers)


def test_a_process_warns_once_outside_of_recordings(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        notes.warn_once("only once, please")
    assert [record.getMessage() for record in caplog.records].count("only once, please") == 1
