"""Two RTSP cameras: a GStreamer server whose frames contain the time at which they were taken.

Needs the server's Debian packages (see `scripts/peers`) and the server script of STREAMFUSE_DATA; skipped otherwise.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from media import PassThrough
from streams import free_port

from streamfuse.color import Plane
from streamfuse.frames import Clock, Content, Role
from streamfuse.fuser import Fuser
from streamfuse.pairing.flow import OnLoss
from streamfuse.pipeline import Pipeline
from streamfuse.sources import open_source
from streamfuse.sources.base import State

SYSTEM_PYTHON = "/usr/bin/python3"
_DATA = os.environ.get("STREAMFUSE_DATA")
_PEER = Path(_DATA) / "tools" / "rtsp_peer.py" if _DATA else None
_HAS_GSTREAMER = (
    Path(SYSTEM_PYTHON).exists()
    and subprocess.run(
        [SYSTEM_PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"],
        stderr=subprocess.DEVNULL,
        check=False,
    ).returncode
    == 0
)
HAS_PEER = _PEER is not None and _HAS_GSTREAMER
pytestmark = [
    pytest.mark.timed,
    pytest.mark.skipif(_PEER is None, reason="STREAMFUSE_DATA is not set: no RTSP peer"),
    pytest.mark.skipif(not _HAS_GSTREAMER, reason="GStreamer's RTSP server is not installed: scripts/peers"),
]
SECRET = "s3cret"


class Peer:
    """The server process; it can be killed, stopped and started again on its port."""

    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        self._arguments = arguments
        self.start()

    def start(self, *more: str) -> None:
        command = [SYSTEM_PYTHON, str(_PEER), "--port", str(self.port), *self._arguments, *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("READY")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def url(self, path: str, secret: str = SECRET) -> str:
        return f"rtsp://me:{secret}@127.0.0.1:{self.port}/{path}"


@contextmanager
def serving(*arguments: str) -> Iterator[Peer]:
    peer = Peer("--user", "me", "--password", SECRET, *arguments)
    try:
        yield peer
    finally:
        peer.process.send_signal(signal.SIGCONT)
        peer.kill()


def taken_us(luma: Plane) -> int:
    """Read the time in the frame's bar code, us since 1970."""
    width = luma.shape[1] // 64
    bits = luma[8, : 64 * width].reshape(64, width).mean(axis=1) > 128
    return int("".join("1" if bit else "0" for bit in bits), 2)


class ReadsTimes(PassThrough):
    """Records the times at which the two pictures of each pair were taken."""

    def __init__(self) -> None:
        self.times_us: list[tuple[int, int]] = []

    def fuse(self, ir: Plane, vis: Plane) -> npt.NDArray[np.float32]:
        self.times_us.append((taken_us(ir), taken_us(vis)))
        return super().fuse(ir, vis)


def memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_delay_phase_and_loss_give_no_wrong_pair() -> None:
    """Infrared is delivered 130 ms late, taken 8 ms later, and every 10th frame of it is lost."""
    engine = ReadsTimes()
    with serving("--ir-delay-ms", "130", "--ir-phase-ms", "8", "--drop", "10") as peer:
        fuser = Fuser(engine=engine, tone="per-frame")
        with Pipeline(peer.url("ir"), peer.url("rgb"), fuser=fuser, frames=150) as pipeline:
            skews_ms = [frame.skew_ns / 1e6 for frame in pipeline]
            summary = pipeline.summary()
    apart_ms = [(ir - vis) / 1e3 for ir, vis in engine.times_us]
    assert len(apart_ms) == len(skews_ms) == 150
    assert max(abs(apart - 8) for apart in apart_ms) < 20  # the next frame would be 32 or 48 ms away
    assert max(abs(apart - skew) for apart, skew in zip(apart_ms, skews_ms, strict=True)) < 3
    assert summary.skew_ms == pytest.approx(8, abs=2)
    assert summary.clocks == {"ir": Clock.SENDER, "vis": Clock.SENDER}
    assert SECRET not in repr(summary)


def test_reconnects_within_three_seconds_of_each_of_ten_kills(caplog: pytest.LogCaptureFixture) -> None:
    """The other stream is passed through meanwhile; threads and memory do not grow."""
    seconds: list[float] = []
    threads: list[int] = []
    megabytes: list[float] = []
    with serving() as infrared, serving() as visible:
        pipeline = Pipeline(
            infrared.url("ir"),
            visible.url("rgb"),
            fuser=Fuser(engine=PassThrough(), tone="per-frame"),
            on_loss=OnLoss.PASSTHROUGH,
        )
        with pipeline:
            frames = iter(pipeline)
            next(frame for frame in frames if frame.content is Content.FUSED)
            for _ in range(10):
                infrared.kill()
                alone = next(frame for frame in frames if frame.content is Content.VISIBLE)
                assert alone.ir_stamp_ns is None
                infrared.start()
                began = time.monotonic()
                next(frame for frame in frames if frame.content is Content.FUSED)
                seconds.append(time.monotonic() - began)
                threads.append(threading.active_count())
                megabytes.append(memory_mb())
            summary = pipeline.summary()
    assert max(seconds) < 3, seconds
    assert max(threads) == threads[0]
    assert megabytes[-1] - megabytes[2] < 10, megabytes
    assert summary.sources[Role.IR].reconnects == 10
    assert summary.sources[Role.VIS].reconnects == 0
    assert SECRET not in caplog.text


def test_suspended_server_is_stalled_and_then_fresh(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as peer:
        source = open_source(peer.url("rgb"))
        ages_ms: list[float] = []
        states: list[State] = []

        def read() -> None:
            for frame in source:
                states.append(source.state)
                ages_ms.append(time.time() * 1e3 - taken_us(frame.luma) / 1e3)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            until(lambda: len(ages_ms) > 20)
            peer.process.send_signal(signal.SIGSTOP)
            until(lambda: source.state is State.STALLED)
            time.sleep(8.5)  # the outage under test, not a wait for a condition
            before = len(ages_ms)
            peer.process.send_signal(signal.SIGCONT)
            until(lambda: len(ages_ms) > before + 50)
        finally:
            source.interrupt()
            reader.join(20)
    assert max(ages_ms[before:]) < 1000, max(ages_ms[before:])
    assert "stalled, no frame for" in caplog.text
    assert "back after" in caplog.text
    assert SECRET not in caplog.text


def until(reached, within_s: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < end, "the condition was not reached in time"
        time.sleep(0.02)


def test_reconnects_with_another_size() -> None:
    with serving("--size", "640x480") as peer:
        source = open_source(peer.url("rgb"))
        frames = iter(source)
        assert next(frames).luma.shape == (480, 640)
        peer.kill()
        peer.start("--size", "320x240")
        assert next(frame for frame in frames if frame.luma.shape != (480, 640)).luma.shape == (240, 320)
        source.interrupt()
        assert list(frames) == []


@pytest.mark.parametrize(
    ("path", "secret", "words"),
    [("rgb", "wr0ng", "user name or password (401)"), ("nope", SECRET, "no such stream on that server (404)")],
)
def test_refused(path: str, secret: str, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    from streamfuse.errors import InputError

    with serving() as peer, pytest.raises(InputError) as raised:
        next(iter(open_source(peer.url(path, secret))))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert secret not in f"{raised.value!r} {raised.value.__cause__!r}" + "".join(capfd.readouterr())
