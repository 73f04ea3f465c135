"""Keys of ZeroMQ's CURVE: who may publish as whom, and who may subscribe.

Every side has a public and a secret key, in files of ZeroMQ's usual form.  A secret is never shown, nor is it in
any error.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from streamfuse.errors import OutputError, UsageError
from streamfuse.files import reason

log = logging.getLogger("streamfuse")

SERVER_PUBLIC = "server.key"
SERVER_SECRET = "server.key_secret"
CLIENT_PUBLIC = "clients/client.key"
"""Beside those of other subscribers: the directory is the list of who may subscribe."""
CLIENT_SECRET = "client.key_secret"
CLIENTS = "clients"
_Z85 = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


@dataclass(frozen=True, slots=True)
class KeyPair:
    public: bytes
    """Z85, 40 bytes."""
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """What a publisher needs."""

    pair: KeyPair
    clients: Path
    """The directory of public keys (*.key) of those who may subscribe; looked at whenever one connects."""


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a subscriber needs."""

    pair: KeyPair
    server: bytes
    """The publisher's public key, Z85."""


def new_keys(directory: Path) -> list[Path]:
    """Write key pairs for a publisher and for one subscriber; the files.

    Secret files can be read by their owner only, from the first byte.  Raises OutputError, before anything is
    written, where one of the files exists.
    """
    files = [directory / name for name in (SERVER_PUBLIC, SERVER_SECRET, CLIENT_PUBLIC, CLIENT_SECRET)]
    for file in files:
        if file.exists():
            raise OutputError(f"{file} exists: choose another directory, keys are never replaced")
    server, client = (KeyPair(*zmq.curve_keypair()) for _ in range(2))
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / CLIENTS).mkdir(exist_ok=True)
        for file, pair in zip(files, (server, server, client, client), strict=True):
            _write(file, pair, secret=file.suffix == ".key_secret")
    except OSError as error:
        raise OutputError(f"cannot write keys to {directory}: {reason(error.errno, str(error))}") from None
    return files


def _write(file: Path, pair: KeyPair, *, secret: bool) -> None:
    lines = ["#   ZeroMQ CURVE " + ("secret certificate: give it to nobody" if secret else "public certificate")]
    lines += ["metadata", "curve", f'    public-key = "{pair.public.decode()}"']
    if secret:
        lines.append(f'    secret-key = "{pair.secret.decode()}"')
    number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(number, "w") as opened:
        opened.write("\n".join(lines) + "\n")


def server_keys(secret: Path, clients: Path | None = None) -> ServerKeys:
    """`clients`: by default the directory of that name beside the secret key.  Raises UsageError."""
    pair = load_pair(secret)
    clients = clients or secret.parent / CLIENTS
    if not clients.is_dir():
        raise UsageError(f"there is no directory {clients}: put the subscribers' public keys (*.key) into one")
    if not any(clients.glob("*.key")):
        raise UsageError(f"{clients} has no public key of a subscriber (*.key), so nobody could subscribe")
    for file in clients.glob("*.key"):
        load_public(file)
    return ServerKeys(pair, clients)


def client_keys(server: Path, client: Path) -> ClientKeys:
    """`server`: the publisher's public key; `client`: the subscriber's secret key.  Raises UsageError."""
    return ClientKeys(load_pair(client), load_public(server))


def is_allowed(clients: Path, public: bytes) -> bool:
    """Whether the directory has this public key; a file that is none allows nobody."""
    for file in clients.glob("*.key"):
        try:
            if load_public(file) == public:
                return True
        except UsageError as error:
            log.warning("%s", error)
    return False


def load_public(file: Path) -> bytes:
    return _load(file)[0]


def load_pair(file: Path) -> KeyPair:
    """Raises UsageError for a file that has no secret key, and warns of one that others can read."""
    public, secret = _load(file)
    if secret is None:
        raise UsageError(f"{file} has no secret key: give the file that ends in .key_secret")
    if os.name == "posix" and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("others can read the secret key: chmod 600 %s", file)
    return KeyPair(public, secret)


def _load(file: Path) -> tuple[bytes, bytes | None]:
    from zmq.auth import load_certificate

    if not file.is_file():
        raise UsageError(f"there is no key file {file}: make keys with `streamfuse keys new DIR`")
    try:
        public, secret = load_certificate(file)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, IndexError):
        public, secret = b"", None
    if any(key is not None and not _Z85.fullmatch(key) for key in (public, secret)):
        raise UsageError(f"{file} is no key file: make keys with `streamfuse keys new DIR`")
    return public, secret
