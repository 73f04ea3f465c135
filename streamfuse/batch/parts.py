"""A long recording in parts that can be fused apart, and the parts as one file again.

A part covers the visible frames from one key frame up to another.  Two things remember what came before: the pairing,
and whatever follows the level or range of the pictures over time (tone "smooth", the gain of 16-bit infrared), with a
time constant of one second.  So a part begins earlier, by LEAD_S, and ends later, by TAIL_S: those frames are fused and
not written.  After the lead-in e^-4, 2 %, of a difference is left; the level that "smooth" holds for a network that
gives luma is never off by more than 5 grey levels, so that 0.1 are left at worst.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.errors import OutputError
from streamfuse.files import reason
from streamfuse.frames import DEFAULT_PERIOD_NS, Frame, FusedFrame
from streamfuse.sinks.base import Sink
from streamfuse.sources.base import Source

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

    from streamfuse.telemetry import Summary

LEAD_S = 4.0
TAIL_S = 0.5
"""Of the next part: enough for the last frames' partners to be what they are without parts."""
NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Window:
    """Of the visible time line, ns: from `start_ns` up to, not with, `stop_ns`; None is open."""

    start_ns: int | None = None
    stop_ns: int | None = None

    def __contains__(self, stamp_ns: int) -> bool:
        return (self.start_ns is None or stamp_ns >= self.start_ns) and (
            self.stop_ns is None or stamp_ns < self.stop_ns
        )

    def around(self, offset_ns: int = 0) -> Window:
        """What must be read, of a stream whose stamps `offset_ns` is added to."""
        return Window(
            None if self.start_ns is None else self.start_ns - round(LEAD_S * NANO) - offset_ns,
            None if self.stop_ns is None else self.stop_ns + round(TAIL_S * NANO) - offset_ns,
        )


WHOLE = Window()


def cut(ir: Source, vis: Source, split_s: float, ir_offset_ns: int = 0) -> list[Window]:
    """Parts of about `split_s` seconds, each from a key frame of the visible recording on; or one, the whole.

    There are none where one of the two has ended; `ir_offset_ns` is added to infrared stamps.  The sources are not used
    afterwards.  What cannot be jumped in (MPEG-TS, AVI), or has frames before the time 0, stays whole.
    """
    first_ns, end_ns, ir_end_ns = vis.first_stamp_ns, _end_ns(vis), _end_ns(ir)
    if first_ns is None or first_ns < 0 or end_ns is None or ir.cut_before(ir.first_stamp_ns or 0) is None:
        return [WHOLE]
    if ir_end_ns is not None:
        end_ns = min(end_ns, ir_end_ns + ir_offset_ns)
    split_ns = round(split_s * NANO)
    cuts = [first_ns]
    # No part is under half of what was asked for, also where key frames are far apart.
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


class Excerpt(Source):
    """The frames of a recording in a window."""

    def __init__(self, source: Source, window: Window) -> None:
        super().__init__()
        self._source, self._window = source, window
        self.name, self.clock, self.size, self.files = source.name, source.clock, source.size, source.files
        self.period_ns, self.first_stamp_ns = source.period_ns, source.first_stamp_ns
        self.drops, self.held = source.drops, source.held

    def __iter__(self) -> Iterator[Frame]:
        if self._window.start_ns is not None:
            self._source.start_at(self._window.start_ns)
        for frame in self._source:
            if self._window.stop_ns is not None and frame.stamp_ns >= self._window.stop_ns:
                return
            if frame.stamp_ns in self._window:
                yield frame
        self.damage = self._source.damage

    def close(self) -> None:
        self._source.close()


class Part(Sink):
    """Passes on to another sink what is in a window, and counts what became of the frames there."""

    def __init__(self, sink: Sink, window: Window) -> None:
        self._sink, self._window = sink, window
        self._before: Mapping[str, int] | None = None
        self._after: Mapping[str, int] | None = None
        self.name = sink.name
        self.frames = 0

    def attach(self, state: Callable[[], Summary]) -> None:
        self._state = state

    def write(self, frame: FusedFrame) -> None:
        if frame.time_ns in self._window:
            if self._before is None:
                self._before = self._state().drops if self._window.start_ns is not None else {}
            self._sink.write(frame)
            self.frames += 1
        elif self._before is not None and self._after is None:
            self._after = self._state().drops

    def close(self, *, failed: bool = False) -> None:
        self._sink.close(failed=failed)

    def lost(self, end: Summary) -> dict[str, int]:
        """Frames of the window that went nowhere, by reason; `end`: of the run that is over."""
        lost = Counter(end.drops if self._after is None else self._after)
        lost.subtract(self._before or {})
        return {reason: count for reason, count in lost.items() if count}


def join(parts: Sequence[Path], output: Path) -> None:
    """One file of the coded frames of several, as they are, each at its own time.  Raises OutputError.

    They must have been coded alike: a part that was not, by another version of the encoder, is refused.
    """
    import av

    try:
        with av.open(f"file:{output}", "w") as container:
            stream: VideoStream | None = None
            header: bytes | None = None
            for path in parts:
                with av.open(f"file:{path}") as part:
                    video = part.streams.video[0]
                    if stream is None:
                        stream = container.add_stream_from_template(video)
                        stream.codec_context.codec_tag = video.codec_context.codec_tag
                        header = video.codec_context.extradata
                    elif video.codec_context.extradata != header:
                        raise OutputError(
                            f"cannot join {output.name}: {path.name} was coded otherwise than the part before; the "
                            "workers must have the same version of PyAV, and all or none of them a GPU that encodes"
                        )
                    _copy(part, video, container, stream)
    except av.error.FFmpegError as error:
        raise OutputError(f"cannot write {output}: {reason(error.errno, str(error.strerror))}") from None


def _copy(part: InputContainer, video: VideoStream, container: OutputContainer, stream: VideoStream) -> None:
    for packet in part.demux(video):
        if packet.dts is None:  # the end of the file
            continue
        packet.stream = stream
        container.mux(packet)
