"""SQLite databases of ROS 2 bags (.db3), whole or cut off."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from streamfuse.errors import InputError
from streamfuse.sources.bags.container import Container, Index
from streamfuse.sources.bags.records import LARGEST, Input
from streamfuse.sources.bags.sqlite_pages import Pages
from streamfuse.sources.bags.topic import Message, Topic

MAGIC = b"SQLite format 3\0"
ERRORS = (sqlite3.Error, UnicodeDecodeError, OverflowError)
"""Errors of the module `sqlite3` for a damaged database; the second one where its own message quotes damaged text."""


class SqliteFile(Container):
    """A database of the recorder of ROS 2: a table of topics, and one of messages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = {}
        self._topics: dict[int, Topic] = {}
        with contextlib.closing(Input(path)) as file:
            if not file.read(len(MAGIC)).startswith(MAGIC):
                raise InputError(f"{path} is not an SQLite database: its first bytes are others")
            logged = _has_log(path)
            self._cut = not logged and not Pages(file).complete
        self._database = _connect(path, logged)
        try:
            if self._cut:  # else SQLite refuses everything
                self._query("PRAGMA writable_schema = ON")
            self._read_topics()
            self.index = None if self._cut else self._read_index()
        except ERRORS as error:
            self._database.close()
            raise InputError(
                f"{path} is not a bag of ROS 2, or is cut off before its list of topics ({error}): copy it again"
            ) from None
        except BaseException:
            self._database.close()
            raise

    def _query(self, text: str, values: tuple[int, ...] = ()) -> sqlite3.Cursor:
        return self._database.execute(text, values)

    def _read_topics(self) -> None:
        tables = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('topics', 'messages')"
        if self._query(tables).fetchone() != (2,):
            raise InputError(f"{self.path} is a database without the tables of a ROS 2 bag: give the .db3 of a bag")
        for number, name, kind, coding in self._query("SELECT id, name, type, serialization_format FROM topics"):
            if isinstance(number, int) and all(isinstance(text, str) for text in (name, kind, coding)):
                self._topics[number] = self.seen[name] = Topic(name, kind, coding)

    def _read_index(self) -> Index:
        counts = dict(self._query("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"))
        begin_ns, end_ns = self._query("SELECT min(timestamp), max(timestamp) FROM messages").fetchone()
        topics = [Topic(t.name, t.type, t.coding, counts.get(number, 0)) for number, t in self._topics.items()]
        return Index(topics, _whole(begin_ns), _whole(end_ns))

    def messages(self, names: Collection[str] | None, from_ns: int | None = None) -> Iterator[Message]:
        wanted = [number for number, topic in self._topics.items() if names is None or topic.name in names]
        last = -(1 << 63)
        if self._cut:
            self.note("cut off")
            yield from self._salvage(wanted, last)
            return
        try:
            for row, number, log_ns, data in self._rows(wanted, from_ns):
                last = row
                if self.stopped:
                    return
                if isinstance(log_ns, int) and isinstance(data, bytes):
                    yield Message(self._topics[number], log_ns, data)
                else:
                    self.note("a message without time or data")
        except ERRORS as error:
            self.note(str(error))
            yield from self._salvage(wanted, last)

    def _rows(self, wanted: list[int], from_ns: int | None) -> Iterator[tuple[int, int, Any, Any]]:
        """Yield number, topic, time and data of messages in the order in which they were recorded."""
        first = None
        if from_ns is not None:  # a query for its number alone reads no data
            (first,) = self._query("SELECT min(id) FROM messages WHERE timestamp >= ?", (from_ns,)).fetchone()
        rows = self._query(
            f"SELECT id, topic_id, timestamp, data FROM messages WHERE topic_id IN ({', '.join('?' * len(wanted))}) "
            "AND id >= ? ORDER BY id",
            (*wanted, first if isinstance(first, int) else -(1 << 63)),
        )
        with contextlib.closing(rows):
            yield from rows

    def _salvage(self, wanted: list[int], after: int) -> Iterator[Message]:
        """Yield the messages after a row that are in the file's pages, wherever its trees are torn."""
        with contextlib.closing(Input(self.path)) as file:
            pages = Pages(file)
            for row in pages.rows(set(wanted), after):
                if self.stopped:
                    return
                if (data := pages.data(row)) is not None:
                    yield Message(self._topics[row.topic], row.log_ns, data)

    def close(self) -> None:
        self._database.close()


def _has_log(path: Path) -> bool:
    """Tell whether there is a log beside a database, which holds the last messages of a recorder that was killed."""
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _connect(path: Path, logged: bool) -> sqlite3.Connection:
    """Open a database that is only read, whatever it says about itself; without a log, its file alone is looked at."""
    mode = "mode=ro" if logged else "immutable=1"
    try:
        database = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True, check_same_thread=False)
    except ERRORS as error:
        raise InputError(f"{path} cannot be opened: {error}") from None
    database.text_factory = lambda text: text.decode(errors="replace")
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "query_only = ON"):
        with contextlib.suppress(*ERRORS):
            database.execute(f"PRAGMA {pragma}")
    return database


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None
