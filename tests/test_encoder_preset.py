"""The encoder preset that keeps up with a live source."""

from __future__ import annotations

import logging
from pathlib import Path

import av
import numpy as np
import pytest
from media import PassThrough

from streamfuse.color import Chroma
from streamfuse.frames import FusedFrame
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sinks import encoder_preset
from streamfuse.sinks.encoder_preset import keep_up
from streamfuse.sinks.video import VideoSink
from streamfuse.sinks.video_format import VideoFormat

PERIOD_NS = 40_000_000


def example(height: int = 48, width: int = 64) -> FusedFrame:
    luma = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    grey = np.full((height // 2, width // 2), 128, np.uint8)
    return FusedFrame(luma, Chroma(grey, grey), 0, 0)


@pytest.mark.parametrize(
    ("times_ms", "chosen"),
    [
        ({"veryfast": 11}, "veryfast"),  # 0.15 of two cores and 40 ms is 12 ms
        ({"veryfast": 13, "superfast": 11}, "superfast"),
        ({"veryfast": 90, "superfast": 50, "ultrafast": 40}, "ultrafast"),  # nothing keeps up
    ],
)
def test_best_preset_that_keeps_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, times_ms: dict[str, int], chosen: str
) -> None:
    caplog.set_level(logging.INFO, "streamfuse")
    monkeypatch.setattr(encoder_preset, "usable_cpus", lambda: 2)
    tried = []

    def timed(video: VideoFormat, frame: FusedFrame, period_ns: int) -> int:
        tried.append(video.preset)
        return times_ms[video.preset] * 1_000_000

    video = keep_up(VideoFormat(crf=23), example(), PERIOD_NS, "a.mp4", timed)
    assert video == VideoFormat(crf=23, preset=chosen)
    assert tried == list(times_ms)
    said = f"a.mp4: encoder preset {chosen}, a frame takes {times_ms[chosen]} ms of one core" in caplog.text
    assert said is (chosen != "veryfast")


def test_a_long_frame_is_too_slow_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small frames are encoded by one thread."""
    monkeypatch.setattr(encoder_preset, "usable_cpus", lambda: 64)
    times = {"veryfast": 33_000_000, "superfast": 31_000_000}
    video = keep_up(VideoFormat(), example(), PERIOD_NS, "", lambda video, *_: times[video.preset])
    assert video.preset == "superfast"


@pytest.mark.parametrize("video", [VideoFormat(preset="slow"), VideoFormat("ffv1")])
def test_other_formats_are_not_measured(video: VideoFormat) -> None:
    def never(*_: object) -> int:
        raise AssertionError

    assert keep_up(video, example(), PERIOD_NS, "", never) is video


def test_encoding_is_timed() -> None:
    """By FFmpeg's encoder and the clock of the thread: more pixels take longer."""
    small, large = (
        encoder_preset._time(VideoFormat(preset="veryfast"), example(*size), PERIOD_NS)
        for size in ((48, 64), (480, 640))
    )
    assert 0 < small < large


@pytest.mark.parametrize("live", [True, False])
def test_only_live_streams_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: bool) -> None:
    """The choice is made with the first visible picture and used; a recording can wait, and is veryfast."""
    seen = []

    def found(video: VideoFormat, frame: FusedFrame, period_ns: int, name: str) -> VideoFormat:
        seen.append((frame.luma.shape, frame.chroma is not None, name))
        return VideoFormat(preset="ultrafast")

    monkeypatch.setattr("streamfuse.sinks.video.keep_up", found)
    path = tmp_path / "a.mp4"
    cameras = [f"synthetic:{role}?size=64x48&seconds=0.6{'&live=1' if live else ''}" for role in ("ir", "vis")]
    with Fuser(engine=PassThrough()) as fuser:
        summary = Pipeline(*cameras, sinks=[VideoSink(path)], fuser=fuser).run()
    assert summary.written[str(path)] > 0
    assert seen == ([((48, 64), True, str(path))] if live else [])
    with av.open(str(path)) as video:
        packet = next(video.demux(video=0))
        # x264 writes its settings into the first packet: ultrafast has no CABAC.
        assert (b"cabac=0" in bytes(packet)) is live
