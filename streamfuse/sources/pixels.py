"""Luma and chroma from the pixels of a decoder or an image file."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from streamfuse.color import Chroma, Matrix, Plane
from streamfuse.color_conversion import split_bgr, widen_luma
from streamfuse.errors import InputError
from streamfuse.sources.agc import FlatFieldGuard, TemperatureSpan, make_agc
from streamfuse.sources.decode import Pixels, decode_image
from streamfuse.sources.limits import MAX_PIXELS
from streamfuse.sources.options import DEFAULT, SourceOptions
from streamfuse.sources.thermal.degrees import parse_degrees
from streamfuse.sources.thermal.layouts import NO_TELEMETRY, Layout, Telemetry, cut, guess
from streamfuse.sources.thermal.radiometric import read_radiometric
from streamfuse.temperature import Counts, TemperaturePlane

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

log = logging.getLogger("streamfuse")

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
        agc = make_agc(options.agc)
        self._span = agc if isinstance(agc, TemperatureSpan) else None
        self._sixteen = FlatFieldGuard(agc, name, Counter() if repeated is None else repeated)
        self._temperature: TemperaturePlane | None = None
        self._name = name
        self._layout = Layout(options.layout)
        self._degrees = parse_degrees(options.temperature) if options.temperature else None
        self._told: set[str] = set()

    def read(self, frame: VideoFrame, stamp_ns: int) -> Picture:
        """Return the full-range luma and the unchanged chroma of a decoded frame.

        Planar 8-bit YUV is used in place: the arrays are views on the decoder's buffer.
        """
        quarter_turns = round(frame.rotation / 90) % 4
        name = frame.format.name
        if name == "yuyv422" and (layout := self._layout_of_yuyv(frame)) is not Layout.PLAIN:
            return _turn(self._read_infrared(_words(frame), layout, stamp_ns), quarter_turns)
        if name not in _PLANAR:
            if frame.format.is_rgb or name == "pal8":
                bgr = cast(Pixels, frame.to_ndarray(format="bgr24"))
                return _turn(self.read_image(bgr, stamp_ns), quarter_turns)
            if name.startswith("gray"):
                bits = frame.format.components[0].bits
                deep = bits > 8
                grey = cast(Pixels, frame.to_ndarray(format="gray16le" if deep else "gray"))
                if 8 < bits < 16:
                    grey = cast(Pixels, grey >> (16 - bits))  # the conversion scaled the counts to 16 bits
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

    def _layout_of_yuyv(self, frame: VideoFrame) -> Layout:
        """Return the layout of a YUYV frame whose bytes are 16-bit values; plain for a colour picture."""
        if self._layout is not Layout.AUTO:
            return self._layout
        layout = guess(frame.height, frame.width, yuyv=True)
        if layout is not Layout.PLAIN:
            self._tell(
                f"frames of {frame.width}x{frame.height} in YUYV are taken as two pictures of a thermal camera: the "
                "lower half is used (layout=plain takes the whole frame)"
            )
        return layout

    def _read_infrared(self, frame: Counts, layout: Layout, stamp_ns: int) -> Picture:
        """Cut the picture out of a 16-bit frame, and return its luma and temperatures."""
        if layout is Layout.AUTO:
            layout = guess(*frame.shape, yuyv=False)
            if layout is Layout.LEPTON:
                self._tell("frames have the rows of a Lepton's telemetry, which are cut off (layout=plain keeps them)")
        found = cut(frame, layout)
        if found is None:
            height, width = frame.shape
            raise InputError(f"{self._name}: frames of {width}x{height} do not have the layout {layout}: give another")
        return self.read_counts(found.counts, None, stamp_ns, found.telemetry)

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.info("%s: %s", self._name, text)

    def read_image(self, pixels: Pixels, stamp_ns: int) -> Picture:
        """Return luma and chroma of an image as `decode_image` gives it: grey or BGR, 8 or 16 bit.

        16-bit grey is infrared: its layout and its temperatures are those of the options.
        """
        if pixels.ndim == 3:
            eight = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
            return Picture(*split_bgr(cast("npt.NDArray[np.uint8]", eight)))
        if pixels.dtype == np.uint16:
            return self._read_infrared(cast(Counts, pixels), self._layout, stamp_ns)
        return Picture(cast(Plane, pixels))

    def _temperatures(self, counts: Counts, telemetry: Telemetry) -> TemperaturePlane | None:
        assert self._degrees is not None
        plane = self._degrees(counts, telemetry)
        if plane is None:
            self._tell("the camera does not say that its counts are temperatures (TLinear): there are none")
        return plane

    def read_counts(
        self, counts: Counts, temperature: TemperaturePlane | None, stamp_ns: int, telemetry: Telemetry = NO_TELEMETRY
    ) -> Picture:
        """Return the luma of 16-bit infrared (H, W), by the gain control, with its temperatures.

        `temperature`: by the file's own constants; the option replaces them.  While the last good picture is repeated
        (FFC), so are its temperatures.
        """
        if self._degrees is not None:
            temperature = self._temperatures(counts, telemetry)
        return self._read_levels(counts, temperature, stamp_ns, telemetry.ffc)

    def read_temperatures(self, plane: TemperaturePlane, stamp_ns: int) -> Picture:
        """Return the luma of temperatures that were computed already, by the gain control, with them."""
        return self._read_levels(plane.values, plane, stamp_ns, None)

    def _read_levels(
        self, counts: Counts, temperature: TemperaturePlane | None, stamp_ns: int, ffc: bool | None
    ) -> Picture:
        if self._span is not None:
            if temperature is None:
                raise InputError(
                    f"{self._name or 'the picture'} has no temperatures, which --agc temperature needs: add "
                    "temperature=, such as temperature=kelvin/100, to its address"
                )
            self._span.use(temperature.scale)
            counts = temperature.values
        luma = self._sixteen.to_luma(counts, stamp_ns, ffc)
        if not self._sixteen.repeats:
            self._temperature = temperature
        return Picture(luma, None, self._temperature)


def _words(frame: VideoFrame) -> Counts:
    """The bytes of a YUYV frame as values of 16 bits, (H, W)."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return np.ascontiguousarray(rows[:, : 2 * frame.width]).view("<u2").astype(np.uint16, copy=False)


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
