"""The sink that writes a video file.

The file remains playable if the process is killed: it is written in fragments, which are flushed as they fill, and
becomes an ordinary MP4 when it is closed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.errors import OutputError
from streamfuse.frames import DEFAULT_PERIOD_NS, FusedFrame
from streamfuse.sinks.base import Sink
from streamfuse.sinks.encoder import Encoder
from streamfuse.sinks.encoder_preset import keep_up
from streamfuse.sinks.target import Target, muxer_of
from streamfuse.sinks.video_format import VideoFormat
from streamfuse.support.files import reason

if TYPE_CHECKING:
    from av.container import OutputContainer

AT_RISK_S = 0.5
"""Longest fragment, in time of the recording and in wall-clock time."""
_MP4 = frozenset({".mp4", ".m4v", ".mov"})


class VideoSink(Sink):
    """Writes a video file with each frame at its `time_ns`."""

    def __init__(
        self, path: Path, video: VideoFormat | None = None, *, force: bool = False, period_ns: int | None = None
    ) -> None:
        """`period_ns`: nominal time between frames."""
        self._format = video or VideoFormat()
        self._format.check(path)
        self.name = str(path)
        self._target = Target(path, force=force)
        self._period_ns = period_ns or DEFAULT_PERIOD_NS
        self._container: OutputContainer | None = None
        self._encoder: Encoder | None = None
        self._first: tuple[FusedFrame, int] | None = None
        self._frames = 0

    def prepare(self, example: FusedFrame, period_ns: int) -> None:
        with self._errors():
            self._format = keep_up(self._format, example, period_ns, self.name)

    def write(self, frame: FusedFrame) -> None:
        if self._container is None:
            if self._first is None:  # the time between the first two frames determines the length of a fragment
                self._first = (frame, time.monotonic_ns())
                return
            self._start(frame.time_ns - self._first[0].time_ns, time.monotonic_ns() - self._first[1])
        self._encode(frame)

    def close(self, *, failed: bool = False) -> None:
        whole = False
        try:
            if self._container is None and self._first is not None:
                self._start(self._period_ns, self._period_ns)
            if self._container is not None:
                with self._errors():
                    try:
                        if self._encoder is not None:  # None if it could not be started
                            self._container.mux(self._encoder.encode(None))
                    finally:
                        self._container.close()
            whole = not failed
        finally:
            if self._frames:
                self._target.finish(failed=not whole)
            else:
                self._target.discard()

    def _start(self, media_ns: int, wall_ns: int) -> None:
        """Open the container and write the first frame.

        `media_ns`: interval between frames; `wall_ns`: the same in wall-clock time.
        """
        import av

        assert self._first is not None
        first = self._first[0]
        pace = min(1.0, media_ns / max(wall_ns, 1))
        fragment_s = max(AT_RISK_S * pace, media_ns / 1e9)
        with self._errors():
            self._container = av.open(
                f"file:{self._target.writing}",
                "w",
                format=muxer_of(self._target.path),
                options=self._container_options(fragment_s),
            )
            self._encoder = Encoder(self._container, self._format, first, name=self.name, period_ns=self._period_ns)
        self._encode(first)
        self._first = None

    def _encode(self, frame: FusedFrame) -> None:
        assert self._container is not None
        assert self._encoder is not None
        with self._errors():
            self._container.mux(self._encoder.encode(frame))
        self._frames += 1

    def _container_options(self, fragment_s: float) -> dict[str, str]:
        if self._target.path.suffix.lower() in _MP4:
            return {
                # Without delay_moov the first stamp is lost, or wrong in a file that was never closed.
                "movflags": "hybrid_fragmented+delay_moov",
                "frag_duration": str(int(fragment_s * 1e6)),
                "flush_packets": "1",
            }
        return {"cluster_time_limit": str(max(1, int(fragment_s * 1000))), "flush_packets": "1"}

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        import av

        try:
            yield
        except av.codec.codec.UnknownCodecError:
            raise OutputError(
                f"cannot write {self.name}: this FFmpeg has no encoder for {self._format.codec}; use another --codec"
            ) from None
        except av.error.FFmpegError as error:
            kept = (
                f"; {self._target.writing} has the first {self._frames} frames, approximately" if self._frames else ""
            )
            raise OutputError(f"cannot write {self.name}: {reason(error.errno, str(error.strerror))}{kept}") from None
