"""Access to the preview, by browsers, programs and foreign pages."""

from __future__ import annotations

import asyncio
import logging
from http.cookies import SimpleCookie

import pytest
from aiohttp import ClientSession, CookieJar, DummyCookieJar, WSServerHandshakeError
from web import TOKEN, picture, serving

from streamfuse.errors import UsageError
from streamfuse.sinks.preview import PreviewSink
from streamfuse.web.auth import is_loopback

GUARDED = ("", "snapshot.jpg", "stream.mjpg", "status", "metrics", "readyz", "socket")


def ask(sink: PreviewSink, path: str, **headers: str) -> tuple[int, str, SimpleCookie]:
    async def go() -> tuple[int, str, SimpleCookie]:
        async with (
            ClientSession(cookie_jar=DummyCookieJar()) as session,
            session.get(
                f"http://127.0.0.1:{sink.port}/{path}", headers={k.replace("_", "-"): v for k, v in headers.items()}
            ) as answer,
        ):
            return answer.status, (await answer.read()).decode(errors="replace"), answer.cookies

    return asyncio.run(go())


def test_without_the_token_only_healthz_answers() -> None:
    with serving(token=TOKEN) as sink:
        sink.write(picture())
        for path in GUARDED:
            for query in ("", "?token=", "?token=wrong", f"?token={TOKEN}x", "?token=%ff"):
                status, text, cookies = ask(sink, path + query)
                assert (status, len(cookies)) == (401, 0), path + query
                assert TOKEN not in text
        assert ask(sink, "status", Authorization="Bearer wrong")[0] == 401
        assert ask(sink, "status", Cookie=f"streamfuse_{sink.port}={TOKEN}")[0] == 401
        assert ask(sink, "healthz")[:2] == (200, "alive\n")


def test_token_in_the_address_once_then_a_cookie() -> None:
    with serving(token=TOKEN) as sink:
        status, text, cookies = ask(sink, f"?token={TOKEN}")
        cookie = cookies[f"streamfuse_{sink.port}"]
        assert status == 200
        assert TOKEN not in text
        assert TOKEN not in cookie.value
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
        assert ask(sink, "status", Cookie=f"{cookie.key}={cookie.value}")[0] == 200
        assert ask(sink, "metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
    with serving(token=f"{TOKEN}2") as sink:
        assert ask(sink, "status", Cookie=f"streamfuse_{sink.port}={cookie.value}")[0] == 401


def test_socket_takes_the_cookie() -> None:
    async def look(sink: PreviewSink) -> None:
        async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:  # keeps cookies of IP addresses
            async with session.get(f"http://127.0.0.1:{sink.port}/?token={TOKEN}") as answer:
                assert answer.status == 200
            async with session.ws_connect(f"http://127.0.0.1:{sink.port}/socket") as socket:
                assert "ready" in await socket.receive_json(timeout=10)

    with serving(token=TOKEN) as sink:
        asyncio.run(look(sink))


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [
        (None, True),
        ("http://{host}", True),
        ("https://{host}", True),  # by a TLS proxy
        ("http://evil.example", False),
        ("http://127.0.0.1:1", False),  # another server on this machine
        ("null", False),
        ("http://[", False),
        ("http://evil.example@{host}", False),
    ],
)
def test_socket_is_not_for_foreign_pages(origin: str | None, accepted: bool) -> None:
    async def look(sink: PreviewSink) -> int:
        host = f"127.0.0.1:{sink.port}"
        headers = {} if origin is None else {"Origin": origin.format(host=host)}
        async with ClientSession() as session:
            try:
                async with session.ws_connect(f"http://{host}/socket", headers=headers):
                    return 101
            except WSServerHandshakeError as error:
                return error.status

    with serving() as sink:
        assert asyncio.run(look(sink)) == (101 if accepted else 403)


def test_foreign_host_names_are_refused_on_loopback() -> None:
    with serving() as sink:
        for host in ("evil.example", f"evil.example:{sink.port}", "localhost.evil.example", "192.0.2.1", "[::1", "a b"):
            assert ask(sink, "status", Host=host)[0] in (400, 403), host
        for host in (
            "localhost",
            "LOCALHOST:9000",
            "127.0.0.1:9000",
            f"[::1]:{sink.port}",
        ):  # a tunnel
            assert ask(sink, "status", Host=host)[0] == 200, host


def test_foreign_pages_cannot_request_pictures() -> None:
    with serving() as sink:
        sink.write(picture())
        foreign = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}
        assert ask(sink, "snapshot.jpg", **foreign)[0] == 403
        assert sink.hub.encoded.total() == 0
        assert ask(sink, "", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200  # a link to the preview


def test_every_answer_has_security_headers() -> None:
    async def look(sink: PreviewSink) -> None:
        async with ClientSession() as session:
            for path in ("", "status", "metrics", "snapshot.jpg", "nowhere"):
                async with session.get(f"http://127.0.0.1:{sink.port}/{path}") as answer:
                    headers = answer.headers
                    assert headers["Cache-Control"] == "no-store"
                    assert headers["X-Content-Type-Options"] == "nosniff"
                    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
                    policy = headers["Content-Security-Policy"]
                    assert "default-src 'none'" in policy
                    assert "unsafe" not in policy
                    assert "http" not in policy

    with serving() as sink:
        asyncio.run(look(sink))


def test_page_loads_nothing_from_other_servers() -> None:
    with serving() as sink:
        text = ask(sink, "")[1]
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert " src=" not in text


def test_other_addresses_always_have_a_token() -> None:
    with serving("0.0.0.0:0") as sink:
        link = sink.links["preview"]
        assert sink.generated
        made = link.partition("?token=")[2]
        assert len(made) >= 32
        assert ask(sink, "status")[0] == 401
        assert ask(sink, f"status?token={made}")[0] == 200
    with serving("0.0.0.0:0", token=TOKEN) as sink:
        assert not sink.generated
        assert TOKEN not in sink.links["preview"]
        assert ask(sink, "status", Host="camera-box:1", Authorization=f"Bearer {TOKEN}")[0] == 200
    with serving("127.0.0.1:0", metrics="0.0.0.0:0") as sink:
        assert ask(sink, "status")[0] == 200  # loopback needs no token
        assert "?token=" in sink.links["metrics"]
        assert "?token=" not in sink.links["preview"]


def test_weak_tokens_are_refused() -> None:
    for token in ("", "short", "with space " * 3, "caf\u00e9" * 10):
        with pytest.raises(UsageError, match="at least 16 printable ASCII characters"):
            PreviewSink("127.0.0.1:0", token=token)


def test_token_is_neither_logged_nor_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(token=TOKEN) as sink:
        ask(sink, f"?token={TOKEN}")
        ask(sink, f"status?token={TOKEN}x")
        ask(sink, f"nowhere?token={TOKEN}")
        assert TOKEN not in f"{sink.name} {sink._sites} {sink.links}"
    assert TOKEN not in caplog.text


def test_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example", "")))
