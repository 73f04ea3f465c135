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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamfuse import __version__
from streamfuse.batch import parts, receipts
from streamfuse.batch.clips import Clip
from streamfuse.batch.fusing import Fusing
from streamfuse.batch.parts import WHOLE, Excerpt, Part, Window
from streamfuse.errors import DamagedInput, InputError, StreamfuseError

if TYPE_CHECKING:
    from streamfuse.engines.base import Engine
    from streamfuse.fuser import Fuser
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


def _answer(work: Callable[[], Outcome], fusing: Fusing) -> Outcome:
    notes = _Notes()
    log.addHandler(notes)
    try:
        if fusing.version != __version__:
            raise StreamfuseError(
                f"worker {socket.gethostname()} has streamfuse {__version__}, not {fusing.version}: install the same"
            )
        outcome = work()
    except StreamfuseError as error:
        return Outcome(str(error), error.exit_code)
    except Exception as error:  # an answer, too: this clip fails, and no other
        return Outcome(f"unexpected {type(error).__name__}: {error}", 1, traceback.format_exc())
    finally:
        log.removeHandler(notes)
    if outcome.figures is not None and notes.texts:
        outcome.figures["notes"] = [*outcome.figures.get("notes", []), *notes.texts]
    return outcome


class _Notes(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def look(clip: Clip, fusing: Fusing) -> Outcome:
    """Into how many parts a clip is cut."""

    def work() -> Outcome:
        assert fusing.split_s is not None
        offset_ns = round(fusing.for_clip(clip).ir_offset_ms * 1e6)
        ir, vis = _open(clip, fusing)
        with ir, vis:
            return Outcome(windows=tuple(parts.cut(ir, vis, fusing.split_s, offset_ns)))

    return _answer(work, fusing)


def fuse(
    clip: Clip, fusing: Fusing, made_of: dict[str, Any], force: bool, window: Window = WHOLE, place: int | None = None
) -> Outcome:
    """A clip to its output, or a part of it, number `place`, to a file that `join` will take.

    `made_of`: of the whole clip, as `fusing.made_of` has it.
    """

    def work() -> Outcome:
        target, made = clip.output, made_of
        if place is not None:
            target = receipts.part_of(clip.output, made_of, place)
            made = {**made_of, "window": [window.start_ns, window.stop_ns]}
        if (found := receipts.standing(target, made)).done:
            return Outcome(figures=found.figures)
        with receipts.aside(clip.output) as aside:
            figures = _fuse_into(aside, clip, fusing.for_clip(clip), window, part=place is not None)
            receipts.deliver(aside if figures["frames"] else None, target, made, figures, force or place is not None)
        if place is None:
            receipts.tidy(clip.output)
        return Outcome(figures=figures)

    return _answer(work, fusing)


def join(clip: Clip, fusing: Fusing, made_of: dict[str, Any], force: bool, figures: list[dict[str, Any]]) -> Outcome:
    """The parts of a clip, with the figures of each, to its output."""

    def work() -> Outcome:
        if (found := receipts.standing(clip.output, made_of)).done:
            return Outcome(figures=found.figures)
        began = time.monotonic()
        whole = _sum(figures)
        if not whole["frames"]:
            raise InputError(whole["damage"] or next(one["empty"] for one in figures if one["empty"]))
        files = [receipts.part_of(clip.output, made_of, place) for place, one in enumerate(figures) if one["frames"]]
        with receipts.aside(clip.output) as aside:
            parts.join(files, aside)
            whole["seconds"] += time.monotonic() - began
            receipts.deliver(aside, clip.output, made_of, whole, force)
        receipts.tidy(clip.output)
        return Outcome(figures=whole)

    return _answer(work, fusing)


def _sum(figures: list[dict[str, Any]]) -> dict[str, Any]:
    drops: dict[str, int] = {}
    for one in figures:
        for reason, count in one["drops"].items():
            drops[reason] = drops.get(reason, 0) + count
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
    given_up = _given_up()
    with _fuser(fusing) as fuser:
        ir, vis = _open(clip, fusing)
        if part:
            offset_ns = round(fusing.ir_offset_ms * 1e6)
            ir, vis = Excerpt(ir, window.around(offset_ns)), Excerpt(vis, window.around())
        period_ns = max(ir.period_ns or 0, vis.period_ns or 0) or None
        sink = Part(VideoSink(aside, fusing.video, period_ns=period_ns), window)
        pipeline = Pipeline(
            ir, vis, sinks=[sink], fuser=fuser, tolerance_ms=fusing.tolerance_ms, ir_offset_ms=fusing.ir_offset_ms
        )

        def on_tick(summary: Summary) -> None:
            if given_up():
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
        if given_up():
            raise StreamfuseError("given up")
        engine = f"{fuser.engine.name} {fuser.engine.precision} {fuser.engine.preset}"
    return {
        "frames": sink.frames,
        "seconds": time.monotonic() - began,
        "parts": 1,
        "drops": sink.lost(pipeline.summary()),
        "damage": damage,
        "empty": empty,
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "engine": engine,
    }


def _given_up() -> Callable[[], bool]:
    """Whether the unit that runs in this thread is not wanted any more: the batch was stopped, or its program died."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:  # not in a cluster
        return lambda: False
    key = worker.get_current_task()

    def given_up() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled"

    return given_up


def _open(clip: Clip, fusing: Fusing) -> tuple[Source, Source]:
    from streamfuse.engines.base import gpu_of
    from streamfuse.sources.uri import open_pair
    from streamfuse.sources.vot import open_vot

    if clip.vot:
        return open_vot(Path(clip.vot), fusing.fps, fusing.agc)
    gpu = gpu_of(fusing.device) if fusing.hw_decode else None
    return open_pair(clip.ir, clip.vis, fps=fusing.fps, agc=fusing.agc, gpu=gpu)


# Engines that are not in use.  A worker with several threads has as many engines as it runs units at once.
_idle: dict[tuple[object, ...], list[Engine]] = {}


@contextmanager
def _fuser(fusing: Fusing) -> Iterator[Fuser]:
    """A fuser with a tone of its own around an engine that is kept; one whose engine fails is not kept."""
    from streamfuse.fuser import Fuser

    key = (
        fusing.weights_digest,
        fusing.engine,
        fusing.precision,
        fusing.preset,
        fusing.device,
        fusing.threads,
    )
    try:
        engine = _idle.setdefault(key, []).pop()
    except IndexError:
        engine = _make_engine(fusing)
    kept = False
    try:
        yield Fuser(engine=engine, tone=fusing.tone, calibration=fusing.calib, crop=fusing.crop)
        kept = True
    except InputError:
        kept = engine.pending == 0
        raise
    finally:
        if kept:
            _idle[key].append(engine)
        else:
            engine.close()


def _make_engine(fusing: Fusing) -> Engine:
    import cv2

    from streamfuse.engines import create_engine
    from streamfuse.errors import WeightsError
    from streamfuse.network.checkpoint import default_weights, read_info

    path = Path(fusing.weights) if fusing.weights else default_weights()
    if read_info(path).digest != fusing.weights_digest:
        raise WeightsError(f"worker {socket.gethostname()} has other weights in {path}: give all the same file")
    cv2.setNumThreads(fusing.threads)
    return create_engine(
        fusing.engine,
        weights=path,
        precision=fusing.precision,
        threads=fusing.threads,
        device=fusing.device,
        preset=fusing.preset,
    )
