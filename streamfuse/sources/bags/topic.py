"""Topics of a bag, and their messages as they were recorded."""

from __future__ import annotations

import re
from dataclasses import dataclass

from streamfuse.temperature import Scale

IMAGE_TYPES = frozenset(
    {
        *("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"),
        *("foxglove_msgs/msg/RawImage", "foxglove_msgs/msg/CompressedImage", "foxglove_msgs/msg/CompressedVideo"),
    }
)
"""Message types of topics that can be fused."""
CODINGS = frozenset({"ros1", "cdr", "protobuf"})
"""Serialisations that are read: that of ROS 1, that of ROS 2, and protobuf for Foxglove's own types."""
_ROS1 = re.compile(r"([\w-]+)/(\w+)", re.ASCII)
_FOXGLOVE = re.compile(r"foxglove\.(\w+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of a bag."""

    name: str
    type: str
    """Message type in the way of ROS 2, such as sensor_msgs/msg/Image."""
    coding: str
    """Serialisation of the messages: one of CODINGS, or another that is not read."""
    count: int | None = None
    """Number of messages by the bag's index; None without one."""
    scale: Scale | None = None
    """Scale of the temperatures that its pictures are, as streamfuse writes it; None: not told."""

    @property
    def is_image(self) -> bool:
        return self.type in IMAGE_TYPES and self.coding in CODINGS


@dataclass(frozen=True, slots=True)
class Message:
    """One message, still serialised."""

    topic: Topic
    log_ns: int
    """Time at which the recorder received it, ns."""
    data: bytes


def message_type(name: str) -> str:
    """Write a type in the way of ROS 2; sensor_msgs/Image and foxglove.RawImage are those of ROS 1 and of protobuf."""
    if match := _ROS1.fullmatch(name):
        return f"{match[1]}/msg/{match[2]}"
    if match := _FOXGLOVE.fullmatch(name):
        return f"foxglove_msgs/msg/{match[1]}"
    return name
