"""Pictures from messages: sensor_msgs/Image and CompressedImage, and Foxglove's types for pictures and video.

The package `rosbags` parses the serialisations of ROS.  Definitions that a bag carries are not used: these types have
the same fields everywhere.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streamfuse.sources.bags.packages import ros_packages
from streamfuse.sources.bags.records import Damaged
from streamfuse.sources.bags.topic import Message
from streamfuse.sources.bags.video import FORMATS
from streamfuse.temperature import Scale

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

FOXGLOVE = {
    "foxglove_msgs/msg/CompressedImage": "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\n"
    "string format\n",
    "foxglove_msgs/msg/RawImage": "builtin_interfaces/Time timestamp\nstring frame_id\nuint32 width\nuint32 height\n"
    "string encoding\nuint32 step\nuint8[] data\n",
    "foxglove_msgs/msg/CompressedVideo": "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\n"
    "string format\n",
}
"""Definitions of Foxglove's messages for ROS 2 (github.com/foxglove/foxglove-sdk, schemas/ros2)."""


_COMPRESSED = ("/CompressedImage", "/CompressedVideo")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture as a message holds it, not decoded yet."""

    stamp_ns: int
    """Time in the message's header, ns; 0 where the camera's driver has set none."""
    frame: str
    """Name of the camera's coordinate frame."""
    encoding: str
    """Encoding of the pixels, such as mono16; for a picture that is compressed, its format, such as jpeg."""
    data: npt.NDArray[np.uint8]
    """(N,) uint8."""
    height: int = 0
    """Rows; 0 for a picture that is compressed."""
    width: int = 0
    step: int = 0
    """Bytes of a row, with its padding."""
    big_endian: bool = False
    scale: Scale | None = None
    """Scale of its values, if they are temperatures; None: not told."""

    @property
    def compressed(self) -> bool:
        return self.height == 0

    @property
    def video(self) -> str:
        """Format of a frame of video, one of `streamfuse.sources.bags.video.FORMATS`; empty for a picture."""
        kind = self.encoding.lower()
        return kind if self.compressed and kind in FORMATS else ""


@cache
def typestore(coding: str) -> Typestore:
    """Return the message types of ROS 1 (`coding` ros1) or ROS 2 (cdr); raises UsageError without `rosbags`."""
    with ros_packages():
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    if coding == "ros1":
        store = get_typestore(Stores.ROS1_NOETIC)
        store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms\n", "tf2_msgs/msg/TFMessage"))
        return store
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, definition in FOXGLOVE.items():
        store.register(get_types_from_msg(definition, name))
    return store


def deserialize(message: Message) -> Any:
    """Return a message of ROS as an object with the type's fields; raises Damaged for bytes that are none."""
    store = typestore(message.topic.coding)
    try:
        if message.topic.coding == "ros1":
            return store.deserialize_ros1(message.data, message.topic.type)
        if message.topic.type in FOXGLOVE:  # newer versions have more fields behind those that are read here
            kind = store.get_msgdef(message.topic.type)
            read = kind.deserialize_cdr_le if message.data[1] else kind.deserialize_cdr_be
            return read(message.data[4:], 0, kind.cls, store)[0]
        return store.deserialize_cdr(message.data, message.topic.type)
    except Exception as error:  # generated code: struct, index, Unicode and its own errors, by where the bytes end
        raise Damaged(f"a message that is no {message.topic.type} ({type(error).__name__})") from None


def read_picture(message: Message) -> Picture:
    """Return the picture of a message of an image topic; raises Damaged."""
    kind = message.topic.type
    if message.topic.coding == "protobuf":
        return _read_protobuf(kind, message.data)
    found = deserialize(message)
    data = np.asarray(found.data, np.uint8)
    if kind.startswith("sensor_msgs/"):
        stamp_ns, frame = stamp_of(found.header.stamp), found.header.frame_id
    else:
        stamp_ns, frame = stamp_of(found.timestamp), found.frame_id
    if kind.endswith(_COMPRESSED):
        return Picture(stamp_ns, frame, found.format, data)
    big_endian = bool(getattr(found, "is_bigendian", 0))
    made = _raw(stamp_ns, frame, found.encoding, data, found.height, found.width, found.step, big_endian)
    return made if message.topic.scale is None else replace(made, scale=message.topic.scale)


def _raw(
    stamp_ns: int,
    frame: str,
    encoding: str,
    data: npt.NDArray[np.uint8],
    height: int,
    width: int,
    step: int,
    big_endian: bool = False,
) -> Picture:
    if height == 0 or width == 0:
        raise Damaged(f"a picture of {width}x{height} pixels")
    return Picture(stamp_ns, frame, encoding, data, height, width, step, big_endian)


def stamp_of(time: Any) -> int:
    """Return a time of ROS in ns since 1970."""
    return int(time.sec) * 1_000_000_000 + int(time.nanosec)


# Protobuf: the numbers of the fields in Foxglove's schemas, which do not change.

_PROTOBUF_FIELDS = {
    "foxglove_msgs/msg/CompressedImage": {1: "stamp", 2: "data", 3: "encoding", 4: "frame"},
    "foxglove_msgs/msg/CompressedVideo": {1: "stamp", 2: "frame", 3: "data", 4: "encoding"},
    "foxglove_msgs/msg/RawImage": dict(enumerate(("stamp", "width", "height", "encoding", "step", "data", "frame"), 1)),
}
_MASK = (1 << 64) - 1


def _read_protobuf(kind: str, message: bytes) -> Picture:
    names = _PROTOBUF_FIELDS[kind]
    found: dict[str, Any] = {"stamp": b"", "data": b"", "encoding": b"", "frame": b"", "width": 0, "height": 0}
    found["step"] = 0
    try:
        for number, value in _protobuf(message):
            if (name := names.get(number)) is not None:
                if isinstance(value, int) is not isinstance(found[name], int):
                    raise Damaged(f"a message that is no {kind} (field {number})")
                found[name] = value
        time = {number: value for number, value in _protobuf(found["stamp"]) if isinstance(value, int)}
        encoding, frame = found["encoding"].decode(), found["frame"].decode()
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise Damaged(f"a message that is no {kind} ({type(error).__name__})") from None
    stamp_ns = time.get(1, 0) * 1_000_000_000 + time.get(2, 0)
    data = np.frombuffer(found["data"], np.uint8)
    if kind.endswith(_COMPRESSED):
        return Picture(stamp_ns, frame, encoding, data)
    return _raw(stamp_ns, frame, encoding, data, found["height"], found["width"], found["step"])


def _protobuf(data: bytes) -> list[tuple[int, int | bytes]]:
    """List a message's fields: their numbers, and their values as integers or bytes."""
    fields: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            fields.append((key >> 3, value))
        elif kind == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise IndexError
            fields.append((key >> 3, data[at : at + length]))
            at += length
        elif kind in (1, 5):
            form, length = ("<Q", 8) if kind == 1 else ("<I", 4)
            fields.append((key >> 3, struct.unpack_from(form, data, at)[0]))
            at += length
        else:
            raise IndexError
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, at
    raise IndexError
