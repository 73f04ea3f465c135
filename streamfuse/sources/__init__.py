"""Where frames come from: files, images, cameras, network streams, the synthetic scene."""

from __future__ import annotations

from pathlib import Path

from streamfuse.errors import InputError, UsageError
from streamfuse.sources.base import Source
from streamfuse.urls import SCHEME, expand, has_scheme, redact

KINDS = (
    "a video file, a directory or pattern of images, a camera (cam0), rtsp://, http(s):// or udp://, an SDP file, "
    "or synthetic:ir / synthetic:vis"
)


def open_source(text: str, *, fps: float | None = None, agc: str = "percentile", gpu: int | None = None) -> Source:
    """A source from a path, a pattern, a camera, a URL or a `synthetic:` URI; `fps` is the rate of images.

    `agc`: how grey of more than 8 bits becomes 8 bits, one of `streamfuse.sources.agc.AGCS`.
    `gpu`: the number of the NVIDIA GPU that decodes video files, if it can; None: the CPU does.
    Variables in it are replaced as `expand` says.  Raises InputError for what is not there or cannot be read,
    UsageError for what is not understood.
    """
    from streamfuse.sources.address import parse_address
    from streamfuse.sources.sequence import is_image_list, open_images

    text = expand(text)
    if not text:
        raise UsageError(f"an empty source: give {KINDS}")
    if text.startswith("synthetic:"):
        from streamfuse.sources.synthetic import SyntheticSource

        return SyntheticSource.from_uri(text)
    if (address := parse_address(text)) is not None:
        from streamfuse.sources.live import LiveSource

        return LiveSource(address, agc=agc)
    if match := SCHEME.match(text):
        raise UsageError(f"{redact(text)}: {match[1].lower()}:// sources are not supported; give {KINDS}")
    try:
        if is_image_list(text):
            return open_images(text, fps, agc)
        from streamfuse.sources.file import VideoFile

        return VideoFile(Path(text), agc, gpu)
    except OSError as error:
        raise InputError(f"{text} cannot be read: {error.strerror}") from None


def open_pair(
    ir: str, vis: str, *, fps: float | None = None, agc: str = "percentile", gpu: int | None = None
) -> tuple[Source, Source]:
    """An infrared and a visible source on one time line."""
    from streamfuse.sources.address import parse_address
    from streamfuse.sources.sequence import is_image_list, open_image_pair

    paths = expand(ir), expand(vis)
    plain = not any(text.startswith("synthetic:") or has_scheme(text) or parse_address(text) for text in paths)
    try:
        if plain and all(paths) and all(map(is_image_list, paths)):
            return open_image_pair(*paths, fps, agc)
    except OSError as error:
        raise InputError(f"{error.filename or ir} cannot be read: {error.strerror}") from None
    first = open_source(ir, fps=fps, agc=agc, gpu=gpu)
    try:
        return first, open_source(vis, fps=fps, agc=agc, gpu=gpu)
    except BaseException:
        first.close()
        raise
