"""Video files as sources: real files, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media import MS, every, luma_of, number_of, write_video

from streamfuse.color import Matrix
from streamfuse.errors import InputError
from streamfuse.frames import Frame
from streamfuse.sources.file import BACKWARDS, CORRUPT, VideoFile


def frames_of(path: Path) -> tuple[list[Frame], VideoFile]:
    with VideoFile(path) as source:
        return list(source), source


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mp4", "libx264", "yuv422p"),
        ("a.mp4", "libx264", "yuv444p"),
        ("a.mkv", "ffv1", "yuv420p10le"),
        ("a.mkv", "ffv1", "bgr0"),
        ("a.mkv", "ffv1", "gray"),
        ("a.mkv", "libx265", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.mov", "mpeg4", "yuv420p"),
    ],
)
def test_any_codec_gives_full_range_luma_and_stamps(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    path = write_video(tmp_path / name, every(40, 12), codec=codec, pixel_format=pixel_format, u=118, v=140)
    frames, source = frames_of(path)
    assert source.size == (48, 64)
    assert [round(frame.stamp_ns / MS) for frame in frames] == every(40, 12)
    assert [number_of(frame.luma) for frame in frames] == list(range(12))
    assert abs(int(frames[0].luma[4, 4]) - 230) <= 8
    assert source.damage is None
    assert not source.drops
    for frame in frames:
        if pixel_format == "gray":
            assert frame.chroma is None
        else:
            assert frame.chroma is not None
            assert abs(int(frame.chroma.u.mean()) - 118) <= 3
            assert abs(int(frame.chroma.v.mean()) - 140) <= 3


def test_sixteen_bit_grey_uses_the_whole_range(tmp_path: Path) -> None:
    """A thermal recording uses a few of 65,536 levels."""
    path = write_video(tmp_path / "a.mkv", every(40, 3), codec="ffv1", pixel_format="gray16le")
    frames, _ = frames_of(path)
    assert frames[0].luma.dtype == np.uint8
    assert frames[0].luma.min() <= 2
    assert frames[0].luma.max() >= 253


def test_stamps_of_variable_frame_rate_and_start_are_kept(tmp_path: Path) -> None:
    stamps = [200.0, 233.0, 300.0, 301.0, 900.0]
    frames, source = frames_of(write_video(tmp_path / "a.mp4", stamps))
    assert [frame.stamp_ns / MS for frame in frames] == pytest.approx(stamps, abs=0.02)
    assert source.first_stamp_ns is not None
    assert source.first_stamp_ns / MS == pytest.approx(200, abs=0.02)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_recording_that_starts_late_is_whole(tmp_path: Path, name: str) -> None:
    """Matroska's DURATION tag is the end, not the length."""
    frames, source = frames_of(write_video(tmp_path / name, every(40, 10, start_ms=5000)))
    assert len(frames) == 10
    assert source.damage is None
    assert source.frame_count == 10


def test_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would take the part before the colon for a protocol."""
    write_video(tmp_path / "a.mp4", [0]).rename(tmp_path / "12:00:00.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(frames_of(Path("12:00:00.mp4"))[0]) == 1


def test_transport_stream_starts_at_zero(tmp_path: Path) -> None:
    """The clock of MPEG-TS may start at any value; FFmpeg writes 1.4 s."""
    frames, _ = frames_of(write_video(tmp_path / "a.ts", every(40, 5)))
    assert frames[0].stamp_ns == 0


def test_avi_with_b_frames_has_presentation_order(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", every(40, 30), options={"bf": "2"})
    frames, source = frames_of(path)
    assert [round(frame.stamp_ns / MS) for frame in frames] == every(40, 30)
    assert [number_of(frame.luma) for frame in frames] == list(range(30))
    assert not source.drops


def test_matrix_of_the_colours_is_read(tmp_path: Path) -> None:
    frames, _ = frames_of(write_video(tmp_path / "a.mp4", [0], options={"x264-params": "colormatrix=bt709"}))
    assert frames[0].chroma is not None
    assert frames[0].chroma.matrix is Matrix.BT709
    frames, _ = frames_of(write_video(tmp_path / "b.mp4", [0]))
    assert frames[0].chroma is not None
    assert frames[0].chroma.matrix is Matrix.BT601  # a small picture without a tag


def test_odd_size(tmp_path: Path) -> None:
    frames, source = frames_of(write_video(tmp_path / "a.mkv", [0, 40], size=(49, 67), codec="ffv1"))
    assert source.size == (49, 67)
    assert frames[0].luma.shape == (49, 67)
    assert frames[0].chroma is not None
    assert frames[0].chroma.u.shape == (25, 34)


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    short = path.with_name(f"cut{path.suffix}")
    short.write_bytes(data[: int(len(data) * share)])
    return short


def heavy(path: Path, frames: int, container: dict[str, str] | None = None) -> Path:
    """Write a video with enough bytes per frame that damage affects only some frames."""
    return write_video(path, every(40, frames), options={"g": "5"}, container=container, grain=True)


def test_truncated_mp4_is_read_as_far_as_possible(tmp_path: Path) -> None:
    whole = heavy(tmp_path / "a.mp4", 60, container={"movflags": "faststart"})
    frames, source = frames_of(cut(whole, 0.7))
    assert 10 < len(frames) < 60
    assert source.damage is not None
    assert f"{len(frames)} of 60 frames" in source.damage


def test_truncated_matroska_error_gives_the_time(tmp_path: Path) -> None:
    frames, source = frames_of(cut(heavy(tmp_path / "a.mkv", 60), 0.6))
    assert 10 < len(frames) < 60
    assert source.damage is not None
    assert "of 2.40 s" in source.damage


def test_corrupt_middle_is_skipped_and_counted(tmp_path: Path) -> None:
    path = heavy(tmp_path / "a.mp4", 60, container={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[middle : middle + 600] = np.random.default_rng(0).bytes(600)
    path.write_bytes(data)
    frames, source = frames_of(path)
    assert source.drops[CORRUPT] >= 1
    assert len(frames) + source.drops[CORRUPT] == 60
    assert source.damage is None
    stamps = [frame.stamp_ns for frame in frames]
    assert stamps == sorted(set(stamps))
    assert number_of(frames[-1].luma) == 59


def test_frames_concealed_by_the_decoder_are_skipped_and_counted(tmp_path: Path) -> None:
    """FFmpeg conceals damage by copying from the previous frame, and marks the frame."""
    path = write_video(tmp_path / "a.avi", every(40, 60), codec="mpeg4", size=(96, 128), grain=True)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    path.write_bytes(data)
    frames, source = frames_of(path)
    assert source.drops[CORRUPT] >= 1
    assert len(frames) + source.drops[CORRUPT] == 60


def test_stamps_that_go_back_are_dropped(tmp_path: Path) -> None:
    source = VideoFile(write_video(tmp_path / "a.mp4", every(40, 4)))
    decoded = list(source._decode())
    source._decode = lambda: iter([decoded[0], decoded[2], decoded[1], decoded[3]])  # type: ignore[method-assign]
    assert [round(frame.stamp_ns / MS) for frame in source] == [0, 80, 120]
    assert source.drops == {BACKWARDS: 1}
    source.close()


def test_unreadable_files_give_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 50)
    write_video(tmp_path / "a.mp4", every(40, 30))
    for path, words in (
        (tmp_path / "none.mp4", "there is no file"),
        (tmp_path / "empty.mp4", "is empty"),
        (tmp_path / "text.mp4", "is not a video"),
        (cut(tmp_path / "a.mp4", 0.5), "cut off before its index"),
    ):
        with pytest.raises(InputError, match=words) as error:
            VideoFile(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_audio_only_file_is_not_a_video(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(InputError, match="no video stream"):
        VideoFile(path)


def test_pictures_are_not_copied_where_the_decoder_gives_full_range(tmp_path: Path) -> None:
    frames, _ = frames_of(write_video(tmp_path / "a.avi", [0], codec="mjpeg", pixel_format="yuvj420p"))
    assert frames[0].luma.base is not None
    assert abs(int(frames[0].luma[40, 60]) - int(luma_of(0)[40, 60])) <= 3
