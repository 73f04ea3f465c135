"""Luma and chroma from the pixels of a decoder or an image file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from streamfuse.color import Chroma, Matrix, Plane
from streamfuse.color_conversion import split_bgr, widen_luma
from streamfuse.errors import InputError
from streamfuse.sources.agc import FlatFieldGuard, make_agc
from streamfuse.sources.decode import Pixels, decode_image
from streamfuse.sources.limits import MAX_PIXELS
from streamfuse.sources.options import DEFAULT, SourceOptions
from streamfuse.sources.thermal.radiometric import read_radiometric
from streamfuse.temperature import Counts, TemperaturePlane

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_PLANAR = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}
_LIMITED, _FULL = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
# AVCOL_SPC_*; unspecified is BT.601 below 720 lines and BT.709 from there, as players assume.
_MATRICES = {1: Matrix.BT709, 5: Matrix.BT601, 6: Matrix.BT601, 9: Matrix.BT2020, 10: Matrix.BT2020}


class Picture(NamedTuple):
    """The planes of one picture of a stream."""

    luma: Plane
    """(H, W) uint8, full range."""
    chroma: Chroma | None = None
    temperature: TemperaturePlane | None = None
    """(H, W); None where the stream has none."""


class PixelReader:
    """Converts the pictures of one stream; it follows the level range of a 16-bit stream over time."""

    def __init__(self, options: SourceOptions = DEFAULT, name: str = "", repeated: Counter[str] | None = None) -> None:
        """`name`: name of the stream, for notes.  `repeated`: counts repeated frames (FFC) by reason.

        Raises UsageError for an unknown `options.agc`.
        """
        self._sixteen = FlatFieldGuard(make_agc(options.agc), name, Counter() if repeated is None else repeated)
        self._temperature: TemperaturePlane | None = None

    def read(self, frame: VideoFrame, stamp_ns: int) -> Picture:
        """Return the full-range luma and the unchanged chroma of a decoded frame.

        Planar 8-bit YUV is used in place: the arrays are views on the decoder's buffer.
        """
        quarter_turns = round(frame.rotation / 90) % 4
        name = frame.format.name
        if name not in _PLANAR:
            if frame.format.is_rgb or name == "pal8":
                bgr = cast(Pixels, frame.to_ndarray(format="bgr24"))
                return _turn(self.read_image(bgr, stamp_ns), quarter_turns)
            if name.startswith("gray"):
                deep = frame.format.components[0].bits > 8
                grey = cast(Pixels, frame.to_ndarray(format="gray16le" if deep else "gray"))
                picture = self.read_image(grey, stamp_ns)
                if not deep and frame.color_range == _LIMITED:
                    picture = Picture(widen_luma(picture.luma))
                return _turn(picture, quarter_turns)
            frame = frame.reformat(format="yuv420p")
        if quarter_turns % 2 and "422" in name:  # turned, its chroma would be halved the other way
            frame = frame.reformat(format="yuv444p")
        full = frame.color_range == _FULL or name.startswith("yuvj")
        y, u, v = (_plane(frame, i) for i in range(3))
        unspecified = Matrix.BT709 if frame.height >= 720 else Matrix.BT601
        chroma = Chroma(u, v, full_range=full, matrix=_MATRICES.get(int(frame.colorspace), unspecified))
        return _turn(Picture(y if full else widen_luma(y), chroma), quarter_turns)

    def read_image(self, pixels: Pixels, stamp_ns: int) -> Picture:
        """Return luma and chroma of an image as `decode_image` gives it: grey or BGR, 8 or 16 bit."""
        if pixels.ndim == 3:
            eight = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
            return Picture(*split_bgr(cast("npt.NDArray[np.uint8]", eight)))
        if pixels.dtype == np.uint16:
            return self.read_counts(cast(Counts, pixels), None, stamp_ns)
        return Picture(cast(Plane, pixels))

    def read_counts(self, counts: Counts, temperature: TemperaturePlane | None, stamp_ns: int) -> Picture:
        """Return the luma of 16-bit infrared (H, W), by the gain control, with its temperatures.

        While the last good picture is repeated (FFC), so are its temperatures.
        """
        luma = self._sixteen.to_luma(counts, stamp_ns)
        if not self._sixteen.repeats:
            self._temperature = temperature
        return Picture(luma, None, self._temperature)


def _plane(frame: VideoFrame, index: int) -> Plane:
    plane = frame.planes[index]
    rows: Plane = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


def _turn(picture: Picture, quarter_turns: int) -> Picture:
    """Turn a picture upright, as players do: phones record sideways and note the rotation."""
    if quarter_turns == 0:
        return picture
    luma, chroma, temperature = picture
    luma = np.ascontiguousarray(np.rot90(luma, quarter_turns))
    if chroma is not None:
        u, v = (np.ascontiguousarray(np.rot90(plane, quarter_turns)) for plane in (chroma.u, chroma.v))
        chroma = Chroma(u, v, chroma.full_range, chroma.matrix)
    if temperature is not None:
        values = np.ascontiguousarray(np.rot90(temperature.values, quarter_turns))
        temperature = TemperaturePlane(values, temperature.scale)
    return Picture(luma, chroma, temperature)


def read_image_file(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[Plane, Chroma | None]:
    """Read one image that is not part of a stream: luma (H, W) uint8, full range, and chroma.

    A radiometric image gives its infrared picture.  Raises InputError for a file that is not an image, or has more than
    `max_pixels` pixels.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if (radiometric := read_radiometric(data, str(path), max_pixels)) is not None:
        return PixelReader().read_counts(radiometric.raw, None, stamp_ns=0)[:2]
    pixels = decode_image(data, str(path), max_pixels)
    if pixels is None:
        raise InputError(f"{path} is not an image that can be read, or it is damaged")
    return PixelReader().read_image(pixels, stamp_ns=0)[:2]
