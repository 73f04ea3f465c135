"""Encoding of a fused frame's pixels to bytes, and decoding to arrays."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from streamfuse.color import Chroma, Matrix, Plane
from streamfuse.errors import InputError, OutputError
from streamfuse.frames import FusedFrame
from streamfuse.temperature import ZERO_CELSIUS_K, Scale, TemperaturePlane
from streamfuse.zeromq.wire import Encoding, Header, TemperatureHeader, chroma_shape, payload_bytes

# OpenCV is imported where it is used: subscribers that only need luma save its import time of 0.1 s.


def encode(frame: FusedFrame, encoding: Encoding, quality: int = 85) -> memoryview:
    """Encode a frame's pixels as `streamfuse.zeromq.wire.Encoding` describes; `quality`: of JPEG, 1..100.

    For mono8 the result is the luma itself, without a copy, if it is contiguous; otherwise it is new memory that is
    never written to again.  Raises OutputError if the encoder fails.
    """
    if encoding is Encoding.MONO8:
        return np.ascontiguousarray(frame.luma).data
    if encoding is Encoding.YUV420P:
        return _planar(frame).data
    if encoding is Encoding.BGR8:
        return np.ascontiguousarray(frame.to_bgr()).data
    import cv2

    picture = frame.luma if frame.chroma is None else frame.to_bgr()
    try:
        done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error:
        done = False
    if not done:
        raise OutputError(
            f"frame {frame.index} cannot be encoded as JPEG: publish as {Encoding.BGR8} or {Encoding.YUV420P}"
        )
    return data.data


def _planar(frame: FusedFrame) -> npt.NDArray[np.uint8]:
    height, width = frame.luma.shape
    data = np.empty(payload_bytes(Encoding.YUV420P, height, width), np.uint8)
    luma, u, v = _planes(data, height, width)
    luma[:] = frame.luma
    if frame.chroma is None:
        u[:] = v[:] = 128
    else:
        from streamfuse.color_conversion import resize_chroma, widen_chroma

        chroma = widen_chroma(resize_chroma(frame.chroma, *u.shape))
        u[:], v[:] = chroma.u, chroma.v
    return data


def _planes(data: npt.NDArray[np.uint8], height: int, width: int) -> tuple[Plane, Plane, Plane]:
    """Views of the three planes of yuv420p: (H, W) and twice (H / 2, W / 2), rounded up."""
    rows, columns = chroma_shape(height, width)
    luma, u, v = np.split(data, (height * width, height * width + rows * columns))
    return luma.reshape(height, width), u.reshape(rows, columns), v.reshape(rows, columns)


def describe_temperature(plane: TemperaturePlane, *, part: bool) -> TemperatureHeader:
    """Describe temperatures for a header; `part`: the values follow in a part of their own."""
    found = plane.extremes()
    return TemperatureHeader(
        scale=plane.scale.step,
        offset=round(plane.scale.celsius(0), 6),
        min=None if found is None else round(found.coldest.celsius, 4),
        mean=None if found is None else round(found.mean, 4),
        max=None if found is None else round(found.hottest.celsius, 4),
        min_at=None if found is None else (found.coldest.column, found.coldest.row),
        max_at=None if found is None else (found.hottest.column, found.hottest.row),
        part=part,
    )


def encode_temperature(plane: TemperaturePlane) -> memoryview:
    """Encode values row by row, uint16 little-endian; never written to afterwards."""
    return np.ascontiguousarray(plane.values, "<u2").data


def temperature_of(header: Header, values: memoryview | None) -> TemperaturePlane | None:
    """Temperatures in the size of the picture; None if they were not sent."""
    if header.temperature is None or values is None:
        return None
    counts = np.frombuffer(values, "<u2").reshape(header.height, header.width)
    scale = Scale(header.temperature.scale, header.temperature.offset + ZERO_CELSIUS_K)
    return TemperaturePlane(counts.astype(np.uint16, copy=False), scale)


def luma_of(header: Header, payload: memoryview) -> Plane:
    """Luma, (H, W) uint8 full range: a view for mono8 and yuv420p, computed for bgr8 and jpeg.  Raises InputError."""
    shape = header.height, header.width
    if header.encoding is Encoding.JPEG:
        return _decoded(header, payload, colour=False)
    data = np.frombuffer(payload, np.uint8)
    if header.encoding is Encoding.BGR8:
        import cv2

        return cast(Plane, cv2.cvtColor(data.reshape(*shape, 3), cv2.COLOR_BGR2GRAY))
    return data[: shape[0] * shape[1]].reshape(shape)


def bgr_of(header: Header, payload: memoryview) -> npt.NDArray[np.uint8]:
    """Picture in BGR, (H, W, 3) uint8: a view for bgr8, computed for the others.  Raises InputError."""
    if header.encoding is Encoding.BGR8:
        return np.frombuffer(payload, np.uint8).reshape(header.height, header.width, 3)
    if header.encoding is Encoding.JPEG:
        return _decoded(header, payload, colour=True)
    from streamfuse.color_conversion import to_bgr

    return to_bgr(*picture_of(header, payload))


def picture_of(header: Header, payload: memoryview) -> tuple[Plane, Chroma | None]:
    """Luma (H, W) uint8 and chroma, as in a `FusedFrame`; None as chroma for a grey picture.  Raises InputError."""
    if header.encoding is Encoding.YUV420P and header.matrix is not None:
        luma, u, v = _planes(np.frombuffer(payload, np.uint8), header.height, header.width)
        return luma, Chroma(u, v, full_range=True, matrix=Matrix(header.matrix))
    if header.encoding in (Encoding.MONO8, Encoding.YUV420P):
        return luma_of(header, payload), None
    from streamfuse.color_conversion import split_bgr

    return split_bgr(bgr_of(header, payload))


def _decoded(header: Header, payload: memoryview, *, colour: bool) -> npt.NDArray[np.uint8]:
    import cv2

    kind = (cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE) | cv2.IMREAD_IGNORE_ORIENTATION
    picture: Any
    try:
        picture = cv2.imdecode(np.frombuffer(payload, np.uint8), kind)
    except cv2.error:
        picture = None
    if picture is None or picture.shape[:2] != (header.height, header.width):
        raise InputError(f"frame {header.seq} of {header.stream} is not a valid JPEG: skip it")
    return cast("npt.NDArray[np.uint8]", picture)
