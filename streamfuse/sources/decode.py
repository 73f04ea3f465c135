"""Pixels of an image file's bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.sources.image_header import image_shape, png_complete
from streamfuse.sources.limits import MAX_PIXELS, check_pixels

Pixels: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Pixels | None:
    """Decode an image file's bytes to (H, W) or (H, W, C), uint8 or uint16; None if they are not an image.

    Raises InputError for a picture of more than `max_pixels` pixels; `name` is for its message.
    """
    shape = image_shape(data)
    if shape is None or 0 in shape:
        return None
    check_pixels(name, shape[1], shape[0], max_pixels)
    if not png_complete(data):
        return None
    tiff = data[:4] in (b"II*\0", b"MM\0*")
    with _quiet() if tiff else contextlib.nullcontext():
        try:
            # Unlike IMREAD_UNCHANGED these turn a picture upright as its EXIF tag asks.
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
        except cv2.error:
            pixels = None
    if pixels is None and tiff:
        pixels = decode_grey(data, "tiff", max_pixels)  # without a photometric tag, as some thermal cameras write it
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        return None
    return cast(Pixels, pixels)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV from writing to stderr what is unusual in a TIFF."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def decode_grey(data: bytes, codec: str, max_pixels: int) -> npt.NDArray[np.uint16] | None:
    """Decode a 16-bit grey picture to (H, W) uint16 by FFmpeg's decoder of that name; None where that fails."""
    import av

    av.logging.set_level(None)
    try:
        decoder = cast(av.VideoCodecContext, av.CodecContext.create(codec, "r"))
        decoder.options = {"max_pixels": str(max_pixels)}
        decoder.thread_count = 1
        frames = decoder.decode(av.Packet(data)) or decoder.decode(None)
        if not frames or not frames[0].format.name.startswith("gray16"):
            return None
        return cast("npt.NDArray[np.uint16]", frames[0].to_ndarray(format="gray16le"))
    except (av.error.FFmpegError, ValueError):
        return None
