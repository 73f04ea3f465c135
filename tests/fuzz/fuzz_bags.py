"""Targets for bags: whole files of each container, and the messages in them."""

from __future__ import annotations

import io
import tempfile
from functools import cache
from pathlib import Path
from typing import cast

import av
import bags
import cv2
import numpy as np
from bags import CONTAINERS, Sent, cdr, compressed, image, ros1
from fuzz_target import Target, file
from test_bags import field
from test_hostile_text import none_if_refused

from streamfuse.frames import Frame
from streamfuse.sources import open_source
from streamfuse.sources.bags.encodings import EncodingReader
from streamfuse.sources.bags.messages import deserialize, read_picture
from streamfuse.sources.bags.records import Damaged
from streamfuse.sources.bags.topic import Message, Topic
from streamfuse.sources.bags.video import FORMATS, VideoDecoder
from streamfuse.sources.options import SourceOptions
from streamfuse.sources.pixels import PixelReader

ROS = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/CameraInfo",
    "tf2_msgs/msg/TFMessage",
)
PROTOBUF = ("foxglove_msgs/msg/RawImage", "foxglove_msgs/msg/CompressedImage", "foxglove_msgs/msg/CompressedVideo")
SMALL = SourceOptions(max_pixels=1 << 16)
WARM = SourceOptions(max_pixels=1 << 16, temperature="celsius")
_GREY = np.arange(20, dtype=np.uint16).reshape(4, 5) + 7000
_COLOR = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


def bag(data: bytes, suffix: str) -> object:
    """Read all topics of a bag, and one as a source."""
    path = file(data, f"walk{suffix}")

    def frames() -> list[Frame]:
        with open_source(f"{path}?topic=/ir", SMALL) as source:
            source.cut_before(40_000_000)
            source.start_at(0)
            return list(source)

    return none_if_refused(frames)


def message(data: bytes) -> object:
    """Read a message; its first byte chooses the coding, the second the type."""
    coding = ("cdr", "ros1", "protobuf")[data[0] % 3] if data else "cdr"
    names = PROTOBUF if coding == "protobuf" else ROS
    one = Message(Topic("/a", names[data[1] % len(names)] if len(data) > 1 else names[0], coding), 0, data[2:])
    try:
        if not one.topic.is_image:
            return deserialize(one)
        picture = read_picture(one)
    except Damaged:
        return None
    if picture.video:
        return list(VideoDecoder(picture.video, SMALL.max_pixels).decode(0, 0, picture.data.tobytes()))
    warm = EncodingReader("/a", PixelReader(WARM), WARM)
    none_if_refused(lambda: warm.read(picture, 0))
    reader = EncodingReader("/a", PixelReader(), SMALL)
    return none_if_refused(lambda: reader.read(picture, 0))


def video(data: bytes) -> object:
    """Decode messages of video; the first byte chooses the format, the second the length of each message."""
    kind = tuple(FORMATS)[data[0] % len(FORMATS)] if data else "h264"
    size = max(data[1] if len(data) > 1 else 0, 1) * 64
    decoder = VideoDecoder(kind, SMALL.max_pixels)
    parts = [data[at : at + size] for at in range(2, len(data), size)]
    found = [one for index, part in enumerate(parts) for one in decoder.decode(index, index, part)]
    found.extend(decoder.flush())
    assert sorted(index for index, _, _ in found) == list(range(len(parts)))
    return found


def _video(codec: str) -> bytes:
    """Two frames of video, each a message of the length that the second byte says."""
    raw = io.BytesIO()
    with av.open(raw, "w", format=codec) as container:
        stream = cast(av.VideoStream, container.add_stream({"h264": "libx264", "hevc": "libx265"}[codec], rate=25))
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.options = {"bf": "0"} if codec == "h264" else {"x265-params": "bframes=0:log-level=none"}
        for level in (40, 90, None):
            frame = None if level is None else av.VideoFrame.from_ndarray(np.full((48, 32), level, np.uint8), "yuv420p")
            container.mux(stream.encode(frame))
    return bytes([list(FORMATS).index({"h264": "h264", "hevc": "h265"}[codec]), 255]) + raw.getvalue()


@cache
def _seeds() -> dict[str, bytes]:
    sent = [
        image("/ir", _GREY, "mono16", 0),
        compressed("/vis", _COLOR, "png", 0),
        image("/ir", _GREY + 9, "mono16", 1),
    ]
    found = {}
    for name in ("ros1", "ros1-bz2", "ros1-lz4", "sqlite", "mcap", "mcap-zstd", "mcap-without-chunks"):
        with tempfile.TemporaryDirectory() as directory:
            path = CONTAINERS[name](Path(directory), sent)
            found[name] = (path if path.is_file() else next(path.glob("*.db3"))).read_bytes()
    return found


def _messages() -> tuple[bytes, ...]:
    calibrated: Sent = bags.camera_info("/ir", (48, 64))
    moved = bags.transform("a", "b", (0.1, 0, 0))
    return (
        b"\0\0" + cdr(image("/a", _GREY, "mono16")),
        b"\0\1" + cdr(compressed("/a", _COLOR, "png")),
        b"\0\0" + cdr(image("/a", _GREY.astype(np.float32), "32FC1")),
        b"\0\0" + cdr(image("/a", _GREY.astype(np.float64), "64FC1")),
        b"\0\0" + cdr(image("/a", _GREY, "bayer_rggb16")),
        b"\0\0" + cdr(image("/a", _GREY.view(np.uint8), "yuv422", width=5)),
        b"\0\0" + cdr(image("/a", _GREY.view(np.uint8), "nv12", height=2, width=6)),
        b"\0\2" + cdr(calibrated),
        b"\0\3" + cdr(moved),
        b"\1\0" + ros1(image("/a", _COLOR, "bgr8")),
        b"\1\2" + ros1(calibrated),
        b"\2\0"
        + field(1, b"\x08\1\x10\2")
        + field(2, 5)
        + field(3, 4)
        + field(4, b"mono16")
        + field(6, _GREY.tobytes()),
        b"\2\1" + field(1, b"\x08\1") + field(2, cv2.imencode(".png", _COLOR)[1].tobytes()) + field(3, b"png"),
    )


def _long_chunk() -> bytes:
    """An MCAP file whose first chunk claims more data than any file can have."""
    seed = _seeds()["mcap"]
    at = seed.index(b"\6", 8) + 9 + 32  # opcode and length, then times, size, checksum and the name of no compression
    assert int.from_bytes(seed[at : at + 8], "little") < len(seed)
    return seed[:at] + b"\xff" * 8 + seed[at + 8 :]


def _png(length: bytes) -> bytes:
    """A message with a PNG whose chunk claims another length."""
    seed = cdr(compressed("/a", _COLOR, "png"))
    at = seed.index(b"IDAT") - 4
    return b"\0\1" + seed[:at] + length + seed[at + 4 :]


TARGETS = {
    "bag-ros1": Target(
        lambda data: bag(data, ".bag"), tuple(_seeds()[name] for name in ("ros1", "ros1-bz2", "ros1-lz4"))
    ),
    "bag-sqlite": Target(
        lambda data: bag(data, ".db3"),
        (_seeds()["sqlite"],),
        (_seeds()["sqlite"].replace(b"TABLE messages", b"TABL\xff messages"),),
    ),
    "bag-mcap": Target(
        lambda data: bag(data, ".mcap"),
        tuple(_seeds()[name] for name in ("mcap", "mcap-zstd", "mcap-without-chunks")),
        (_long_chunk(),),
    ),
    "bag-video": Target(video, (_video("h264"), _video("hevc"))),
    "bag-message": Target(message, _messages(), (_png(b"\x7f\xff\xff\xff"),)),
}
