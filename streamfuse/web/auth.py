"""Who may look: only this machine, or whoever has the token.

A page of a foreign site that the same browser has open can send requests here.  It can read nothing, as the browser
keeps the answers from it, except over WebSockets (so their origin is checked) and by giving a name of its own this
machine's address, DNS rebinding (so the name that was asked for is checked).
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
_REFUSED = "this needs the token: open the link with ?token=, or send it as Authorization: Bearer"


def is_loopback(host: str) -> bool:
    """Whether a name or an address can only mean this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_token(token: str) -> str:
    """The token; raises UsageError for one that could be guessed, or that no header can carry."""
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"the preview token must have at least {SHORTEST_TOKEN} printable ASCII characters, no spaces")
    return token


@dataclass(frozen=True, slots=True)
class Guard:
    """Of one address that is served."""

    loopback: bool
    port: int
    token: str | None = field(default=None, repr=False)

    def check(self, request: web.Request) -> None:
        """Raises HTTPForbidden for a request of a foreign page, HTTPUnauthorized for one without the token."""
        if self.loopback and not is_loopback(_hostname(request.host)):
            raise web.HTTPForbidden(text="this is served to this machine only: ask for it as localhost\n")
        headers = request.headers
        if headers.get("Sec-Fetch-Site") == "cross-site" and headers.get("Sec-Fetch-Mode") != "navigate":
            raise web.HTTPForbidden(text="foreign pages get nothing from here\n")
        if self.token is not None and not self._authorized(request, self.token):
            raise web.HTTPUnauthorized(text=f"{_REFUSED}\n", headers={"WWW-Authenticate": "Bearer"})

    def check_origin(self, request: web.Request) -> None:
        """Raises HTTPForbidden for a WebSocket that a foreign page opens; programs send no origin."""
        origin = request.headers.get("Origin")
        if origin is not None and _netloc(origin) != request.host.lower():
            raise web.HTTPForbidden(text="foreign pages get nothing from here\n")

    def cookie(self, request: web.Request) -> str | None:
        """What to set for a browser that comes with the token in the address, so that it needs it only once."""
        if self.token is None or PARAMETER not in request.query:
            return None
        return f"{self._cookie}={_cookie_value(self.token)}; Path=/; HttpOnly; SameSite=Strict"

    @property
    def _cookie(self) -> str:
        return f"streamfuse_{self.port}"  # browsers keep no cookies apart by port

    def _authorized(self, request: web.Request, token: str) -> bool:
        if PARAMETER in request.query:
            return _same(request.query[PARAMETER], token)
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return _same(given.strip(), token)
        return _same(request.cookies.get(self._cookie, ""), _cookie_value(token))


def _cookie_value(token: str) -> str:
    """What shows that its bearer has had the token, without being it."""
    return hmac.new(token.encode(), b"streamfuse preview cookie", hashlib.sha256).hexdigest()


def _same(given: str, wanted: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _netloc(origin: str) -> str | None:
    """`http://[::1]:8080` to `[::1]:8080`; None where there is no sense in it."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _hostname(host: str) -> str:
    """`[::1]:8080` to `::1`; empty where there is no sense in it."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
