"""MCAP files that are written: what the packages `mcap` and `rosbags` read back."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, cast

import av
import cv2
import mcap.reader
import numpy as np
import pytest
from bags import CONTAINERS, EPOCH_NS, PERIOD_NS
from command_line import SMALL, streamfuse
from media import PassThrough, luma_of, write_images
from rosbags.highlevel import AnyReader
from test_bag_topics import small_rig
from test_bags import walk
from test_video_sink import coloured

from streamfuse.calibration.model import load
from streamfuse.errors import OutputError, UsageError
from streamfuse.frames import FusedFrame
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sinks import open_sink
from streamfuse.sinks.about import About
from streamfuse.sinks.video_format import VideoFormat


def fused_frames(count: int) -> list[FusedFrame]:
    """Frames of which each differs, in colour."""
    chroma = coloured()
    return [FusedFrame(luma_of(k), chroma, k, k * PERIOD_NS) for k in range(count)]


def messages(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """All messages of a file by topic, as `rosbags` reads them, with their log times."""
    found: dict[str, list[tuple[int, Any]]] = {}
    with AnyReader([path]) as reader:
        for connection, at_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((at_ns, message))
    return found


def decoded(packets: list[bytes], codec: str) -> list[np.ndarray]:
    """The pictures of a stream in Annex B format, each message given to the decoder alone."""
    context = cast(av.VideoCodecContext, av.CodecContext.create(codec, "r"))
    frames = [frame for packet in packets for frame in context.decode(av.Packet(packet))]
    return [frame.to_ndarray(format="yuv420p") for frame in [*frames, *context.decode(None)]]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_video_is_read_back_bit_for_bit(codec: str, tmp_path: Path) -> None:
    frames = fused_frames(30)
    targets = [tmp_path / "fused.mcap", tmp_path / "fused.mp4"]
    for target in targets:
        sink = open_sink(str(target), video=VideoFormat(codec), period_ns=PERIOD_NS, about=About(EPOCH_NS))
        for frame in frames:
            sink.write(frame)
        sink.close()
    with av.open(str(targets[1])) as container:
        expected = [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
    video = messages(targets[0])["/fused/video"]
    found = decoded([message.data.tobytes() for _, message in video], codec)
    assert len(found) == len(expected) == 30
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert {message.format for _, message in video} == {"h264" if codec == "h264" else "h265"}
    assert [at_ns for at_ns, _ in video] == [EPOCH_NS + frame.time_ns for frame in frames]
    stamps = [message.timestamp.sec * 10**9 + message.timestamp.nanosec for _, message in video]
    assert stamps == [at_ns for at_ns, _ in video]


def test_key_frames_can_be_decoded_alone(tmp_path: Path) -> None:
    """A player that seeks begins at one."""
    sink = open_sink(str(tmp_path / "fused.mcap"), period_ns=PERIOD_NS)
    for frame in fused_frames(60):
        sink.write(frame)
    sink.close()
    packets = [message.data.tobytes() for _, message in messages(tmp_path / "fused.mcap")["/fused/video"]]
    keys = [k for k, packet in enumerate(packets) if b"\0\0\1\x67" in packet]  # a sequence parameter set
    assert keys == [0, 50]
    assert len(decoded(packets[50:], "h264")) == 10


def test_jpeg_is_a_picture_in_each_message(tmp_path: Path) -> None:
    frames = fused_frames(5)
    sink = open_sink(str(tmp_path / "fused.mcap"), video=VideoFormat("jpeg"))
    for frame in frames:
        sink.write(frame)
    sink.close()
    found = messages(tmp_path / "fused.mcap")["/fused/image/compressed"]
    assert [message.format for _, message in found] == ["jpeg"] * 5
    for (_, message), frame in zip(found, frames, strict=True):
        data = cv2.imencode(".jpg", frame.luma if frame.chroma is None else frame.to_bgr())[1]
        np.testing.assert_array_equal(message.data, data.ravel())


def test_a_run_keeps_frame_accounting_calibration_and_time(tmp_path: Path) -> None:
    """Frames of a bag have the times of their headers."""
    sent = [message for k, message in enumerate(walk(8)) if k != 4]
    path = CONTAINERS["mcap"](tmp_path, [*small_rig(), *sent])
    calib = tmp_path / "calib.toml"
    done = streamfuse("calibrate", "import", path, "-o", calib)
    assert done.returncode == 0, done.stderr
    fused = tmp_path / "fused.mcap"
    done = streamfuse("run", "--bag", path, "-o", fused, *SMALL)
    assert done.returncode == 0, done.stderr
    found = messages(fused)
    assert [at_ns for at_ns, _ in found["/fused/video"]] == [EPOCH_NS + k * PERIOD_NS for k in range(8) if k != 2]
    values = [{pair.key: pair.value for pair in message.status[0].values} for _, message in found["/fused/frames"]]
    assert [one["vis_stamp_ns"] for one in values] == [str(k * PERIOD_NS) for k in range(8) if k != 2]
    assert all(one["skew_ns"] == "0" and one["content"] == "fused" for one in values)
    ((_, message),) = found["/fused/run"]
    counts = {pair.key: pair.value for pair in message.status[0].values}
    assert counts == {
        "read infrared": "7",
        "read visible": "8",
        "paired": "7",
        "fused": "7",
        "dropped visible: no partner in time": "1",
    }
    with fused.open("rb") as file:
        (attachment,) = mcap.reader.make_reader(file).iter_attachments()
    assert attachment.name == "calibration.toml"
    (tmp_path / "again.toml").write_bytes(attachment.data)
    assert load(tmp_path / "again.toml").id == load(calib).id


@pytest.mark.parametrize("codec", ["h264", "jpeg"])
def test_the_preset_of_a_live_stream_is_one_that_keeps_up(
    codec: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No preset is fast enough for a frame a nanosecond, and then the fastest is taken."""
    caplog.set_level("INFO", "streamfuse")
    sink = open_sink(str(tmp_path / "fused.mcap"), video=VideoFormat(codec))
    sink.prepare(fused_frames(1)[0], 1)
    sink.close()
    assert ("encoder preset ultrafast" in caplog.text) is (codec == "h264")


def test_mcap_reads_every_message(tmp_path: Path) -> None:
    write_images(tmp_path / "ir", [f"{k}.png" for k in range(6)])
    sink = open_sink(str(tmp_path / "fused.mcap"))
    Pipeline(str(tmp_path / "ir"), str(tmp_path / "ir"), sinks=[sink], fuser=Fuser(engine=PassThrough())).run()
    with (tmp_path / "fused.mcap").open("rb") as file:
        reader = mcap.reader.make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None
        names = {channel.id: channel.topic for channel in summary.channels.values()}
        assert summary.statistics is not None
        counts = {names[number]: count for number, count in summary.statistics.channel_message_counts.items()}
        assert counts == {"/fused/video": 6, "/fused/frames": 6, "/fused/run": 1}
        assert {schema.encoding for schema in summary.schemas.values()} == {"ros2msg"}
        assert sum(1 for _ in reader.iter_messages()) == 13


def test_a_killed_run_leaves_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = itertools.count(0.0, 0.3)
    monkeypatch.setattr("streamfuse.sinks.mcap.time.monotonic", lambda: next(moments))
    path = tmp_path / "fused.mcap"
    sink = open_sink(str(path), video=VideoFormat("jpeg"))
    for frame in fused_frames(10):
        sink.write(frame)
    (tmp_path / "killed.mcap").write_bytes(path.read_bytes())
    sink.close()
    done = streamfuse("probe", tmp_path / "killed.mcap")
    assert "no index" in done.stdout
    assert int(done.stdout.splitlines()[2].split()[2]) >= 8


def test_an_existing_file_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "fused.mcap"
    path.write_bytes(b"older")
    with pytest.raises(OutputError, match="--force"):
        open_sink(str(path))
    sink = open_sink(str(path), force=True)
    sink.write(fused_frames(1)[0])
    sink.close(failed=True)
    assert path.read_bytes() == b"older"
    sink = open_sink(str(path), force=True)
    sink.close()
    assert path.read_bytes() == b"older"  # nothing was fused


def test_codecs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ffv1 goes into"):
        open_sink(str(tmp_path / "a.mcap"), video=VideoFormat("ffv1"))
    with pytest.raises(UsageError, match="jpeg goes into"):
        open_sink(str(tmp_path / "a.mp4"), video=VideoFormat("jpeg"))
