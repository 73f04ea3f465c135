"""HOST:PORT to a listening socket."""

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

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(option: str, text: str) -> Address:
    """HOST:PORT, [v6]:PORT, or PORT alone for this machine only; raises UsageError, which names the option."""
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
class Place:
    """Where a server listens."""

    address: Address
    """With the port that it got, where 0 was asked for."""
    listening: socket.socket

    @property
    def url(self) -> str:
        """For a browser; of an address that means all of a machine's, by the machine's name."""
        every = self.address.host in ("0.0.0.0", "::")
        return f"http://{Address(socket.gethostname(), self.address.port) if every else self.address}/"


def listen(option: str, address: Address) -> Place:
    """Bind it now, so that an address that is taken is known before anything else begins; raises OutputError."""
    try:
        family, _, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server((str(where[0]), int(where[1])), family=family)
    except OSError as error:
        raise OutputError(f"cannot serve {option} on {address}: {_why(error, address)}") from None
    return Place(Address(address.host, int(listening.getsockname()[1])), listening)


def _why(error: OSError, address: Address) -> str:
    if isinstance(error, socket.gaierror):
        return "there is no such host"
    if error.errno == errno.EADDRINUSE:
        return f"the port is in use: choose another, such as {address.port % 65535 + 1}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no such address: use {LOOPBACK}, or 0.0.0.0 for all it has"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission denied: ports below 1024 are for root"
    return error.strerror or str(error)
