"""CURVE keys: they authenticate the publisher and its subscribers, and encrypt the frames.

Each side has a public and a secret key, in ZeroMQ's certificate files.  A secret key never appears in output or errors.
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
"""Public key of the first subscriber; the directory contains the keys of all allowed subscribers."""
CLIENT_SECRET = "client.key_secret"
CLIENTS = "clients"
_Z85 = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A public key and its secret key."""

    public: bytes
    """Z85, 40 bytes."""
    secret: bytes = field(repr=False)
    """Z85, 40 bytes."""


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """Keys of a publisher."""

    pair: KeyPair
    clients: Path
    """Directory with the public keys (*.key) of the allowed subscribers; read at every connection."""


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """Keys of a subscriber."""

    pair: KeyPair
    server: bytes
    """Public key of the publisher, Z85."""


def new_keys(directory: Path) -> list[Path]:
    """Write key pairs for a publisher and one subscriber; return the files.

    Secret files are created readable by their owner only.  Raises OutputError, before anything is written, if one of
    the files exists.
    """
    files = [directory / name for name in (SERVER_PUBLIC, SERVER_SECRET, CLIENT_PUBLIC, CLIENT_SECRET)]
    for file in files:
        if file.exists():
            raise OutputError(f"{file} exists and keys are never replaced: choose another directory")
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
    lines = ["#   ZeroMQ CURVE " + ("secret certificate: keep it secret" if secret else "public certificate")]
    lines += ["metadata", "curve", f'    public-key = "{pair.public.decode()}"']
    if secret:
        lines.append(f'    secret-key = "{pair.secret.decode()}"')
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "w") as opened:
        opened.write("\n".join(lines) + "\n")


def server_keys(secret: Path, clients: Path | None = None) -> ServerKeys:
    """Load a publisher's keys.

    `clients`: directory of the subscribers' public keys, by default clients/ beside the secret key.  Raises UsageError.
    """
    pair = load_pair(secret)
    clients = clients or secret.parent / CLIENTS
    if not clients.is_dir():
        raise UsageError(f"there is no directory {clients}: put the subscribers' public keys (*.key) into one")
    if not any(clients.glob("*.key")):
        raise UsageError(f"{clients} has no public key (*.key), so nobody could subscribe: add the subscribers' keys")
    for file in clients.glob("*.key"):
        load_public(file)
    return ServerKeys(pair, clients)


def client_keys(server: Path, client: Path) -> ClientKeys:
    """Load a subscriber's keys.

    `server`: file of the publisher's public key; `client`: file of the subscriber's secret key.  Raises UsageError.
    """
    return ClientKeys(load_pair(client), load_public(server))


def is_allowed(clients: Path, public: bytes) -> bool:
    """Return True if the directory has this public key; invalid files are logged and ignored."""
    for file in clients.glob("*.key"):
        try:
            if load_public(file) == public:
                return True
        except UsageError as error:
            log.warning("%s", error)
    return False


def load_public(file: Path) -> bytes:
    """Load a public key, Z85; raises UsageError."""
    return _load(file)[0]


def load_pair(file: Path) -> KeyPair:
    """Load a key pair; warns if other users can read the file.  Raises UsageError, also without a secret key."""
    public, secret = _load(file)
    if secret is None:
        raise UsageError(f"{file} has no secret key: give a .key_secret file")
    if os.name == "posix" and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("other users can read the secret key: chmod 600 %s", file)
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
        raise UsageError(f"{file} is not a key file: make keys with `streamfuse keys new DIR`")
    return public, secret
