"""Bags for tests, written by the packages `rosbags` and `mcap`: every container, compression and kind of message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mcap.writer
import numpy as np
import numpy.typing as npt
from rosbags.interfaces import Nodetype
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from streamfuse.sources.bags.messages import FOXGLOVE

EPOCH_NS = 1_700_000_000_000_000_000
"""Time since 1970 of the first stamp, ns."""
PERIOD_NS = 40_000_000
DELAY_NS = 7_000_000
"""Log time after the stamp, ns."""
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"

ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_HUMBLE)
ROS1.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage"))
for _name, _text in FOXGLOVE.items():
    ROS2.register(get_types_from_msg(_text, _name))


@dataclass(frozen=True)
class Sent:
    """A message for a bag."""

    topic: str
    type: str
    fields: dict[str, Any]
    """Values of its fields by name; `stamp_ns` becomes the header's stamp."""
    log_ns: int


Write = Callable[[Path, Iterable[Sent]], Path]
"""Writes messages into a bag in a directory and returns what a user would name."""


def image(topic: str, pixels: npt.NDArray[Any], encoding: str, index: int = 0, **fields: Any) -> Sent:
    """An uncompressed picture, (H, W) or (H, W, C) of any type, with 6 bytes of padding behind every row."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    data = np.hstack([rows, np.full((len(rows), 6), 0xEE, np.uint8)])
    stamp_ns = EPOCH_NS + index * PERIOD_NS
    values = {
        "stamp_ns": stamp_ns,
        "frame_id": topic.strip("/").replace("/", "_"),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "encoding": encoding,
        "is_bigendian": 0,
        "step": data.shape[1],
        "data": data.ravel(),
    }
    return Sent(topic, IMAGE, values | fields, stamp_ns + DELAY_NS)


def compressed(topic: str, pixels: npt.NDArray[Any], kind: str, index: int = 0, **fields: Any) -> Sent:
    """A picture that is compressed as `kind`, jpeg or png."""
    stamp_ns = EPOCH_NS + index * PERIOD_NS
    data = cv2.imencode(f".{kind}", pixels)[1].ravel()
    return Sent(
        topic,
        COMPRESSED,
        {"stamp_ns": stamp_ns, "frame_id": topic, "format": kind, "data": data} | fields,
        stamp_ns + DELAY_NS,
    )


def camera_info(
    topic: str, size: tuple[int, int], focal: float = 60.0, frame: str = "", distortion: Sequence[float] = (0.0,) * 5
) -> Sent:
    """The calibration of a camera; `size`: (height, width)."""
    height, width = size
    k = np.array([focal, 0, (width - 1) / 2, 0, focal, (height - 1) / 2, 0, 0, 1], np.float64)
    p = np.hstack([k.reshape(3, 3), np.zeros((3, 1))]).ravel()
    region = {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False}
    values = {
        "stamp_ns": EPOCH_NS,
        "frame_id": frame or topic.strip("/").replace("/", "_"),
        "height": height,
        "width": width,
        "distortion_model": "plumb_bob",
        "binning_x": 0,
        "binning_y": 0,
        **dict.fromkeys("dD", np.array(distortion, np.float64)),
        **dict.fromkeys("kK", k),
        **dict.fromkeys("rR", np.eye(3).ravel()),
        **dict.fromkeys("pP", p),
        "roi": region,
    }
    return Sent(topic, "sensor_msgs/msg/CameraInfo", values, EPOCH_NS)


def transform(
    parent: str,
    child: str,
    shift: Sequence[float],
    turn: Sequence[float] = (0.0, 0.0, 0.0, 1.0),
) -> Sent:
    """A message of /tf_static: points of `child` in the frame `parent` are turned (quaternion x y z w) and shifted."""
    one = {
        "stamp_ns": EPOCH_NS,
        "frame_id": parent,
        "child_frame_id": child,
        "translation": dict(zip("xyz", map(float, shift), strict=True)),
        "rotation": dict(zip("xyzw", map(float, turn), strict=True)),
    }
    return Sent("/tf_static", "tf2_msgs/msg/TFMessage", {"transforms": [one]}, EPOCH_NS)


def build(store: Any, kind: str, fields: dict[str, Any]) -> Any:
    """Make a message of a type; fields of messages in it are found in a dictionary of that name, or beside it."""
    made: dict[str, Any] = {}
    for name, (node, described) in store.fielddefs[kind][1]:
        if node is Nodetype.NAME and described == "builtin_interfaces/msg/Time":
            stamp_ns = fields["stamp_ns"]
            made[name] = store.types[described](stamp_ns // 1_000_000_000, stamp_ns % 1_000_000_000)
        elif node is Nodetype.NAME:
            made[name] = build(store, described, fields.get(name, fields))
        elif node is Nodetype.SEQUENCE and described[0][0] is Nodetype.NAME:
            made[name] = [build(store, described[0][1], item) for item in fields[name]]
        else:
            made[name] = 0 if name == "seq" else fields[name]
    return store.types[kind](**made)


def cdr(sent: Sent) -> bytes:
    return bytes(ROS2.serialize_cdr(build(ROS2, sent.type, sent.fields), sent.type))


def ros1(sent: Sent) -> bytes:
    return bytes(ROS1.serialize_ros1(build(ROS1, sent.type, sent.fields), sent.type))


def write_ros1(compression: str = "none", chunk_size: int = 20_000) -> Write:
    def write(directory: Path, messages: Iterable[Sent]) -> Path:
        path = directory / "walk.bag"
        writer = Writer1(path)
        if compression != "none":
            writer.set_compression(getattr(Writer1.CompressionFormat, compression.upper()))
        writer.chunk_threshold = chunk_size
        with writer:
            made: dict[str, Any] = {}
            for sent in messages:
                if sent.topic not in made:
                    made[sent.topic] = writer.add_connection(sent.topic, sent.type, typestore=ROS1)
                writer.write(made[sent.topic], sent.log_ns, ros1(sent))
        return path

    return write


def write_ros2(storage: str, compression: str = "none") -> Write:
    def write(directory: Path, messages: Iterable[Sent]) -> Path:
        path = directory / "walk"
        plugin = StoragePlugin.SQLITE3 if storage == "sqlite" else StoragePlugin.MCAP
        writer = Writer2(path, version=9, storage_plugin=plugin)
        if compression != "none":
            writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
        with writer:
            made: dict[str, Any] = {}
            for sent in messages:
                if sent.topic not in made:
                    made[sent.topic] = writer.add_connection(sent.topic, sent.type, typestore=ROS2)
                writer.write(made[sent.topic], sent.log_ns, cdr(sent))
        return path

    return write


def write_mcap(
    compression: str = "none",
    *,
    coding: str = "cdr",
    indexed: bool = True,
    chunked: bool = True,
    footer: bool = True,
    chunk_size: int = 20_000,
) -> Write:
    def write(directory: Path, messages: Iterable[Sent]) -> Path:
        path = directory / "walk.mcap"
        store = ROS2 if coding == "cdr" else ROS1
        with path.open("wb") as file:
            writer = mcap.writer.Writer(
                file,
                chunk_size=chunk_size,
                compression=mcap.writer.CompressionType[compression.upper()],
                index_types=mcap.writer.IndexType.ALL if indexed else mcap.writer.IndexType.NONE,
                use_chunking=chunked,
                use_statistics=indexed,
                repeat_channels=indexed,
                repeat_schemas=indexed,
            )
            writer.start("ros2" if coding == "cdr" else "ros1")
            made: dict[str, int] = {}
            for sent in messages:
                if sent.topic not in made:
                    name = sent.type if coding == "cdr" else sent.type.replace("/msg/", "/")
                    text = store.generate_msgdef(sent.type)[0].encode()
                    schema = writer.register_schema(name, "ros2msg" if coding == "cdr" else "ros1msg", text)
                    made[sent.topic] = writer.register_channel(sent.topic, coding, schema)
                data = cdr(sent) if coding == "cdr" else ros1(sent)
                writer.add_message(made[sent.topic], sent.log_ns, data, sent.log_ns)
            if footer:
                writer.finish()  # type: ignore[no-untyped-call]
            else:
                writer.flush()  # type: ignore[no-untyped-call]
        return path

    return write


CONTAINERS: dict[str, Write] = {
    "ros1": write_ros1(),
    "ros1-bz2": write_ros1("bz2"),
    "ros1-lz4": write_ros1("lz4"),
    "sqlite": write_ros2("sqlite"),
    "sqlite-file": write_ros2("sqlite", "file"),
    "sqlite-message": write_ros2("sqlite", "message"),
    "ros2-mcap": write_ros2("mcap"),
    "ros2-mcap-zstd": write_ros2("mcap", "storage"),
    "ros2-mcap-message": write_ros2("mcap", "message"),
    "mcap": write_mcap(),
    "mcap-lz4": write_mcap("lz4"),
    "mcap-zstd": write_mcap("zstd"),
    "mcap-ros1": write_mcap(coding="ros1"),
    "mcap-without-chunks": write_mcap(chunked=False),
    "mcap-without-index": write_mcap(indexed=False),
    "mcap-without-end": write_mcap("zstd", footer=False),
}
"""A bag of every kind, by its name."""
