"""Consumers of fused frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.errors import OutputError

if TYPE_CHECKING:
    from streamfuse.sinks.base import Sink
    from streamfuse.sinks.video import VideoFormat


VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv"})


def open_sink(
    target: str,
    *,
    video: VideoFormat | None = None,
    force: bool = False,
    period_ns: int | None = None,
    inputs: Sequence[Path] = (),
) -> Sink:
    """A sink from what a user writes: a pattern of images (out/%06d.png) or a video file.

    `inputs` are files and directories that must not be written over.  Raises UsageError or OutputError before
    anything has been read or computed.
    """
    from streamfuse.sources.sequence import is_pattern

    path = Path(target)
    for source in inputs:
        _check_distinct(path, source)
    if is_pattern(target):
        from streamfuse.sinks.images import ImageSink

        return ImageSink(path, force=force)
    from streamfuse.sinks.video import VideoSink

    return VideoSink(path, video, force=force, period_ns=period_ns)


def _check_distinct(output: Path, source: Path) -> None:
    if source.is_file():
        clash = output.exists() and output.samefile(source)
    else:  # a directory, or a pattern in one
        directory = source if source.is_dir() else source.parent
        clash = directory.is_dir() and output.parent.is_dir() and output.parent.samefile(directory)
        clash = clash and output.suffix.lower() not in VIDEO_SUFFIXES
    if clash:
        raise OutputError(f"the output {output} would overwrite the input {source}: choose another name")
