"""From clips to outputs: what is missing is given to the workers, as many units as they have threads.

No more than that is given, so that a worker that dies takes down only what ran on it.  A unit whose worker died is
tried again by Dask; one whose workers died again and again is put by, and tried once more when nothing else runs:
if it then happens again, it is this clip that does it, and it alone fails.
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
from streamfuse.batch.fusing import Fusing, made_of
from streamfuse.batch.recordings import Clip
from streamfuse.batch.segments import WHOLE, Window
from streamfuse.batch.worker import Outcome
from streamfuse.errors import OutputError, StreamfuseError
from streamfuse.notes import warn_once

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger("streamfuse")

TICK_S = 0.2
WORKERS_S = 1.0
"""How often the cluster is asked how many threads it has."""
PATIENCE_S = 10.0
"""Without any worker; then it is said, and waited on."""


class Status(enum.StrEnum):
    LEFT = "left"
    """Not finished when the batch was stopped."""
    DONE = "done"
    """Made by this run."""
    SKIPPED = "skipped"
    """Made by an earlier one, of the same inputs with the same options."""
    FAILED = "failed"


@dataclass
class Entry:
    """A clip and how far it is."""

    clip: Clip
    made_of: dict[str, Any] = field(default_factory=dict)
    status: Status = Status.LEFT
    error: str | None = None
    code: int = 0
    trace: str | None = None
    figures: dict[str, Any] | None = None
    """Of the output, as `worker.Outcome` has them, also where an earlier run made it."""
    windows: tuple[Window, ...] = ()
    parts: dict[int, dict[str, Any]] = field(default_factory=dict)

    def fail(self, error: str, code: int, trace: str | None = None) -> None:
        self.status, self.error, self.code, self.trace = Status.FAILED, error, code, trace

    @property
    def damage(self) -> str | None:
        """What is missing from its inputs, and so from the output."""
        damage: str | None = (self.figures or {}).get("damage")
        return damage


@dataclass(frozen=True)
class Unit:
    entry: Entry
    kind: str
    """look, fuse, part or join."""
    place: int = 0
    """Of a part."""
    alone: bool = False
    """Nothing else runs while it does."""


@dataclass(frozen=True, slots=True)
class State:
    """Of a batch, now."""

    total: int
    done: int
    skipped: int
    failed: int
    running: int
    workers: int
    frames: int
    """Fused in this run, as far as the workers have said."""
    elapsed_s: float


def plan(clips: Sequence[Clip], fusing: Fusing, force: bool) -> list[Entry]:
    """What of the clips is done, cannot be begun, or is left; nothing is opened for it."""
    entries = []
    for clip in clips:
        entry = Entry(clip)
        entries.append(entry)
        try:
            entry.made_of = made_of(clip, fusing)
            found = receipts.standing(clip.output, entry.made_of)
            if found.done:
                entry.status, entry.figures = Status.SKIPPED, found.figures
            elif found.exists and not force:
                raise OutputError(f"it exists and {found.exists}: choose another place, or replace it with --force")
        except StreamfuseError as error:
            entry.fail(str(error), error.exit_code)
    return entries


def idle(entries: Sequence[Entry]) -> State:
    """Where nothing runs."""
    return _state(Counter(entry.status for entry in entries))


def _state(counts: Counter[Status]) -> State:
    return State(counts.total(), counts[Status.DONE], counts[Status.SKIPPED], counts[Status.FAILED], 0, 0, 0, 0.0)


class Run:
    """Works off what is left of the entries; once."""

    def __init__(self, client: Client, entries: Sequence[Entry], fusing: Fusing, force: bool) -> None:
        self._client, self._entries, self._fusing, self._force = client, entries, fusing, force
        self._id = uuid.uuid4().hex[:12]
        first = "look" if fusing.split_s is not None else "fuse"
        self._ready = deque(Unit(entry, first) for entry in entries if entry.status is Status.LEFT)
        self._suspects: deque[Unit] = deque()
        self._running: dict[str, tuple[Unit, Future[Outcome]]] = {}
        self._finished: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads = self._workers = self._submitted = self._frames = 0
        self._on_the_way: dict[str, int] = {}
        self._counts = Counter(entry.status for entry in entries)
        self._asked = -WORKERS_S
        self._begun = self._last_seen = time.monotonic()
        self._said = False

    def stop(self) -> None:
        """Begin nothing more and give up what runs; any thread may call it."""
        self._stopping.set()

    def __call__(self, on_tick: Callable[[State], None] | None = None) -> None:
        """Until all is done, failed or, after `stop`, left.  Raises StreamfuseError where the cluster is lost."""
        self._client.subscribe_topic(worker.topic_of(f"-{self._id}-"), self._hear)
        try:
            while (self._ready or self._running or self._suspects) and not self._stopping.is_set():
                self._look_at_workers()
                self._submit()
                self._collect()
                if on_tick is not None:
                    on_tick(self.state())
        finally:
            if self._running and self._client.status == "running":  # else there is nobody to tell
                self._client.cancel([future for _, future in self._running.values()], force=True)

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """From a thread of Dask's: how far a unit is."""
        self._on_the_way[event[1]["key"]] = event[1]["frames"]

    def state(self) -> State:
        on_the_way = [self._on_the_way.get(key, 0) for key in self._running]
        return replace(
            _state(self._counts),
            running=len(self._running),
            workers=self._workers,
            frames=self._frames + sum(on_the_way),
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
        raise StreamfuseError("the Dask scheduler does not answer any more; start it and run the same again to go on")

    def _submit(self) -> None:
        while self._ready and len(self._running) < self._threads:
            unit = self._ready.popleft()
            if unit.entry.status is Status.LEFT:  # else another part has failed
                self._send(unit)
        while self._suspects and not self._running and self._threads:
            unit = self._suspects.popleft()
            if unit.entry.status is Status.LEFT:
                self._send(replace(unit, alone=True))

    def _send(self, unit: Unit) -> None:
        entry = unit.entry
        work: Callable[..., Outcome]
        arguments: tuple[Any, ...] = (entry.clip, self._fusing)
        if unit.kind == "look":
            work = worker.look
        elif unit.kind == "join":
            work = worker.join
            arguments += (entry.made_of, self._force, [entry.parts[place] for place in range(len(entry.windows))])
        else:
            work = worker.fuse
            part = unit.kind == "part"
            window = entry.windows[unit.place] if part else WHOLE
            arguments += (entry.made_of, self._force, window, unit.place if part else None)
        key = f"{unit.kind}-{self._id}-{self._submitted}"
        self._submitted += 1
        future = self._client.submit(work, *arguments, key=key, pure=False)
        self._running[key] = (unit, future)
        future.add_done_callback(lambda done: self._finished.put(done.key))

    def _collect(self) -> None:
        """What has finished, after waiting a moment for the first."""
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
            if unit.entry.status is not Status.LEFT:  # another part has failed
                pass
            elif unit.alone:
                unit.entry.fail("every worker that had it died, also with nothing else running: out of memory?", 1)
            else:
                log.warning("%s: the workers that had it died; it is tried by itself later", unit.entry.clip.output)
                self._suspects.append(unit)
        except StreamfuseError:
            raise
        except Exception as error:  # what a worker sends that cannot run our code, whatever that is
            unit.entry.fail(f"a worker could not run it: {type(error).__name__}: {error}".partition("\n")[0], 1)
        else:
            self._take(unit, outcome)
        finally:
            future.release()
            self._on_the_way.pop(key, None)
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
                self._ready.extendleft(Unit(entry, "part", place) for place in reversed(range(len(outcome.windows))))
            return
        assert outcome.figures is not None
        for note in outcome.figures.get("notes", ()):
            warn_once(note)
        if unit.kind == "part":
            entry.parts[unit.place] = outcome.figures
            self._frames += outcome.figures["frames"]
            if len(entry.parts) == len(entry.windows):
                self._ready.appendleft(Unit(entry, "join"))
            return
        if unit.kind == "fuse":
            self._frames += outcome.figures["frames"]
        entry.status, entry.figures = Status.DONE, outcome.figures
