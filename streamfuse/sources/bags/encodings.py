"""Luma and chroma from the image encodings of ROS.

The names are those of sensor_msgs/image_encodings.h; some drivers use those of OpenCV or of V4L2.
"""

from __future__ import annotations

import logging
import sys
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.color import Chroma, Matrix, Plane
from streamfuse.color_conversion import widen_luma
from streamfuse.errors import InputError, UsageError
from streamfuse.sources.bags.messages import Picture
from streamfuse.sources.decode import Pixels, decode_image
from streamfuse.sources.limits import check_pixels
from streamfuse.sources.options import SourceOptions
from streamfuse.sources.pixels import Picture as Planes
from streamfuse.sources.pixels import PixelReader
from streamfuse.sources.thermal.degrees import Linear, as_double, parse_degrees
from streamfuse.temperature import Counts, TemperaturePlane

log = logging.getLogger("streamfuse")

_DEPTH = {"8": np.uint8, "16": np.uint16}
GREY_ENCODINGS = {
    "mono8": np.uint8,
    "8uc1": np.uint8,
    "mono16": np.uint16,
    "16uc1": np.uint16,
    "16sc1": np.int16,
    "32fc1": np.float32,
    "64fc1": np.float64,
}
_MEASURED = frozenset({"16sc1", "32fc1", "64fc1"})
"""Encodings whose values are no unsigned counts of 16 bits."""
_COLOR = {
    f"{order}{bits}": (channels, conversion)
    for bits in (8, 16)
    for order, channels, conversion in (
        ("bgr", 3, None),
        ("rgb", 3, cv2.COLOR_RGB2BGR),
        ("bgra", 4, cv2.COLOR_BGRA2BGR),
        ("rgba", 4, cv2.COLOR_RGBA2BGR),
    )
}
_COLOR |= {f"{bits}uc3": _COLOR[f"bgr{bits}"] for bits in (8, 16)} | {
    f"{bits}uc4": _COLOR[f"bgra{bits}"] for bits in (8, 16)
}
# ROS names a mosaic by its first two rows, OpenCV by the second and third pixel of the second row.
_BAYER = {
    "bayer_rggb": cv2.COLOR_BayerBG2BGR,
    "bayer_bggr": cv2.COLOR_BayerRG2BGR,
    "bayer_gbrg": cv2.COLOR_BayerGR2BGR,
    "bayer_grbg": cv2.COLOR_BayerGB2BGR,
}
# The offsets of Y, Cb and Cr in the four bytes of two pixels.
_PACKED = {"yuv422": (0, (1, 0, 2)), "uyvy": (0, (1, 0, 2)), "yuv422_yuy2": (0, (0, 1, 3)), "yuyv": (0, (0, 1, 3))}
_BIPLANAR = {"nv12": (2, 0), "nv21": (2, 1), "nv24": (1, 0)}
"""Rows and columns of luma for one of chroma, and the offset of Cb in its pairs."""
COLOR_ENCODINGS = frozenset((*_COLOR, *(f"{name}{bits}" for name in _BAYER for bits in _DEPTH), *_PACKED, *_BIPLANAR))
KNOWN = ", ".join((*GREY_ENCODINGS, *sorted(COLOR_ENCODINGS)))
DEPTH_HEADER = 12
"""Bytes before the PNG in a message of `compressedDepth`."""


class EncodingReader:
    """Converts the pictures of one topic, compressed or not."""

    def __init__(self, name: str, pixels: PixelReader, options: SourceOptions) -> None:
        """`name`: that of the topic, for messages."""
        self._name, self._pixels, self._max_pixels = name, pixels, options.max_pixels
        self._degrees = parse_degrees(options.temperature) if options.temperature else None
        self._step_k = 0.0
        self._levels: _Levels | None = None

    def read(self, picture: Picture, stamp_ns: int) -> Planes | None:
        """Return luma, chroma and temperatures; None for a picture that is damaged.

        Raises InputError for an encoding that is unknown, and for more pixels than the options allow, UsageError where
        temperatures are asked for that cannot be computed.
        """
        if picture.compressed:
            data = picture.data.tobytes()
            if "compresseddepth" in picture.encoding.lower().replace(" ", ""):
                data = data[DEPTH_HEADER:]
            pixels = decode_image(data, self._name, self._max_pixels)
            return None if pixels is None else self._pixels.read_image(pixels, stamp_ns)
        check_pixels(self._name, picture.width, picture.height, self._max_pixels)
        encoding = picture.encoding.lower()
        if encoding in _PACKED:
            return _packed(picture, *_PACKED[encoding][1])
        if encoding in _BIPLANAR:
            return _biplanar(picture, *_BIPLANAR[encoding])
        if self._degrees is not None and encoding in _MEASURED:
            return self._read_measured(picture, encoding, stamp_ns)
        made = self._to_pixels(picture, encoding)
        if made is not None and picture.scale is not None and made.dtype == np.uint16 and made.ndim == 2:
            counts = cast(Counts, made)
            return self._pixels.read_counts(counts, TemperaturePlane(counts, picture.scale), stamp_ns)
        return None if made is None else self._pixels.read_image(made, stamp_ns)

    def _read_measured(self, picture: Picture, encoding: str, stamp_ns: int) -> Planes | None:
        """Return temperatures of floating point or signed integers, in steps that the first picture chooses."""
        if not isinstance(self._degrees, Linear):
            raise UsageError(
                f"{self._name}: this temperature= is for unsigned counts of 16 bits, and this topic has {encoding}: "
                "use kelvin, celsius or celsius/100"
            )
        values = _array(picture, 1, np.dtype(GREY_ENCODINGS[encoding]))
        if values is None:
            return None
        if not self._step_k:
            self._step_k = self._degrees.step_for(values)
        return self._pixels.read_temperatures(self._degrees.keep(values, self._step_k), stamp_ns)

    def _to_pixels(self, picture: Picture, encoding: str) -> Pixels | None:
        """Return grey (H, W) or BGR (H, W, 3) pixels; None for too few bytes."""
        if (grey := GREY_ENCODINGS.get(encoding)) is not None:
            values = _array(picture, 1, np.dtype(grey))
            if values is None or values.dtype in (np.uint8, np.uint16):
                return cast("Pixels | None", values)
            if values.dtype == np.int16:
                return cast(Pixels, (values.astype(np.int32) + 32768).astype(np.uint16))
            if self._levels is None:
                self._levels = _Levels(values, self._name)
            return self._levels.apply(values)
        mosaic, bits = encoding.rstrip("0123456789"), encoding[len(encoding.rstrip("0123456789")) :]
        if encoding in _COLOR:
            channels, conversion = _COLOR[encoding]
            deep = encoding.endswith("16") or encoding.startswith("16")
            values = _array(picture, channels, np.dtype(np.uint16 if deep else np.uint8))
        elif mosaic in _BAYER and bits in _DEPTH:
            conversion = _BAYER[mosaic]
            values = _array(picture, 1, np.dtype(_DEPTH[bits]))
        else:
            raise InputError(
                f"{self._name} has the encoding {picture.encoding[:40]!r}, which is not read; known are {KNOWN}"
            )
        if values is None or conversion is None:
            return cast("Pixels | None", values)
        return cast(Pixels, cv2.cvtColor(cast(Pixels, values), conversion))


def _rows(picture: Picture, height: int, row: int, start: int = 0, step: int | None = None) -> Plane | None:
    """Return `height` rows of `row` bytes from the picture's data, without their padding; None for too few bytes."""
    step = (picture.step or row) if step is None else step
    if step < row or start + step * (height - 1) + row > picture.data.size:
        return None
    return np.lib.stride_tricks.as_strided(picture.data[start:], (height, row), (step, 1), writeable=False)


def _array(picture: Picture, channels: int, kind: np.dtype[np.generic]) -> npt.NDArray[np.generic] | None:
    """Return (H, W) or (H, W, channels) values in this machine's byte order; None for too few bytes."""
    rows = _rows(picture, picture.height, picture.width * channels * kind.itemsize)
    if rows is None:
        return None
    order = kind.newbyteorder(">" if picture.big_endian else "<")
    values = np.ascontiguousarray(rows).view(order)
    if kind.itemsize > 1 and picture.big_endian is not (sys.byteorder == "big"):
        values = values.astype(kind)
    return values.reshape((picture.height, picture.width, channels)[: 3 if channels > 1 else 2]).view(kind)


def _packed(picture: Picture, y: int, cb: int, cr: int) -> Planes | None:
    """Split 4:2:2 of which two pixels have four bytes; `y`, `cb`, `cr`: offsets in these.  Levels are limited range."""
    pairs = picture.width // 2
    rows = _rows(picture, picture.height, picture.width * 2)
    if rows is None or pairs == 0:
        return None
    luma = widen_luma(np.ascontiguousarray(rows[:, y::2]))
    if picture.width % 2:  # a single pixel at the end has no chroma of its own
        luma = luma[:, : 2 * pairs]
    u, v = (np.ascontiguousarray(rows[:, at : 4 * pairs : 4]) for at in (cb, cr))
    return Planes(luma, Chroma(u, v, matrix=Matrix.BT601))


def _biplanar(picture: Picture, down: int, cb: int) -> Planes | None:
    """Split a plane of luma with a plane of chroma pairs below it.  Levels are limited range."""
    step = picture.step or picture.width
    columns, lines = -(-picture.width // down), -(-picture.height // down)
    luma = _rows(picture, picture.height, picture.width)
    chroma = _rows(picture, lines, columns * 2, step * picture.height, step * 2 if down == 1 else step)
    if luma is None or chroma is None:
        return None
    u, v = (np.ascontiguousarray(chroma[:, at::2]) for at in (cb, 1 - cb))
    return Planes(widen_luma(np.ascontiguousarray(luma)), Chroma(u, v, matrix=Matrix.BT601))


class _Levels:
    """A fixed scale from floating point to 65,536 levels, chosen by the first picture of a topic.

    Kelvin and degrees Celsius get hundredths of a degree, 0 to 1 the whole range; anything else is given eight times
    the span of the first picture on both sides.  So the levels of a scene do not change with what passes through it.
    """

    CANDIDATES = (
        (0.0, 1.0, "0 to 1"),
        (-100.0, 555.35, "-100 to 555 degC (temperature=celsius gives degrees)"),
        (0.0, 655.35, "0 to 655 K (temperature=kelvin gives degrees)"),
    )
    KELVIN = 200.0
    """Least median of a picture in kelvin; a scene in degrees Celsius with that median would be an oven."""

    LARGEST = 1e30
    """Larger values, as some drivers have for pixels without a value, do not count for the scale."""

    def __init__(self, first: npt.NDArray[np.generic], name: str) -> None:
        values = as_double(first)
        finite = values[np.abs(values) < self.LARGEST]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        unit, celsius, kelvin = self.CANDIDATES
        kind = unit if low >= 0 and high <= 1 else kelvin if np.median(finite) >= self.KELVIN else celsius
        if kind[0] <= low and high <= kind[1]:
            self._low, top, what = kind
        else:
            span = max(high - low, 1e-6)
            self._low, top = low - 8 * span, high + 8 * span
            what = f"{self._low:.4g} to {top:.4g}"
        self._scale = 65535 / (top - self._low)
        log.info("%s: floating point is read as %s", name, what)

    def apply(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint16]:
        """Return (H, W) uint16; what is not a number becomes 0."""
        limited = np.clip(as_double(values), -self.LARGEST, self.LARGEST)
        levels = (limited - self._low) * self._scale
        return np.clip(np.rint(np.nan_to_num(levels, nan=0, posinf=65535, neginf=0)), 0, 65535).astype(np.uint16)
