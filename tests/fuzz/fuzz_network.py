"""Targets for data from the network: ZeroMQ messages, browsers' requests and sockets, and the answers to `top`."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import re
import urllib.request
from functools import cache, partial
from typing import Any, cast

from aiohttp import web
from fuzz_target import Target
from publishing import published
from test_hostile_network import _REQUEST
from test_hostile_text import none_if_refused
from test_wire import header, message
from web import TOKEN, Run, picture

from streamfuse.cli import top
from streamfuse.web.address import Address, Listener
from streamfuse.web.auth import Guard
from streamfuse.web.hub import Hub
from streamfuse.web.server import Server, Site, _log
from streamfuse.web.status import status
from streamfuse.web.viewer import _Viewer
from streamfuse.zeromq.payload import bgr_of, encode, luma_of, picture_of, temperature_of
from streamfuse.zeromq.wire import Encoding, Malformed, TemperatureHeader, pack, unpack

SIZE = 6, 8
TURNS = 30
"""Turns of the event loop within which a request is answered."""


def wire(data: bytes) -> object:
    """Parse a message; each line is one of its three parts."""
    parts = data.split(b"\n", 2)
    try:
        found = unpack(parts)
    except Malformed:
        return None
    pixels = memoryview(parts[2])
    return [none_if_refused(partial(read, found, pixels)) for read in (luma_of, bgr_of, picture_of)][-1]


def wire_temperature(data: bytes) -> object:
    """Parse a message of four parts: the header, and pixels and temperatures of 8x6."""
    text, _, rest = data.partition(b"\n")
    values = memoryview(rest[48:])
    try:
        found = unpack((b"fused/front/", text, rest[:48], values))
    except Malformed:
        return None
    plane = temperature_of(found, values)
    return plane is not None and (plane.extremes(), plane.celsius())


def _warm_message() -> bytes:
    warm = TemperatureHeader(
        scale=1 / 64, offset=-273.15, min=1.0, mean=2.5, max=30.0, min_at=(0, 1), max_at=(7, 5), part=True
    )
    return pack(header(Encoding.MONO8, SIZE, temperature=warm)) + b"\n" + bytes(48 + 96)


def _messages() -> tuple[bytes, ...]:
    made = []
    for encoding in Encoding:
        frame = published(0, size=SIZE)
        made.append(b"\n".join(message(header(encoding, SIZE), encode(frame, encoding))))
    return tuple(made)


# The preview without sockets: the server's own handler, on a transport that stores the output.


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 8080)})
        self.written = bytearray()
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def writelines(self, list_of_data: Any) -> None:
        self.written += b"".join(list_of_data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class _Preview:
    """A preview on loopback with a token and one picture."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.errors: list[object] = []
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(context))
        self._handler = logging.Handler()
        self._handler.emit = lambda record: self.errors.append(record.exc_info or record)  # type: ignore[method-assign]
        _log.addHandler(self._handler)
        self._hub = Hub()
        self.make = self.loop.run_until_complete(self._start())

    def close(self) -> None:
        self.loop.run_until_complete(self._runner.cleanup())
        self._hub.close()
        self.loop.close()
        _log.removeHandler(self._handler)

    async def _start(self) -> Any:
        self._hub.open()
        self._hub.publish(picture(size=SIZE))
        site = Site(Listener(Address("127.0.0.1", 8080), cast(Any, None)), Guard(True, 8080, TOKEN), pages=True)
        self._runner = web.AppRunner(
            Server([site], self._hub, Run())._app(site), handler_cancellation=True, access_log=None, logger=_log
        )
        await self._runner.setup()
        return self._runner.server

    async def ask(self, data: bytes) -> bytes:
        transport, protocol = _Transport(), self.make()
        protocol.connection_made(transport)
        protocol.data_received(data)
        protocol.eof_received()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        transport.close()
        protocol.connection_lost(None)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return bytes(transport.written)


_preview = cache(_Preview)


def end() -> None:
    """Close the preview that all inputs share."""
    if _preview.cache_info().currsize:
        _preview().close()
        _preview.cache_clear()


def request(data: bytes) -> object:
    preview = _preview()
    preview.errors.clear()
    answer = preview.loop.run_until_complete(preview.ask(data))
    assert not preview.errors, preview.errors
    assert answer == b"" or answer.startswith(b"HTTP/")
    assert not re.search(rb"HTTP/\d\.\d 500", answer)
    assert TOKEN.encode() not in answer or TOKEN[1:].encode() in data  # an error may quote the request
    return b"HTTP/1.1 200 OK" in answer


def browser(data: bytes) -> object:
    """Handle the messages of a browser's WebSocket, one on each line."""

    async def listen() -> object:
        viewer = _Viewer(cast(Any, None), Hub())
        viewer._sent = 1, 0
        for text in data.decode("utf-8", "replace").split("\n"):
            viewer.hear(text)
        for task in viewer.tasks():
            task.cancel()
        await asyncio.gather(*viewer.tasks(), return_exceptions=True)
        return viewer._views

    return _preview().loop.run_until_complete(listen())


# `streamfuse top`: the server at the address may give any answer.


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *args: Any) -> io.BytesIO:
        return io.BytesIO(self._data)

    def sendall(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


def answer(data: bytes) -> object:
    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = cast(Any, _Socket(data))

    class Handler(urllib.request.HTTPHandler):
        handler_order = 0  # called before the handler that connects

        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Connection, req)

    reader = top._Reader("127.0.0.1:8080", TOKEN)
    reader.opener.add_handler(Handler())
    shown = io.StringIO()

    def show() -> None:
        top.show(reader.read(), None, reader.name, top.console(shown))

    none_if_refused(show)
    assert all(line.isprintable() for line in shown.getvalue().split("\n"))
    return shown.getvalue()


def _answer(text: str) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text) + text.encode()
    )


def _state() -> str:
    hub = Hub()
    hub.publish(picture(size=SIZE))
    return json.dumps(status(Run().summary, hub))


_TOKEN = f"Authorization: Bearer {TOKEN}"
_SOCKET = _REQUEST.replace("/stream.mjpg?view=fused&token=x", "/socket").replace("Bearer abc", f"Bearer {TOKEN}")
_REQUESTS = (
    f"GET /snapshot.jpg?view=visible HTTP/1.1\r\nHost: localhost\r\n{_TOKEN}\r\n\r\n",
    _REQUEST,
    f"GET /status?token={TOKEN} HTTP/1.1\r\nHost: [::1]:8080\r\nSec-Fetch-Site: cross-site\r\n\r\n"
    f"GET /metrics HTTP/1.0\r\n{_TOKEN}\r\n\r\n",
    f"POST / HTTP/1.1\r\nHost: localhost\r\n{_TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    _SOCKET,
)

TARGETS = {
    "wire-temperature": Target(wire_temperature, (_warm_message(), _warm_message().replace(b"true", b"false"))),
    "wire": Target(wire, _messages()),
    "request": Target(
        request,
        tuple(text.encode() for text in _REQUESTS),
        (
            _SOCKET.replace("Origin: http://127.0.0.1:8080", "Origin: http://[").encode(),
            _SOCKET.encode().replace(b"Version: 13", b"Version: \xff"),
        ),
    ),
    "browser": Target(
        browser,
        (
            b'{"views": ["fused", "visible"]}\n{"shown": 1}',
            b'{"views": []}',
            b'{"measure": {"point": [0.5, 1], "area": [0, 0, 0.5, 1]}}',
        ),
    ),
    "answer": Target(
        answer,
        (
            _answer(_state()),
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://other/\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: ftp://other/\r\nContent-Length: 0\r\n\r\n",
            _answer('{"fused": 0}'),
            _answer("[" * 100_000),
            _answer(_state().replace('"live"', "3")),
            _answer(_state().replace('"recording"', '"[/]"').replace("cam0", "[/]").replace("late: by far", "[/x]")),
            _answer(_state().replace("late: by far", r"late\u001b[2J\u009b\n")),
            _answer(_state().replace('"fps": 0.0', '"fps": 1' + "0" * 400)),
        ),
    ),
}
