"""Every route of both sites with every kind of credentials, asked over raw sockets: the answer, and the cookies set."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from streams import free_port
from web import TOKEN, Run, picture, serving, until

from streamfuse.sinks.preview import PreviewSink

OTHER_TOKEN = "another-token-for-tests"
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
MONITORING = {"/metrics": 200, "/status": 200, "/readyz": 200}
PICTURES = {"/": 200, "/snapshot.jpg": 200, "/stream.mjpg": 200, "/socket": 101}
ABSENT = {"/nowhere": 404, "/status/": 404, "/snapshot.jpg?view=nonsense": 404, "/healthz/": 404, "//healthz": 404}
ROUTES = {
    "preview": {**MONITORING, **PICTURES, **ABSENT, "/snapshot.jpg?view=nonsense": 400},
    "metrics": {**MONITORING, **ABSENT, **dict.fromkeys(PICTURES, 404)},
}
"""The status of every guarded path for a GET request that is let in."""
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "DELETE")
WITHOUT_HEAD = ("/stream.mjpg", "/socket")
"""An answer to HEAD has no body, and these have no other."""


@dataclass(frozen=True)
class Site:
    name: str
    port: int
    cookie: str
    """A valid NAME=VALUE."""


@dataclass(frozen=True)
class Answer:
    status: int
    cookies: list[str]
    """Values of Set-Cookie."""


def ask(port: int, method: str, path: str, headers: str = "") -> Answer:
    """Send one request, read the head of the answer, and disconnect."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\n{headers}\r\n".encode())
        heard = b""
        while b"\r\n\r\n" not in heard:
            data = caller.recv(65536)
            assert data, heard
            heard += data
    head = heard.partition(b"\r\n\r\n")[0].decode()
    assert TOKEN not in head
    return Answer(int(head.split()[1]), re.findall(r"(?im)^set-cookie: (.*?)\r?$", head))


def with_query(path: str, token: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}token={token}"


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}\r\n"


def cookie(pair: str) -> str:
    return f"Cookie: {pair}\r\n"


def issued(port: int, token: str) -> str:
    """The cookie that a server gives for its token, as NAME=VALUE."""
    (line,) = ask(port, "GET", with_query("/status", token)).cookies
    return line.partition(";")[0]


@pytest.fixture(scope="module")
def sites() -> Iterator[dict[str, Site]]:
    """The preview and the metrics of one run, with one token."""
    sink = PreviewSink("127.0.0.1:0", metrics="127.0.0.1:0", token=TOKEN)
    try:
        sink.attach(Run())
        sink.write(picture())
        ports = {site.name: site.port for site in (Site("preview", sink.port, ""), Site("metrics", _metrics(sink), ""))}
        yield {name: Site(name, port, issued(port, TOKEN)) for name, port in ports.items()}
    finally:
        sink.close()


def _metrics(sink: PreviewSink) -> int:
    found = re.search(r":(\d+)/metrics$", sink.links["metrics"])
    assert found is not None
    return int(found[1])


@pytest.fixture(scope="module")
def foreign() -> Iterator[dict[str, str]]:
    """Cookies of other servers: one with the same token, one with another."""
    with serving(token=TOKEN) as same, serving(token=OTHER_TOKEN) as other:
        yield {"same token": issued(same.port, TOKEN), "other token": issued(other.port, OTHER_TOKEN)}


def credentials(site: Site, path: str, foreign: dict[str, str]) -> dict[str, tuple[str, str, bool]]:
    """Name to path, headers, and whether they are right."""
    name, _, value = site.cookie.partition("=")
    wrong = f"{TOKEN}x"
    kinds = {
        "none": (path, "", False),
        "empty query": (with_query(path, ""), "", False),
        "wrong query": (with_query(path, wrong), "", False),
        "wrong then right query": (with_query(with_query(path, wrong), TOKEN), "", False),
        "wrong bearer": (path, bearer(wrong), False),
        "not a bearer": (path, f"Authorization: Basic {TOKEN}\r\n", False),
        "the token as the cookie": (path, cookie(f"{name}={TOKEN}"), False),
        "damaged cookie": (path, cookie(f"{name}={value[:-1]}x"), False),
        "right query": (with_query(path, TOKEN), "", True),
        "right bearer": (path, bearer(TOKEN), True),
        "right cookie": (path, cookie(site.cookie), True),
        "right query, damaged cookie": (with_query(path, TOKEN), cookie(f"{name}=x"), True),
        # What is given explicitly decides.
        "wrong query, right cookie": (with_query(path, wrong), cookie(site.cookie), False),
        "wrong bearer, right cookie": (path, bearer(wrong) + cookie(site.cookie), False),
    }
    for kind, pair in foreign.items():
        kinds[f"cookie of a server with the {kind}"] = path, cookie(pair), False
        kinds[f"cookie of a server with the {kind}, renamed"] = path, cookie(f"{name}={pair.partition('=')[2]}"), False
    return kinds


@pytest.mark.parametrize("name", ["preview", "metrics"])
def test_cookies_are_set_only_for_the_verified_token_of_that_request(
    name: str, sites: dict[str, Site], foreign: dict[str, str]
) -> None:
    site = sites[name]
    other = sites["metrics" if name == "preview" else "preview"]
    foreign = {**foreign, "same run": other.cookie}
    wrong: list[str] = []
    given: set[str] = set()
    for path, expected in ROUTES[name].items():
        for method in METHODS:
            upgrade = UPGRADE if path == "/socket" else ""
            for kind, (asked, headers, right) in credentials(site, path, foreign).items():
                answer = ask(site.port, method, asked, headers + upgrade)
                if not right:
                    status = 401
                elif expected == 404 or method == "GET" or (method == "HEAD" and path not in WITHOUT_HEAD):
                    status = expected
                else:
                    status = 405
                cookies = 1 if kind.startswith("right query") and status < 400 else 0
                if (answer.status, len(answer.cookies)) != (status, cookies):
                    wrong.append(f"{method} {path}, {kind}: {answer}, not {status} and {cookies} cookies")
                given.update(line.partition(";")[0] for line in answer.cookies)
    assert wrong == []
    assert given == {site.cookie}


@pytest.mark.parametrize("name", ["preview", "metrics"])
def test_healthz_is_open_and_sets_no_cookie(name: str, sites: dict[str, Site], foreign: dict[str, str]) -> None:
    site = sites[name]
    for path in ("/healthz", "/%68ealthz", "/healthz?token", f"http://localhost:{site.port}/healthz"):
        for asked, headers, _ in credentials(site, path, foreign).values():
            for method in ("GET", "HEAD"):
                assert ask(site.port, method, asked, headers) == Answer(200, []), (method, asked, headers)
    assert ask(site.port, "POST", "/healthz") == Answer(401, [])


def test_cookie_opens_its_own_site_and_nothing_after_the_token_changed(sites: dict[str, Site]) -> None:
    for name, path in (("preview", "/snapshot.jpg"), ("metrics", "/metrics")):
        assert ask(sites[name].port, "GET", path, cookie(sites[name].cookie)) == Answer(200, [])
    port = free_port()
    with serving(f"127.0.0.1:{port}", token=TOKEN):
        before = issued(port, TOKEN)
    with serving(f"127.0.0.1:{port}", token=TOKEN):  # a restart with the same token
        assert ask(port, "GET", "/status", cookie(before)) == Answer(200, [])
    with serving(f"127.0.0.1:{port}", token=OTHER_TOKEN):
        assert ask(port, "GET", "/status", cookie(before)) == Answer(401, [])
        assert ask(port, "GET", with_query("/status", TOKEN), cookie(before)) == Answer(401, [])
        after = issued(port, OTHER_TOKEN)
        assert after != before
        assert ask(port, "GET", "/status", cookie(f"{before}; {after}")).cookies == []


def test_errors_and_foreign_pages_get_no_cookie() -> None:
    with ExitStack() as stack:
        sink = stack.enter_context(serving(token=TOKEN))
        for path, headers, status in (
            ("/snapshot.jpg", "", 503),  # no picture yet
            ("/socket", "", 400),  # not a WebSocket
            ("/socket", f"{UPGRADE}Origin: http://evil.example\r\n", 403),
            ("/", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n", 403),
            ("/", "X: \xff\r\n", 200),
        ):
            answer = ask(sink.port, "GET", with_query(path, TOKEN), headers)
            assert (answer.status, len(answer.cookies)) == (status, 1 if status == 200 else 0), (path, headers)


def test_without_a_token_nothing_sets_a_cookie() -> None:
    with serving() as sink:
        sink.write(picture())
        for path, status in ROUTES["preview"].items():
            for asked in (path, with_query(path, TOKEN)):
                answer = ask(sink.port, "GET", asked, UPGRADE if path == "/socket" else "")
                assert answer == Answer(status, []), asked
        until(lambda: sink.hub.viewers == 0)
