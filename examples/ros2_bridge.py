"""A sketch of a bridge to ROS 2: fused frames as sensor_msgs/Image.  Never run with ROS itself.

    source /opt/ros/DISTRO/setup.bash
    python examples/ros2_bridge.py tcp://127.0.0.1:5556 /fused/image

Its test has stand-ins for rclpy and the messages.  Encodings are named as ROS names them, so bytes are passed on.
"""

import sys

import rclpy
from builtin_interfaces.msg import Time
from rclpy.node import Node
from sensor_msgs.msg import Image

from streamfuse import NothingReceived, Subscriber
from streamfuse.zeromq.subscriber import Received

FRAME_ID = "visible_camera_optical"
"""The fused picture is seen from the visible camera."""


def message_of(frame: Received) -> Image:
    """`bgr8` and `mono8` as they came, anything else as bgr8; stamped with the visible camera's time if it counts since
    1970, else with the publisher's."""
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
            except NothingReceived as error:  # it may come back
                node.get_logger().warning(str(error))
    node.destroy_node()


if __name__ == "__main__":
    main(*sys.argv[1:])
