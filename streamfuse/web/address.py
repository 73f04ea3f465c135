"""Listening sockets for HOST:PORT options."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from streamfuse.errors import OutputError, UsageError
from streamfuse.web.auth import is_loopback

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    """0: any free port."""

    @property
    def loopback(self) -> bool:
        """Reachable from this machine only."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(option: str, text: str) -> Address:
    """Parse HOST:PORT, [IPv6]:PORT, or PORT for loopback.  Raises UsageError, which names the option."""
    netloc = f"{LOOPBACK}:{text}" if text.isascii() and text.isdigit() else text
    try:
        parts = urlsplit(f"//{netloc}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or "@" in netloc or parts.netloc != netloc:
        raise UsageError(f"{option} {text!r}: give HOST:PORT, such as {LOOPBACK}:8080")
    return Address(host, port)


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket that accepts connections, and its address."""

    address: Address
    """The port is the bound one, also if port 0 was asked for."""
    sock: socket.socket

    @property
    def url(self) -> str:
        """Link for a browser; with the machine's name if the socket listens on all interfaces."""
        every = self.address.host in ("0.0.0.0", "::")
        return f"http://{Address(socket.gethostname(), self.address.port) if every else self.address}/"


def listen(option: str, address: Address) -> Listener:
    """Bind an address now, so that a port in use is reported before the run starts.

    option: name in the error message.  Raises OutputError.
    """
    try:
        family, _, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server((str(where[0]), int(where[1])), family=family)
    except OSError as error:
        raise OutputError(f"cannot serve {option} on {address}: {_why(error, address)}") from None
    return Listener(Address(address.host, int(listening.getsockname()[1])), listening)


def _why(error: OSError, address: Address) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host: check the name"
    if error.errno == errno.EADDRINUSE:
        return f"the port is in use: choose another, such as {address.port % 65535 + 1}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no such address: use {LOOPBACK}, or 0.0.0.0 for all its addresses"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission denied: use a port above 1023"
    return error.strerror or str(error)
