"""From what a user writes to a source."""

from __future__ import annotations

import re
from pathlib import Path

from streamfuse.errors import InputError, UsageError
from streamfuse.sources.base import Source

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
KINDS = (
    "a video file, a directory or pattern of images, a camera (cam0), rtsp://, http(s):// or udp://, an SDP file, "
    "or synthetic:ir / synthetic:vis"
)


def redact(text: str) -> str:
    """A URL that is safe to show: without user, password, query and fragment."""
    if not _SCHEME.match(text):
        return text
    scheme, rest = text.split("://", 1)
    _, at, rest = rest.rpartition("@")  # the last one: a password may hold anything
    return f"{scheme}://{'***@' if at else ''}{re.split('[?#]', rest)[0]}"


def has_scheme(text: str) -> bool:
    """Whether `text` is a URL and not a path."""
    return _SCHEME.match(text) is not None


def open_source(text: str, *, fps: float | None = None) -> Source:
    """A source from a path, a pattern, a camera, a URL or a `synthetic:` URI; `fps` is the rate of images.

    Raises InputError for what is not there or cannot be read, UsageError for what is not understood.
    """
    from streamfuse.sources.address import parse_address
    from streamfuse.sources.sequence import is_image_list, open_images

    if not text:
        raise UsageError(f"an empty source: give {KINDS}")
    if text.startswith("synthetic:"):
        from streamfuse.sources.synthetic import SyntheticSource

        return SyntheticSource.from_uri(text)
    if (address := parse_address(text)) is not None:
        from streamfuse.sources.live import LiveSource

        return LiveSource(address)
    if match := _SCHEME.match(text):
        raise UsageError(f"{redact(text)}: {match[1].lower()}:// sources are not supported; give {KINDS}")
    try:
        if is_image_list(text):
            return open_images(text, fps)
        from streamfuse.sources.file import VideoFile

        return VideoFile(Path(text))
    except OSError as error:
        raise InputError(f"{text} cannot be read: {error.strerror}") from None


def open_pair(ir: str, vis: str, *, fps: float | None = None) -> tuple[Source, Source]:
    """An infrared and a visible source on one time line."""
    from streamfuse.sources.address import parse_address
    from streamfuse.sources.sequence import is_image_list, open_image_pair

    plain = not any(text.startswith("synthetic:") or has_scheme(text) or parse_address(text) for text in (ir, vis))
    try:
        if plain and ir and vis and is_image_list(ir) and is_image_list(vis):
            return open_image_pair(ir, vis, fps)
    except OSError as error:
        raise InputError(f"{error.filename or ir} cannot be read: {error.strerror}") from None
    first = open_source(ir, fps=fps)
    try:
        return first, open_source(vis, fps=fps)
    except BaseException:
        first.close()
        raise
