"""Disk cache of compiled networks.

An entry is one file, <key>.engine:

    b"streamfuse-engine-1\\n"   magic number
    64 hex digits, b"\\n"        SHA-256 of the payload
    payload                     exported by the engine, to the end of the file

An entry is written to a temporary file and renamed, so that concurrent processes never see a partial one, and its
digest is compared at every load.  If the cache cannot be used, a warning is logged and the network is built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import sys
import time
from pathlib import Path

from streamfuse.files import expand_home
from streamfuse.notes import warn_once

log = logging.getLogger("streamfuse")

LIMIT_BYTES = 2_000_000_000
"""Size limit: about 12 networks of 160 MB at 640x480, one for each size and precision in use."""
LEFTOVER_S = 3600.0
"""Age above which a temporary file belongs to a process that was killed; writing one takes a second."""

NO_HOME = (
    "this user has no home directory, so compiled networks are not kept and each start builds them again: "
    "set STREAMFUSE_CACHE to a directory"
)
_MAGIC = b"streamfuse-engine-1\n"
_PAYLOAD = len(_MAGIC) + 65


def default_directory() -> Path | None:
    """Return $STREAMFUSE_CACHE, else this user's cache directory; None where the user has no home directory.

    Raises UsageError for a `~` in $STREAMFUSE_CACHE that cannot be replaced.
    """
    if chosen := os.environ.get("STREAMFUSE_CACHE"):
        return expand_home(Path(chosen), "STREAMFUSE_CACHE")
    try:
        return _user_directory()
    except RuntimeError:  # HOME is not set, and this user is not in the password database
        return None


def _user_directory() -> Path:
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "streamfuse" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "streamfuse"
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "streamfuse"


def entry_key(**fields: str) -> str:
    """Hash of everything that a compiled network depends on; the key changes with any value."""
    text = "".join(f"{len(value)}:{name}={value};" for name, value in sorted(fields.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def code_digest(engine: Path) -> str:
    """Hash of the source code that determines a compiled network: the engine's module and the package `network`."""
    digest = hashlib.sha256(engine.read_bytes())
    for path in sorted((Path(__file__).parent.parent / "network").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Cache:
    """Stores entries by key.  Errors of the file system are logged, never raised."""

    def __init__(self, directory: Path | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        self.directory = directory or default_directory()
        """None: nothing is kept."""
        self._limit_bytes = limit_bytes
        self._warned = False

    def _path(self, key: str) -> Path | None:
        return None if self.directory is None else self.directory / f"{key}.engine"

    def load(self, key: str) -> memoryview | None:
        """Return the payload, memory-mapped copy-on-write, or None, and mark the entry as used."""
        path = self._path(key)
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # ValueError: the file is empty
            self.discard(key, str(error))
            return None
        payload = mapped[_PAYLOAD:]
        expected = _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n"
        if mapped[:_PAYLOAD] != expected:
            self.discard(key, "its digest does not match")
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return payload

    def store(self, key: str, payload: bytes | memoryview) -> None:
        """Store `payload`, and delete the least recently used entries above the limit."""
        path = self._path(key)
        if self.directory is None or path is None:
            warn_once(NO_HOME)
            return
        aside = path.with_name(f".{key}.{os.getpid()}.part")
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with aside.open("wb") as file:
                file.write(_MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n")
                file.write(payload)
            aside.replace(path)
        except OSError as error:
            if not self._warned:
                log.warning("cannot store compiled networks in %s (%s); each start builds again", self.directory, error)
            self._warned = True
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
        self._evict(keep=path)

    def discard(self, key: str, reason: str) -> None:
        """Delete an entry that cannot be used."""
        path = self._path(key)
        log.warning("the compiled network %s is unusable (%s); building it again", path, reason)
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()

    def _evict(self, keep: Path) -> None:
        if self.directory is None:
            return
        with contextlib.suppress(OSError):
            for leftover in self.directory.glob(".*.part"):
                with contextlib.suppress(OSError):  # another process may have deleted it
                    if leftover.stat().st_mtime < time.time() - LEFTOVER_S:
                        leftover.unlink()
            entries = []
            for path in self.directory.glob("*.engine"):
                with contextlib.suppress(OSError):
                    stat = path.stat()
                    entries.append((stat.st_mtime_ns, stat.st_size, path))
            total = sum(size for _, size, _ in entries)
            for _, size, path in sorted(entries):
                if total <= self._limit_bytes:
                    break
                if path != keep:
                    with contextlib.suppress(OSError):
                        path.unlink()
                        total -= size
