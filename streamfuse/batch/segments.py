"""Segments of a long recording, which are fused independently and joined into one file.

A segment covers the visible frames from one key frame up to another.  Two stages depend on earlier frames: the pairing,
and stages that follow the level or range of the pictures over time (tone "smooth", the gain of 16-bit infrared), with a
time constant of one second.  So a segment is read from LEAD_S before its start to TAIL_S after its end; these frames
are fused and not written.  After the lead-in e^-4, 2 %, of a difference is left: at most 0.1 grey levels of the 5 by
which the level of "smooth" can differ for a network that gives luma.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.errors import OutputError
from streamfuse.frames import DEFAULT_PERIOD_NS, Frame, FusedFrame, Role
from streamfuse.pairing.recorded import NO_PARTNER, OTHER_ENDED
from streamfuse.sinks.base import Sink
from streamfuse.sinks.target import muxer_of
from streamfuse.sources.base import Source
from streamfuse.support.files import reason
from streamfuse.telemetry import Counts, Summary, add_counts

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

LEAD_S = 4.0
TAIL_S = 0.5
"""Enough for the last frames to have the same partners as without segments."""
NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Window:
    """An interval of the visible time line, ns: `start_ns` included, `stop_ns` excluded; None: unbounded."""

    start_ns: int | None = None
    stop_ns: int | None = None

    def __contains__(self, stamp_ns: int) -> bool:
        return (self.start_ns is None or stamp_ns >= self.start_ns) and (
            self.stop_ns is None or stamp_ns < self.stop_ns
        )

    def less(self, offset_ns: int) -> Window:
        """Return the window on the time line of a stream to whose stamps `offset_ns` is added."""
        return self._moved(-offset_ns, -offset_ns)

    def around(self) -> Window:
        """Return the window that must be read."""
        return self._moved(-round(LEAD_S * NANO), round(TAIL_S * NANO))

    def _moved(self, start_ns: int, stop_ns: int) -> Window:
        return Window(
            None if self.start_ns is None else self.start_ns + start_ns,
            None if self.stop_ns is None else self.stop_ns + stop_ns,
        )


WHOLE = Window()


def cut(ir: Source, vis: Source, split_s: float, ir_offset_ns: int = 0) -> list[Window]:
    """Divide a recording into windows of about `split_s` seconds, each from a key frame of the visible stream on.

    They end where one of the two streams ends; `ir_offset_ns` is added to infrared stamps.  The sources cannot be
    iterated afterwards.  A recording without an index (MPEG-TS, AVI), or with frames before the time 0, stays whole.
    """
    first_ns, end_ns, ir_end_ns = vis.first_stamp_ns, _end_ns(vis), _end_ns(ir)
    if first_ns is None or first_ns < 0 or end_ns is None or ir.cut_before(ir.first_stamp_ns or 0) is None:
        return [WHOLE]
    if ir_end_ns is not None:
        end_ns = min(end_ns, ir_end_ns + ir_offset_ns)
    split_ns = round(split_s * NANO)
    cuts = [first_ns]
    # No segment is shorter than half of `split_s`, even where key frames are far apart.
    for wanted_ns in range(first_ns + split_ns, end_ns - split_ns // 2, split_ns):
        key_ns = vis.cut_before(wanted_ns)
        if key_ns is not None and key_ns >= cuts[-1] + split_ns // 2:
            cuts.append(key_ns)
    edges: list[int | None] = [None, *cuts[1:], None]
    return [Window(start, stop) for start, stop in itertools.pairwise(edges)]


def _end_ns(source: Source) -> int | None:
    if source.first_stamp_ns is None or source.frame_count is None:
        return None
    return source.first_stamp_ns + source.frame_count * (source.period_ns or DEFAULT_PERIOD_NS)


class SegmentSource(Source):
    """The frames of a recording in a window and around it; frames in the window are counted."""

    def __init__(self, source: Source, window: Window) -> None:
        super().__init__()
        self._source, self.window, self._around = source, window, window.around()
        self.name, self.clock, self.size, self.files = source.name, source.clock, source.size, source.files
        self.period_ns, self.first_stamp_ns = source.period_ns, source.first_stamp_ns
        self.epoch_ns = source.epoch_ns
        self.drops, self.repeated = source.drops, source.repeated
        self.stamps = array("q")
        """Stamps of the frames in the window, as far as it was read."""
        self.last_ns: int | None = None
        """Stamp of the last frame that was read."""
        self.ended = False
        """The recording has no frame after that."""
        self._frames: Iterator[Frame] | None = None
        self._interrupted = False
        self._first = Counter(source.drops)
        self._before: Counter[str] | None = None
        self._after: Counter[str] | None = None

    def __iter__(self) -> Iterator[Frame]:
        if self._around.start_ns is not None:
            self._source.start_at(self._around.start_ns)
        self._frames = self._count()
        for frame in self._frames:
            if frame.stamp_ns in self._around:
                yield frame

    def _count(self) -> Iterator[Frame]:
        if self.window.start_ns is None:
            self._before = Counter()
        for frame in self._source:
            self.last_ns = frame.stamp_ns
            if self._before is None and frame.stamp_ns >= (self.window.start_ns or 0):
                self._before = Counter(self.drops)
            if frame.stamp_ns in self.window:
                self.stamps.append(frame.stamp_ns)
            elif self._before is not None and self._after is None:
                self._after = Counter(self.drops)
            if self._around.stop_ns is not None and frame.stamp_ns >= self._around.stop_ns:
                return
            yield frame
        self.ended = True
        self.damage = self._source.damage

    @property
    def lost(self) -> Counter[str]:
        """Frames of the window that could not be read, by reason."""
        if self._before is None:
            return Counter()
        return (self.drops if self._after is None else self._after) - self._before

    @property
    def read(self) -> int:
        """Number of frames, of those that the header promises, that were read or lost."""
        return len(self.stamps) + (self.lost - self._first).total()

    def after(self, stamp_ns: int | None) -> int:
        """Count the window's frames after a stamp; None: all."""
        return len(self.stamps) - (0 if stamp_ns is None else bisect_right(self.stamps, stamp_ns))

    def interrupt(self) -> None:
        self._interrupted = True
        self._source.interrupt()

    def close(self) -> None:
        """Count the rest of the window, which was not read where the other stream has a gap, and close the source."""
        if self._frames is not None and self.window.stop_ns is not None:
            while not self._interrupted and self._after is None and next(self._frames, None) is not None:
                pass
        self._source.close()


class SegmentSink(Sink):
    """Passes the frames of a window to another sink, and records which source frames were used."""

    def __init__(self, sink: Sink, window: Window, ir_offset_ns: int = 0) -> None:
        self._sink, self._window, self._ir_window = sink, window, window.less(ir_offset_ns)
        self.name = sink.name
        self.frames = 0
        """Frames written: visible frames of the window that were used."""
        self.infrared = 0
        """Infrared frames of the window that were used."""
        self.last_ns: tuple[int | None, int | None] = (None, None)
        """Stamps of the last infrared and visible frame that were used."""

    def attach(self, state: Callable[[], Summary]) -> None:
        self._sink.attach(state)

    def write(self, frame: FusedFrame) -> None:
        self.last_ns = frame.ir_stamp_ns, frame.vis_stamp_ns
        if frame.ir_stamp_ns is not None and frame.ir_stamp_ns in self._ir_window:
            self.infrared += 1
        if frame.time_ns in self._window:
            self._sink.write(frame)
            self.frames += 1

    def close(self, *, failed: bool = False) -> None:
        self._sink.close(failed=failed)


def lost(segment: SegmentSink, ir: SegmentSource, vis: SegmentSource, ir_offset_ns: int = 0) -> Counts:
    """Count the dropped frames of the window, by stream and reason, after the run.

    They are told by their stamps, so that each is counted in one segment, whichever way the threads ran.
    """
    counts: Counts = {}
    for role, own, used, last_ns, other, later_ns in (
        (Role.IR, ir, segment.infrared, segment.last_ns[0], vis, -ir_offset_ns),
        (Role.VIS, vis, segment.frames, segment.last_ns[1], ir, ir_offset_ns),
    ):
        missing = len(own.stamps) - used
        ends = [last_ns, None if other.last_ns is None else other.last_ns + later_ns]
        late = (
            min(missing, own.after(max((end for end in ends if end is not None), default=None))) if other.ended else 0
        )
        add_counts(counts, role.label, {OTHER_ENDED: late, NO_PARTNER: missing - late})
        add_counts(counts, role.label, own.lost)
    return counts


def join(segments: Sequence[Path], output: Path) -> None:
    """One file of the coded frames of several, as they are, each at its own time.  Raises OutputError.

    They must have been coded alike: a segment that was not, by another version of the encoder, is refused.
    """
    import av

    try:
        with av.open(f"file:{output}", "w", format=muxer_of(output)) as container:
            stream: VideoStream | None = None
            header: bytes | None = None
            for path in segments:
                with av.open(f"file:{path}") as segment:
                    video = segment.streams.video[0]
                    if stream is None:
                        stream = container.add_stream_from_template(video)
                        stream.codec_context.codec_tag = video.codec_context.codec_tag
                        header = video.codec_context.extradata
                    elif video.codec_context.extradata != header:
                        raise OutputError(
                            f"cannot join {output.name}: {path.name} was coded otherwise than the segment before; the "
                            "workers must have the same version of PyAV, and all or none of them a GPU that encodes"
                        )
                    _copy(segment, video, container, stream)
    except av.error.FFmpegError as error:
        raise OutputError(f"cannot write {output}: {reason(error.errno, str(error.strerror))}") from None


def _copy(segment: InputContainer, video: VideoStream, container: OutputContainer, stream: VideoStream) -> None:
    for packet in segment.demux(video):
        if packet.dts is None:  # the end of the file
            continue
        packet.stream = stream
        container.mux(packet)
