"""From recordings to outputs: missing ones are sent to the workers, as many units as they have threads.

No more are sent, so that a worker that dies takes down only the units that ran on it.  Dask tries a unit again whose
worker died.  One whose workers died repeatedly is deferred, and tried once more when nothing else runs: if a worker
dies again, this recording is the cause, and only this one fails.
"""

from __future__ import annotations

import enum
import logging
import queue
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from streamfuse.batch import receipts, worker
from streamfuse.batch.options import BatchOptions, made_of
from streamfuse.batch.recordings import Recording
from streamfuse.batch.segments import WHOLE, Window
from streamfuse.batch.worker import Outcome
from streamfuse.errors import OutputError, StreamfuseError
from streamfuse.notes import warn_once

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger("streamfuse")

TICK_S = 0.2
WORKERS_S = 1.0
"""Between requests for the number of the cluster's threads."""
PATIENCE_S = 10.0
"""Longest time without a worker before a warning."""


class Status(enum.StrEnum):
    LEFT = "left"
    """Not finished when the batch was stopped."""
    DONE = "done"
    """Made by this run."""
    SKIPPED = "skipped"
    """Made by an earlier run, from the same inputs with the same options."""
    FAILED = "failed"


@dataclass
class Entry:
    """A recording and its progress."""

    recording: Recording
    made_of: dict[str, Any] = field(default_factory=dict)
    status: Status = Status.LEFT
    error: str | None = None
    code: int = 0
    trace: str | None = None
    figures: dict[str, Any] | None = None
    """Figures of the output, see `worker.Outcome`; also where an earlier run made it."""
    windows: tuple[Window, ...] = ()
    segments: dict[int, dict[str, Any]] = field(default_factory=dict)

    def fail(self, error: str, code: int, trace: str | None = None) -> None:
        self.status, self.error, self.code, self.trace = Status.FAILED, error, code, trace

    @property
    def damage(self) -> str | None:
        """Missing pieces of the inputs, and so of the output; None: all was read."""
        damage: str | None = (self.figures or {}).get("damage")
        return damage


@dataclass(frozen=True)
class Unit:
    entry: Entry
    kind: str
    """look, fuse, segment or join."""
    index: int = 0
    """Index of a segment."""
    exclusive: bool = False
    """Nothing else runs at the same time."""


@dataclass(frozen=True, slots=True)
class State:
    """State of a batch."""

    total: int
    done: int
    skipped: int
    failed: int
    running: int
    workers: int
    frames: int
    """Frames fused in this run, as far as the workers have reported."""
    elapsed_s: float


def plan(recordings: Sequence[Recording], options: BatchOptions, force: bool) -> list[Entry]:
    """Find out which recordings are done, cannot be begun, or are left; no recording is opened."""
    entries = []
    for recording in recordings:
        entry = Entry(recording)
        entries.append(entry)
        try:
            entry.made_of = made_of(recording, options)
            found = receipts.standing(recording.output, entry.made_of)
            if found.done:
                entry.status, entry.figures = Status.SKIPPED, found.figures
            elif found.exists and not force:
                raise OutputError(f"it exists and {found.exists}: choose another directory, or replace it with --force")
        except StreamfuseError as error:
            entry.fail(str(error), error.exit_code)
    return entries


def idle(entries: Sequence[Entry]) -> State:
    """Return the state of a batch in which nothing runs."""
    return _state(Counter(entry.status for entry in entries))


def _state(counts: Counter[Status]) -> State:
    return State(counts.total(), counts[Status.DONE], counts[Status.SKIPPED], counts[Status.FAILED], 0, 0, 0, 0.0)


class Run:
    """Works through the entries that are left; used once."""

    def __init__(self, client: Client, entries: Sequence[Entry], options: BatchOptions, force: bool) -> None:
        self._client, self._entries, self._options, self._force = client, entries, options, force
        self._id = uuid.uuid4().hex[:12]
        first = "look" if options.split_s is not None else "fuse"
        self._ready = deque(Unit(entry, first) for entry in entries if entry.status is Status.LEFT)
        self._suspects: deque[Unit] = deque()
        self._running: dict[str, tuple[Unit, Future[Outcome]]] = {}
        self._finished: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads = self._workers = self._submitted = self._frames = 0
        self._under_way: dict[str, int] = {}
        self._counts = Counter(entry.status for entry in entries)
        self._asked = -WORKERS_S
        self._begun = self._last_seen = time.monotonic()
        self._said = False

    def stop(self) -> None:
        """Start no more units and cancel those that run; any thread may call it."""
        self._stopping.set()

    def __call__(self, on_tick: Callable[[State], None] | None = None) -> None:
        """Run until all is done, failed or, after `stop`, left.  Raises StreamfuseError where the cluster is lost."""
        self._client.subscribe_topic(worker.topic_of(f"-{self._id}-"), self._hear)
        try:
            while (self._ready or self._running or self._suspects) and not self._stopping.is_set():
                self._look_at_workers()
                self._submit()
                self._collect()
                if on_tick is not None:
                    on_tick(self.state())
        finally:
            if self._running and self._client.status == "running":  # else the scheduler cannot be told
                self._client.cancel([future for _, future in self._running.values()], force=True)

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """Take a unit's report of its frames, in a thread of Dask."""
        self._under_way[event[1]["key"]] = event[1]["frames"]

    def state(self) -> State:
        under_way = [self._under_way.get(key, 0) for key in self._running]
        return replace(
            _state(self._counts),
            running=len(self._running),
            workers=self._workers,
            frames=self._frames + sum(under_way),
            elapsed_s=time.monotonic() - self._begun,
        )

    def _look_at_workers(self) -> None:
        now = time.monotonic()
        if now - self._asked < WORKERS_S:
            return
        self._asked = now
        try:
            threads = self._client.nthreads()
        except (OSError, TimeoutError, RuntimeError):
            self._lost()
        self._workers, self._threads = len(threads), sum(threads.values())
        if self._threads:
            self._last_seen, self._said = now, False
        elif now - self._last_seen > PATIENCE_S and not self._said:
            self._said = True
            log.warning("the cluster has no workers: waiting for one")

    def _lost(self) -> None:
        raise StreamfuseError(
            "the Dask scheduler does not answer any more; start it and run the same command again to continue"
        )

    def _submit(self) -> None:
        while self._ready and len(self._running) < self._threads:
            unit = self._ready.popleft()
            if unit.entry.status is Status.LEFT:  # else another segment has failed
                self._send(unit)
        while self._suspects and not self._running and self._threads:
            unit = self._suspects.popleft()
            if unit.entry.status is Status.LEFT:
                self._send(replace(unit, exclusive=True))

    def _send(self, unit: Unit) -> None:
        entry = unit.entry
        work: Callable[..., Outcome]
        arguments: tuple[Any, ...] = (entry.recording, self._options)
        if unit.kind == "look":
            work = worker.look
        elif unit.kind == "join":
            work = worker.join
            arguments += (entry.made_of, self._force, [entry.segments[index] for index in range(len(entry.windows))])
        else:
            work = worker.fuse
            segment = unit.kind == "segment"
            window = entry.windows[unit.index] if segment else WHOLE
            arguments += (entry.made_of, self._force, window, unit.index if segment else None)
        key = f"{unit.kind}-{self._id}-{self._submitted}"
        self._submitted += 1
        future = self._client.submit(work, *arguments, key=key, pure=False)
        self._running[key] = (unit, future)
        future.add_done_callback(lambda done: self._finished.put(done.key))

    def _collect(self) -> None:
        """Take the outcome of the next finished unit, after waiting at most `TICK_S`."""
        from distributed import KilledWorker

        try:
            key = self._finished.get(timeout=TICK_S)
        except queue.Empty:
            return
        unit, future = self._running.pop(key)
        before = unit.entry.status
        try:
            if future.status in ("cancelled", "lost"):
                self._lost()
            outcome: Outcome = future.result()
        except KilledWorker:
            if unit.entry.status is not Status.LEFT:  # another segment has failed
                pass
            elif unit.exclusive:
                unit.entry.fail("every worker that ran it died, even with nothing else running: out of memory?", 1)
            else:
                log.warning(
                    "%s: the workers that ran it died; it is tried again later, with nothing else running",
                    unit.entry.recording.output,
                )
                self._suspects.append(unit)
        except StreamfuseError:
            raise
        except Exception as error:  # whatever a worker sends that cannot run this code
            unit.entry.fail(f"a worker could not run it: {type(error).__name__}: {error}".partition("\n")[0], 1)
        else:
            self._take(unit, outcome)
        finally:
            future.release()
            self._under_way.pop(key, None)
            self._counts[before] -= 1
            self._counts[unit.entry.status] += 1

    def _take(self, unit: Unit, outcome: Outcome) -> None:
        entry = unit.entry
        if outcome.error is not None:
            if entry.status is Status.LEFT:
                entry.fail(outcome.error, outcome.code, outcome.trace)
            return
        if unit.kind == "look":
            entry.windows = outcome.windows
            if len(outcome.windows) == 1:
                self._ready.appendleft(Unit(entry, "fuse"))
            else:
                self._ready.extendleft(Unit(entry, "segment", index) for index in reversed(range(len(outcome.windows))))
            return
        assert outcome.figures is not None
        for note in outcome.figures.get("notes", ()):
            warn_once(note)
        if unit.kind == "segment":
            entry.segments[unit.index] = outcome.figures
            self._frames += outcome.figures["frames"]
            if len(entry.segments) == len(entry.windows):
                self._ready.appendleft(Unit(entry, "join"))
            return
        if unit.kind == "fuse":
            self._frames += outcome.figures["frames"]
        entry.status, entry.figures = Status.DONE, outcome.figures
