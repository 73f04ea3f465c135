"""What runs in a worker: a unit comes as a few paths and numbers, and what became of it goes back as JSON would.

A worker keeps its engines warm from unit to unit.  No exception leaves here: a clip that fails is an answer.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamfuse import __version__
from streamfuse.batch import receipts, segments
from streamfuse.batch.fusing import Fusing
from streamfuse.batch.recordings import Clip
from streamfuse.batch.segments import WHOLE, Excerpt, Part, Window
from streamfuse.batch.warm import warm_fuser
from streamfuse.errors import DamagedInput, InputError, OutputError, StreamfuseError
from streamfuse.frames import Role
from streamfuse.pairing.recorded import OTHER_ENDED
from streamfuse.sources.limits import allowing
from streamfuse.telemetry import Counts, add_counts

if TYPE_CHECKING:
    from streamfuse.sources.base import Source
    from streamfuse.telemetry import Summary

log = logging.getLogger("streamfuse")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a unit."""

    error: str | None = None
    """Why there is no result, in words."""
    code: int = 0
    """Exit code of the error."""
    trace: str | None = None
    """Of an error that nobody expected."""
    windows: tuple[Window, ...] = ()
    """How a long clip is to be cut."""
    figures: dict[str, Any] | None = None
    """How it went: frames, seconds, drops, damage, notes, worker, engine."""


def _answer(work: Callable[[list[str]], Outcome], fusing: Fusing) -> Outcome:
    """Of `work`, which is given what the library says meanwhile."""
    notes = _Notes()
    log.addHandler(notes)
    try:
        if fusing.version != __version__:
            raise StreamfuseError(
                f"worker {socket.gethostname()} has streamfuse {__version__}, not {fusing.version}: install the same"
            )
        with allowing(fusing.max_pixels):
            return work(notes.texts)
    except StreamfuseError as error:
        return Outcome(str(error), error.exit_code)
    except Exception as error:  # an answer, too: this clip fails, and no other
        return Outcome(f"unexpected {type(error).__name__}: {error}", 1, traceback.format_exc())
    finally:
        log.removeHandler(notes)


class _Notes(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def look(clip: Clip, fusing: Fusing) -> Outcome:
    """Into how many parts a clip is cut."""

    def work(notes: list[str]) -> Outcome:
        assert fusing.split_s is not None
        offset_ns = round(fusing.for_clip(clip).ir_offset_ms * 1e6)
        ir, vis = _open(clip, fusing)
        with ir, vis:
            return Outcome(windows=tuple(segments.cut(ir, vis, fusing.split_s, offset_ns)))

    return _answer(work, fusing)


def fuse(
    clip: Clip, fusing: Fusing, made_of: dict[str, Any], force: bool, window: Window = WHOLE, place: int | None = None
) -> Outcome:
    """A clip to its output, or a part of it, number `place`, to a file that `join` will take.

    `made_of`: of the whole clip, as `fusing.made_of` has it.
    """

    def work(notes: list[str]) -> Outcome:
        target, made = clip.output, made_of
        if place is not None:
            target = receipts.part_of(clip.output, made_of, place)
            made = {**made_of, "window": [window.start_ns, window.stop_ns]}
        if (found := receipts.standing(target, made)).done:
            return Outcome(figures=found.figures)
        with receipts.aside(clip.output) as aside, _renamed(aside, clip.output):
            figures = _fuse_into(aside, clip, fusing.for_clip(clip), window, part=place is not None)
            figures["notes"] = notes
            receipts.deliver(aside, target, made, figures, force or place is not None)
        return Outcome(figures=figures)

    return _answer(work, fusing)


def join(clip: Clip, fusing: Fusing, made_of: dict[str, Any], force: bool, figures: list[dict[str, Any]]) -> Outcome:
    """The parts of a clip, with the figures of each, to its output."""

    def work(notes: list[str]) -> Outcome:
        if (found := receipts.standing(clip.output, made_of)).done:
            return Outcome(figures=found.figures)
        began = time.monotonic()
        whole = _sum(figures)
        if not whole["frames"]:
            raise InputError(whole["damage"] or next(one["empty"] for one in figures if one["empty"]))
        files = [receipts.part_of(clip.output, made_of, place) for place, one in enumerate(figures) if one["frames"]]
        with receipts.aside(clip.output) as aside, _renamed(aside, clip.output):
            segments.join(files, aside)
            whole["seconds"] += time.monotonic() - began
            receipts.deliver(aside, clip.output, made_of, whole, force)
        receipts.tidy(clip.output)
        return Outcome(figures=whole)

    return _answer(work, fusing)


@contextmanager
def _renamed(aside: Path, output: Path) -> Iterator[None]:
    """Errors about the file that is written aside, and removed, are about the output."""
    try:
        yield
    except OutputError as error:
        raise OutputError(str(error).split(f"; {aside}")[0].replace(str(aside), str(output))) from None


def _sum(figures: list[dict[str, Any]]) -> dict[str, Any]:
    drops: Counts = {}
    for one in figures:
        for stream, reasons in one["drops"].items():
            add_counts(drops, stream, reasons)
    for name, promised in figures[-1]["promised"].items():  # nobody wanted the rest: the other stream has ended
        if (unread := promised - sum(one["read"][name] for one in figures)) > 0:
            add_counts(drops, name, {OTHER_ENDED: unread})
    return {
        "frames": sum(one["frames"] for one in figures),
        "seconds": sum(one["seconds"] for one in figures),
        "parts": len(figures),
        "drops": drops,
        "damage": "; ".join(dict.fromkeys(one["damage"] for one in figures if one["damage"])) or None,
        "notes": list(dict.fromkeys(note for one in figures for note in one.get("notes", []))),
        "worker": ", ".join(sorted({one["worker"] for one in figures})),
        "engine": ", ".join(sorted({one["engine"] for one in figures})),
    }


def _fuse_into(aside: Path, clip: Clip, fusing: Fusing, window: Window, *, part: bool) -> dict[str, Any]:
    from streamfuse.pipeline import Pipeline
    from streamfuse.sinks.video import VideoSink

    began = time.monotonic()
    task = _Task()
    with warm_fuser(fusing) as fuser:
        offset_ns = round(fusing.ir_offset_ms * 1e6)
        sources = _open(clip, fusing)
        ir, vis = Excerpt(sources[0], window.less(offset_ns)), Excerpt(sources[1], window)
        period_ns = max(ir.period_ns or 0, vis.period_ns or 0) or None
        sink = Part(VideoSink(aside, fusing.video, period_ns=period_ns), window, offset_ns)
        pipeline = Pipeline(
            *((ir, vis) if part else sources),
            sinks=[sink],
            fuser=fuser,
            tolerance_ms=fusing.tolerance_ms,
            ir_offset_ms=fusing.ir_offset_ms,
        )

        def on_tick(summary: Summary) -> None:
            task.tell(sink.frames)
            if task.given_up():
                pipeline.stop()

        damage = empty = None
        try:
            pipeline.run(on_tick)
        except DamagedInput as error:
            damage = str(error)
        except InputError as error:
            # There may be no pairs in a part; in the others there still are.
            if not part or sink.frames:
                raise
            empty = str(error)
        if task.given_up():
            raise StreamfuseError("given up")
        engine = f"{fuser.engine.name} {fuser.engine.precision} {fuser.engine.preset}"
    counts: dict[str, Any] = {"drops": pipeline.summary().drops}
    if part:
        named = ((Role.IR.label, ir, sources[0].frame_count), (Role.VIS.label, vis, sources[1].frame_count))
        counts = {
            "drops": segments.lost(sink, ir, vis, offset_ns),
            "read": {name: excerpt.read for name, excerpt, _ in named},
            "promised": {name: count for name, excerpt, count in named if count is not None and not excerpt.ended},
        }
    return {
        "frames": sink.frames,
        "seconds": time.monotonic() - began,
        "parts": 1,
        **counts,
        "damage": damage,
        "empty": empty,
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "engine": engine,
    }


class _Task:
    """The unit that runs in this thread, as Dask knows it."""

    TELL_S = 0.25

    def __init__(self) -> None:
        from distributed import get_worker

        self._worker = None
        with suppress(ValueError):  # not in a cluster
            self._worker = get_worker()
            self._key = str(self._worker.get_current_task())
        self._told = time.monotonic()

    def given_up(self) -> bool:
        """Nobody wants it any more: the batch was stopped, or its program has died."""
        if self._worker is None:
            return False
        task = self._worker.state.tasks.get(self._key)
        return task is None or task.state == "cancelled"

    def tell(self, frames: int) -> None:
        """Say now and then how many frames are written."""
        if self._worker is not None and time.monotonic() - self._told >= self.TELL_S:
            self._told = time.monotonic()
            self._worker.log_event(topic_of(self._key), {"key": self._key, "frames": frames})


def topic_of(key: str) -> str:
    """Under which units of one run say how far they are; their keys are KIND-RUN-NUMBER."""
    return f"streamfuse-{key.split('-')[1]}"


def _open(clip: Clip, fusing: Fusing) -> tuple[Source, Source]:
    from streamfuse.engines.base import gpu_of
    from streamfuse.sources import open_pair
    from streamfuse.sources.vot import open_vot

    if clip.vot:
        return open_vot(Path(clip.vot), fusing.fps, fusing.agc)
    gpu = gpu_of(fusing.device) if fusing.hw_decode else None
    return open_pair(clip.ir, clip.vis, fps=fusing.fps, agc=fusing.agc, gpu=gpu)
