"""Sources of frames: video files, images, cameras, network streams, the synthetic scene."""

from __future__ import annotations

from pathlib import Path

from streamfuse.errors import InputError, UsageError
from streamfuse.sources.base import Source, share_epoch
from streamfuse.sources.options import DEFAULT
from streamfuse.sources.options import SourceOptions as SourceOptions
from streamfuse.sources.thermal.address import split_thermal
from streamfuse.support.urls import SCHEME, expand, has_scheme, redact

FLIR_RECORDINGS = frozenset({".seq", ".csq"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts", ".m4v", ".mpg"})
"""Usual suffixes of videos; others are tried where a source is opened."""
KINDS = (
    "a video file, a directory or pattern of images, a topic of a bag (walk.mcap?topic=/ir), a camera (cam0), rtsp://, "
    "http(s):// or udp://, an SDP file, or synthetic:ir / synthetic:vis"
)


def open_source(text: str, options: SourceOptions = DEFAULT, *, fps: float | None = None) -> Source:
    """Open a path, a pattern of images, a camera, a URL or a `synthetic:` URI.

    `fps`: short for `SourceOptions(fps=...)`, the frame rate of images; it replaces that of `options`.
    Variables in `text` are replaced as by `expand`.  Raises InputError for a source that is missing or unreadable,
    UsageError for a text that is not understood.
    """
    return _open(*split_thermal(expand(text), options.with_fps(fps)))


def _open(text: str, options: SourceOptions) -> Source:
    from streamfuse.sources.address import parse_address
    from streamfuse.sources.bags.address import parse_bag
    from streamfuse.sources.sequence import is_image_list, open_images

    if not text:
        raise UsageError(f"an empty source: give {KINDS}")
    if text.startswith("synthetic:"):
        from streamfuse.sources.synthetic import SyntheticSource

        return SyntheticSource.from_uri(text)
    if (address := parse_address(text)) is not None:
        from streamfuse.sources.live import LiveSource

        return LiveSource(address, options)
    if match := SCHEME.match(text):
        raise UsageError(f"{redact(text)}: {match[1].lower()}:// sources are not supported; give {KINDS}")
    try:
        if (bag := parse_bag(text)) is not None:
            from streamfuse.sources.bags.source import BagSource

            return BagSource(bag, options)
        if is_image_list(text):
            return open_images(text, options)
        if Path(text).suffix.lower() in FLIR_RECORDINGS:
            from streamfuse.sources.thermal.recording import FlirRecording

            return FlirRecording(Path(text), options)
        from streamfuse.sources.file import VideoFile

        return VideoFile(Path(text), options)
    except OSError as error:
        raise InputError(f"{text} cannot be read: {error.strerror}") from None


def open_pair(
    ir: str, vis: str | None, options: SourceOptions = DEFAULT, *, fps: float | None = None
) -> tuple[Source, Source]:
    """Open an infrared and a visible source on one time line; arguments and errors as for `open_source`.

    `vis` is None where the files of `ir` hold both pictures, or lie beside the visible ones, as thermal cameras write
    them.
    """
    from streamfuse.sources.address import parse_address
    from streamfuse.sources.sequence import is_image_list, open_image_pair, open_stored_pair

    ir, ir_options = split_thermal(expand(ir), options.with_fps(fps))
    if vis is None:
        try:
            return open_stored_pair(ir, ir_options)
        except OSError as error:
            raise InputError(f"{error.filename or ir} cannot be read: {error.strerror}") from None
    vis, vis_options = split_thermal(expand(vis), options.with_fps(fps))
    plain = not any(text.startswith("synthetic:") or has_scheme(text) or parse_address(text) for text in (ir, vis))
    try:
        if plain and ir and vis and is_image_list(ir) and is_image_list(vis):
            return open_image_pair(ir, vis, ir_options, vis_options)
    except OSError as error:
        raise InputError(f"{error.filename or ir} cannot be read: {error.strerror}") from None
    first = _open(ir, ir_options)
    try:
        second = _open(vis, vis_options)
    except BaseException:
        first.close()
        raise
    share_epoch(first, second)
    return first, second


def images_exist(text: str) -> bool:
    """Tell whether a source is a directory of images, or an image, that exists."""
    from streamfuse.sources.sequence import is_image_list

    text, _ = split_thermal(expand(text), DEFAULT)
    return Path(text).exists() and is_image_list(text)
