"""The programs in examples/, run like a user runs them, on a published stream of known pictures."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ROOT
from media import every, read_video, write_video
from publishing import published, publishing
from streams import free_port

from streamfuse.sinks.zeromq import ZeroMQSink
from streamfuse.zeromq.wire import Encoding

EXAMPLES = ROOT / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def start(name: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_example_has_a_test() -> None:
    """Add a test for a new example."""
    tested = {"subscriber.py", "library.py", "detector.py", "rerun_viewer.py", "ros2_bridge.py"}
    assert {file.name for file in EXAMPLES.glob("*.py")} == tested


def test_subscriber_in_ten_lines() -> None:
    text = (EXAMPLES / "subscriber.py").read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 10
    url = f"tcp://127.0.0.1:{free_port()}"
    with publishing(url), start("subscriber.py", url) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.kill()
    assert all(re.fullmatch(r"main \d+ fused 64x48, \d+\.\d ms old\n", line) for line in lines), lines


def test_library(tmp_path: Path) -> None:
    ir = write_video(tmp_path / "ir.mp4", every(40, 6))
    vis = write_video(tmp_path / "vis.mp4", every(40, 6), u=100, v=160)
    with start("library.py", ir, vis, tmp_path / "fused.mp4") as process:
        said, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert said.startswith("6 frames at ")
    assert said.endswith(", 0 dropped\n")
    _, pictures = read_video(tmp_path / "fused.mp4")
    assert len(pictures) == 6
    assert pictures[0][36:44, 8:40].max() > 240  # the time, on a dark background


def walking(index: int) -> np.ndarray:
    """Draw a bright object, 20x40, that moves 4 pixels per frame in front of noise."""
    luma = np.random.default_rng(index).integers(60, 72, (120, 200), dtype=np.uint8)
    left = 4 * index % 160
    luma[40:80, left : left + 20] = 200
    luma[0, 0] = left
    return luma


def test_detector_finds_what_moves() -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    sink = ZeroMQSink(url, encoding=Encoding.MONO8)
    found: list[tuple[int, list[int]]] = []
    with start("detector.py", url) as process:
        os.set_blocking(process.stdout.fileno(), False)  # type: ignore[union-attr]
        index = 0
        while len(found) < 10:
            assert process.poll() is None, process.communicate()[1]
            assert index < 1500, "nothing was found"
            sink.write(published(index, luma=walking(index), colour=False))
            index += 1
            signal.sigtimedwait([], 0.02)  # the pace of a stream
            for line in process.stdout or ():
                answer = json.loads(line)
                found += [(answer["seq"], box) for box in answer["boxes"][:1]]
        process.kill()
    sink.close()
    for seq, (x, y, width, height) in found[3:]:
        left = 4 * seq % 160
        across = min(x + width, left + 20) - max(x, left)
        down = min(y + height, 80) - max(y, 40)
        union = width * height + 20 * 40 - across * down
        assert across * down / union > 0.4, (seq, (x, y, width, height), left)


def test_rerun_writes_a_recording(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="the extra examples is not installed")
    url, file = f"tcp://127.0.0.1:{free_port()}", tmp_path / "run.rrd"
    program, home = Path(sys.executable).parent / "rerun", {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    subprocess.run([program, "analytics", "disable"], env={**ENVIRONMENT, **home}, check=True, capture_output=True)
    with publishing(url, encoding="bgr8"), start("rerun_viewer.py", url, file, **home) as process:
        while not (file.exists() and file.stat().st_size > 20_000):
            assert process.poll() is None, process.communicate()[1]
            signal.sigtimedwait([], 0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    read = subprocess.run(
        [program, "rrd", "print", "-vv", file],
        env={**ENVIRONMENT, **home},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert read.returncode == 0, read.stderr
    for words in ("entity_path: /main ", "entity_path: /main/age_ms ", "EncodedImage:blob", "Scalars:scalars"):
        assert words in read.stdout
    assert "index_name: frame" in read.stdout
    assert "index_name: run" in read.stdout


class StandIn(types.ModuleType):
    """A simulated module of ROS 2, which is not on PyPI: every name is a class that stores its arguments."""

    def __getattr__(self, name: str) -> Any:
        def init(self: Any, **fields: Any) -> None:
            self.__dict__.update(fields)

        return type(name, (), {"__init__": init, "__getattr__": lambda self, _: types.SimpleNamespace()})


def test_ros2_messages_with_simulated_ros(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fields that the bridge sets.  The bridge was never run with ROS itself."""
    text = (EXAMPLES / "ros2_bridge.py").read_text()
    for name in (
        "rclpy",
        "rclpy.node",
        "builtin_interfaces",
        "builtin_interfaces.msg",
        "sensor_msgs",
        "sensor_msgs.msg",
    ):
        monkeypatch.setitem(sys.modules, name, StandIn(name))
    namespace: dict[str, Any] = {"__name__": "bridge"}
    exec(compile(text, "ros2_bridge.py", "exec"), namespace)

    class Header(types.SimpleNamespace):
        pass

    class Message:
        def __init__(self) -> None:
            self.header = Header()

    namespace["Image"] = Message
    from streamfuse.zeromq.subscriber import Subscriber

    for encoding, expected in ((Encoding.BGR8, "bgr8"), (Encoding.MONO8, "mono8"), (Encoding.JPEG, "bgr8")):
        url = f"tcp://127.0.0.1:{free_port()}"
        with publishing(url, encoding=str(encoding)), Subscriber(url) as subscriber:
            frame = subscriber.latest()
            message = namespace["message_of"](frame)
        assert (message.height, message.width, message.encoding) == (48, 64, expected)
        assert len(message.data) == message.step * message.height
        stamp = message.header.stamp
        # The visible stamps are of this machine's monotonic clock, so the publisher's time since 1970 is used instead.
        assert stamp.sec * 1_000_000_000 + stamp.nanosec == frame.header.published_ns
