"""Sketch of a ROS 2 bridge: fused frames as sensor_msgs/Image.  It has not been run with ROS.

    source /opt/ros/DISTRO/setup.bash
    python examples/ros2_bridge.py tcp://127.0.0.1:5556 /fused/image

Its test replaces rclpy and the messages.  Encodings have ROS's names, so the bytes are passed on unchanged.
"""

import sys

import rclpy
from builtin_interfaces.msg import Time
from rclpy.node import Node
from sensor_msgs.msg import Image

from streamfuse import NothingReceived, Subscriber
from streamfuse.zeromq.subscriber import Received

FRAME_ID = "visible_camera_optical"
"""Frame of the visible camera, whose view the fused picture has."""


def message_of(frame: Received) -> Image:
    """Convert a frame: `bgr8` and `mono8` unchanged, other encodings to bgr8.

    The stamp is the visible camera's time if that counts since 1970, otherwise the publisher's.
    """
    header = frame.header
    message = Image()
    since_1970 = header.vis_clock is not None and header.vis_clock.of_sender
    stamp_ns = header.vis_stamp_ns if since_1970 and header.vis_stamp_ns is not None else header.published_ns
    message.header.stamp = Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
    message.header.frame_id = FRAME_ID
    message.height, message.width = header.height, header.width
    message.is_bigendian = 0
    if header.encoding in ("bgr8", "mono8") and header.step is not None:
        message.encoding, message.step, message.data = str(header.encoding), header.step, bytes(frame.payload)
    else:
        picture = frame.to_bgr()
        message.encoding, message.step, message.data = "bgr8", 3 * header.width, picture.tobytes()
    return message


def main(url: str, topic: str = "/fused/image") -> None:
    rclpy.init()
    node = Node("streamfuse_bridge")
    publisher = node.create_publisher(Image, topic, 1)
    with Subscriber(url) as subscriber:
        while rclpy.ok():
            try:
                publisher.publish(message_of(subscriber.latest()))
            except NothingReceived as error:  # the publisher may return
                node.get_logger().warning(str(error))
    node.destroy_node()


if __name__ == "__main__":
    main(*sys.argv[1:])
