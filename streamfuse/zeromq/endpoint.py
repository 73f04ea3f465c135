"""Validation of ZeroMQ addresses."""

from __future__ import annotations

import ipaddress
import re

from streamfuse.errors import UsageError
from streamfuse.urls import redact

_PORT = re.compile(r"\d{1,5}", re.ASCII)


def check_url(url: str) -> None:
    """Raise UsageError unless `url` is a ZeroMQ address: tcp://, ipc:// or inproc://."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("tcp", "ipc", "inproc") or not rest:
        raise UsageError(
            f"{redact(url)}: give tcp://ADDRESS:PORT, such as tcp://127.0.0.1:5556, ipc://PATH or inproc://NAME"
        )
    if scheme == "tcp":
        host, _, port = rest.rpartition(":")
        if not host or not (port == "*" or (_PORT.fullmatch(port) and int(port) < 65536)):
            raise UsageError(f"{redact(url)}: give a port, as in tcp://127.0.0.1:5556")


def is_private(url: str) -> bool:
    """Return True if only this machine can reach the address."""
    scheme, _, rest = url.partition("://")
    if scheme != "tcp":
        return True
    host = rest.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
