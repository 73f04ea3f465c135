"""Warnings for the user, each assigned to the recording that it is about.

A process may work on several recordings at once (`streamfuse.batch.worker`).  `collecting` gathers the warnings of one
of them: those that are logged in its own context, which a thread inherits if it runs in a copy of it
(`contextvars.copy_context`), as the threads of a Pipeline do.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

log = logging.getLogger("streamfuse")


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if _current.get() is self:
            self.texts.append(record.getMessage())


_current: ContextVar[_Collector | None] = ContextVar("streamfuse notes", default=None)
_said: set[str] = set()


@contextmanager
def collecting() -> Iterator[list[str]]:
    """Gather the warnings that are logged in this context until the block is left, in order."""
    collector = _Collector()
    token = _current.set(collector)
    log.addHandler(collector)
    try:
        yield collector.texts
    finally:
        log.removeHandler(collector)
        _current.reset(token)


def warn_once(text: str) -> None:
    """Log a warning, unless it was logged before: in this process or, within `collecting`, in the same block.

    So each recording of a batch has its own notes, also those that an earlier one in the same process had.
    """
    collector = _current.get()
    said = _said if collector is None else collector.said
    if text not in said:
        said.add(text)
        log.warning("%s", text)
