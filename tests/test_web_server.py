"""The preview with real clients: one picture per acknowledgement, and no client delays another."""

from __future__ import annotations

import asyncio
import socket
import threading

import numpy as np
import pytest
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError
from test_web_hub import decoded
from web import GREYS, TOKEN, Run, picture, serving, until, viewer

from streamfuse.errors import OutputError, UsageError
from streamfuse.frames import Content
from streamfuse.sinks.preview import PreviewSink
from streamfuse.web import server


def url(sink: PreviewSink, path: str = "") -> str:
    return f"http://127.0.0.1:{sink.port}/{path}"


def grey(jpeg: bytes) -> float:
    return float(decoded(jpeg).mean())


def test_next_picture_is_sent_after_the_acknowledgement() -> None:
    async def look(sink: PreviewSink) -> None:
        async with ClientSession() as session:
            watching = await viewer(session, sink, "fused")
            sink.write(picture(0))
            first, _ = await watching.next(shown=False)
            for index in range(1, 6):
                sink.write(picture(index))
            await watching.show(99)  # the number of no picture that was sent
            for _ in range(2):  # only the state, once a second
                assert (await watching.socket.receive(timeout=10)).type is WSMsgType.TEXT
            await watching.show(first["number"])
            newest, jpegs = await watching.next()
        assert (first["index"], newest["index"]) == (0, 5)
        assert grey(jpegs["fused"]) == pytest.approx(GREYS["fused"] + 5, abs=2)
        assert newest["skew_ms"] == 4
        assert newest["glass_ms"] > 0
        assert newest["timings_ms"] == {"align": 1, "fuse": 20, "tone": 2}

    with serving() as sink:
        asyncio.run(look(sink))
        assert sink.hub.encoded.total() == 2


def test_several_views_are_of_one_picture_and_a_stream_that_is_away_has_none() -> None:
    async def look(sink: PreviewSink) -> None:
        async with ClientSession() as session:
            watching = await viewer(session, sink, "visible", "infrared", "nonsense", "fused")
            sink.write(picture(3))
            _, jpegs = await watching.next()
            assert {view: round(grey(jpeg)) for view, jpeg in jpegs.items()} == pytest.approx(
                {view: value + 3 for view, value in GREYS.items()}, abs=2
            )
            sink.write(picture(4, content=Content.VISIBLE))
            header, jpegs = await watching.next()
            assert header["content"] == "visible"
            assert set(jpegs) == {"fused", "visible"}

    with serving() as sink:
        asyncio.run(look(sink))


def test_another_view_shows_the_newest_picture_again() -> None:
    """Even while no new picture comes, and before the last one was acknowledged."""

    async def look(sink: PreviewSink) -> None:
        async with ClientSession() as session:
            watching = await viewer(session, sink, "fused")
            sink.write(picture(3))
            await watching.next(shown=False)
            await watching.look("visible")
            header, jpegs = await watching.next()
            assert header["index"] == 3
            assert set(jpegs) == {"visible"}
            await watching.look()
            await watching.socket.send_str("no JSON")
            await watching.socket.send_str("[1]")
            await watching.look("fused")
            assert set((await watching.next())[1]) == {"fused"}

    with serving() as sink:
        asyncio.run(look(sink))
        assert dict(sink.hub.encoded) == {"fused": 1, "visible": 1}


def test_nothing_is_encoded_without_views() -> None:
    async def look(sink: PreviewSink) -> None:
        async with ClientSession() as session:
            watching = await viewer(session, sink)  # a page in the background
            assert (await watching.socket.receive(timeout=10)).type is WSMsgType.TEXT
            for index in range(100):
                sink.write(picture(index))
            assert sink.hub.viewers == 1
            async with session.get(url(sink, "status")) as answer:
                assert (await answer.json())["jpegs"] == 0

    with serving() as sink:
        asyncio.run(look(sink))
        assert sink.hub.encoded.total() == 0
        until(lambda: sink.hub.viewers == 0)


def stuck(sink: PreviewSink, request: str, then: bytes = b"") -> socket.socket:
    """A client that sends a request and reads nothing; its buffer is soon full."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", sink.port))
    made.sendall(f"{request}\r\nHost: localhost\r\n\r\n".encode() + then)
    return made


def test_stalled_viewers_do_not_slow_others() -> None:
    """One acknowledges nothing, one reads nothing, one is an MJPEG stream that is not read; another gets all."""
    noise = np.random.default_rng(0).integers(0, 256, (480, 640), np.uint8)

    async def look(sink: PreviewSink) -> None:
        async with ClientSession() as session:
            stalled = await viewer(session, sink, "fused")
            watching = await viewer(session, sink, "fused")
            for index in range(60):
                sink.write(picture(index, luma=noise, size=noise.shape))
                header, _ = await watching.next()
                assert header["index"] == index
            assert sink.hub.viewers == 4
            assert not stalled.socket.closed

    upgrade = (
        "GET /socket HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    )
    look_at = b'{"views": ["fused"]}'
    framed = bytes([0x81, 0x80 | len(look_at), 0, 0, 0, 0]) + look_at
    with serving() as sink, stuck(sink, "GET /stream.mjpg HTTP/1.1"), stuck(sink, upgrade, framed):
        asyncio.run(look(sink))
        assert sink.hub.encoded.total() == 60  # once per picture, not per viewer


def test_mjpeg_pictures_are_complete_at_once() -> None:
    async def look(sink: PreviewSink) -> None:
        async with ClientSession() as session, session.get(url(sink, "stream.mjpg?view=infrared")) as answer:
            assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
            assert await answer.content.readline() == b"--frame\r\n"
            for index in range(3):
                sink.write(picture(index))
                head = await asyncio.wait_for(answer.content.readuntil(b"\r\n\r\n"), 20)
                size = int(head.partition(b"Content-Length: ")[2])
                jpeg = await asyncio.wait_for(answer.content.readexactly(size), 20)
                assert grey(jpeg) == pytest.approx(GREYS["infrared"] + index, abs=2)
                # The boundary comes before the next picture: browsers wait for it.
                assert await asyncio.wait_for(answer.content.readuntil(b"--frame\r\n"), 20) == b"\r\n--frame\r\n"

    with serving() as sink:
        asyncio.run(look(sink))
        until(lambda: sink.hub.viewers == 0)  # noticed without a further write


def test_snapshots() -> None:
    async def look(sink: PreviewSink) -> None:
        async with ClientSession() as session:

            async def ask(query: str = "") -> tuple[int, bytes]:
                async with session.get(url(sink, f"snapshot.jpg{query}")) as answer:
                    return answer.status, await answer.read()

            assert (await ask())[0] == 503
            sink.write(picture(2, content=Content.INFRARED))
            assert grey((await ask("?view=infrared"))[1]) == pytest.approx(GREYS["infrared"] + 2, abs=2)
            assert (await ask("?view=visible")) == (404, b"the visible stream is away\n")
            assert (await ask("?view=other"))[0] == 400

    with serving() as sink:
        asyncio.run(look(sink))


def test_end_closes_sockets_threads_and_ports() -> None:
    async def look(sink: PreviewSink) -> None:
        async with ClientSession() as session:
            watching = await viewer(session, sink, "fused")
            sink.write(picture())
            await watching.next()
            closing = asyncio.create_task(asyncio.to_thread(sink.close))
            while (message := await watching.socket.receive(timeout=20)).type is WSMsgType.TEXT:
                pass
            assert (message.type, watching.socket.close_code) == (WSMsgType.CLOSE, 1001)
            await closing

    sink = PreviewSink("127.0.0.1:0")
    with serving():  # another server is not affected
        sink.attach(Run())
        port = sink.port
        asyncio.run(look(sink))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("streamfuse")]
    with serving(f"127.0.0.1:{port}") as again:
        assert again.port == port


def test_number_of_viewers_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_VIEWERS", 1)

    async def look(sink: PreviewSink) -> None:
        async with ClientSession() as session:
            first = await viewer(session, sink, "fused")
            with pytest.raises(WSServerHandshakeError) as refused:
                await viewer(session, sink, "fused")
            assert refused.value.status == 503
            async with session.get(url(sink, "stream.mjpg")) as answer:
                assert answer.status == 503
            assert not first.socket.closed
            await first.socket.close()

    with serving() as sink:
        asyncio.run(look(sink))


def test_port_in_use_and_invalid_addresses() -> None:
    with (
        serving() as sink,
        pytest.raises(OutputError, match=f"the port is in use: choose another, such as {sink.port + 1}"),
    ):
        PreviewSink(f"127.0.0.1:{sink.port}")
    for text in ("127.0.0.1", "localhost:x", "me@127.0.0.1:80", "127.0.0.1:99999", "127.0.0.1:80/x", ""):
        with pytest.raises(UsageError, match="give HOST:PORT"):
            PreviewSink(text)
    with pytest.raises(OutputError, match="no such host: check"):
        PreviewSink("no-such-host.invalid:80", token=TOKEN)
    with pytest.raises(OutputError, match=r"no such address: use 127\.0\.0\.1"):
        PreviewSink("203.0.113.1:8080", token=TOKEN)
