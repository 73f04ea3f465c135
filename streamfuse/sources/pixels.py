"""Luma and chroma from the pixels of a decoder or an image file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.color import Chroma, Matrix, Plane
from streamfuse.color_conversion import split_bgr, widen_luma
from streamfuse.errors import InputError
from streamfuse.sources.agc import FlatFieldGuard, make_agc
from streamfuse.sources.image_header import image_shape, png_complete
from streamfuse.sources.limits import MAX_PIXELS, check_pixels
from streamfuse.sources.options import DEFAULT, SourceOptions

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Pixels: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_PLANAR = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}
_LIMITED, _FULL = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
# AVCOL_SPC_*; unspecified is BT.601 below 720 lines and BT.709 from there, as players assume.
_MATRICES = {1: Matrix.BT709, 5: Matrix.BT601, 6: Matrix.BT601, 9: Matrix.BT2020, 10: Matrix.BT2020}


class PixelReader:
    """Converts the pictures of one stream; it follows the level range of a 16-bit stream over time."""

    def __init__(self, options: SourceOptions = DEFAULT, name: str = "", repeated: Counter[str] | None = None) -> None:
        """`name`: name of the stream, for notes.  `repeated`: counts repeated frames (FFC) by reason.

        Raises UsageError for an unknown `options.agc`.
        """
        self._sixteen = FlatFieldGuard(make_agc(options.agc), name, Counter() if repeated is None else repeated)

    def read(self, frame: VideoFrame, stamp_ns: int) -> tuple[Plane, Chroma | None]:
        """Return the full-range luma and the unchanged chroma of a decoded frame.

        Planar 8-bit YUV is used in place: the arrays are views on the decoder's buffer.
        """
        quarter_turns = round(frame.rotation / 90) % 4
        name = frame.format.name
        if name not in _PLANAR:
            if frame.format.is_rgb or name == "pal8":
                luma, chroma = self._from_array(cast(Pixels, frame.to_ndarray(format="bgr24")), stamp_ns)
                return _turn(luma, chroma, quarter_turns)
            if name.startswith("gray"):
                deep = frame.format.components[0].bits > 8
                grey = cast(Pixels, frame.to_ndarray(format="gray16le" if deep else "gray"))
                luma, _ = self._from_array(grey, stamp_ns)
                luma = widen_luma(luma) if not deep and frame.color_range == _LIMITED else luma
                return _turn(luma, None, quarter_turns)
            frame = frame.reformat(format="yuv420p")
        if quarter_turns % 2 and "422" in name:  # turned, its chroma would be halved the other way
            frame = frame.reformat(format="yuv444p")
        full = frame.color_range == _FULL or name.startswith("yuvj")
        y, u, v = (_plane(frame, i) for i in range(3))
        unspecified = Matrix.BT709 if frame.height >= 720 else Matrix.BT601
        chroma = Chroma(u, v, full_range=full, matrix=_MATRICES.get(int(frame.colorspace), unspecified))
        return _turn(y if full else widen_luma(y), chroma, quarter_turns)

    def read_image(self, pixels: Pixels, stamp_ns: int) -> tuple[Plane, Chroma | None]:
        """Return luma and chroma of an image as `cv2.imdecode` gives it: grey or BGR, 8 or 16 bit."""
        return self._from_array(pixels, stamp_ns)

    def _from_array(self, pixels: Pixels, stamp_ns: int) -> tuple[Plane, Chroma | None]:
        if pixels.ndim == 3:
            eight = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
            return split_bgr(cast("npt.NDArray[np.uint8]", eight))
        if pixels.dtype == np.uint16:
            return self._sixteen.to_luma(cast("npt.NDArray[np.uint16]", pixels), stamp_ns), None
        return cast(Plane, pixels), None


def _plane(frame: VideoFrame, index: int) -> Plane:
    plane = frame.planes[index]
    rows: Plane = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


def _turn(luma: Plane, chroma: Chroma | None, quarter_turns: int) -> tuple[Plane, Chroma | None]:
    """Turn a picture upright, as players do: phones record sideways and note the rotation."""
    if quarter_turns == 0:
        return luma, chroma
    luma = np.ascontiguousarray(np.rot90(luma, quarter_turns))
    if chroma is not None:
        u, v = (np.ascontiguousarray(np.rot90(plane, quarter_turns)) for plane in (chroma.u, chroma.v))
        chroma = Chroma(u, v, chroma.full_range, chroma.matrix)
    return luma, chroma


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
    try:
        # Unlike IMREAD_UNCHANGED these turn a picture upright as its EXIF tag asks.
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        return None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        return None
    return cast(Pixels, pixels)


def read_image_file(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[Plane, Chroma | None]:
    """Read one image that is not part of a stream: luma (H, W) uint8, full range, and chroma.

    Raises InputError for a file that is not an image, or has more than `max_pixels` pixels.
    """
    try:
        pixels = decode_image(path.read_bytes(), str(path), max_pixels)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if pixels is None:
        raise InputError(f"{path} is not an image that can be read, or it is damaged")
    return PixelReader().read_image(pixels, stamp_ns=0)
