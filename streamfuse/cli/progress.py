"""Progress of a long command on stderr: a bar on a terminal, plain lines elsewhere, JSON with --log-json."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from streamfuse.cli import logs

LINE_S = 5.0
"""Between plain lines."""
TICK_S = 1.0


class Update(Protocol):
    """Reports how far the command is; cheap enough to be called for every frame."""

    def __call__(
        self, done: int, words: str = "", *, fields: Mapping[str, Any] | None = None, at_once: bool = False
    ) -> None:
        """`done`: units done so far.  `words`: the rest of the line.  `fields`: of the JSON object.

        `at_once`: write a plain line even if the last one is not old enough.
        """


def on_terminal() -> bool:
    return sys.stderr.isatty()


@contextmanager
def progress(
    label: str, total: int | None = None, *, unit: str = "frames", clock: Callable[[], float] = time.monotonic
) -> Iterator[Update]:
    """Show progress until the block is left.

    `label`: the activity, such as "fusing".  `total`: number of units, None where it is not known.  `clock`: seconds.
    """
    if logs.as_json() or not on_terminal():
        yield _Lines(label, total, unit, clock)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(escape(label)),
        BarColumn(bar_width=None),
        *((MofNCompleteColumn(),) if total is not None else ()),
        TextColumn("{task.fields[words]}", markup=False),
        TimeRemainingColumn(compact=True) if total is not None else TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, words="starting")

        def update(
            done: int, words: str = "", *, fields: Mapping[str, Any] | None = None, at_once: bool = False
        ) -> None:
            bar.update(task, completed=done, words=words)

        yield update


class _Lines:
    def __init__(self, label: str, total: int | None, unit: str, clock: Callable[[], float]) -> None:
        self._label, self._total, self._unit, self._clock = label, total, unit, clock
        self._last = clock()

    def __call__(
        self, done: int, words: str = "", *, fields: Mapping[str, Any] | None = None, at_once: bool = False
    ) -> None:
        now = self._clock()
        if now - self._last < LINE_S and not at_once:
            return
        self._last = now
        if logs.as_json():
            plain = {"done": done, "total": self._total} if fields is None else fields
            logs.log.info("progress", extra={logs.FIELDS: dict(plain)})
            return
        of = f" of {self._total}" if self._total else ""
        logs.say(f"{self._label}: {done}{of} {self._unit}" + (f", {words}" if words else ""))


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """Show how long a step has taken that cannot report its progress."""
    finished = threading.Event()
    with progress(label, unit="s") as update:

        def show() -> None:
            begin = time.monotonic()
            while not finished.wait(TICK_S):
                update(round(time.monotonic() - begin))

        thread = threading.Thread(target=show, daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()
