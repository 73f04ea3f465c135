"""The interface of the files that bags consist of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from streamfuse.sources.bags.topic import Message, Topic
from streamfuse.support.closeable import Closeable


@dataclass(frozen=True, slots=True)
class Index:
    """Contents of a file by its own index."""

    topics: list[Topic]
    start_ns: int | None
    """Log time of the first message, ns; None: not told, or no messages."""
    end_ns: int | None


class Container(Closeable):
    """One file of a bag; used by one thread at a time.

    The constructor raises InputError for a file that is no such container.
    """

    path: Path
    index: Index | None = None
    """None: the file has no index that can be used, and is read from its beginning."""
    damage: str | None = None
    """Description of what could not be read so far."""
    seen: dict[str, Topic]
    """Topics that the index and the messages so far have shown."""
    stopped: bool = False
    """Set it from any thread to end `messages` soon."""

    @abstractmethod
    def messages(self, names: Collection[str] | None, from_ns: int | None = None) -> Iterator[Message]:
        """Yield the messages of these topics in the order of the file; None: of all.

        `from_ns`: with an index, messages that were logged before this time may be left out.  A file that is damaged is
        read as far as it goes, and the rest described in `damage`.  May be called again.
        """

    def note(self, damage: str) -> None:
        """Keep the first description of damage."""
        self.damage = self.damage or damage
