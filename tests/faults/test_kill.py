"""kill -9 of every process of a run; the documented guarantees hold.

The engine has no process of its own.  Killed workers of the batch command are tested in test_batch_cluster.py.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import av
import cv2
import pytest
from fault_table import FaultTable
from media import luma_of, number_of, read_video
from publishing import published, publishing
from runner import FPS, remaining_counts, running, wait_for_frames
from streams import free_port
from test_push import Viewer, server, write_until
from vitals import until
from web import pumping, serving

from streamfuse.sinks.push import PushSink
from streamfuse.sinks.zeromq import ZeroMQSink
from streamfuse.sources.sequence import match_pattern
from streamfuse.zeromq.subscriber import Subscriber

pytestmark = [pytest.mark.skipif(os.name != "posix", reason="kill -9"), pytest.mark.timed]
SECOND = FPS
"""Frames that an MP4 may lose."""


def _readable(path: Path) -> int:
    """Count the frames; 0 if everything is from the last second and the file may not be a video yet."""
    try:
        return len(read_video(path)[0])
    except av.error.FFmpegError:
        return 0


def test_killed_writer(tmp_path: Path, faults: FaultTable) -> None:
    moments = random.Random(8)
    lost: dict[str, list[int]] = {"mp4": [], "mkv": [], "png": []}
    times = 3
    for k in range(times):
        outputs = {kind: tmp_path / f"{k}.{kind}" for kind in ("mp4", "mkv")}
        images = tmp_path / f"images{k}" / "%04d.png"
        images.parent.mkdir()
        with running(*map(str, outputs.values()), str(images)) as process:
            before = wait_for_frames(process, moments.randrange(8, 45))
            time.sleep(moments.uniform(0, 0.1))  # between two frames, or while one is written
            process.send_signal(signal.SIGKILL)
            told = max([before, *remaining_counts(process)])
            process.wait()
        for kind, path in outputs.items():
            frames = _readable(path)
            lost[kind].append(max(told - frames, 0))
        pictures = match_pattern(images)
        assert all(cv2.imread(str(path)) is not None for path, _ in pictures)
        lost["png"].append(max(told - len(pictures), 0))
    assert max(lost["mp4"]) <= SECOND, lost
    assert max(lost["mkv"]) <= SECOND, lost
    assert max(lost["png"]) == 0, lost
    for kind, name in (("mp4", "MP4"), ("mkv", "Matroska"), ("png", "images")):
        promised = "every image that was finished" if kind == "png" else "all but the last second (25 frames)"
        faults.add(
            f"kill -9 of a run that writes {name}", times=times, lost=f"{max(lost[kind])} frames", promised=promised
        )


def test_killed_push_process(faults: FaultTable) -> None:
    """The run continues, drops and counts frames that it cannot send, and starts another process."""
    port = free_port()
    frames = count()
    sink = PushSink(f"rtsp://127.0.0.1:{port}/fused", rng=random.Random(0))
    back_s, dropped = [], []
    try:
        watching = Viewer(server(port))
        write_until(sink, frames, lambda: len(watching.numbers) > 10)
        for _ in range(3):
            assert sink._push is not None
            os.kill(sink._push._process.pid, signal.SIGKILL)
            drops, seen, begin = sink.drops.total(), len(watching.numbers), time.monotonic()
            write_until(sink, frames, lambda: sink.drops.total() > drops)  # noqa: B023 - called before it changes
            write_until(sink, frames, lambda: len(watching.numbers) > seen + 5)  # noqa: B023
            back_s.append(time.monotonic() - begin)
            dropped.append(sink.drops.total() - drops)
        watching.stop()
    finally:
        sink.close()
    assert max(back_s) < 15, back_s  # the server of this test restarts automatically too
    faults.add(
        "kill -9 of the process that pushes to rtsp://",
        times=3,
        lost=f"{max(dropped)} frames at most, all counted",
        recovered_s=back_s,
        promised="restarts automatically; other outputs are not affected",
    )


def test_killed_recording_subscriber(tmp_path: Path, faults: FaultTable) -> None:
    """Its file plays except for the last second; the publisher and another subscriber are not affected."""
    sink = ZeroMQSink(f"ipc://{tmp_path}/s")
    numbers, ending = [0], threading.Event()

    def publish() -> None:
        for k in count():
            numbers[0] = k  # before it is sent, because it may be recorded at once
            sink.write(published(k, luma=luma_of(k)))
            if ending.wait(1 / FPS):
                return

    thread = threading.Thread(target=publish)
    thread.start()
    lost = []
    try:
        with Subscriber(sink.address, mode="every", timeout_s=20) as other:
            frames = iter(other)
            for k in range(2):
                path = tmp_path / f"{k}.mp4"
                command = [sys.executable, "-m", "streamfuse", "subscribe", sink.address, "-o", str(path)]
                with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                    until(lambda: path.exists() and path.stat().st_size > 4000)  # noqa: B023
                    process.kill()
                    at = numbers[0]
                _, pictures = read_video(path)
                # The encoder changes the level, and so the number by up to 2
                lost.append(max((at - number_of(pictures[-1]) + 35) % 70 - 35, 0))
                for _ in range(5):
                    next(frames)
            statistics = other.statistics()
    finally:
        ending.set()
        thread.join()
        sink.close()
    assert statistics.restarts == 0
    assert max(lost) <= SECOND + 2, lost  # two are in transit
    faults.add(
        "kill -9 of a subscriber that records",
        times=2,
        lost=f"{max(lost)} frames",
        promised="all but the last second (25 frames); other subscribers are not affected",
    )


def test_killed_publisher(faults: FaultTable) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    back_s = []
    with Subscriber(url, timeout_s=20) as subscriber:
        for _ in range(4):
            with publishing(url):
                begin = time.monotonic()
                subscriber.latest()
                back_s.append(time.monotonic() - begin)
            # The publisher has been killed, and what it had sent before has been received.
            while subscriber._next(0.3) is not None:
                pass
        statistics = subscriber.statistics()
    assert statistics.restarts == 3
    assert max(back_s) < 2.5, back_s
    faults.add(
        "kill -9 of the publisher",
        times=3,
        lost="frames it did not publish while it was down",
        recovered_s=back_s[1:],
        promised="subscribers reconnect and count a restart",
    )


WATCHER = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", {port})
connection.request("GET", "/stream.mjpg")
answer = connection.getresponse()
print(len(answer.read(1000)), flush=True)
while answer.read(1000):
    pass
"""


def test_killed_viewers_of_the_preview(faults: FaultTable) -> None:
    gone_s = []
    with serving() as sink, pumping(sink):
        for _ in range(3):
            command = [sys.executable, "-c", WATCHER.format(port=sink.port)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "1000\n"
                assert sink.hub.viewers == 1
                process.kill()
            gone_s.append(until(lambda: sink.hub.viewers == 0))
    faults.add(
        "kill -9 of a browser that shows the preview",
        times=3,
        lost="nothing",
        recovered_s=gone_s,
        promised="its viewer slot is freed; the run is not affected",
    )
