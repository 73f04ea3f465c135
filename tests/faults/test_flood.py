"""Thousands of connections that send garbage to the two ports that a run can open."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import time
from collections.abc import Iterator

import pytest
from fault_table import FaultTable
from publishing import published
from vitals import needs_proc, until, vitals
from web import picture, pumping, serving

from streamfuse.sinks.zeromq import ZeroMQSink
from streamfuse.zeromq.publisher import MAX_SUBSCRIPTIONS
from streamfuse.zeromq.subscriber import Subscriber

pytestmark = pytest.mark.timed

MANY = pytest.mark.parametrize("connections", [500, pytest.param(5000, marks=pytest.mark.soak)])
MOST_DESCRIPTORS = 12_000
_GREETING = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL" + bytes(48)
_READY = b"\5READY\x0bSocket-Type\0\0\0\3SUB"
"""Greeting of a subscriber in ZMTP 3.0."""
_SHAPES = (b"", b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n", os.urandom(300), _GREETING)


@contextlib.contextmanager
def flooded(port: int, connections: int) -> Iterator[list[socket.socket]]:
    """Open `connections` connections: some send nothing, some half a request, some garbage; none is closed."""
    callers: list[socket.socket] = []
    try:
        for k in range(connections):
            caller = socket.socket()
            callers.append(caller)
            caller.settimeout(5)
            with contextlib.suppress(OSError):
                caller.connect(("127.0.0.1", port))
                caller.sendall(_SHAPES[k % len(_SHAPES)])
        yield callers
    finally:
        for caller in callers:
            caller.close()


@pytest.fixture(autouse=True)
def _enough_descriptors() -> Iterator[None]:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < MOST_DESCRIPTORS:
        pytest.skip(f"needs {MOST_DESCRIPTORS} file descriptors: raise the limit (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], MOST_DESCRIPTORS), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def ask(port: int) -> float:
    """Return the response time of /healthz, s."""
    begin = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/healthz")
    assert connection.getresponse().read() == b"alive\n"
    connection.close()
    return time.monotonic() - begin


@MANY
@needs_proc
def test_preview_under_many_connections(connections: int, faults: FaultTable) -> None:
    """Meanwhile valid requests are answered, and the run is not slowed."""
    with serving() as sink, pumping(sink):
        ask(sink.port)
        before = vitals()
        with flooded(sink.port, connections):
            answered_s = ask(sink.port)
            writes_s = []
            for k in range(50):
                begin = time.monotonic()
                sink.write(picture(k))
                writes_s.append(time.monotonic() - begin)
        until(lambda: vitals().descriptors <= before.descriptors + 5)
        after = vitals()
        ask(sink.port)
    assert answered_s < 5, answered_s
    assert sorted(writes_s)[40] < 0.05, writes_s
    assert after.threads <= before.threads
    assert after.rss_mb - before.rss_mb < 150
    faults.add(
        f"{connections:,} connections to the preview's port",
        times=connections,
        lost=f"nothing; memory {after.rss_mb - before.rss_mb:+.0f} MB afterwards",
        recovered_s=[answered_s],
        promised="other requests are answered; the run is not slowed",
    )


@MANY
@needs_proc
def test_publisher_under_many_connections(connections: int, faults: FaultTable) -> None:
    """A connected subscriber still receives every frame, and a new one is served."""
    sink = ZeroMQSink("tcp://127.0.0.1:*")
    port = int(sink.address.rpartition(":")[2])
    try:
        with Subscriber(sink.address, mode="every", timeout_s=20) as subscriber:
            frames = iter(subscriber)
            sink.write(published(0))
            next(frames)
            before = vitals()
            with flooded(port, connections):
                begin = time.monotonic()
                for k in range(1, 51):
                    sink.write(published(k))
                    assert next(frames).header.seq == k
                passed_s = time.monotonic() - begin
                with Subscriber(sink.address, timeout_s=20) as late:
                    late.latest()
                    late_s = time.monotonic() - begin - passed_s
            until(lambda: vitals().descriptors <= before.descriptors + 20)
            gaps = subscriber.statistics().gaps
    finally:
        sink.close()
    assert gaps == 0
    faults.add(
        f"{connections:,} connections to the publisher's port",
        times=connections,
        lost=f"{gaps} of 50 frames of a subscriber that was connected before",
        recovered_s=[late_s],
        promised="subscribers are served",
    )


@needs_proc
def test_endless_subscriptions(faults: FaultTable) -> None:
    """A subscriber that subscribes to new topics without end costs no memory, and other subscribers are served."""
    sink = ZeroMQSink("tcp://127.0.0.1:*")
    port = int(sink.address.rpartition(":")[2])
    count = 20_000
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
            caller.sendall(_GREETING)
            caller.sendall(bytes((4, len(_READY))) + _READY)
            heard = b""
            while b"READY" not in heard:  # before that, messages are not subscriptions
                heard += caller.recv(1000)
            for k in range(count):
                topic = b"\1fused/%06d/" % k + b"x" * 200
                caller.sendall(bytes((0, len(topic))) + topic)
            until(lambda: sink._publisher._overflowed)
            with Subscriber(sink.address, timeout_s=20) as subscriber:
                begin = time.monotonic()
                while subscriber.statistics().received == 0:
                    sink.write(published(0))
                    assert time.monotonic() - begin < 20
                    time.sleep(0.02)
                served_s = time.monotonic() - begin
            assert len(sink._publisher._subscriptions) == MAX_SUBSCRIPTIONS
    finally:
        sink.close()
    faults.add(
        f"{count:,} subscriptions from one subscriber",
        times=1,
        lost="nothing",
        recovered_s=[served_s],
        promised="other subscribers are served",
    )
