"""Decoding and encoding of video on a GPU, with fallback to the CPU."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from command_line import SMALL, streamfuse
from media import every, number_of, read_video, write_video

from streamfuse.errors import InputError, UsageError
from streamfuse.frames import FusedFrame
from streamfuse.sinks.encoder import NVENC, why_not
from streamfuse.sinks.video import VideoSink
from streamfuse.sinks.video_format import VideoFormat
from streamfuse.sources.file import VideoFile
from streamfuse.sources.options import SourceOptions

no_nvenc = pytest.mark.skipif(why_not(NVENC["h264"]) is None, reason="there is an NVIDIA GPU that encodes")
needs_nvenc = pytest.mark.skipif(why_not(NVENC["h264"]) is not None, reason="needs an NVIDIA GPU that encodes")


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr("streamfuse.notes._said", set())
    caplog.set_level(logging.WARNING, "streamfuse")
    return caplog


def encode(path: Path, video: VideoFormat, size: tuple[int, int] = (48, 64)) -> list[int]:
    """Write ten frames of rising levels; return the frames that are read back."""
    sink = VideoSink(path, video)
    for k in range(10):
        sink.write(FusedFrame(np.full(size, 20 * k, np.uint8), None, k, k * 40_000_000))
    sink.close()
    times, pictures = read_video(path)
    assert times == pytest.approx(every(40, 10), abs=0.02)
    return [int(picture.mean()) for picture in pictures]


@no_nvenc
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_encodes_on_the_cpu_where_the_gpu_does_not(tmp_path: Path, notes: pytest.LogCaptureFixture, codec: str) -> None:
    levels = [encode(tmp_path / f"{k}.mp4", VideoFormat(codec, hardware=k > 0)) for k in range(3)]
    assert levels[0] == levels[1] == levels[2]
    (note,) = notes.records
    assert note.getMessage().startswith(f"{NVENC[codec]} is not available (")
    assert note.getMessage().endswith("; encoding on the CPU")


def test_lossless_is_not_encoded_on_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave out --hw-encode"):
        VideoSink(tmp_path / "a.mkv", VideoFormat("ffv1", hardware=True))


def test_missing_encoder_is_reported() -> None:
    assert why_not("warp") is not None
    assert why_not("libx264") is None


@no_nvenc
def test_decodes_on_the_cpu_where_the_gpu_does_not(tmp_path: Path, notes: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "a.mp4", every(40, 12))
    for gpu in (None, 0, 0):
        with VideoFile(path, SourceOptions(gpu=gpu)) as source:
            assert [number_of(frame.luma) for frame in source] == [*range(12)]
    (note,) = notes.records
    assert note.getMessage().startswith("cuda:0 does not decode this kind of video here (")


def test_unreadable_file_is_not_blamed_on_the_gpu(tmp_path: Path, notes: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video" * 1000)
    with pytest.raises(InputError, match="is not a video"):
        VideoFile(tmp_path / "a.mp4", SourceOptions(gpu=0))
    assert not notes.records


@no_nvenc
def test_run_succeeds_with_a_note_for_each(tmp_path: Path) -> None:
    ir, vis = (write_video(tmp_path / name, every(40, 6)) for name in ("ir.mp4", "vis.mp4"))
    hardware = ["--hw-decode", "--hw-encode", "--device", "cpu"]
    done = streamfuse("run", "--ir", ir, "--vis", vis, "-o", tmp_path / "out.mp4", *SMALL, *hardware)
    assert done.returncode == 0, done.stderr
    assert [line.rpartition("; ")[2] for line in done.stderr.splitlines() if line.startswith("note: ")] == [
        "decoding on the CPU",
        "encoding on the CPU",
    ]
    assert len(read_video(tmp_path / "out.mp4")[0]) == 6


@pytest.mark.gpu
@needs_nvenc
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_gpu_encodes(tmp_path: Path, notes: pytest.LogCaptureFixture, codec: str) -> None:
    size = (240, 320)
    on_cpu = encode(tmp_path / "cpu.mp4", VideoFormat(codec), size)
    on_gpu = encode(tmp_path / "gpu.mp4", VideoFormat(codec, hardware=True), size)
    assert np.abs(np.subtract(on_cpu, on_gpu)).max() <= 2
    assert not notes.records


@pytest.mark.gpu
@needs_nvenc
def test_gpu_decodes(tmp_path: Path, notes: pytest.LogCaptureFixture) -> None:
    encode(tmp_path / "a.mp4", VideoFormat(), (240, 320))
    frames = []
    for gpu in (None, 0):
        with VideoFile(tmp_path / "a.mp4", SourceOptions(gpu=gpu)) as source:
            frames.append([(frame.luma.copy(), frame.stamp_ns) for frame in source])
    assert len(frames[0]) == 10
    for (luma, stamp_ns), (expected, at_ns) in zip(*frames, strict=True):
        assert stamp_ns == at_ns
        assert np.array_equal(luma, expected)
    assert not notes.records
