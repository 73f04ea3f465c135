"""Valid, nearly valid and arbitrary data sent to open ports: HTTP, WebSockets and ZeroMQ."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import mutated
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from publishing import published
from test_hostile_text import none_if_refused
from test_wire import header, message
from web import TOKEN, Run, pumping, serving

from streamfuse.sinks.preview import PreviewSink
from streamfuse.sinks.zeromq import ZeroMQSink
from streamfuse.web.hub import Hub
from streamfuse.web.viewer import _Viewer
from streamfuse.zeromq.curve import client_keys, is_allowed, new_keys, server_keys
from streamfuse.zeromq.subscriber import Subscriber
from streamfuse.zeromq.wire import Encoding, Malformed, pack, unpack

_REQUEST = """GET /stream.mjpg?view=fused&token=x HTTP/1.1\r
Host: 127.0.0.1:8080\r
Origin: http://127.0.0.1:8080\r
Cookie: streamfuse_8080=abc\r
Authorization: Bearer abc\r
Content-Length: 3\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
Sec-WebSocket-Version: 13\r
\r
abc"""


@pytest.fixture(scope="module")
def preview() -> Iterator[PreviewSink]:
    with serving(token=TOKEN) as sink, pumping(sink):
        yield sink


@contextlib.contextmanager
def no_trace(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Assert that nothing is logged, neither errors of clients nor unexpected exceptions."""
    caplog.clear()
    yield
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def alive(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().read() == b"alive\n"
    finally:
        connection.close()


def sent(port: int, data: bytes) -> bytes:
    """Send data and disconnect; return the start of the answer, if there is one."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as caller, contextlib.suppress(OSError):
        caller.sendall(data)
        caller.shutdown(socket.SHUT_WR)
        return caller.recv(4096)
    return b""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), mutated(_REQUEST)))
@example(b"GET /?token=" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n")
@example(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000 + b"\r\n")
@example(b"GET /socket HTTP/1.1\r\nHost: [::1\r\n\r\n")
@example(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n")
@example(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n")
@example(b"GET /%00%ff%0d%0a HTTP/1.1\r\nHost: localhost\r\n\r\n")
@example(b"GET //evil/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n")
def test_requests(preview: PreviewSink, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    with no_trace(caplog):
        answer = sent(preview.port, data)
        assert answer == b"" or answer.startswith(b"HTTP/")
        assert b" 500 " not in answer[:20]
        assert TOKEN.encode() not in answer
        assert alive(preview.port)


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=9), inner, max_size=4)),
    max_leaves=9,
)


@given(
    st.lists(
        st.one_of(
            st.text(max_size=50),
            _JSON.map(json.dumps),
            st.builds(lambda key, value: json.dumps({key: value}), st.sampled_from(["views", "shown"]), _JSON),
        ),
        max_size=5,
    )
)
@example(["[" * 4000])
@example(['{"views": [["fused"], {}, null, "fused"]}', '{"shown": [1]}'])
@example(['{"views": ' + "[" * 2000 + "]" * 2000 + "}"])
@example(["9" * 4096])
def test_messages_of_a_browser(said: list[str]) -> None:
    async def listen() -> None:
        hub = Hub()
        viewer = _Viewer(None, hub)  # type: ignore[arg-type]
        viewer._sent = 1, 0
        for text in said:
            viewer.hear(text)
        for task in viewer.tasks():
            task.cancel()
        await asyncio.gather(*viewer.tasks(), return_exceptions=True)

    asyncio.run(listen())


def test_socket_survives_garbage_and_closes_on_oversized_messages() -> None:
    from aiohttp import ClientSession, WSMsgType

    async def talk(sink: PreviewSink) -> None:
        async with ClientSession() as session:
            socket = await session.ws_connect(f"http://127.0.0.1:{sink.port}/socket")
            for text in ("", "nonsense", "[" * 4000, "[1]", '{"views": 3}', '{"shown": {}}', '{"views": [[]]}'):
                await socket.send_str(text)
            await socket.send_bytes(bytes(100))
            assert (await socket.receive(timeout=10)).type is WSMsgType.TEXT  # it still sends the state
            await socket.send_str("x" * 5000)
            kinds = [(await socket.receive(timeout=10)).type for _ in range(2)]
            assert WSMsgType.CLOSE in kinds or WSMsgType.CLOSED in kinds

    with serving(run=Run()) as sink:
        asyncio.run(talk(sink))
        assert alive(sink.port)


# ZeroMQ

_HEAD = pack(header(size=(48, 64))).decode()


@given(mutated(_HEAD), st.binary(max_size=30), st.integers(-3, 3))
@example(b'{"schema": ' + b"9" * 5000 + b"}", b"", 0)
@example(b"[" * 16_000, b"", 0)
def test_nearly_valid_headers(text: bytes, topic: bytes, more: int) -> None:
    good = message(header(size=(48, 64)))
    for parts in ([good[0], text, good[2]], [topic, text, good[2]], [good[0], text, bytes(good[2])[: more or None]]):
        with contextlib.suppress(Malformed):
            found = unpack(parts)
            assert found.width * found.height <= len(parts[2])


def test_jpeg_above_the_pixel_limit_is_dropped() -> None:
    """Three megabytes would be decoded to 800."""
    from streamfuse.zeromq.payload import encode

    frame = published(0, size=(480, 640), luma=np.zeros((480, 640), np.uint8))
    head = header(size=(480, 640), encoding=Encoding.JPEG, step=None)
    parts = [f"fused/{head.stream}/".encode(), pack(head), bytes(encode(frame, Encoding.JPEG))]
    assert unpack(parts).width == 640
    with pytest.raises(Malformed, match="--max-pixels"):
        unpack(parts, 640 * 480 - 1)


_GREETING = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL" + bytes(48)
"""Greeting of a subscriber in ZMTP 3.0."""


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=100), min_size=1, max_size=4))
@example([_GREETING, b"\4\x26\5READY\x0bSocket-Type\0\0\0\3SUB", b"\2" + b"\xff" * 8])
def test_bytes_that_are_not_zeromq(said: list[bytes]) -> None:
    """A publisher continues to serve other subscribers."""
    with _publisher() as (sink, subscriber):
        port = int(sink.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as caller, contextlib.suppress(OSError):
            for data in said:
                caller.sendall(data)
        sink.write(published(1))
        assert subscriber.latest(20).header.seq >= 0


@contextlib.contextmanager
def _publisher() -> Iterator[tuple[ZeroMQSink, Subscriber]]:
    sink = ZeroMQSink("tcp://127.0.0.1:*")
    try:
        with Subscriber(sink.address, timeout_s=20) as subscriber:
            sink.write(published(0))
            subscriber.latest(20)
            yield sink, subscriber
    finally:
        sink.close()


# Keys

_KEY = '#   ZeroMQ CURVE\nmetadata\ncurve\n    public-key = "yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"\n'
_SECRET = _KEY + '    secret-key = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"\n'


@given(st.one_of(st.binary(max_size=200), mutated(_SECRET)))
@example(b"public-key")
def test_key_files(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        keys = Path(directory)
        new_keys(keys / "k")
        (keys / "k/clients/bad.key").write_bytes(data)
        (keys / "bad").write_bytes(data)
        (keys / "bad").chmod(0o600)
        none_if_refused(lambda: server_keys(keys / "bad", keys / "k/clients"))
        none_if_refused(lambda: server_keys(keys / "k/server.key_secret"))
        none_if_refused(lambda: client_keys(keys / "bad", keys / "k/client.key_secret"))
        assert is_allowed(keys / "k/clients", b"0" * 40) is False
