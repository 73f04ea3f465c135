"""An hour of live input with every kind of output: memory, threads and descriptors do not grow."""

from __future__ import annotations

import faulthandler
import http.client
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_table import FaultTable
from media import read_video
from vitals import Vitals, growth, needs_proc, python_threads, until, vitals

from streamfuse.fuser import Fuser
from streamfuse.pairing.live import MAX_WAITING
from streamfuse.pipeline import Pipeline
from streamfuse.sinks.preview import PreviewSink
from streamfuse.sinks.video import VideoSink
from streamfuse.sinks.zeromq import ZeroMQSink
from streamfuse.telemetry import each_count
from streamfuse.zeromq.subscriber import Subscriber

FPS = 10
"""Frame rate at which a busy machine keeps up."""
LIVE = f"?live=1&size=64x48&fps={FPS}"
WARM_S = 20.0
"""Time until the engine, the encoder and the viewers have allocated their memory, s."""
INDEX_MB_AN_HOUR = 12.0
"""Memory that the MP4 writer may use: it keeps the offset of each frame for the index at the end of the file."""


def _watch(port: int, stopping: threading.Event, seen: list[int]) -> None:
    """Read the MJPEG stream like a browser."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/stream.mjpg")
    answer = connection.getresponse()
    while not stopping.is_set() and answer.read(1024):
        seen[0] += 1
    connection.close()


@needs_proc
@pytest.mark.soak
@pytest.mark.timeout(0)
def test_live_input_for_an_hour(tmp_path: Path, faults: FaultTable, pytestconfig: pytest.Config) -> None:
    """`--soak-minutes N` makes it shorter or longer."""
    faulthandler.cancel_dump_traceback_later()  # this takes long on purpose
    minutes = float(pytestconfig.getoption("--soak-minutes"))
    preview, published = PreviewSink("127.0.0.1:0"), ZeroMQSink(f"ipc://{tmp_path}/soak")
    sinks = [VideoSink(tmp_path / "out.mp4"), published, preview]
    pipeline = Pipeline(
        f"synthetic:ir{LIVE}", f"synthetic:vis{LIVE}", sinks=sinks, fuser=Fuser(engine="openvino", tone="smooth")
    )
    stopping, looked, received = threading.Event(), [0], [0]

    def subscribe() -> None:
        with Subscriber(published.address, timeout_s=60) as subscriber:
            for _ in subscriber:
                received[0] += 1
                if stopping.is_set():
                    return

    run = threading.Thread(target=pipeline.run, name="run")
    run.start()
    others = [
        threading.Thread(target=subscribe, name="subscriber"),
        threading.Thread(target=_watch, args=(preview.port, stopping, looked), name="browser"),
    ]
    try:
        until(lambda: pipeline.summary().fused > FPS, 120)
        for other in others:
            other.start()
        until(lambda: received[0] > FPS and looked[0] > FPS, 60)
        before = pipeline.summary()
        samples = _sample(WARM_S, minutes * 60, run.is_alive)
        summary = pipeline.summary()
    finally:
        stopping.set()
        for other in others:
            other.join(30)
        pipeline.stop()
        run.join(60)
    written = len(read_video(tmp_path / "out.mp4")[0])
    fused = summary.fused - before.fused
    drops = {
        (stream, reason): count - before.drops.get(stream, {}).get(reason, 0)
        for stream, reason, count in each_count(summary.drops)
        if stream in ("infrared", "visible") and reason != "late"  # those were never read
    }
    # A busy machine drops pairs and counts them: every frame read was fused or is counted by reason.
    read = sum(summary.read.values()) - sum(before.read.values())
    assert abs(read - 2 * fused - sum(drops.values())) < 2 * MAX_WAITING, (read, fused, drops)
    assert fused > FPS * minutes * 60 / 4, (fused, drops)
    assert written >= summary.fused
    assert received[0] > 0.5 * summary.fused
    threads, descriptors = growth(samples, "threads"), growth(samples, "descriptors")
    assert threads <= 0, python_threads()
    assert descriptors <= 0
    grown = growth(samples, "rss_mb")
    assert grown < 4 + INDEX_MB_AN_HOUR * minutes / 60, [round(s.rss_mb, 1) for s in samples[:: len(samples) // 20]]
    faults.add(
        "long live run into a file, a subscriber and a browser",
        times=1,
        lost=f"{sum(drops.values()):,} of {read:,} frames in {minutes:g} minutes ({_reasons(drops)}); "
        f"threads {threads:+g}, descriptors {descriptors:+g}, memory {grown:+.1f} MB (from {samples[0].rss_mb:.0f})",
        promised="only the file's index grows",
    )


def _reasons(drops: dict[tuple[str, str], int]) -> str:
    return ", ".join(sorted({reason for (_, reason), count in drops.items() if count})) or "none"


def _sample(after_s: float, for_s: float, alive: Callable[[], bool]) -> list[Vitals]:
    """Each second."""
    time.sleep(after_s)
    samples, begin = [], time.monotonic()
    while time.monotonic() - begin < for_s:
        assert alive(), "the run has ended"
        samples.append(vitals())
        time.sleep(1.0)
    return samples
