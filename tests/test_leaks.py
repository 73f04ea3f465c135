"""Constructors that fail close everything that they had opened."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
from pathlib import Path

import pytest
import zmq
from media import PassThrough, every, write_video
from streams import camera_server, free_port
from web import until

from streamfuse.batch import warm, worker
from streamfuse.batch.options import BatchOptions, check, made_of
from streamfuse.batch.recordings import Recording
from streamfuse.errors import InputError, OutputError, UsageError
from streamfuse.sinks import push
from streamfuse.sinks import video as video_sink
from streamfuse.sources.address import parse_address
from streamfuse.sources.connection import Connection, Lost
from streamfuse.sources.file import VideoFile
from streamfuse.sources.live import LiveSource
from streamfuse.sources.options import SourceOptions
from streamfuse.zeromq import link, publisher

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at open files in /proc")


def open_files(path: Path) -> int:
    """Count the open descriptors of `path` in this process."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += entry.readlink() == path.resolve()
        except FileNotFoundError:  # descriptor of the listing
            continue
    return count


@pytest.fixture(autouse=True)
def _no_collector() -> object:
    """Disable the garbage collector, so that objects closed only by it count as open."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def refused(path: Path, options: SourceOptions) -> Exception:
    with pytest.raises((UsageError, InputError)) as raised:
        VideoFile(path, options)
    assert open_files(path) == 0  # while the error with its frames still exists
    return raised.value


def test_a_video_that_is_refused_is_closed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", every(40, 3))
    with VideoFile(path):
        assert open_files(path) == 1
    refused(path, SourceOptions(agc="best"))
    refused(path, SourceOptions(max_pixels=100))


def test_a_video_whose_header_cannot_be_used_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", every(40, 3))

    def broken(self: VideoFile) -> int | None:
        raise ZeroDivisionError

    monkeypatch.setattr(VideoFile, "_expected_frames", broken)
    with pytest.raises(ZeroDivisionError) as raised:
        VideoFile(path)
    assert open_files(path) == 0
    assert raised.tb is not None


@pytest.mark.parametrize("what", ["size", "description"])
def test_a_connection_that_is_refused_is_closed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with camera_server() as port:
        address = parse_address(f"http://127.0.0.1:{port}/cam")
        assert address is not None
        options = SourceOptions(max_pixels=1000 if what == "size" else 10_000)
        if what == "description":

            def broken(self: Connection) -> str:
                raise ZeroDivisionError

            monkeypatch.setattr(Connection, "_describe", broken)
        before = sockets_to(port)
        with pytest.raises((Lost, ZeroDivisionError)) as raised:
            Connection(address, options)
        assert sockets_to(port) == before
        assert raised.tb is not None


def sockets_to(port: int) -> int:
    """TCP connections of this process whose other end is `port`, as /proc/self/net/tcp lists them."""
    inodes = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            name = str(entry.readlink())
        except FileNotFoundError:
            continue
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(line[2].endswith(f":{port:04X}") and line[9] in inodes for line in lines)


def test_a_worker_whose_output_cannot_be_made_closes_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", every(40, 3))
    monkeypatch.setattr(warm, "_make_engine", lambda options: PassThrough())
    monkeypatch.setattr(warm, "_idle", {})
    opened: list[tuple[object, ...]] = []
    open_recording = worker.open_recording

    def remember(*args: object) -> object:
        opened.append(open_recording(*args))  # type: ignore[arg-type]
        assert open_files(path) == 2
        return opened[-1]

    def refuse(*args: object, **kwargs: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(worker, "open_recording", remember)
    monkeypatch.setattr(video_sink, "VideoSink", refuse)
    recording, options = Recording(tmp_path / "out.mp4", str(path), str(path)), check(BatchOptions(), [])
    outcome = worker.fuse(recording, options, made_of(recording, options), False)
    assert outcome.error == "the disk is full"
    assert len(opened) == 1
    assert open_files(path) == 0  # though the test still holds the sources


def test_a_stream_whose_description_fails_is_closed() -> None:
    class Link:
        period_ns = None
        start_since_1970_ns = None
        closed = False

        @property
        def description(self) -> str:
            raise ZeroDivisionError

        def read(self) -> object:
            raise AssertionError

        def close(self) -> None:
            self.closed = True

    made = Link()
    address = parse_address("rtsp://127.0.0.1/ir")
    assert address is not None
    with pytest.raises(ZeroDivisionError):
        next(iter(LiveSource(address, connect=lambda address, options: made)))  # type: ignore[arg-type, return-value]
    assert made.closed


def test_a_push_that_cannot_be_started_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def remember(*args: object, **kwargs: object) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **kwargs))  # type: ignore[call-overload]
        return started[-1]

    def refuse(*args: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(subprocess, "Popen", remember)
    monkeypatch.setattr(os, "set_blocking", refuse)
    with pytest.raises(OSError, match="no"):
        push._Push("rtsp://127.0.0.1:1/x")
    assert [process.returncode is not None for process in started] == [True]
    assert started[0].stdin is not None
    assert started[0].stdin.closed


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_publisher_that_cannot_watch_its_socket_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError("too many open files")

    publisher.Publisher("tcp://127.0.0.1:*")._close()  # opens what stays open until the exit
    before = descriptors()
    monkeypatch.setattr(socket, "socketpair", refuse)
    with pytest.raises(OSError, match="too many") as raised:
        publisher.Publisher("tcp://127.0.0.1:*")
    assert descriptors() == before
    assert raised.tb is not None


def test_subscriber_that_cannot_connect_closes_its_sockets() -> None:
    subscribing(f"tcp://127.0.0.1:{free_port()}").close()
    before = descriptors()
    with pytest.raises(zmq.ZMQError) as raised:
        subscribing("tcp://nowhere")
    until(lambda: descriptors() <= before)  # ZeroMQ closes sockets in its own thread
    assert raised.tb is not None


def subscribing(url: str) -> link.Connection:
    return link.Connection(url, b"", None, 1 << 20)
