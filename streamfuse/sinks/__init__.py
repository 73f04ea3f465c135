"""Consumers of fused frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.errors import OutputError, UsageError
from streamfuse.sinks.about import NOTHING, About
from streamfuse.sinks.target import VIDEO_SUFFIXES
from streamfuse.sinks.video_format import MCAP

if TYPE_CHECKING:
    from streamfuse.sinks.base import Sink
    from streamfuse.sinks.video_format import VideoFormat


def open_sink(
    target: str,
    *,
    video: VideoFormat | None = None,
    force: bool = False,
    period_ns: int | None = None,
    inputs: Sequence[Path] = (),
    about: About = NOTHING,
) -> Sink:
    """A sink from what a user writes: a video or MCAP file, images (out/%06d.png, vot:DIR) or rtsp:// of a server.

    `inputs` are files that must not be written over; `about`: facts for outputs that keep them.  Raises UsageError or
    OutputError before anything has been read or computed.
    """
    from streamfuse.sources.sequence import is_pattern
    from streamfuse.support.urls import has_scheme, redact

    if target.startswith("vot:"):
        from streamfuse.sinks.vot import VotSink, check_inputs

        directory = Path(target.removeprefix("vot:"))
        try:
            check_inputs(directory, inputs)
            return VotSink(directory, force=force, period_ns=period_ns, about=about)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror}") from None
    if has_scheme(target):
        from streamfuse.sinks.push import SCHEMES, PushSink

        if target.partition("://")[0].lower() not in SCHEMES:
            raise UsageError(f"-o {redact(target)}: give a file, or rtsp:// for a media server")
        return PushSink(target, video, period_ns=period_ns)
    path = Path(target)
    try:
        images = path.suffix.lower() not in VIDEO_SUFFIXES and is_pattern(path.name)
        _check_distinct(path, images, inputs)
        if images:
            from streamfuse.sinks.images import ImageSink

            return ImageSink(path, force=force)
        if path.suffix.lower() == MCAP:
            from streamfuse.sinks.mcap import McapSink

            return McapSink(path, video, force=force, period_ns=period_ns, about=about)
        from streamfuse.sinks.video import VideoSink

        return VideoSink(path, video, force=force, period_ns=period_ns)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from None


def open_sinks(
    targets: Sequence[str],
    *,
    video: VideoFormat | None = None,
    force: bool = False,
    period_ns: int | None = None,
    inputs: Sequence[Path] = (),
    about: About = NOTHING,
) -> list[Sink]:
    """`open_sink` for each; where one cannot be opened, the others leave no trace."""
    from streamfuse.support.urls import redact

    if twice := [target for number, target in enumerate(targets) if target in targets[:number]]:
        raise UsageError(f"-o {redact(twice[0])} is given twice")
    sinks: list[Sink] = []
    try:
        for target in targets:
            sinks.append(open_sink(target, video=video, force=force, period_ns=period_ns, inputs=inputs, about=about))
    except BaseException:
        for sink in sinks:
            sink.close(failed=True)
        raise
    return sinks


def _check_distinct(output: Path, images: bool, inputs: Sequence[Path]) -> None:
    from streamfuse.sources.sequence import match_pattern

    read = {path.resolve() for path in inputs}
    written = [file for file, _ in match_pattern(output)] if images and output.parent.is_dir() else [output]
    for path in written:
        if path.resolve() in read:
            raise OutputError(f"the output {output} would overwrite the input {path}: choose another name")
