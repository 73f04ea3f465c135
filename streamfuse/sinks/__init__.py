"""Consumers of fused frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.errors import OutputError, UsageError

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

    `inputs` are files that must not be written over.  Raises UsageError or OutputError before anything has been
    read or computed.
    """
    from streamfuse.sources.sequence import is_pattern
    from streamfuse.sources.uri import has_scheme, redact

    if has_scheme(target):
        raise UsageError(f"-o {redact(target)}: only files can be written")
    path = Path(target)
    try:
        images = path.suffix.lower() not in VIDEO_SUFFIXES and is_pattern(path.name)
        _check_distinct(path, images, inputs)
        if images:
            from streamfuse.sinks.images import ImageSink

            return ImageSink(path, force=force)
        from streamfuse.sinks.video import VideoSink

        return VideoSink(path, video, force=force, period_ns=period_ns)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from None


def _check_distinct(output: Path, images: bool, inputs: Sequence[Path]) -> None:
    from streamfuse.sources.sequence import match_pattern

    read = {path.resolve() for path in inputs}
    written = [file for file, _ in match_pattern(output)] if images and output.parent.is_dir() else [output]
    for path in written:
        if path.resolve() in read:
            raise OutputError(f"the output {output} would overwrite the input {path}: choose another name")
