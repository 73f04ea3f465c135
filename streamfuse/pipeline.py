"""Threads, queues and life cycle: two sources in, fused frames out.

    Source ir ──reader thread──► ┐
                                 ├─► flow: pairs ─► compute thread ─► channels ─► a thread for each sink
    Source vis ─reader thread──► ┘                                             └► the consumer, which iterates

Decoding, inference and encoding release the GIL, so threads are enough.  Every object has one owner, and every queue
is bounded.  Frames of recordings are never dropped: a full channel makes its producer wait.  Live sources cannot wait:
excess frames are dropped and counted (`streamfuse.pairing.flow`).
"""

from __future__ import annotations

import contextlib
import contextvars
import enum
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from streamfuse.errors import DamagedInput, InputError, UsageError
from streamfuse.frames import DEFAULT_PERIOD_NS, Content, Frame, FramePair, FusedFrame, Role
from streamfuse.fuser import Fuser
from streamfuse.pairing.flow import ClockNotes, Flow, Item, LiveFlow, OnLoss, RecordedFlow
from streamfuse.pairing.live import TOO_OLD, LivePairing, Policy
from streamfuse.pairing.recorded import OTHER_ENDED, default_tolerance_ns
from streamfuse.pairing.time_line import TimeLine
from streamfuse.sinks.base import Sink
from streamfuse.sources import open_pair
from streamfuse.sources.base import Source
from streamfuse.support.channel import Channel
from streamfuse.support.closeable import Closeable
from streamfuse.telemetry import TO_FUSED, AlignmentSummary, SourceSummary, Summary, Telemetry, add_counts

if TYPE_CHECKING:
    from os import PathLike

    from streamfuse.thermometry.finish import ThermalFinish

E = TypeVar("E", bound=enum.StrEnum)

AHEAD = 4
"""Frames that the engine may be ahead of a sink."""
LIVE_AHEAD = 2
TICK_S = 0.2
MAX_AGE_MS = 500.0
"""Default age budget of a live frame, from arrival to the engine: above the usual difference of two delays."""
MOST_MS = 1e12
"""Largest value of a duration argument, ms."""

SINK_SLOW = "the output was busy"
STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class _Begun:
    """A pair in flight."""

    index: int
    pair: FramePair
    begin_ns: int


class Pipeline(Closeable):
    """Fuses two sources into any number of sinks; iterating over it gives the fused frames.

    >>> with Pipeline("ir.mp4", "vis.mp4") as pipeline:
    ...     for frame in pipeline:
    ...         show(frame.to_bgr())

    >>> Pipeline("ir.mp4", "vis.mp4", sinks=[open_sink("fused.mp4")]).run()

    A pipeline runs once.  The first error of any thread stops the others and is raised once, by `run` or by the
    iteration.  A damaged recording is fused as far as it can be read; then DamagedInput is raised.
    """

    def __init__(
        self,
        ir: str | PathLike[str] | Source,
        vis: str | PathLike[str] | Source,
        *,
        sinks: Sequence[Sink] = (),
        fuser: Fuser | None = None,
        tolerance_ms: float | None = None,
        ir_offset_ms: float = 0.0,
        frames: int | None = None,
        fps: float | None = None,
        max_age_ms: float = MAX_AGE_MS,
        policy: Policy = Policy.LATEST,
        on_loss: OnLoss = OnLoss.WAIT,
        finish: ThermalFinish | None = None,
    ) -> None:
        """`tolerance_ms`: largest skew of a pair, default half the frame interval of the slower stream.
        `ir_offset_ms`: added to every infrared stamp.  `frames`: number of pairs to stop after.  `fps`: rate of
        sources that are images.  `fuser`: default is the shipped network with tone "smooth".

        For live streams only: `max_age_ms`, longest wait of a frame for its partner and for the engine; `policy`,
        which pair comes next; `on_loss`, what is shown while a stream is away.

        `finish`: what is done with the temperatures of each fused frame before it goes to the sinks.

        The pipeline owns the sources and the sinks, also if this fails: then they are closed.  It does not own
        `fuser`.  Raises InputError, UsageError or EngineError for what is wrong before the first frame.
        """
        self._sinks = list(sinks)
        with contextlib.ExitStack() as made:
            for one in (ir, vis):
                if isinstance(one, Source):
                    made.callback(one.close)
            for sink in self._sinks:
                made.callback(sink.close, failed=True)
            _check_duration("tolerance_ms", tolerance_ms, least=0)
            _check_duration("ir_offset_ms", ir_offset_ms, least=-MOST_MS)
            _check_duration("max_age_ms", max_age_ms, least=0)
            if frames is not None and frames < 1:
                raise UsageError(f"frames must be at least 1, got {frames}")
            policy, on_loss = _choice("policy", Policy, policy), _choice("on_loss", OnLoss, on_loss)
            self._sources = _open(ir, vis, fps)
            for source in self._sources.values():
                made.callback(source.close)
            if len({source.live for source in self._sources.values()}) > 1:
                raise InputError("a recording cannot be paired with a live source: their stamps have no common clock")
            self._owns_fuser = fuser is None
            if fuser is None:
                fuser = made.enter_context(Fuser(tone="smooth"))
            self._fuser = fuser
            self._finish_frame = finish
            self._offset_ns = round(ir_offset_ms * 1e6)
            periods = [source.period_ns for source in self._sources.values()]
            self._tolerance_ns = default_tolerance_ns(*periods) if tolerance_ms is None else round(tolerance_ms * 1e6)
            self._limit = frames
            self.live = self._sources[Role.VIS].live
            """True for live sources, which end only when they are stopped."""
            self._real_time = any(source.live or source.real_time for source in self._sources.values())
            self._telemetry = Telemetry()
            self._max_age_ns = round(max_age_ms * 1e6)
            self._stopping = threading.Event()
            self._ending = self._make_ending()
            self._flow = self._make_flow(policy, on_loss, tolerance_ms is not None)
            self._time_line = TimeLine()
            self._lock = threading.Lock()
            self._error: BaseException | None = None
            self._started = False
            self._threads: list[threading.Thread] = []
            self._outputs = [self._make_output(sink) for sink in self._sinks]
            self._consumer: Channel[FusedFrame] | None = None
            self._shape: tuple[int, int] | None = None
            for sink in self._sinks:
                sink.attach(self.summary)
            made.pop_all()

    # No callback below refers to the pipeline, so reference counting frees decoders and pictures immediately.

    def _make_flow(self, policy: Policy, on_loss: OnLoss, tolerance_given: bool) -> Flow:
        telemetry, ending = self._telemetry, self._make_ending()

        def on_drop(role: Role, reason: str) -> None:
            telemetry.drop(role.label, ending() if reason == OTHER_ENDED else reason)

        if not self.live:
            return RecordedFlow(tolerance_ns=self._tolerance_ns, ir_offset_ns=self._offset_ns, on_drop=on_drop)
        pairing = LivePairing(
            max_age_ns=self._max_age_ns,
            tolerance_ns=self._tolerance_ns if tolerance_given else None,
            ir_offset_ns=self._offset_ns,
            policy=policy,
            on_drop=on_drop,
            on_clock=ClockNotes(),
        )
        return LiveFlow(self._sources, pairing, on_loss=on_loss, on_drop=on_drop)

    def _make_ending(self) -> Callable[[], str]:
        """Return a function that gives the reason for which frames are dropped after the last pair."""
        stopping, limited = self._stopping, self._limit is not None
        return lambda: STOPPED if stopping.is_set() or limited else OTHER_ENDED

    def _make_output(self, sink: Sink) -> Channel[FusedFrame]:
        waits = sink.waits and not self.live
        name, best_effort, telemetry = sink.name, sink.best_effort, self._telemetry
        return Channel(
            LIVE_AHEAD if self.live else AHEAD,
            drop_oldest=not waits,
            on_drop=lambda _: None if best_effort else telemetry.drop(name, SINK_SLOW),
        )

    @property
    def expected_pairs(self) -> int | None:
        """Number of pairs by the headers of the sources; None if they do not tell."""
        counts = []
        slowest_ns = max(source.period_ns or DEFAULT_PERIOD_NS for source in self._sources.values())
        for source in self._sources.values():
            if source.frame_count is not None:
                counts.append(source.frame_count * (source.period_ns or DEFAULT_PERIOD_NS) // slowest_ns)
        if self._limit is not None:
            counts.append(self._limit)
        return min(counts) if counts else None

    def _claim(self) -> None:
        """Raise RuntimeError unless this is the first start."""
        with self._lock:
            if self._started:
                raise RuntimeError("a pipeline runs once: make another one")
            self._started = True

    def _start(self) -> None:
        waiting = list(zip(self._sinks, self._outputs, strict=True))
        try:
            for role in self._sources:
                self._spawn(f"read {role}", self._read, role)
            self._spawn("compute", self._compute)
            while waiting:
                self._spawn(f"write {waiting[0][0].name}", self._write, *waiting[0])
                waiting.pop(0)
        except RuntimeError:  # no memory for another thread
            for sink, _ in waiting if self._threads else ():  # without any, `close` does it
                sink.close(failed=True)
            raise

    def _spawn(self, name: str, target: Callable[..., None], *args: object) -> None:
        def guarded() -> None:
            try:
                target(*args)
            except BaseException as error:  # raised by `run` or by the iteration
                self._fail(error)

        thread = threading.Thread(
            target=contextvars.copy_context().run, args=(guarded,), name=f"streamfuse {name}", daemon=True
        )
        thread.start()
        self._threads.append(thread)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
        self.stop()

    def stop(self) -> None:
        """Stop reading; fused frames are still written.  Any thread may call it, more than once."""
        self._stopping.set()
        for source in self._sources.values():
            source.interrupt()
        self._abandon_flow(STOPPED)

    def _abandon_flow(self, reason: str) -> None:
        for role, count in self._flow.abandon().items():
            self._telemetry.drop(role.label, reason, count)

    # The threads.

    def _read(self, role: Role) -> None:
        source = self._sources[role]
        taken = 0
        before = source.drops.total()  # missing images are not part of the count
        try:
            with source:
                for frame in source:
                    self._telemetry.frame_read(role, frame.read_ns)
                    taken += 1
                    if not self._flow.put(role, frame):
                        self._count_unread(role, source, 1, taken - before)
                        break
        except BaseException as error:  # before the stream ends: the compute thread must see that it failed
            self._fail(error)
        finally:
            self._flow.end(role)

    def _count_unread(self, role: Role, source: Source, refused: int, taken: int) -> None:
        """Count the frames that the closed channel refused and those that, by the header, were not read."""
        left = (source.frame_count or 0) - taken - source.drops.total()
        unread = max(left, 0) if self._ending() == OTHER_ENDED else 0
        self._telemetry.drop(role.label, self._ending(), refused + unread)

    def _compute(self) -> None:
        try:
            prepared: tuple[int, ...] | None = None
            with contextlib.closing(self._flow.items()) as items:
                index = 0
                for item in items:
                    shape = self._output_shape(item)
                    if prepared != shape:  # outside the timings: it happens once
                        self._finish(0)
                        self._fuser.prepare(*shape, self._period_ns() if self._real_time else None)
                        if self.live and prepared is None:
                            self._prepare_sinks(item)
                        prepared = shape
                        self._telemetry.engine_loaded()
                        if self.live and self._drop_if_old(item):  # the engine took long
                            continue
                    if isinstance(item, FramePair):
                        self._begin(index, item)
                        # A live pair does not wait for the next one.
                        self._finish(0 if self.live else self._fuser.engine.depth - 1)
                    else:
                        self._pass_on(self._pass_through(index, *item, shape))
                    index += 1
                    if self._stopping.is_set() or index == self._limit:
                        break
                self._finish(0)
        except BaseException as error:  # before the sinks finish: they must see that it failed
            self._fail(error)
        finally:
            self._abandon_flow(self._ending())
            for channel in self._outputs:
                channel.close()
            if self._consumer is not None:
                self._consumer.close()

    def _prepare_sinks(self, item: Item) -> None:
        """Show the sinks, which have no frame yet, what is coming."""
        frame = item.vis if isinstance(item, FramePair) else item[1]
        for sink in self._sinks:
            sink.prepare(FusedFrame(frame.luma, frame.chroma, 0, 0), self._period_ns())

    def _drop_if_old(self, item: Item) -> bool:
        """Drop and count an item that exceeds the age budget by now; True if it did."""
        frames = {Role.IR: item.ir, Role.VIS: item.vis} if isinstance(item, FramePair) else {item[0]: item[1]}
        if time.monotonic_ns() - min(frame.arrival_ns for frame in frames.values()) <= self._max_age_ns:
            return False
        for role in frames:
            self._telemetry.drop(role.label, TOO_OLD)
        return True

    def _period_ns(self) -> int:
        """Return the interval between pairs, ns."""
        return max(source.period_ns or DEFAULT_PERIOD_NS for source in self._sources.values())

    def _output_shape(self, item: Item) -> tuple[int, int]:
        """Return the shape of the visible picture; of the last one while there is none."""
        if isinstance(item, FramePair):
            self._shape = item.vis.luma.shape
        elif item[0] is Role.VIS or self._shape is None:
            self._shape = item[1].luma.shape
        return self._shape

    def _begin(self, index: int, pair: FramePair) -> None:
        self._telemetry.pair_made(pair.skew_ns, pair.ir.clock, pair.vis.clock)
        begun = _Begun(index, pair, time.monotonic_ns())
        self._fuser.begin_luma(pair.ir.luma, pair.vis.luma, pair.vis.stamp_ns, begun, pair.ir.temperature)

    def _finish(self, most: int) -> None:
        """Pass on pairs in flight, the oldest first, until at most `most` are left."""
        while self._fuser.engine.pending > most:
            self._pass_on(self._finish_oldest())

    def _finish_oldest(self) -> FusedFrame:
        fused = self._fuser.finish_luma()
        end_ns = time.monotonic_ns()
        begun = fused.tag
        assert isinstance(begun, _Begun)
        index, pair, begin_ns = begun.index, begun.pair, begun.begin_ns
        arrival_ns = min(pair.ir.arrival_ns, pair.vis.arrival_ns)
        self._telemetry.frame_fused(begin_ns, end_ns, {**fused.timings_ns, TO_FUSED: end_ns - arrival_ns})
        return FusedFrame(
            luma=fused.luma,
            chroma=self._fuser.cut_chroma(pair.vis.chroma, *pair.vis.luma.shape),
            index=index,
            time_ns=self._time_line.place(pair.vis) if self.live else pair.vis.stamp_ns,
            ir_stamp_ns=pair.ir.stamp_ns,
            vis_stamp_ns=pair.vis.stamp_ns,
            ir_clock=pair.ir.clock,
            vis_clock=pair.vis.clock,
            skew_ns=pair.skew_ns,
            arrival_ns=arrival_ns,
            timings_ns=fused.timings_ns,
            infrared=fused.infrared,
            visible=fused.visible,
            temperature=fused.temperature,
        )

    def _pass_through(self, index: int, role: Role, frame: Frame, shape: tuple[int, int]) -> FusedFrame:
        self._telemetry.frame_passed_through(role)
        infrared = role is Role.IR
        luma = self._fuser.place_infrared(frame.luma, shape) if infrared else self._fuser.cut_visible(frame.luma)
        warm = frame.temperature if infrared else None
        return FusedFrame(
            luma=luma,
            chroma=None if infrared else self._fuser.cut_chroma(frame.chroma, *shape),
            index=index,
            time_ns=self._time_line.place(frame),
            ir_stamp_ns=frame.stamp_ns if infrared else None,
            vis_stamp_ns=None if infrared else frame.stamp_ns,
            ir_clock=frame.clock if infrared else None,
            vis_clock=None if infrared else frame.clock,
            content=Content.INFRARED if infrared else Content.VISIBLE,
            infrared=luma if infrared else None,
            visible=None if infrared else luma,
            temperature=None if warm is None else self._fuser.place_temperature(warm, shape),
            arrival_ns=frame.arrival_ns,
        )

    def _pass_on(self, frame: FusedFrame) -> None:
        if self._finish_frame is not None:
            frame = self._finish_frame(frame)
        for channel in self._outputs:
            channel.put(frame)
        if self._consumer is not None:
            self._consumer.put(frame)

    def _write(self, sink: Sink, channel: Channel[FusedFrame]) -> None:
        try:
            for frame in channel:
                begin = time.monotonic_ns()
                sink.write(frame)
                end = time.monotonic_ns()
                if not sink.best_effort:
                    self._telemetry.frame_written(sink.name, end - begin, end - frame.arrival_ns)
        except BaseException as error:
            self._fail(error)
            left = channel.abandon()
            self._telemetry.drop(sink.name, STOPPED, 0 if sink.best_effort else left)
        finally:
            # A recording that was stopped is not complete: an older output stays.
            sink.close(failed=self._error is not None or (self._stopping.is_set() and not self.live))

    # The calling thread.

    def run(self, on_tick: Callable[[Summary], None] | None = None) -> Summary:
        """Run to the end; `on_tick` is called with the state five times a second.

        Raises the first error of any thread, DamagedInput at the end if a recording was cut off, and RuntimeError if
        the pipeline was started before.
        """
        self._claim()
        with self:
            self._start()
            while any(thread.is_alive() for thread in self._threads):
                for thread in self._threads:
                    thread.join(TICK_S / len(self._threads))
                if on_tick is not None:
                    on_tick(self.summary())
            self._raise_outcome()
        return self.summary()

    def __iter__(self) -> Iterator[FusedFrame]:
        """Yield fused frames in order.  A slow consumer makes recordings wait and live sources drop frames.

        Raises RuntimeError if the pipeline was started before; that run goes on.
        """
        self._claim()
        telemetry = self._telemetry
        self._consumer = Channel(AHEAD, drop_oldest=self.live, on_drop=lambda _: telemetry.drop("iteration", SINK_SLOW))
        self._start()
        yield from self._consumer
        self._join()
        self._raise_outcome()

    def close(self) -> None:
        """Stop, wait for the threads, and release everything; fused frames are still written to the sinks."""
        with self._lock:
            self._started = True
        if self._threads:
            self.stop()
            if self._consumer is not None:
                self._consumer.abandon()
            self._join()
        else:
            for source in self._sources.values():
                source.close()
            for sink in self._sinks:
                sink.close(failed=True)
        if self._owns_fuser:
            self._fuser.close()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _raise_outcome(self) -> None:
        if self._error is not None:
            raise self._error
        summary = self.summary()
        damage = [f"{source.name}: {source.damage}" for source in self._sources.values() if source.damage]
        if summary.pairs == 0 and not self._stopping.is_set():
            raise InputError("; ".join([self._why_no_pairs(summary), *damage]))
        if damage:
            raise DamagedInput(f"{'; '.join(damage)}; {summary.fused} frames were fused from what could be read")

    def _why_no_pairs(self, summary: Summary) -> str:
        for role, source in self._sources.items():
            if not summary.read.get(role):
                return f"{source.name} gave no frames"
        starts = {role: source.first_stamp_ns for role, source in self._sources.items()}
        advice = "give --tolerance-ms or --ir-offset-ms"
        ir_start_ns, vis_start_ns = starts[Role.IR], starts[Role.VIS]
        if ir_start_ns is not None and vis_start_ns is not None:
            apart_ms = (vis_start_ns - ir_start_ns) / 1e6
            advice = f"the visible stream starts {apart_ms:+.0f} ms from the infrared one; if both began together, " + (
                f"give --ir-offset-ms {apart_ms:.0f}" if apart_ms else "give a larger --tolerance-ms"
            )
        return f"no infrared frame is within {self._tolerance_ns / 1e6:.1f} ms of a visible one: {advice}"

    def set_distance(self, distance_m: float | str) -> None:
        """Warp infrared for another distance, as `Fuser.set_distance`; any thread may call it, before and during a run.

        Raises UsageError where the calibration has no parallax.
        """
        self._fuser.set_distance(distance_m)

    def summary(self) -> Summary:
        """Return the state of the run; any thread may call it."""
        summary = self._telemetry.summary()
        drops, repeated = summary.drops, summary.repeated  # copies
        for sink in self._sinks:
            add_counts(drops, sink.name, dict(sink.drops))
        for role, source in self._sources.items():
            add_counts(drops, role.label, dict(source.drops))
            add_counts(repeated, role.label, dict(source.repeated))
        sources = {
            role: SourceSummary(
                source.state, source.reconnects, source.name, source.period_ns / 1e9 if source.period_ns else None
            )
            for role, source in self._sources.items()
            if source.live
        }
        alarms = dict(self._finish_frame.raised) if self._finish_frame is not None else {}
        return replace(
            summary, sources=sources, alarms=alarms, alignment=self._alignment(), lifted=self._fuser.engine.lifted
        )

    def _alignment(self) -> AlignmentSummary | None:
        distance_m, state = self._fuser.distance_m, self._fuser.followed
        if state is None:
            return None if distance_m is None else AlignmentSummary(distance_m)
        return AlignmentSummary(
            distance_m,
            state.automatic,
            state.answered,
            state.kept,
            state.confidence,
            state.error_px,
            state.by_object,
            state.warm,
            state.apart,
            state.apart_total,
        )


def _open(ir: str | PathLike[str] | Source, vis: str | PathLike[str] | Source, fps: float | None) -> dict[Role, Source]:
    if isinstance(ir, Source) and isinstance(vis, Source):
        return {Role.IR: ir, Role.VIS: vis}
    if isinstance(ir, Source) or isinstance(vis, Source):
        raise TypeError("give both sources as text or both as Source")
    return dict(zip(Role, open_pair(str(ir), str(vis), fps=fps), strict=True))


def _check_duration(name: str, value_ms: float | None, *, least: float) -> None:
    """Raise UsageError unless the value is from `least` to MOST_MS; NaN is refused as well."""
    if value_ms is not None and not least <= value_ms <= MOST_MS:
        raise UsageError(f"{name} must be from {least:g} to {MOST_MS:g}, got {value_ms}")


def _choice(name: str, kind: type[E], value: str) -> E:
    """Raise UsageError for a value that is none of `kind`."""
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"unknown {name} {value!r}: use {' or '.join(kind)}") from None
