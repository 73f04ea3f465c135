"""Addresses of topics in bags: `walk.mcap?topic=/boson/image_raw`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streamfuse.errors import UsageError
from streamfuse.sources.bags.bag import is_bag

_MARK = "?topic="


@dataclass(frozen=True, slots=True)
class BagAddress:
    """A topic of a bag."""

    path: Path
    topic: str | None = None
    """None: the only topic of images that the bag has."""

    def __str__(self) -> str:
        return str(self.path) if self.topic is None else f"{self.path}{_MARK}{self.topic}"


def without_topic(text: str) -> str:
    """Return an address without its topic: the path of the bag, or of another recording."""
    return text.partition(_MARK)[0]


def parse_bag(text: str) -> BagAddress | None:
    """Parse the address of a bag, with or without a topic; None for any other text.  Raises UsageError.

    walk.bag?topic=/ir/image_raw   walk.mcap   walk/?topic=/ir/image_raw (a directory)   walk_0.db3
    """
    base, mark, topic = text.partition(_MARK)
    if "\0" in text or not is_bag(Path(base)):
        head, question, query = text.partition("?")
        if question and is_bag(Path(head)):
            raise UsageError(
                f"{text}: a bag has no option {query.partition('=')[0]!r}; it has topic, as in {head}{_MARK}/ir"
            )
        return None
    if mark and not topic:
        raise UsageError(f"{text}: name the topic, as in {base}{_MARK}/camera/image_raw")
    return BagAddress(Path(base), topic or None)
