"""Memory of the preview with clients that send arbitrary data and read nothing."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from streams import free_port
from web import pumping, serving, until

from streamfuse.sinks.preview import PreviewSink
from streamfuse.web import server, stalls

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads /proc, which Linux has")
MOST_GROWTH_MB = 40
UPGRADE = (
    "GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
TEXT, BINARY, PING = 1, 2, 9
ALL_VIEWS = b'{"views": ["fused", "infrared", "visible"]}'
ONE_VIEW = b'{"views": ["fused"]}'


def frame(payload: bytes, kind: int = TEXT, *, last: bool = True, declared: int | None = None) -> bytes:
    """A WebSocket frame, masked with zeros.  declared: payload length in the header."""
    length = len(payload) if declared is None else declared
    head = bytes([0x80 * last | kind])
    if length < 126:
        return head + bytes([0x80 | length, 0, 0, 0, 0]) + payload
    if length < 65536:
        return head + b"\xfe" + length.to_bytes(2, "big") + bytes(4) + payload
    return head + b"\xff" + length.to_bytes(8, "big") + bytes(4) + payload


class Attacker:
    """Opens connections with small receive buffers and never reads from them."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        self._port = port
        self._stack = stack
        self._others = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        stack.callback(self._others.close)

    def connect(self, request: str) -> socket.socket:
        made = self._stack.enter_context(socket.socket())
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.settimeout(0.1)
        made.connect(("127.0.0.1", self._port))
        made.sendall(request.encode())
        return made

    def send(self, to: socket.socket, data: bytes) -> bool:
        """Send; return False if the connection is closed.  What the server does not take is dropped."""
        try:
            to.sendall(data)
        except TimeoutError:
            pass
        except ConnectionError:
            return False
        return True

    def ask(self) -> bytes:
        """Another client's request; when it is answered, the server has handled what came before."""
        self._others.request("GET", "/healthz")
        return self._others.getresponse().read()


def same_views(attacker: Attacker) -> None:
    to = attacker.connect(UPGRADE)
    for _ in range(600):
        attacker.send(to, frame(ONE_VIEW))
        attacker.ask()


def changing_views(attacker: Attacker) -> None:
    to = attacker.connect(UPGRADE)
    for k in range(300):
        views = b"[]" if k % 10 == 9 else (b'["fused"]', b'["visible", "fused"]')[k % 2]
        attacker.send(to, frame(b'{"views": ' + views + b"}"))
        attacker.ask()


def acknowledgements(attacker: Attacker) -> None:
    """Guessed numbers: of pictures that were sent, were not sent yet, and do not exist."""
    to = attacker.connect(UPGRADE)
    attacker.send(to, frame(ALL_VIEWS))
    for k in range(200):
        numbers = (*range(4 * k, 4 * k + 40), -1, 10**30, "null", "true", "1e400", "[1]")
        attacker.send(to, b"".join(frame(b'{"shown": %s}' % str(number).encode()) for number in numbers))
        attacker.ask()


def pings(attacker: Attacker) -> None:
    to = attacker.connect(UPGRADE)
    for _ in range(20):
        if not attacker.send(to, frame(bytes(125), PING) * 1000):
            break


def frames(attacker: Attacker) -> None:
    """Large, unfinished, empty and many frames."""
    for data, times in (
        (frame(bytes(1 << 20)), 50),
        (frame(b"", declared=1 << 62) + bytes(1 << 20), 50),
        (frame(b"x" * 1000, last=False) + frame(b"x" * 1000, 0, last=False) * 1000, 50),
        (frame(b"x", last=False) + frame(b"", 0, last=False) * 100_000, 5),
        (frame(b"[" * 4000) * 200, 10),
        (frame(bytes(4000), BINARY) * 200, 10),
        (frame(b"") * 50_000, 5),
    ):
        to = attacker.connect(UPGRADE)
        for _ in range(times):
            if not attacker.send(to, data):
                break
        attacker.ask()


def many_viewers(attacker: Attacker) -> None:
    for _ in range(server.MOST_VIEWERS + 8):
        to = attacker.connect(UPGRADE)
        for _ in range(20):
            attacker.send(to, frame(ALL_VIEWS))
            attacker.ask()


def many_streams(attacker: Attacker) -> None:
    for _ in range(server.MOST_VIEWERS + 8):
        attacker.connect("GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for _ in range(300):
        attacker.ask()


def many_snapshots(attacker: Attacker) -> None:
    for _ in range(300):
        attacker.connect("GET /snapshot.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        attacker.ask()


def pipelined_requests(attacker: Attacker) -> None:
    for path in ("/", "/snapshot.jpg", "/metrics", "/nowhere"):
        to = attacker.connect("")
        for _ in range(100):
            if not attacker.send(to, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 100):
                break
        attacker.ask()


ATTACKS = (
    *(same_views, changing_views, acknowledgements, pings, frames),
    *(many_viewers, many_streams, many_snapshots, pipelined_requests),
)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[int, Path]]:
    """A server of large pictures: its port, and the directory of its process in /proc."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("web.py")), str(port), "noise"]
    with subprocess.Popen(command) as process:

        def warm() -> bool:
            """Every kind of answer was given once."""
            caller = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            paths = ("/", "/metrics", *(f"/snapshot.jpg?view={view}" for view in ("fused", "infrared", "visible")))
            with contextlib.closing(caller), contextlib.suppress(OSError):
                for path in paths:
                    caller.request("GET", path)
                    answer = caller.getresponse()
                    answer.read()
                    if answer.status != 200:
                        return False
                return True
            return False

        try:
            until(warm)
            yield port, Path(f"/proc/{process.pid}")
        finally:
            process.kill()


def megabytes(process: Path, field: str) -> float:
    """Read a field of /proc/PID/status: VmRSS, the memory now, or VmHWM, its peak."""
    found = re.search(rf"{field}:\s+(\d+) kB", (process / "status").read_text())
    assert found is not None
    return int(found[1]) / 1e3


@needs_proc
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_clients_that_read_nothing_take_little_memory(
    attack: Callable[[Attacker], None], running: tuple[int, Path]
) -> None:
    port, process = running
    (process / "clear_refs").write_text("5")  # the peak is counted from now on
    before_mb = megabytes(process, "VmRSS")
    with ExitStack() as stack:
        attacker = Attacker(port, stack)
        attack(attacker)
        begin = time.monotonic()
        assert attacker.ask() == b"alive\n"
        assert time.monotonic() - begin < 5
        grown_mb = megabytes(process, "VmHWM") - before_mb
    assert grown_mb < MOST_GROWTH_MB


@pytest.mark.parametrize("path", ["stream.mjpg", "snapshot.jpg", "socket"])
def test_connection_that_takes_nothing_is_aborted(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes room for another viewer, and its memory is released."""
    monkeypatch.setattr(stalls, "STALL_S", 0.3)
    with large_pictures() as (sink, attacker):
        request = UPGRADE if path == "socket" else f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connections = [attacker.connect(request) for _ in range(3)]
        until(lambda: sink.hub.viewers == 3)

        def gone(connection: socket.socket) -> bool:
            return not attacker.send(connection, frame(ONE_VIEW) if path == "socket" else b"G")

        until(lambda: all([gone(connection) for connection in connections]))
        until(lambda: sink.hub.viewers == 0)


@contextlib.contextmanager
def large_pictures() -> Iterator[tuple[PreviewSink, Attacker]]:
    """A server whose pictures do not fit in the buffers of a connection."""
    size = 1500, 2000
    noise = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    with ExitStack() as stack:
        sink = stack.enter_context(serving())
        stack.enter_context(pumping(sink, 0.5, size=size, luma=noise))
        until(lambda: sink.hub.newest is not None)
        yield sink, Attacker(sink.port, stack)
