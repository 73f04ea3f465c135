"""Video and temperatures in MCAP files: what is written is read again as a source, bit for bit."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import mcap.reader
import mcap.writer
import numpy as np
import pytest
from bags import CONTAINERS, EPOCH_NS, PERIOD_NS
from command_line import SMALL, streamfuse
from media import PassThrough, luma_of
from rosbags.highlevel import AnyReader
from test_bags import field, same, walk
from test_mcap_sink import fused_frames, messages
from test_video_sink import coloured

from streamfuse.errors import DamagedInput, InputError, UsageError
from streamfuse.frames import FusedFrame
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sinks import open_sink
from streamfuse.sinks.about import About
from streamfuse.sinks.video_format import VideoFormat
from streamfuse.sources import open_pair, open_source
from streamfuse.sources.bags.video import is_key
from streamfuse.sources.file import CORRUPT
from streamfuse.temperature import OVER, Scale, TemperaturePlane

KELVIN = Scale(1 / 64)


def with_temperatures(count: int, scale: Scale = KELVIN) -> list[FusedFrame]:
    """Frames of noise around 300 K, with both ends of the scale."""
    made = []
    for frame in fused_frames(count):
        rng = np.random.default_rng(frame.index)
        values = rng.integers(19_000, 20_000, frame.luma.shape).astype(np.uint16)
        values[0, :3] = 0, OVER, 20_500
        made.append(replace(frame, temperature=TemperaturePlane(values, scale)))
    return made


def write(path: Path, frames: list[FusedFrame], codec: str = "h264", **options: Any) -> Path:
    sink = open_sink(str(path), video=VideoFormat(codec), period_ns=PERIOD_NS, about=About(EPOCH_NS), **options)
    for frame in frames:
        sink.write(frame)
    sink.close()
    return path


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_video_is_read_as_the_same_frames_in_a_file(codec: str, tmp_path: Path) -> None:
    frames = fused_frames(60)
    with open_source(f"{write(tmp_path / 'fused.mcap', frames, codec)}?topic=/fused/video") as source:
        assert (source.size, source.period_ns, source.frame_count) == ((48, 64), PERIOD_NS, 60)
        assert source.epoch_ns == EPOCH_NS
        found = list(source)
        assert not source.drops
    with open_source(str(write(tmp_path / "fused.mp4", frames, codec))) as source:
        same(found, list(source))


def test_video_is_read_from_a_key_frame_on(tmp_path: Path) -> None:
    path = write(tmp_path / "fused.mcap", fused_frames(60))
    with open_source(str(path)) as source:
        whole = list(source)
    with open_source(str(path)) as source:
        assert [source.cut_before(k * PERIOD_NS) for k in (49, 50, 55)] == [0, 50 * PERIOD_NS, 50 * PERIOD_NS]
        source.start_at(55 * PERIOD_NS)
        found = list(source)
        assert not source.drops
    same(found, whole[55:])


def write_video(path: Path, sent: list[tuple[int, bytes]], kind: str) -> Path:
    """Write frames as foxglove.CompressedVideo messages, as a recorder does; stamps in ns."""
    with path.open("wb") as file:
        writer = mcap.writer.Writer(file)
        writer.start()
        schema = writer.register_schema("foxglove.CompressedVideo", "protobuf", b"")
        channel = writer.register_channel("/video", "protobuf", schema)
        for at_ns, frame in sent:
            stamp = b"\x08" + varint(at_ns // 10**9) + b"\x10" + varint(at_ns % 10**9)
            data = field(1, stamp) + field(2, b"cam") + field(3, frame) + field(4, kind.encode())
            writer.add_message(channel, at_ns, data, at_ns)
        writer.finish()  # type: ignore[no-untyped-call]
    return path


def test_frames_before_the_first_key_frame_are_counted(tmp_path: Path) -> None:
    """A recorder that was started while the camera sent already."""
    sent = messages(write(tmp_path / "fused.mcap", fused_frames(60)))["/fused/video"][40:]
    write_video(tmp_path / "late.mcap", [(at_ns, message.data.tobytes()) for at_ns, message in sent], "h264")
    with open_source(str(tmp_path / "late.mcap")) as source:
        found = list(source)
        assert source.drops == {CORRUPT: 10}
    with open_source(str(tmp_path / "fused.mcap")) as source:
        same([replace(frame, stamp_ns=frame.stamp_ns + 40 * PERIOD_NS) for frame in found], list(source)[50:])


@pytest.mark.parametrize(("kind", "encoder"), [("vp9", "libvpx-vp9"), ("av1", "libsvtav1")])
def test_vp9_and_av1_are_read_as_the_same_frames_in_a_file(kind: str, encoder: str, tmp_path: Path) -> None:
    sent: list[tuple[int, bytes]] = []
    pictures = [av.VideoFrame.from_ndarray(luma_of(k, (64, 96)), "gray").reformat(format="yuv420p") for k in range(30)]
    with av.open(str(tmp_path / "video.mkv"), "w") as file:
        quick = {"preset": "10", "deadline": "realtime"}
        stream = file.add_stream(encoder, rate=Fraction(10**9, PERIOD_NS), options=quick)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for picture in [*pictures, None]:
            for packet in stream.encode(picture):
                sent.append((EPOCH_NS + len(sent) * PERIOD_NS, bytes(packet)))
                file.mux(packet)
    write_video(tmp_path / "video.mcap", sent, kind)
    with open_source(str(tmp_path / "video.mcap")) as source:
        assert source.size == (64, 96)
        found = list(source)
        assert not source.drops
    with open_source(str(tmp_path / "video.mkv")) as source:
        same(found, list(source))


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def test_key_frames_are_told_from_others(tmp_path: Path) -> None:
    path = write(tmp_path / "fused.mcap", fused_frames(60), "h264")
    data = messages(path)["/fused/video"]
    assert [k for k, (_, message) in enumerate(data) if is_key(message.data.tobytes(), "h264")] == [0, 50]
    assert is_key(b"", "h264") is False
    assert is_key(b"\0\0\1", "hevc") is False
    assert is_key(b"\0\0\1\x65", "vp9") is None


@pytest.mark.parametrize("codec", ["h264", "jpeg"])
def test_temperatures_are_read_back_exactly(codec: str, tmp_path: Path) -> None:
    """By `mcap`, whose channels tell the scale, by `rosbags`, and as a source."""
    frames = with_temperatures(4) + [replace(f, index=4 + f.index, time_ns=f.time_ns + 4 * PERIOD_NS)
                                     for f in with_temperatures(2, Scale(0.01, 100.0))]  # fmt: skip
    path = write(tmp_path / "fused.mcap", frames, codec)
    planes = [frame.temperature for frame in frames]
    with path.open("rb") as file:
        scales = [
            Scale(float(channel.metadata["temperature_step_k"]), float(channel.metadata["temperature_offset_k"]))
            for _, channel, _ in mcap.reader.make_reader(file).iter_messages(["/fused/temperature"])
        ]
    assert scales == [plane.scale for plane in planes if plane is not None]
    found = messages(path)
    assert [at_ns for at_ns, _ in found["/fused/temperature"]] == [at_ns for at_ns, _ in found["/fused/frames"]]
    for (_, message), plane in zip(found["/fused/temperature"], planes, strict=True):
        assert plane is not None
        assert (message.encoding, message.is_bigendian) == ("16UC1", 0)
        values = message.data.view("<u2").reshape(message.height, message.width)
        np.testing.assert_array_equal(values, plane.values)
    facts = {pair.key: pair.value for pair in found["/fused/frames"][0][1].status[0].values}
    assert facts["temperature_step_k"] == repr(1 / 64)
    assert (facts["hottest_x_y"], facts["mean_celsius"][:2]) == ("1 0", "31")
    with open_source(f"{path}?topic=/fused/temperature") as source:
        read = [frame.temperature for frame in source]
    for one, plane in zip(read, planes, strict=True):
        assert one is not None
        assert plane is not None
        assert one.scale == plane.scale
        np.testing.assert_array_equal(one.values, plane.values)


def test_a_fused_file_is_fused_again(tmp_path: Path) -> None:
    path = write(tmp_path / "fused.mcap", with_temperatures(5))
    done = streamfuse("probe", path)
    assert done.returncode == 0, done.stderr
    assert "h264 64x48" in done.stdout
    assert "16UC1 64x48" in done.stdout
    done = streamfuse(
        "run",
        "--ir",
        f"{path}?topic=/fused/temperature",
        "--vis",
        f"{path}?topic=/fused/video",
        "-o",
        tmp_path / "again.mcap",
        *SMALL,
    )
    assert done.returncode == 0, done.stderr
    again = messages(tmp_path / "again.mcap")
    assert [at_ns for at_ns, _ in again["/fused/video"]] == [EPOCH_NS + k * PERIOD_NS for k in range(5)]
    first = messages(path)
    for (_, one), (_, other) in zip(again["/fused/temperature"], first["/fused/temperature"], strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def test_frames_without_temperatures_have_no_topic_of_them(tmp_path: Path) -> None:
    path = write(tmp_path / "fused.mcap", [FusedFrame(f.luma, coloured(), f.index, f.time_ns) for f in fused_frames(3)])
    with AnyReader([path]) as reader:
        assert set(reader.topics) == {"/fused/video", "/fused/frames"}
    with pytest.raises(UsageError, match="not a picture"):
        open_source(f"{path}?topic=/fused/frames")


@pytest.mark.parametrize("kind", ["ros1", "ros1-lz4", "sqlite", "mcap", "mcap-zstd"])
def test_a_bag_that_is_cut_off_anywhere_is_fused_as_far_as_it_goes(kind: str, tmp_path: Path) -> None:
    """Every frame of the output is that of the whole bag, and there are as many as both topics still have."""
    path = CONTAINERS[kind](tmp_path, sent := walk(20))
    path = path if path.is_file() else next(path.glob("*.db3"))
    data, cut = path.read_bytes(), tmp_path / f"cut{path.suffix}"
    whole, _ = fused(path)
    assert len(whole) == 20
    fractions = random.Random(kind).sample(range(5, 1000), 12)
    for at in sorted(len(data) * part // 1000 for part in fractions):
        cut.write_bytes(data[:at])
        try:
            frames, damage = fused(cut)
        except InputError:  # nothing of a picture is there
            frames, damage = [], "none"
        assert damage or len(frames) == 20
        if kind in ("ros1", "mcap"):  # not compressed: every pair that is there
            there = [data.find(one.fields["data"].tobytes()) + one.fields["data"].size <= at for one in sent]
            assert len(frames) == min(sum(there[::2]), sum(there[1::2])), at
        else:  # a chunk holds many messages
            assert len(frames) >= 20 * at / len(data) - 17, at
        for one, other in zip(frames, whole, strict=False):
            assert one.time_ns == other.time_ns
            np.testing.assert_array_equal(one.luma, other.luma)


def fused(path: Path) -> tuple[list[FusedFrame], str | None]:
    """The fused frames of a bag, and its damage."""
    sources = open_pair(f"{path}?topic=/boson/image_raw", f"{path}?topic=/eo/image/compressed")
    frames: list[FusedFrame] = []
    with Pipeline(*sources, fuser=Fuser(engine=PassThrough(), tone="fixed:0,1")) as pipeline:
        try:
            frames.extend(pipeline)
        except DamagedInput as error:
            return frames, str(error)
    return frames, None
