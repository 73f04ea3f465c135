"""The work of a worker: it receives a unit as a few paths and numbers, and returns its outcome as plain data.

A worker keeps its engines from unit to unit.  No exception leaves this module: a recording that fails is an outcome.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamfuse import __version__
from streamfuse.batch import receipts, segments
from streamfuse.batch.options import BatchOptions
from streamfuse.batch.recordings import Recording
from streamfuse.batch.segments import WHOLE, SegmentSink, SegmentSource, Window
from streamfuse.batch.warm import warm_fuser
from streamfuse.errors import DamagedInput, InputError, OutputError, StreamfuseError
from streamfuse.frames import Role
from streamfuse.options import FusionOptions
from streamfuse.pairing.recorded import OTHER_ENDED
from streamfuse.support.notes import collecting
from streamfuse.telemetry import Counts, add_counts

if TYPE_CHECKING:
    from streamfuse.calibration.model import Calibration
    from streamfuse.sources.base import Source
    from streamfuse.telemetry import Summary


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a unit."""

    error: str | None = None
    """Reason why there is no result; None for a success."""
    code: int = 0
    """Exit code of the error."""
    trace: str | None = None
    """Traceback of an internal error."""
    windows: tuple[Window, ...] = ()
    """Windows into which a recording is to be cut."""
    figures: dict[str, Any] | None = None
    """Figures: frames, seconds, segments, drops, damage, notes, worker, engine."""


def _answer(work: Callable[[list[str]], Outcome], options: BatchOptions) -> Outcome:
    """Turn every error of `work` into an outcome; `work` is passed the list that its warnings are added to."""
    with collecting() as notes:
        try:
            if options.version != __version__:
                raise StreamfuseError(
                    f"worker {socket.gethostname()} has streamfuse {__version__}, not {options.version}: "
                    "install the same"
                )
            return work(notes)
        except StreamfuseError as error:
            return Outcome(str(error), error.exit_code)
        except Exception as error:  # an answer, too: this recording fails, and no other
            return Outcome(f"unexpected {type(error).__name__}: {error}", 1, traceback.format_exc())


def look(recording: Recording, options: BatchOptions) -> Outcome:
    """Find the windows into which a recording is cut."""

    def work(notes: list[str]) -> Outcome:
        assert options.split_s is not None
        fusion = options.for_recording(recording)
        ir, vis = open_recording(recording, fusion)
        with ir, vis:
            return Outcome(windows=tuple(segments.cut(ir, vis, options.split_s, round(fusion.ir_offset_ms * 1e6))))

    return _answer(work, options)


def fuse(
    recording: Recording,
    options: BatchOptions,
    made_of: dict[str, Any],
    force: bool,
    window: Window = WHOLE,
    index: int | None = None,
) -> Outcome:
    """Fuse a recording into its output; with the `index` of a segment, that segment into a file for `join`.

    `made_of`: that of the whole recording, see `streamfuse.batch.options.made_of`.
    """

    def work(notes: list[str]) -> Outcome:
        target, made = recording.output, made_of
        if index is not None:
            target = receipts.segment_file(recording.output, made_of, index)
            made = {**made_of, "window": [window.start_ns, window.stop_ns]}
        if (found := receipts.standing(target, made)).done:
            return Outcome(figures=found.figures)
        with receipts.aside(recording.output) as aside, _renamed(aside, recording.output):
            figures = _fuse_into(aside, recording, options, window, segment=index is not None)
            figures["notes"] = notes
            receipts.deliver(aside, target, made, figures, force or index is not None)
        return Outcome(figures=figures)

    return _answer(work, options)


def join(
    recording: Recording, options: BatchOptions, made_of: dict[str, Any], force: bool, figures: list[dict[str, Any]]
) -> Outcome:
    """Join the segments of a recording into its output; `figures`: those of each segment."""

    def work(notes: list[str]) -> Outcome:
        if (found := receipts.standing(recording.output, made_of)).done:
            return Outcome(figures=found.figures)
        began = time.monotonic()
        whole = _sum(figures)
        if not whole["frames"]:
            raise InputError(whole["damage"] or next(one["empty"] for one in figures if one["empty"]))
        files = [
            receipts.segment_file(recording.output, made_of, index)
            for index, one in enumerate(figures)
            if one["frames"]
        ]
        with receipts.aside(recording.output) as aside, _renamed(aside, recording.output):
            segments.join(files, aside)
            whole["seconds"] += time.monotonic() - began
            receipts.deliver(aside, recording.output, made_of, whole, force)
        receipts.tidy(recording.output)
        return Outcome(figures=whole)

    return _answer(work, options)


@contextmanager
def _renamed(aside: Path, output: Path) -> Iterator[None]:
    """Let errors about the file that is written aside, which is removed, name the output instead."""
    try:
        yield
    except OutputError as error:
        raise OutputError(str(error).split(f"; {aside}")[0].replace(str(aside), str(output))) from None


def _sum(figures: list[dict[str, Any]]) -> dict[str, Any]:
    drops: Counts = {}
    for one in figures:
        for stream, reasons in one["drops"].items():
            add_counts(drops, stream, reasons)
    for name, promised in figures[-1]["promised"].items():  # the rest was not read: the other stream has ended
        if (unread := promised - sum(one["read"][name] for one in figures)) > 0:
            add_counts(drops, name, {OTHER_ENDED: unread})
    return {
        "frames": sum(one["frames"] for one in figures),
        "seconds": sum(one["seconds"] for one in figures),
        "segments": len(figures),
        "drops": drops,
        "damage": "; ".join(dict.fromkeys(one["damage"] for one in figures if one["damage"])) or None,
        "notes": list(dict.fromkeys(note for one in figures for note in one.get("notes", []))),
        "worker": ", ".join(sorted({one["worker"] for one in figures})),
        "engine": ", ".join(sorted({one["engine"] for one in figures})),
    }


def _fuse_into(
    aside: Path, recording: Recording, options: BatchOptions, window: Window, *, segment: bool
) -> dict[str, Any]:
    from streamfuse.pipeline import Pipeline
    from streamfuse.sinks import open_sink
    from streamfuse.sinks.about import About

    began = time.monotonic()
    task = _Task()
    fusion = options.for_recording(recording)
    with ExitStack() as stack:
        offset_ns = round(fusion.ir_offset_ms * 1e6)
        sources = open_recording(recording, fusion)
        opened = [stack.enter_context(source) for source in sources]  # closing twice is fine
        own = _own_calibration(*sources, fusion)
        if sources[0].placement is not None:  # of one distance
            fusion = replace(fusion, distance_m=None)
        fuser = stack.enter_context(warm_fuser(options, fusion, own))
        ir, vis = SegmentSource(opened[0], window.less(offset_ns)), SegmentSource(opened[1], window)
        period_ns = max(ir.period_ns or 0, vis.period_ns or 0) or None
        calibration = fuser.calibration
        about = About(vis.epoch_ns, None if calibration is None else calibration.to_toml())
        video = open_sink(str(aside), video=fusion.video, period_ns=period_ns, about=about)
        sink = SegmentSink(video, window, offset_ns)
        pipeline = Pipeline(
            *((ir, vis) if segment else sources),
            sinks=[sink],
            fuser=fuser,
            tolerance_ms=fusion.tolerance_ms,
            ir_offset_ms=fusion.ir_offset_ms,
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
            # A segment may have no pairs; the others still may.
            if not segment or sink.frames:
                raise
            empty = str(error)
        if task.given_up():
            raise StreamfuseError("given up")
        engine = f"{fuser.engine.name} {fuser.engine.precision} {fuser.engine.preset}"
    counts: dict[str, Any] = {"drops": pipeline.summary().drops}
    if segment:
        named = ((Role.IR.label, ir, sources[0].frame_count), (Role.VIS.label, vis, sources[1].frame_count))
        counts = {
            "drops": segments.lost(sink, ir, vis, offset_ns),
            "read": {name: source.read for name, source, _ in named},
            "promised": {name: count for name, source, count in named if count is not None and not source.ended},
        }
    return {
        "frames": sink.frames,
        "seconds": time.monotonic() - began,
        "segments": 1,
        **counts,
        "damage": damage,
        "empty": empty,
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "engine": engine,
    }


class _Task:
    """The unit that runs in this thread, as known to Dask."""

    TELL_S = 0.25

    def __init__(self) -> None:
        from distributed import get_worker

        self._worker = None
        with suppress(ValueError):  # not in a cluster
            self._worker = get_worker()
            self._key = str(self._worker.get_current_task())
        self._told = time.monotonic()

    def given_up(self) -> bool:
        """Tell whether the unit is not wanted any more: the batch was stopped, or its program has died."""
        if self._worker is None:
            return False
        task = self._worker.state.tasks.get(self._key)
        return task is None or task.state == "cancelled"

    def tell(self, frames: int) -> None:
        """Report how many frames are written, at most every `TELL_S`."""
        if self._worker is not None and time.monotonic() - self._told >= self.TELL_S:
            self._told = time.monotonic()
            self._worker.log_event(topic_of(self._key), {"key": self._key, "frames": frames})


def _own_calibration(ir: Source, vis: Source, fusion: FusionOptions) -> Calibration | None:
    """Return the calibration that the files of the infrared camera or a bag tell, where none is given, or None."""
    from streamfuse.calibration.bag import calibration_of
    from streamfuse.calibration.stored import stored_calibration

    if fusion.calib is not None:
        ir.placement = None
        return None
    if ir.placement is not None:
        return stored_calibration(ir.placement, ir.name)
    found = None if fusion.ignore_camera_info else calibration_of(ir, vis)
    return None if found is None else found.calibration


def topic_of(key: str) -> str:
    """Return the topic on which the units of one run report; their keys are KIND-RUN-NUMBER."""
    return f"streamfuse-{key.split('-')[1]}"


def open_recording(recording: Recording, fusion: FusionOptions) -> tuple[Source, Source]:
    """Open the infrared and the visible source; raises InputError and UsageError."""
    from streamfuse.sources import open_pair
    from streamfuse.sources.vot import open_vot

    if recording.bag:
        from streamfuse.sources.bags.choose import addresses

        return open_pair(*addresses(Path(recording.bag)), fusion.sources)
    if recording.vot:
        return open_vot(Path(recording.vot), fusion.sources)
    return open_pair(recording.ir, recording.vis or None, fusion.sources)
