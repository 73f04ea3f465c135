"""Consumers of fused frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamfuse.sinks.base import Sink
    from streamfuse.sinks.video import VideoFormat


def open_sink(
    target: str, *, video: VideoFormat | None = None, force: bool = False, period_ns: int | None = None
) -> Sink:
    """A sink from what a user writes: a pattern of images (out/%06d.png) or a video file.

    Raises UsageError or OutputError before anything has been read or computed.
    """
    from streamfuse.sources.sequence import is_pattern

    if is_pattern(target):
        from streamfuse.sinks.images import ImageSink

        return ImageSink(Path(target), force=force)
    from streamfuse.sinks.video import VideoSink

    return VideoSink(Path(target), video, force=force, period_ns=period_ns)
