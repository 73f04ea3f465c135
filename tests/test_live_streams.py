"""Live sources on real sockets on loopback: RTSP, MPEG-TS, RTP, MJPEG, HLS, and their failures."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import cast

import av
import pytest
from media import SIZE, number_of
from streams import babbling_server, camera_server, directory_server, free_port, sending

from streamfuse.errors import InputError
from streamfuse.frames import Clock, Frame
from streamfuse.sources import open_source
from streamfuse.sources.address import Address, parse_address
from streamfuse.sources.base import Source, State
from streamfuse.sources.connection import Lost, explain
from streamfuse.sources.live import LiveSource


def address(text: str) -> Address:
    found = parse_address(text)
    assert found is not None
    return found


def listening(port: int) -> Address:
    """A source that listens for an RTSP writer, so that no server is needed."""
    plain = address(f"rtsp://127.0.0.1:{port}/live")
    options = {**plain.options, "rtsp_flags": "listen", "listen_timeout": "8"}
    return replace(plain, options=options)


@contextmanager
def reading(source: Source) -> Iterator[Iterator[Frame]]:
    """Iterate over a source; interrupt and close it at the end of the block."""
    frames = iter(source)
    try:
        yield frames
    finally:
        source.interrupt()
        cast("Generator[Frame]", frames).close()


def rises(frames: list[Frame]) -> None:
    stamps = [frame.stamp_ns for frame in frames]
    assert stamps == sorted(set(stamps))
    numbers = [number_of(frame.luma) for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def steady(frames: list[Frame]) -> None:
    """Return True if stamps are 40 ms apart, with any jitter of the arrivals."""
    steps_ms = [(b.stamp_ns - a.stamp_ns) / 1e6 for a, b in pairwise(frames)]
    assert steps_ms == pytest.approx([40] * len(steps_ms), abs=4)


def test_rtsp_by_the_sender_clock_and_reconnect_with_another_size() -> None:
    port = free_port()
    source = LiveSource(listening(port))
    with reading(source) as frames:
        with sending(f"rtsp://127.0.0.1:{port}/live", "rtsp", options={"rtsp_transport": "tcp"}):
            first = list(islice(frames, 20))
        rises(first)
        steady(first[5:])
        assert {frame.clock for frame in first} <= {Clock.SENDER, Clock.SENDER_START}
        assert source.state is State.LIVE
        url = f"rtsp://127.0.0.1:{port}/live"
        with sending(url, "rtsp", size=(96, 128), options={"rtsp_transport": "tcp"}):
            for frame in frames:  # frames from before the outage may still arrive
                if frame.luma.shape == (96, 128):
                    break
    assert source.reconnects == 1
    assert source.size == (96, 128)


def test_mpegts_over_udp() -> None:
    port = free_port(socket.SOCK_DGRAM)
    source = open_source(f"udp://127.0.0.1:{port}")
    with sending(f"udp://127.0.0.1:{port}?pkt_size=1316", "mpegts"), reading(source) as frames:
        got = list(islice(frames, 15))
    assert got[-1].luma.shape == SIZE
    assert source.clock is Clock.ARRIVAL
    steady(got[8:])


def test_rtp_by_its_sdp_file(tmp_path: Path) -> None:
    port = free_port(socket.SOCK_DGRAM)
    sdp = tmp_path / "stream.sdp"
    sdp.write_text(
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=test\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1\n"
    )
    source = open_source(f"{sdp}#clock=arrival")
    with sending(f"rtp://127.0.0.1:{port}", "rtp"), reading(source) as frames:
        got = list(islice(frames, 10))
    assert got[-1].luma.shape == SIZE
    assert got[-1].clock is Clock.ARRIVAL


def test_mjpeg_camera_that_is_switched_off_and_on() -> None:
    with ExitStack() as first, ExitStack() as second:
        port = first.enter_context(camera_server())
        source = open_source(f"http://127.0.0.1:{port}/cam?token=s3cret")
        frames = second.enter_context(reading(source))
        rises(list(islice(frames, 5)))
        assert source.clock is Clock.ARRIVAL
        first.close()
        second.enter_context(camera_server(port))
        back = next(frame for frame in frames if source.reconnects)
    assert number_of(back.luma) < 3
    assert source.name == f"http://127.0.0.1:{port}/cam"


def test_hls(tmp_path: Path) -> None:
    playlist = tmp_path / "live.m3u8"
    options = {"hls_time": "0.4", "hls_list_size": "4", "hls_flags": "delete_segments"}
    with sending(str(playlist), "hls", options=options), directory_server(str(tmp_path)) as port:
        while not playlist.exists():
            time.sleep(0.02)
        source = LiveSource(address(f"http://127.0.0.1:{port}/live.m3u8"))
        with reading(source) as frames:
            got = list(islice(frames, 30))
    rises(got)
    assert not source.drops


# Failures, as shown by the command line


@contextmanager
def running(tmp_path: Path, ir: str, vis: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[str], str]]]:
    """Start `streamfuse run`; yields a function that reads its lines up to one with the given words."""
    command = [sys.executable, "-m", "streamfuse", "run", "--ir", ir, "--vis", vis, "-o", str(tmp_path / "out.mp4")]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    lines: list[str] = []

    def until(words: str) -> str:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if words in line:
                return line
        raise AssertionError(f"{words!r} was not printed, but: {''.join(lines)}")

    try:
        yield process, until
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[1]
        assert "s3cret" not in "".join(lines) + rest
        assert process.returncode in (0, 3), "".join(lines) + rest
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_refused_and_garbage_connections_are_one_line_each_and_retried(tmp_path: Path) -> None:
    nobody = f"rtsp://me:s3cret@127.0.0.1:{free_port()}/ir"
    with babbling_server() as port, running(tmp_path, nobody, f"http://me:s3cret@127.0.0.1:{port}/x") as (_, until):
        first, second = sorted((until("trying again"), until("trying again")))
    assert first.startswith(f"note: http://***@127.0.0.1:{port}/x: ")
    assert "connection refused" in second
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("path", "words"),
    [("nope", "404): check the path"), ("secret", "user name or password (401)")],
)
def test_wrong_path_and_password_end_the_run(tmp_path: Path, path: str, words: str) -> None:
    with camera_server() as port:
        ir, vis = (f"http://me:s3cret@127.0.0.1:{port}/{where}" for where in ("cam", path))
        with running(tmp_path, ir, vis) as (process, until):
            line = until(words)
            assert process.wait(30) == 3
    assert line.startswith(f"error: http://***@127.0.0.1:{port}/{path}: ")


def test_missing_camera(tmp_path: Path) -> None:
    source = open_source("cam99")
    with pytest.raises(InputError, match="cam99: there is no such camera"):
        next(iter(source))


def test_web_page_is_not_a_stream() -> None:
    with camera_server() as port:
        source = LiveSource(address(f"http://u:s3cret@127.0.0.1:{port}/page"), wait=lambda _: source.interrupt())
        assert list(source) == []
    assert source.state is State.BACKOFF


@pytest.mark.parametrize(
    ("kind", "hopeless"),
    [
        (av.error.HTTPUnauthorizedError, True),
        (av.error.HTTPForbiddenError, True),
        (av.error.HTTPNotFoundError, True),
        (av.error.HTTPBadRequestError, True),
        (av.error.ConnectionRefusedError, False),
        (av.error.InvalidDataError, False),
        (av.error.ExitError, False),
        (av.error.EOFError, False),  # an EOFError, which click would take for the end of its input
        (av.error.OSError, False),
        (av.error.FileNotFoundError, False),
    ],
)
def test_every_error_is_explained_without_the_url(kind: type[av.error.FFmpegError], hopeless: bool) -> None:
    lost = explain(kind(5, "Input/output error", "rtsp://me:s3cret@host/x"), "rtsp")
    assert isinstance(lost, Lost)
    assert lost.hopeless is hopeless
    assert "s3cret" not in str(lost)
    assert "\n" not in str(lost)


def test_library_errors_do_not_contain_the_url() -> None:
    """A chained exception would show the password in a traceback."""
    with camera_server() as port, pytest.raises(InputError) as raised:
        next(iter(LiveSource(address(f"http://u:s3cret@127.0.0.1:{port}/secret"))))
    error: BaseException | None = raised.value
    while error is not None:
        assert "s3cret" not in f"{error!r} {error}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
