"""Bags of ROS 1 (format 2.0), indexed or not.

The package `rosbags` reads only bags with a complete index and holds an entry for every message; here the records are
read in their order, so that a bag that was never closed, or is cut off, is read as far as it goes.

A record is a header length, header fields `name=value`, a data length, and data; all lengths are 32 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from pathlib import Path

from streamfuse.errors import InputError
from streamfuse.sources.bags.container import Container, Index
from streamfuse.sources.bags.packages import ros_packages
from streamfuse.sources.bags.records import LARGEST, Damaged, Input, unpack
from streamfuse.sources.bags.topic import Message, Topic, message_type

with ros_packages():
    import lz4  # noqa: F401 - the compression of bags
    import zstandard  # noqa: F401

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, BAG, CHUNK, CHUNK_INFO, CONNECTION = 2, 3, 5, 6, 7
"""Values of the field `op`."""
MOST_HEADER = 1 << 20
"""Longest header of a record, bytes; that of a connection holds a topic's name."""
_U32 = struct.Struct("<I")
_U32_PAIR = struct.Struct("<II")

Fields = dict[bytes, bytes]


class Ros1File(Container):
    """A bag of ROS 1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = {}
        self._connections: dict[int, Topic] = {}
        self._chunks: list[tuple[int, int]] = []
        """Offset and last log time, ns, of each chunk by the index."""
        self._cut = False
        """The file says that it has an index, and does not have it."""
        self._input = Input(path)
        try:
            if (magic := self._input.read(len(MAGIC))) != MAGIC:
                old = magic.startswith(b"#ROSBAG V")
                why = "of format 2.0: convert it with `rosbag fix`" if old else "of ROS 1: its first bytes are others"
                raise InputError(f"{path} is not a bag {why}")
            self.index = self._read_index()
        except BaseException:
            self._input.close()
            raise

    def _read_index(self) -> Index | None:
        try:
            first, _ = self._header()
            if first.get(b"encryptor"):
                raise InputError(f"{self.path} is encrypted: decrypt it with `rosbag decrypt`")
            at = _u64(first, b"index_pos")
            if at == 0:  # never closed
                return None
            self._cut = True
            if at >= self._input.size:
                return None
            self._input.seek(at)
            counts: dict[int, int] = {}
            begins: list[int] = []
            ends: list[int] = []
            while self._input.left:
                header, length = self._header()
                data = self._data(length)
                if len(data) < length:
                    raise Damaged("cut off")
                if _op(header) == CONNECTION:
                    self._connect(header, data)
                elif _op(header) == CHUNK_INFO:
                    for number, count in _U32_PAIR.iter_unpack(data):
                        counts[number] = counts.get(number, 0) + count
                    begins.append(_time(header, b"start_time"))
                    ends.append(_time(header, b"end_time"))
                    self._chunks.append((_u64(header, b"chunk_pos"), ends[-1]))
            if len(self._chunks) < _u32(first, b"chunk_count"):
                raise Damaged("cut off")
        except (Damaged, struct.error):
            self._chunks.clear()
            return None
        self._cut = False
        totals: dict[str, int] = {}
        for number, topic in self._connections.items():
            totals[topic.name] = totals.get(topic.name, 0) + counts.get(number, 0)
        topics = [Topic(t.name, t.type, t.coding, totals[t.name]) for t in self.seen.values()]
        return Index(topics, min(begins, default=None), max(ends, default=None))

    def _header(self) -> tuple[Fields, int]:
        """Read a record's header and the length of its data; raises Damaged."""
        length = self._length()
        if length > MOST_HEADER:
            raise Damaged(f"a record whose header claims {length:,} bytes")
        data = self._input.read(length)
        if len(data) < length:
            raise Damaged("cut off")
        return _fields(data), self._length()

    def _length(self) -> int:
        data = self._input.read(4)
        if len(data) < 4:
            raise Damaged("cut off")
        return int.from_bytes(data, "little")

    def _data(self, length: int) -> bytes:
        """Read a record's data, or what there is of it; raises Damaged."""
        if length > LARGEST:
            raise Damaged(f"a record of {length:,} bytes, and at most {LARGEST:,} are read")
        return self._input.read(length)

    def _connect(self, header: Fields, data: bytes) -> None:
        """Keep a connection: its number, topic and type; raises Damaged."""
        about = _fields(data)
        try:
            name, kind = header[b"topic"].decode(), about[b"type"].decode()
        except (KeyError, UnicodeDecodeError):
            raise Damaged("a connection without topic or type") from None
        topic = Topic(name, message_type(kind), "ros1")
        self._connections[_u32(header, b"conn")] = topic
        self.seen.setdefault(name, topic)

    def messages(self, names: Collection[str] | None, from_ns: int | None = None) -> Iterator[Message]:
        later = [at for at, end_ns in self._chunks if from_ns is not None and end_ns >= from_ns]
        self._input.seek(min(later, default=len(MAGIC)))
        while self._input.left and not self.stopped:
            at = self._input.at
            try:
                header, length = self._header()
            except Damaged as error:  # where the next record begins is not known
                return self.note(f"{error} at byte {at:,}")
            end = self._input.at + length
            try:
                yield from self._top(header, length, names)
            except Damaged as error:
                self.note(f"{error} at byte {at:,}")
            self._input.seek(end)
            if end > self._input.size:
                return self.note(f"cut off at byte {self._input.size:,}, in the record at byte {at:,}")
        if self._cut and not self.stopped:
            self.note(f"cut off at byte {self._input.size:,}")
        return None

    def _top(self, header: Fields, length: int, names: Collection[str] | None) -> Iterator[Message]:
        """Yield the messages of a record that is not part of a chunk; raises Damaged."""
        op = _op(header)
        if op == CHUNK:
            data = self._data(length)
            compression = header.get(b"compression", b"none").decode(errors="replace")
            yield from self._inner(unpack(data, compression, _u32(header, b"size")), names, len(data) == length)
        elif op in (CONNECTION, MESSAGE) and length <= self._input.left:
            yield from self._record(header, self._data(length), names)

    def _inner(self, data: bytes, names: Collection[str] | None, whole: bool) -> Iterator[Message]:
        """Yield the messages of an unpacked chunk, of one that is not `whole` up to its end; raises Damaged."""
        at = 0
        while at < len(data) and not self.stopped:
            body = at + 4 + _length_at(data, at)
            end = body + 4 + _length_at(data, body)
            if end > len(data):
                if whole:
                    raise Damaged("a chunk whose last record is cut off")
                return
            header = _fields(data[at + 4 : body])
            if _op(header) == CONNECTION or self._wanted(header, names):
                yield from self._record(header, data[body + 4 : end], names)
            at = end

    def _wanted(self, header: Fields, names: Collection[str] | None) -> bool:
        topic = self._connections.get(_u32(header, b"conn")) if b"conn" in header else None
        return topic is None or names is None or topic.name in names

    def _record(self, header: Fields, data: bytes, names: Collection[str] | None) -> Iterator[Message]:
        if _op(header) == CONNECTION:
            self._connect(header, data)
        elif _op(header) == MESSAGE and self._wanted(header, names):
            topic = self._connections.get(_u32(header, b"conn"))
            if topic is None:
                raise Damaged("a message of an unknown connection")
            yield Message(topic, _time(header, b"time"), data)

    def close(self) -> None:
        self._input.close()


def _length_at(data: bytes, at: int) -> int:
    """Return the length at an offset; more than there can be where the data ends before it."""
    return int(_U32.unpack_from(data, at)[0]) if at + 4 <= len(data) else LARGEST


def _fields(data: bytes) -> Fields:
    """Parse `name=value` fields, each with its length before it; raises Damaged."""
    found: Fields = {}
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise Damaged("a record whose header cannot be read")
        end = at + 4 + _U32.unpack_from(data, at)[0]
        name, equals, value = data[at + 4 : end].partition(b"=")
        if not equals or end > len(data):
            raise Damaged("a record whose header cannot be read")
        found[name] = value
        at = end
    return found


def _op(header: Fields) -> int:
    return int.from_bytes(header.get(b"op", b""), "little")


def _u32(header: Fields, name: bytes) -> int:
    return _number(header, name, 4)


def _u64(header: Fields, name: bytes) -> int:
    return _number(header, name, 8)


def _number(header: Fields, name: bytes, length: int) -> int:
    value = header.get(name, b"")
    if len(value) != length:
        raise Damaged(f"a record without {name.decode()}")
    return int.from_bytes(value, "little")


def _time(header: Fields, name: bytes) -> int:
    """Return a time field in ns."""
    value = header.get(name, b"")
    if len(value) != 8:
        raise Damaged(f"a record without {name.decode()}")
    seconds, nanoseconds = _U32_PAIR.unpack(value)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
