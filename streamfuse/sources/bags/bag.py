"""A bag: a file, or a directory of the files that a recorder made one after the other."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from streamfuse.errors import InputError
from streamfuse.sources.bags.container import Container, Index
from streamfuse.sources.bags.packages import ros_packages
from streamfuse.sources.bags.records import Damaged, unpack
from streamfuse.sources.bags.topic import Message, Topic
from streamfuse.support.closeable import Closeable

SUFFIXES = (".bag", ".mcap", ".db3")
PACKED = ".zstd"
"""Suffix of a file that the recorder of ROS 2 has compressed as a whole, as in walk_0.db3.zstd."""
ACTIVE = ".active"
"""Suffix of a file that the recorder of ROS 1 has not closed, as in walk.bag.active."""
_ZSTD = b"\x28\xb5\x2f\xfd"
"""First bytes of a message that the recorder has compressed; no message of ROS 2 begins so."""
_COPY = 1 << 22
_SPARE = 1 << 30
"""Bytes that unpacking leaves free on the disk."""


def is_bag(path: Path) -> bool:
    """Tell whether a path is that of a bag, by its suffix or, for a directory, by the files in it."""
    if path.is_dir():
        return bool(_parts(path))
    return _suffix(path) in SUFFIXES


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(PACKED).removesuffix(ACTIVE)).suffix.lower()


def _parts(directory: Path) -> list[Path]:
    found = [path for path in directory.iterdir() if _suffix(path) in SUFFIXES and path.is_file()]
    return sorted(found, key=lambda path: [int(s) if s.isdecimal() else s for s in re.split(r"(\d+)", path.name)])


class Bag(Closeable):
    """A bag whose files are read one after the other; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Raises InputError for a file that is no bag, UsageError where a package is missing."""
        self.path = path
        try:
            self.files = _parts(path) if path.is_dir() else [path]
            if not self.files:
                raise InputError(f"{path} holds no bag: no file in it ends in {', '.join(SUFFIXES)}")
            self._directory: tempfile.TemporaryDirectory[str] | None = None
            self._containers: list[Container] = []
            self._span_ns: tuple[int, int] | None = None
            try:
                for file in self.files:
                    self._containers.append(self._open(file))
            except BaseException:
                self.close()
                raise
        except FileNotFoundError:
            raise InputError(f"there is no file {path}") from None
        except OSError as error:
            raise InputError(f"{error.filename or path} cannot be read: {error.strerror}") from None

    def _open(self, file: Path) -> Container:
        if file.name.endswith(PACKED):
            file = self._unpacked(file)
        if file.stat().st_size == 0:
            raise InputError(f"{file} is empty (0 bytes)")
        if _suffix(file) == ".bag":
            from streamfuse.sources.bags.ros1_file import Ros1File

            return Ros1File(file)
        if _suffix(file) == ".mcap":
            from streamfuse.sources.bags.mcap_file import McapFile

            return McapFile(file)
        from streamfuse.sources.bags.sqlite_file import SqliteFile

        return SqliteFile(file)

    def _unpacked(self, packed: Path) -> Path:
        """Unpack a file into a temporary directory, as it cannot be searched otherwise; raises InputError."""
        with ros_packages():
            import zstandard
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="streamfuse-")
        file = Path(self._directory.name) / packed.name.removesuffix(PACKED)
        room = shutil.disk_usage(file.parent).free - _SPARE
        try:
            with packed.open("rb") as source, file.open("wb") as target:
                reader = zstandard.ZstdDecompressor().stream_reader(source)
                while data := reader.read(_COPY):
                    room -= len(data)
                    if room < 0:
                        raise InputError(
                            f"{packed} does not fit into {file.parent} unpacked: set TMPDIR to a larger disk"
                        )
                    target.write(data)
        except zstandard.ZstdError as error:
            raise InputError(f"{packed} cannot be unpacked ({error}): copy it again") from None
        return file

    @property
    def indexed(self) -> bool:
        """True if every file has an index: topics, counts and times are known, and it can be read from any time."""
        return all(container.index is not None for container in self._containers)

    @property
    def damage(self) -> str | None:
        """Description of what could not be read so far, with the file's name where there are several."""
        for container in self._containers:
            if container.damage is not None:
                return container.damage if len(self.files) == 1 else f"{container.path.name}: {container.damage}"
        return None

    def topics(self) -> list[Topic]:
        """List the topics known so far, by name; with an index all of them, and with their numbers of messages."""
        found: dict[str, Topic] = {}
        for container in self._containers:
            for topic in container.index.topics if container.index is not None else container.seen.values():
                before = found.get(topic.name)
                count = topic.count if before is None or topic.count is None else topic.count + (before.count or 0)
                found[topic.name] = replace(topic, count=count)
        return [found[name] for name in sorted(found)]

    def count(self) -> list[Topic]:
        """Read the whole bag and list its topics with their numbers of messages."""
        counts: dict[str, int] = {}
        first_ns: int | None = None
        last_ns = 0
        for message in self.messages(None):
            counts[message.topic.name] = counts.get(message.topic.name, 0) + 1
            first_ns = message.log_ns if first_ns is None else min(first_ns, message.log_ns)
            last_ns = max(last_ns, message.log_ns)
        self._span_ns = None if first_ns is None else (first_ns, last_ns)
        return [replace(topic, count=counts.get(topic.name, 0)) for topic in self.topics()]

    def span_ns(self) -> tuple[int, int] | None:
        """Return the log times of the first and the last message, ns; None: not known, without an index and `count`."""
        if self._span_ns is not None:
            return self._span_ns
        indices = [container.index for container in self._containers]
        starts = [index.start_ns for index in indices if index is not None and index.start_ns is not None]
        ends = [index.end_ns for index in indices if index is not None and index.end_ns is not None]
        return (min(starts), max(ends)) if self.indexed and starts and ends else None

    def messages(self, names: Collection[str] | None, from_ns: int | None = None) -> Iterator[Message]:
        """Yield the messages of these topics, or of all, as `Container.messages` does."""
        for container in self._containers:
            if from_ns is not None and _ends_before(container.index, from_ns):
                continue
            for message in container.messages(names, from_ns):
                if not message.data.startswith(_ZSTD) or message.topic.coding != "cdr":
                    yield message
                    continue
                try:
                    yield Message(message.topic, message.log_ns, _unpack_message(message.data))
                except Damaged as error:
                    container.note(str(error))

    def interrupt(self) -> None:
        """End `messages` soon; any thread may call it."""
        for container in self._containers:
            container.stopped = True

    def close(self) -> None:
        for container in self._containers:
            container.close()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None


def _ends_before(index: Index | None, time_ns: int) -> bool:
    return index is not None and index.end_ns is not None and index.end_ns < time_ns


def _unpack_message(data: bytes) -> bytes:
    with ros_packages():
        import zstandard
    try:
        size = zstandard.frame_content_size(data)
    except zstandard.ZstdError:
        raise Damaged("a message that zstd cannot unpack") from None
    return unpack(data, "zstd", max(size, 0) or len(data) * 64)
