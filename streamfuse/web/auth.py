"""Access to the preview: open on loopback, by token elsewhere.

A foreign page in a browser on this machine can send requests to the preview.  The browser keeps the answers from that
page, with two exceptions: WebSockets, so their Origin is checked, and DNS rebinding, where a foreign host name resolves
to this machine, so the Host header is checked.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import web

from streamfuse.errors import UsageError

SHORTEST_TOKEN = 16
PARAMETER = "token"
_REFUSED = "a token is needed: open the link that ends with ?token=, or send the header Authorization: Bearer TOKEN"


def is_loopback(host: str) -> bool:
    """Return True for a host name or address that always means this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_token(token: str) -> str:
    """Return the token unchanged.  Raises UsageError if it is easy to guess or does not fit in an HTTP header."""
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"the preview token must have at least {SHORTEST_TOKEN} printable ASCII characters, no spaces")
    return token


@dataclass(frozen=True, slots=True)
class Guard:
    """Access control for one listening address."""

    loopback: bool
    """The address is reachable from this machine only."""
    port: int
    token: str | None = field(default=None, repr=False)
    """The secret that every request must show; None: no token is needed."""

    def admit(self, request: web.Request) -> str | None:
        """Let a request pass; return the Set-Cookie value for its answer, or None.

        Only a request whose own query holds the right token gets a cookie, so that a browser can drop the token from
        the address.  The first credentials found decide, in this order: query, bearer token, cookie.  A wrong token is
        refused even if the cookie is valid.

        Raises HTTPForbidden for a request by a foreign page, HTTPUnauthorized for one without valid credentials.
        """
        if self.loopback and not is_loopback(_hostname(request.host)):
            raise web.HTTPForbidden(text="only this machine is served: use localhost in the address\n")
        headers = request.headers
        if headers.get("Sec-Fetch-Site") == "cross-site" and headers.get("Sec-Fetch-Mode") != "navigate":
            raise _foreign()
        if self.token is None:
            return None
        if PARAMETER in request.query:
            if _same(request.query[PARAMETER], self.token):
                return f"{self._cookie_name}={self._cookie_value(self.token)}; Path=/; HttpOnly; SameSite=Strict"
        elif self._knows_token(request, self.token):
            return None
        raise web.HTTPUnauthorized(text=f"{_REFUSED}\n", headers={"WWW-Authenticate": "Bearer"})

    def check_origin(self, request: web.Request) -> None:
        """Raises HTTPForbidden for a WebSocket opened by a foreign page; programs send no Origin header."""
        origin = request.headers.get("Origin")
        if origin is not None and _netloc(origin) != request.host.lower():
            raise _foreign()

    def _knows_token(self, request: web.Request, token: str) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return _same(given.strip(), token)
        return _same(request.cookies.get(self._cookie_name, ""), self._cookie_value(token))

    @property
    def _cookie_name(self) -> str:
        return f"streamfuse_{self.port}"  # browsers send a host's cookies to all of its ports

    def _cookie_value(self, token: str) -> str:
        """Derive a value that proves knowledge of the token, does not reveal it, and is valid for this port only."""
        return hmac.new(token.encode(), f"streamfuse preview cookie {self.port}".encode(), hashlib.sha256).hexdigest()


def _foreign() -> web.HTTPForbidden:
    return web.HTTPForbidden(text="requests by pages of other sites are refused\n")


def _same(given: str, wanted: str) -> bool:
    """Compare in a time that does not depend on the number of matching characters."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _netloc(origin: str) -> str | None:
    """Return `[::1]:8080` for `http://[::1]:8080`, None for a malformed origin."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _hostname(host: str) -> str:
    """Return `::1` for `[::1]:8080`, an empty string for a malformed host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
