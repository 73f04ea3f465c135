"""H.264 sent to a media server; a listening live source stands in for the server."""

from __future__ import annotations

import random
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import pytest
from media import MS, luma_of, number_of
from streams import free_port

from streamfuse.color import Chroma
from streamfuse.errors import UsageError
from streamfuse.frames import FusedFrame
from streamfuse.sinks import open_sink
from streamfuse.sinks.push import AWAY, PushSink
from streamfuse.sources.address import parse_address
from streamfuse.sources.live import LiveSource


def fused(index: int) -> FusedFrame:
    grey = np.full((24, 32), 128, np.uint8)
    return FusedFrame(luma_of(index), Chroma(grey, grey), index, 40 * MS * index)


def server(port: int) -> LiveSource:
    address = parse_address(f"rtsp://127.0.0.1:{port}/fused#clock=arrival")
    assert address is not None
    return LiveSource(replace(address, options={**address.options, "rtsp_flags": "listen", "listen_timeout": "8"}))


class Viewer(threading.Thread):
    """Collects the numbers of the frames that arrive."""

    def __init__(self, source: LiveSource) -> None:
        super().__init__(daemon=True)
        self.source = source
        self.numbers: list[int] = []
        self.start()

    def run(self) -> None:
        for frame in self.source:
            self.numbers.append(number_of(frame.luma))

    def stop(self) -> None:
        self.source.interrupt()
        self.join(20)


def write_until(sink: PushSink, frames: count[int], reached: Callable[[], bool], most: int = 500) -> None:
    pause = threading.Event()
    for _ in range(most):
        if reached():
            return
        sink.write(fused(next(frames)))
        pause.wait(0.03)  # a live run's pace
    raise AssertionError("the condition was not reached")


def test_frames_arrive_again_after_the_server_restarts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "streamfuse")
    port = free_port()
    frames = count()
    sink = PushSink(f"rtsp://me:s3cret@127.0.0.1:{port}/fused", rng=random.Random(0))
    try:
        first = Viewer(server(port))
        write_until(sink, frames, lambda: len(first.numbers) > 10)
        first.stop()
        assert {(b - a) % 70 for a, b in pairwise(first.numbers)} == {1}  # all of them, in order
        write_until(sink, frames, lambda: sink.drops[AWAY] > 0)
        second = Viewer(server(port))
        write_until(sink, frames, lambda: len(second.numbers) > 10)
        second.stop()
    finally:
        sink.close()
    assert "connected" in caplog.text
    assert "reconnected" in caplog.text
    assert "s3cret" not in caplog.text


def test_missing_server_is_reported_once_and_does_not_block(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    sink = PushSink(f"rtsp://me:s3cret@127.0.0.1:{free_port()}/x", clock=lambda: now[0], rng=random.Random(0))
    frames = count()
    write_until(sink, frames, lambda: sink.drops[AWAY] > 0)
    before = sink.drops[AWAY]
    sink.write(fused(next(frames)))  # not tried again yet
    assert sink.drops[AWAY] == before + 1
    for _ in range(2):
        now[0] += 10
        drops = sink.drops[AWAY]
        write_until(sink, frames, lambda: sink.drops[AWAY] > drops)  # noqa: B023 - called before it changes
    sink.close()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "nothing listens there (connection refused)" in messages[0]
    assert "s3cret" not in messages[0]


def test_silent_server_does_not_block_other_threads() -> None:
    """FFmpeg would wait for the server with Python's lock held."""
    beats: list[int] = []
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.01):
            beats.append(len(beats))

    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = PushSink(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x")
        heart = threading.Thread(target=beat)
        heart.start()
        write_until(sink, count(), lambda: len(beats) > 100)  # a second's worth, while the handshake hangs
        sink.close()
        done.set()
        heart.join()


def test_password_is_not_in_the_process_list() -> None:
    sink = PushSink(f"rtsp://me:s3cret@127.0.0.1:{free_port()}/x")
    sink.write(fused(0))
    assert sink._push is not None
    line = subprocess.run(
        ["ps", "-o", "args=", "-p", str(sink._push._process.pid)], capture_output=True, text=True, check=True
    ).stdout
    sink.close()
    assert "streamfuse" in line
    assert "s3cret" not in line


def test_only_h264_is_sent() -> None:
    from streamfuse.sinks.video_format import VideoFormat

    with pytest.raises(UsageError, match=r"rtsp://\*\*\*@h/x: hevc cannot be sent: use --codec h264"):
        open_sink("rtsp://me:s3cret@h/x", video=VideoFormat("hevc"))
