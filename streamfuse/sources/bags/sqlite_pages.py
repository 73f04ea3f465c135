"""Messages from the pages of a database of which parts are missing, without its trees.

SQLite follows a tree from its root, so that a lost page hides all that is below it.  The rows are in leaf pages, which
can be read alone (SQLite's documentation, Database File Format, 1.6 and 2): a page lists its cells, and a cell has the
row's number and its record, of which what does not fit goes into a chain of further pages.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from streamfuse.sources.bags.records import LARGEST, Input

LEAF = 0x0D
"""First byte of a page with rows of a table; a page of a chain begins with zeros."""
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}
"""Kind of an integer to its number of bytes; 8 and 9 are the numbers 0 and 1."""
_BLOCK = 256
"""Pages that are read at once."""


@dataclass(frozen=True, slots=True)
class Row:
    """Where a message is."""

    number: int
    """Number of the row, which rises as messages are recorded."""
    topic: int
    log_ns: int
    page: int
    """Page of its leaf, from 0."""
    cell: int
    """Offset of its cell in the page."""


class Pages:
    """The pages of a database."""

    def __init__(self, file: Input) -> None:
        self._file = file
        file.seek(0)
        header = file.read(100).ljust(100, b"\0")
        size = int.from_bytes(header[16:18], "big")
        self._size = 65536 if size == 1 else max(size, 512)
        self._usable = self._size - header[20]
        # Older versions of SQLite do not keep the number of pages: then these two differ.
        known = header[24:28] == header[92:96]
        least = int.from_bytes(header[28:32], "big") * self._size if known else 0
        self.complete = file.size >= least and file.size % self._size == 0
        """The file is as long as its header says, and ends with a whole page."""

    def rows(self, topics: Collection[int], after: int) -> list[Row]:
        """List the messages of these topics with a number above `after`, by their numbers."""
        found: dict[int, Row] = {}
        self._file.seek(0)
        first = 0
        while block := self._file.read(_BLOCK * self._size):
            for at in range(0, len(block), self._size):
                page = block[at : at + self._size]
                if page[0] == LEAF and len(page) == self._size:
                    for row in self._leaf(page, first + at // self._size):
                        if row.topic in topics and row.number > after:
                            found[row.number] = row
            first += _BLOCK
        return [found[number] for number in sorted(found)]

    def data(self, row: Row) -> bytes | None:
        """Return the data of a message; None if a part of it is missing."""
        page = self._page(row.page)
        try:
            length, at = _varint(page, row.cell)
            _, at = _varint(page, at)
            here = self._local(length)
            payload = [page[at : at + here]]
            left = length - len(payload[0])
            following = int.from_bytes(page[at + here : at + here + 4], "big") if left else 0
            while left > 0:
                if following == 0 or len(page := self._page(following - 1)) < min(left, self._usable - 4) + 4:
                    return None
                payload.append(page[4 : min(4 + left, self._usable)])
                left -= len(payload[-1])
                following = int.from_bytes(page[:4], "big")
            record = b"".join(payload)
            found = _record(record)
        except (IndexError, struct.error):
            return None
        if found is None or len(record) != found[3] + found[2]:
            return None
        return record[found[3] :]

    def _leaf(self, page: bytes, number: int) -> Iterator[Row]:
        """Yield the messages whose cells are in a page."""
        try:
            count = struct.unpack_from(">H", page, 3)[0]
            for cell in struct.unpack_from(f">{count}H", page, 8):
                length, at = _varint(page, cell)
                rowid, at = _varint(page, at)
                if length <= LARGEST:
                    record = _record(page[at : at + self._local(length)])
                    if record is not None:
                        yield Row(rowid, record[0], record[1], number, cell)
        except (IndexError, struct.error):
            return

    def _page(self, number: int) -> bytes:
        self._file.seek(number * self._size)
        return self._file.read(self._size)

    def _local(self, length: int) -> int:
        """Return how many bytes of a record of this length are in the leaf."""
        if length <= self._usable - 35:
            return length
        least = (self._usable - 12) * 32 // 255 - 23
        most = least + (length - least) % (self._usable - 4)
        return most if most <= self._usable - 35 else least


def _record(record: bytes) -> tuple[int, int, int, int] | None:
    """Return topic, time, and the size and offset of the data of a row of messages; None for a row of another table."""
    end, at = _varint(record, 0)
    kinds = []
    while at < end:
        kind, at = _varint(record, at)
        kinds.append(kind)
    if len(kinds) != 4 or kinds[0] != 0 or kinds[3] < 12 or kinds[3] % 2 or any(k not in _INTEGERS for k in kinds[1:3]):
        return None
    values = []
    for kind in kinds[1:3]:
        length = _INTEGERS[kind]
        if at + length > len(record):
            return None
        values.append(int.from_bytes(record[at : at + length], "big", signed=True) if length else kind - 8)
        at += length
    return values[0], values[1], (kinds[3] - 12) // 2, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of SQLite's variable length, and the offset behind it; raises IndexError."""
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | data[at], at + 1
