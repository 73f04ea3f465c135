"""Video files as outputs: contents, crashes and errors."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import MS, every, luma_of, number_of, read_video

from streamfuse.color import Chroma, Matrix
from streamfuse.errors import OutputError, UsageError
from streamfuse.frames import Clock, FusedFrame
from streamfuse.sinks import open_sink, open_sinks, video_format
from streamfuse.sinks.video import VideoSink
from streamfuse.sinks.video_format import VideoFormat
from streamfuse.sources.file import VideoFile


def fused(
    index: int,
    stamp_ms: float,
    *,
    size: tuple[int, int] = (48, 64),
    chroma: Chroma | None = None,
    clock: Clock = Clock.MEDIA,
) -> FusedFrame:
    stamp_ns = round(stamp_ms * MS)
    return FusedFrame(luma_of(index, size), chroma, index, stamp_ns, stamp_ns, stamp_ns, clock, clock)


def coloured(size: tuple[int, int] = (48, 64), u: int = 90, v: int = 170, **kind: object) -> Chroma:
    shape = -(-size[0] // 2), -(-size[1] // 2)
    return Chroma(np.full(shape, u, np.uint8), np.full(shape, v, np.uint8), **kind)  # type: ignore[arg-type]


def write(path: Path, frames: list[FusedFrame], video: VideoFormat | None = None) -> None:
    sink = VideoSink(path, video)
    for frame in frames:
        sink.write(frame)
    sink.close()


@pytest.mark.parametrize(
    ("name", "video", "codec", "pixel_format"),
    [
        ("a.mp4", VideoFormat(), "h264", "yuv420p"),
        ("a.mov", VideoFormat(), "h264", "yuv420p"),
        ("a.mkv", VideoFormat(), "h264", "yuv420p"),
        ("a.mp4", VideoFormat("hevc", crf=18, preset="ultrafast"), "hevc", "yuv420p"),
        ("a.m4v", VideoFormat("hevc", crf=18, preset="ultrafast"), "hevc", "yuv420p"),
        ("a.mkv", VideoFormat("ffv1"), "ffv1", "yuv420p"),
    ],
)
def test_pictures_colours_and_stamps_round_trip(
    tmp_path: Path, name: str, video: VideoFormat, codec: str, pixel_format: str
) -> None:
    path = tmp_path / name
    stamps = [0.0, 40.0, 93.0, 120.0, 500.0]
    write(path, [fused(k, t, chroma=coloured()) for k, t in enumerate(stamps)], video)
    times, pictures = read_video(path)
    assert times == pytest.approx(stamps, abs=1.0 if name.endswith("mkv") else 0.02)  # Matroska counts in ms
    assert [number_of(picture) for picture in pictures] == list(range(5))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        frame = next(container.decode(video=0))
        assert (context.name, context.pix_fmt) == (codec, pixel_format)
        lossless = codec == "ffv1"
        assert (frame.color_range, frame.colorspace) == (2 if lossless else 1, 6)  # full or limited, BT.601
        for plane, value in ((1, 85 if lossless else 90), (2, 176 if lossless else 170)):
            rows = np.frombuffer(memoryview(frame.planes[plane]), np.uint8)
            assert abs(int(rows.reshape(24, -1)[:, :32].mean()) - value) <= 2


def test_lossless_is_lossless(tmp_path: Path) -> None:
    """All 256 levels are exact."""
    luma = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(2, 0)
    path = tmp_path / "a.mkv"
    frame = FusedFrame(luma, None, 0, 0)
    write(path, [frame], VideoFormat("ffv1"))
    with av.open(str(path)) as container:
        decoded = next(container.decode(video=0)).to_ndarray()
    assert np.array_equal(decoded, luma)
    with VideoFile(path) as source:
        assert np.array_equal(next(iter(source)).luma, luma)


def test_full_range_chroma_and_other_matrix(tmp_path: Path) -> None:
    chroma = coloured(u=20, v=250, full_range=True, matrix=Matrix.BT709)
    for name, video, values, tags in (
        ("a.mkv", VideoFormat("ffv1"), [20, 250], (2, 1)),
        (
            "a.mp4",
            VideoFormat(crf=0),
            [round((20 - 128) * 224 / 255 + 128), round((250 - 128) * 224 / 255 + 128)],
            (1, 1),
        ),
    ):
        write(tmp_path / name, [fused(0, 0, chroma=chroma)], video)
        with av.open(str(tmp_path / name)) as container:
            frame = next(container.decode(video=0))
            assert (frame.color_range, frame.colorspace) == tags
            assert [int(np.frombuffer(memoryview(frame.planes[k]), np.uint8)[0]) for k in (1, 2)] == values


@pytest.mark.parametrize("size", [(48, 64), (49, 67)])
def test_lossless_keeps_the_subsampling(tmp_path: Path, size: tuple[int, int]) -> None:
    write(tmp_path / "a.mkv", [fused(0, 0, size=size, chroma=coloured(size))], VideoFormat("ffv1"))
    with av.open(str(tmp_path / "a.mkv")) as container:
        frame = next(container.decode(video=0))
    assert (frame.format.name, frame.height, frame.width) == ("yuv420p", *size)


def test_start_of_a_recording_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", [fused(k, 1500 + 40 * k) for k in range(3)])
    assert read_video(tmp_path / "a.mp4")[0] == pytest.approx([1500, 1540, 1580], abs=0.02)


@pytest.mark.parametrize("later", [(96, 128), (30, 40)])
def test_live_stream_that_reconnects_with_another_size_is_resized(
    tmp_path: Path, later: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    sizes = [(48, 64), (48, 64), later, later]
    pictures = [fused(k, 40 * k, size=size, chroma=coloured(size), clock=Clock.ARRIVAL) for k, size in enumerate(sizes)]
    write(tmp_path / "a.mp4", pictures)
    _, lumas = read_video(tmp_path / "a.mp4")
    assert [luma.shape for luma in lumas] == [(48, 64)] * 4
    assert [number_of(luma) for luma in lumas] == [0, 1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'a.mp4'} is 64x48: pictures of {later[1]}x{later[0]} are resized to it"
    ]


@pytest.mark.parametrize("size", [(17, 16), (33, 47), (48, 65)])
def test_odd_sizes_are_padded_to_even_ones(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "a.mp4"
    write(path, [fused(k, 40 * k, size=size, chroma=coloured(size)) for k in range(3)])
    _, pictures = read_video(path)
    assert pictures[0].shape == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert np.abs(pictures[1][: size[0], : size[1]].astype(int) - luma_of(1, size)).mean() < 6
    if size[1] % 2:
        assert np.abs(pictures[1][:, -1].astype(int) - pictures[1][:, -2]).max() < 12


def test_video_of_one_frame_and_of_none(tmp_path: Path) -> None:
    write(tmp_path / "one.mp4", [fused(0, 0)])
    assert len(read_video(tmp_path / "one.mp4")[0]) == 1
    write(tmp_path / "none.mp4", [])
    assert not (tmp_path / "none.mp4").exists()


def test_closed_mp4_is_an_ordinary_mp4(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", [fused(k, 40 * k) for k in range(40)])
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.frames == 40
        assert stream.average_rate == Fraction(25)
        assert container.duration == pytest.approx(40 * 40_000, abs=1000)


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from test_video_sink import *
sink = VideoSink(Path({path!r}), period_ns=40 * MS)
for k in range(1000):
    sink.write(fused(k, 40 * k))
    print(k, flush=True)
    time.sleep({pace})
"""


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(("pace", "frames", "lost"), [(0.002, 200, 25), (0.1, 20, 10)])
def test_killed_writer_loses_at_most_the_last_second(
    tmp_path: Path, name: str, pace: float, frames: int, lost: int
) -> None:
    """Kill (SIGKILL) a process that writes fast, and one that writes slower than real time.

    At most one second is lost, of the recording and of the wall clock: 25 frames, or 10 at 10 frames a second.
    """
    path = tmp_path / name
    code = KILLED.format(tests=str(Path(__file__).parent), path=str(path), pace=pace)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= frames:
                process.send_signal(signal.SIGKILL)
                break
    times, pictures = read_video(path)
    assert frames - lost <= len(times)
    assert times == pytest.approx(every(40, len(times)), abs=1.0)
    assert number_of(pictures[12]) == 12


# Existing files


def test_existing_file_is_kept_without_force(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="--force"):
        VideoSink(path)
    assert path.read_bytes() == b"precious"


def test_force_replaces_only_when_done(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"precious")
    sink = VideoSink(path, force=True)
    for k in range(3):
        sink.write(fused(k, 40 * k))
    assert path.read_bytes() == b"precious"
    sink.close()
    assert len(read_video(path)[0]) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("frames", [0, 3])
def test_failed_run_with_force_keeps_the_existing_file(tmp_path: Path, frames: int) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"precious")
    sink = VideoSink(path, force=True)
    for k in range(frames):
        sink.write(fused(k, 40 * k))
    sink.close(failed=True)
    assert path.read_bytes() == b"precious"
    assert (tmp_path / "a.part.mp4").exists() == bool(frames)


def test_unwritable_paths_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "dir.mp4").mkdir()
    for path, words in (
        (tmp_path / "gone" / "a.mp4", "there is no directory"),
        (tmp_path / "dir.mp4", "is a directory"),
        (Path("/proc/a.mp4"), "cannot write /proc/a.mp4"),
        (Path("/dev/null.mp4/a.mp4"), "there is no directory"),
    ):
        with pytest.raises(OutputError, match=words):
            VideoSink(path)


@pytest.mark.parametrize(
    ("name", "video", "words"),
    [
        ("a.gif", VideoFormat(), "unknown kind of output"),
        ("a", VideoFormat(), "unknown kind of output"),
        ("a.mp4", VideoFormat("vp9"), "unknown codec 'vp9': use h264, hevc, ffv1"),
        ("a.mp4", VideoFormat("ffv1"), "goes into .mkv"),
        ("a.mp4", VideoFormat(crf=52), "crf must be 0..51"),
        ("a.mp4", VideoFormat(preset="warp"), "unknown encoder preset"),
    ],
)
def test_invalid_formats_are_refused(tmp_path: Path, name: str, video: VideoFormat, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        VideoSink(tmp_path / name, video)
    assert not list(tmp_path.iterdir())


def test_change_of_size_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "a.mp4")
    sink.write(fused(0, 0))
    with pytest.raises(OutputError, match=r"64x64 and the video is 64x48.*%06d"):
        sink.write(fused(1, 40, size=(64, 64)))
    sink.close(failed=True)
    assert len(read_video(tmp_path / "a.mp4")[0]) == 1


FULL = """
import sys, resource
sys.path.insert(0, {tests!r})
from test_video_sink import *
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
sink = VideoSink(Path({path!r}), VideoFormat(crf=0), period_ns=40 * MS)
rng = np.random.default_rng(0)
try:
    for k in range(200):
        sink.write(FusedFrame(rng.integers(0, 255, (48, 64), dtype=np.uint8), None, k, 40 * MS * k))
    sys.exit("nothing failed")
except OutputError as error:
    print(error)
try:
    sink.close(failed=True)
except OutputError as error:
    print("closing:", error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on the size of files (POSIX)")
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_full_disk_is_one_clear_error_and_the_file_is_playable(tmp_path: Path, name: str) -> None:
    """A file size limit simulates a full disk: the same write fails."""
    path = tmp_path / name
    code = FULL.format(tests=str(Path(__file__).parent), path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "largest size" in done.stdout.splitlines()[0]
    with VideoFile(path) as source:  # tolerates the cut in the last frame
        assert len(list(source)) >= 3


def test_images(tmp_path: Path) -> None:
    import cv2

    sink = open_sink(str(tmp_path / "%03d.png"))
    sink.write(fused(0, 0))
    sink.write(fused(1, 40, chroma=coloured(v=200)))
    sink.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["001.png", "002.png"]
    grey, colour = (cv2.imread(str(tmp_path / f"00{k}.png"), cv2.IMREAD_UNCHANGED) for k in (1, 2))
    assert grey is not None
    assert colour is not None
    assert np.array_equal(grey, luma_of(0))
    assert colour[40, 60, 2] > colour[40, 60, 0]
    with pytest.raises(OutputError, match=r"001.png exists.*--force"):
        open_sink(str(tmp_path / "%03d.png"))
    open_sink(str(tmp_path / "%03d.png"), force=True).close()
    with pytest.raises(UsageError, match="unknown kind of image"):
        open_sink(str(tmp_path / "%03d.xyz"))


def test_output_over_an_input_is_refused_even_with_force(tmp_path: Path) -> None:
    video = tmp_path / "ir.mp4"
    video.write_bytes(b"precious")
    (tmp_path / "link.mp4").symlink_to(video)
    image = tmp_path / "ir" / "000007.png"
    image.parent.mkdir()
    image.write_bytes(b"precious")
    for output in (video, tmp_path / "link.mp4", image.parent / "%06d.png", image.parent / ".." / "ir" / "%d.png"):
        with pytest.raises(OutputError, match="would overwrite the input"):
            open_sink(str(output), force=True, inputs=[video, image])
    open_sink(str(image.parent / "fused_%06d.png"), inputs=[image]).close()  # allowed beside the inputs
    assert video.read_bytes() == image.read_bytes() == b"precious"


def test_temporary_file_gets_an_unused_name(tmp_path: Path) -> None:
    """The file of an earlier failed run is kept."""
    path, earlier = tmp_path / "a.mp4", tmp_path / "a.part.mp4"
    path.write_bytes(b"old")
    earlier.write_bytes(b"precious")
    sink = VideoSink(path, force=True)
    sink.write(fused(0, 0))
    sink.close()
    assert earlier.read_bytes() == b"precious"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "a.part.mp4"]
    assert len(read_video(path)[0]) == 1


def test_names_that_resemble_urls_or_patterns(tmp_path: Path) -> None:
    for name in ("run:1.mp4", "100%done.mp4"):
        sink = open_sink(str(tmp_path / name))
        sink.write(fused(0, 0))
        sink.close()
        with VideoFile(tmp_path / name) as source:
            assert len(list(source)) == 1
    sink = open_sink(str(tmp_path / "50%_%02d.png"))
    sink.write(fused(0, 0))
    assert (tmp_path / "50%_01.png").exists()
    with pytest.raises(UsageError, match="give a file, or rtsp://") as error:
        open_sink("rtmp://me:se/cret@127.0.0.1/x.mp4")
    assert "cret" not in str(error.value)


def test_several_outputs_or_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.mp4 is given twice"):
        open_sinks([str(tmp_path / "a.mp4")] * 2)
    with pytest.raises(OutputError, match="there is no directory"):
        open_sinks([str(tmp_path / "a.mp4"), str(tmp_path / "none" / "b.mp4")])
    assert not list(tmp_path.iterdir())
    sinks = open_sinks([str(tmp_path / "a.mp4"), str(tmp_path / "b.mkv")])
    for sink in sinks:
        for k in range(3):
            sink.write(fused(k, 40 * k))
        sink.close()
    assert [len(read_video(tmp_path / name)[0]) for name in ("a.mp4", "b.mkv")] == [3, 3]


def test_failed_start_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = VideoSink(tmp_path / "a.mp4")
    monkeypatch.setitem(video_format.CODECS, "h264", "an encoder that this FFmpeg was built without")
    sink.write(fused(0, 0))
    with pytest.raises(OutputError, match="no encoder for h264"):
        sink.write(fused(1, 40))
    sink.close(failed=True)
    assert not list(tmp_path.iterdir())
