"""MCAP files, with or without an index.

The package `mcap` parses the records.  The frame of each record, its kind and its length, is read here: the package's
readers refuse a file that was cut off, and load an unindexed one whole.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.errors import InputError
from streamfuse.sources.bags.container import Container, Index
from streamfuse.sources.bags.packages import ros_packages
from streamfuse.sources.bags.records import LARGEST, Damaged, Input, unpack
from streamfuse.sources.bags.topic import Message, Topic, message_type
from streamfuse.temperature import Scale

with ros_packages():
    import mcap.exceptions
    import mcap.records
    from mcap.data_stream import ReadDataStream
    from mcap.opcode import Opcode

if TYPE_CHECKING:
    from typing import Protocol

    class _Readable(Protocol):
        def read(self, count: int, /) -> bytes: ...


MAGIC = b"\x89MCAP0\r\n"
STEP, OFFSET = "temperature_step_k", "temperature_offset_k"
"""Metadata of a channel of temperatures: kelvin = value * step + offset."""
_FOOTER = 9 + 20 + len(MAGIC)
_HEAD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_PARSE_ERRORS = (mcap.exceptions.McapError, struct.error, ValueError, OverflowError)


def _scale(metadata: Mapping[str, str]) -> Scale | None:
    """Return the scale of temperatures in the metadata of a channel, as `streamfuse.sinks.mcap` writes it, or None."""
    try:
        scale = Scale(float(metadata[STEP]), float(metadata[OFFSET]))
    except (KeyError, ValueError):
        return None
    return scale if 0 < scale.step < 1000 and abs(scale.offset) < 1e6 else None


class McapFile(Container):
    """An MCAP file with messages of ROS 1, ROS 2 or Foxglove."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = {}
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, Topic] = {}
        self._chunks: list[mcap.records.ChunkIndex] = []
        self._input = Input(path)
        try:
            if self._input.read(len(MAGIC)) != MAGIC:
                raise InputError(f"{path} is not an MCAP file: its first bytes are others")
            self.index = self._read_index()
        except BaseException:
            self._input.close()
            raise

    def _read_index(self) -> Index | None:
        """Read the summary section at the end of the file; None where there is none."""
        self._input.seek(max(self._input.size - _FOOTER, 0))
        footer = self._input.read(_FOOTER)
        if len(footer) < _FOOTER or footer[:9] != _HEAD.pack(Opcode.FOOTER, 20) or not footer.endswith(MAGIC):
            return None
        start = int.from_bytes(footer[9:17], "little")
        if start == 0 or start > self._input.size - _FOOTER:
            return None
        statistics: mcap.records.Statistics | None = None
        self._input.seek(start)
        try:
            while self._input.left > _FOOTER:
                kind, length = _HEAD.unpack(self._input.read(_HEAD.size))
                if length > min(LARGEST, self._input.left):
                    return None
                stream = ReadDataStream(io.BytesIO(self._input.read(length)))
                if kind == Opcode.STATISTICS:
                    statistics = mcap.records.Statistics.read(stream)
                elif kind == Opcode.CHUNK_INDEX:
                    self._chunks.append(mcap.records.ChunkIndex.read(stream))
                elif kind in (Opcode.SCHEMA, Opcode.CHANNEL):
                    self._define(kind, stream)
        except _PARSE_ERRORS:
            self._chunks.clear()
            return None
        if statistics is None or (statistics.message_count and not self._channels):
            return None
        counts = statistics.channel_message_counts
        totals: dict[str, int] = {}
        for number, topic in self._channels.items():
            totals[topic.name] = totals.get(topic.name, 0) + counts.get(number, 0)
        topics = [replace(topic, count=totals[topic.name]) for topic in self.seen.values()]
        some = statistics.message_count > 0
        return Index(
            topics, statistics.message_start_time if some else None, statistics.message_end_time if some else None
        )

    def _define(self, kind: int, stream: ReadDataStream) -> None:
        """Keep a schema or a channel."""
        if kind == Opcode.SCHEMA:
            schema = mcap.records.Schema.read(stream)
            self._schemas[schema.id] = message_type(schema.name)
            return
        channel = mcap.records.Channel.read(stream)
        topic = Topic(
            channel.topic,
            self._schemas.get(channel.schema_id, ""),
            channel.message_encoding,
            scale=_scale(channel.metadata),
        )
        self._channels[channel.id] = topic
        self.seen.setdefault(topic.name, topic)

    def messages(self, names: Collection[str] | None, from_ns: int | None = None) -> Iterator[Message]:
        later = [chunk for chunk in self._chunks if from_ns is not None and chunk.message_end_time >= from_ns]
        self._input.seek(min((chunk.chunk_start_offset for chunk in later), default=len(MAGIC)))
        while not self.stopped:
            at = self._input.at
            head = self._input.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return self._ended_early(at)
            kind, length = _HEAD.unpack(head)
            if kind in (Opcode.DATA_END, Opcode.FOOTER):
                return None
            if kind == Opcode.CHUNK:
                try:
                    records = self._unpack_chunk(length)
                except Damaged as error:
                    self.note(f"{error} at byte {at:,}")
                else:
                    yield from self._inner(records, names, at)
            elif kind in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE):
                if length > LARGEST:
                    return self.note(f"a record claims {length:,} bytes at byte {at:,}")
                yield from self._record(kind, self._input.read(length), length, names, at)
            self._input.seek(at + _HEAD.size + length)
            if self._input.left == 0:
                return self._ended_early(at)
        return None

    def _ended_early(self, at: int) -> None:
        self.note(f"cut off at byte {self._input.size:,}, in the record at byte {at:,}")

    def _unpack_chunk(self, length: int) -> bytes:
        """Read a chunk at the input's position and return its records; raises Damaged."""
        if length > LARGEST:
            raise Damaged(f"a chunk of {length:,} bytes, and at most {LARGEST:,} are read")
        body = self._input.read(length)
        whole = len(body) == length
        try:
            chunk = mcap.records.Chunk.read(ReadDataStream(io.BytesIO(body)))
        except _PARSE_ERRORS:
            raise Damaged("a chunk without its head") from None
        data = unpack(chunk.data, chunk.compression, chunk.uncompressed_size)
        if whole and chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
            raise Damaged("a chunk with a wrong checksum")
        return data

    def _inner(self, data: bytes, names: Collection[str] | None, chunk_at: int) -> Iterator[Message]:
        at = 0
        while at + _HEAD.size <= len(data) and not self.stopped:
            kind, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            if kind == Opcode.MESSAGE and length >= 2 and at + 2 <= len(data):
                topic = self._channels.get(int.from_bytes(data[at : at + 2], "little"))
                if topic is not None and names is not None and topic.name not in names:
                    at += length
                    continue
            yield from self._record(kind, data[at : at + length], length, names, chunk_at)
            at += length

    def _record(self, kind: int, body: bytes, length: int, names: Collection[str] | None, at: int) -> Iterator[Message]:
        """Yield the message that a record holds, if it is one of a topic in `names`."""
        if len(body) < length:
            return self.note(f"cut off in the record at byte {at:,}")
        if kind == Opcode.MESSAGE:
            if length < _MESSAGE.size:
                return self.note(f"a message without its head at byte {at:,}")
            number, _, log_ns, _ = _MESSAGE.unpack_from(body)
            topic = self._channels.get(number)
            if topic is None:
                return self.note(f"a message of an unknown channel at byte {at:,}")
            if names is None or topic.name in names:
                yield Message(topic, log_ns, body[_MESSAGE.size :])
        elif kind in (Opcode.SCHEMA, Opcode.CHANNEL):
            try:
                self._define(kind, ReadDataStream(io.BytesIO(body)))
            except _PARSE_ERRORS:
                self.note(f"a channel that cannot be read at byte {at:,}")

    def close(self) -> None:
        self._input.close()
