"""FLIR's container of one picture, FFF: raw values, constants of the camera, the visible picture and its geometry.

A header of 64 bytes names a directory of records of 32 bytes each.  Numbers of the header are in the byte order in
which its version is small; most records begin with a small number that shows their own byte order.  ExifTool's
documentation (FLIR tags) names the fields.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.errors import InputError
from streamfuse.sources.decode import Pixels, decode_grey, decode_image
from streamfuse.sources.limits import MAX_PIXELS, check_pixels
from streamfuse.sources.thermal.planck import Planck
from streamfuse.temperature import ZERO_CELSIUS_K, Counts

Buffer: TypeAlias = bytes | memoryview

MAGIC = b"FFF\0"
HEADER_BYTES, ENTRY_BYTES = 64, 32
MOST_RECORDS = 256
"""Most records of a directory; real ones have up to 14, of which most are empty."""
RAW, EMBEDDED, CAMERA, GEOMETRY = 0x01, 0x0E, 0x20, 0x2A
STAMP_AT, RATE_AT, CAMERA_BYTES = 0x384, 0x464, 0x466
"""Offsets of the time and the frame rate in a camera record, and its bytes up to there."""
_PIXELS_AT = 32
"""Offset of the picture in the records that hold one, after its size."""


class DamagedPicture(InputError):
    """The raw values of one file cannot be read."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The position of the infrared in the visible picture, as the camera stored it."""

    ratio: float
    """Width of the whole visible picture over the width of its part that infrared covers."""
    x: int
    """Centre of that part, from the centre of the visible picture, px of the visible picture."""
    y: int

    def homography(self, ir: tuple[int, int], vis: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Return the (3, 3) map from infrared to visible pixels for pictures of these sizes, (height, width) px."""
        scale = vis[1] / self.ratio / ir[1]
        x = (vis[1] - 1) / 2 + self.x - scale * (ir[1] - 1) / 2
        y = (vis[0] - 1) / 2 + self.y - scale * (ir[0] - 1) / 2
        return np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]])


@dataclass(frozen=True, slots=True)
class Facts:
    """Camera and measurement as the file states them, without serial numbers and positions."""

    camera: str = ""
    emissivity: float | None = None
    distance_m: float | None = None
    reflected_c: float | None = None
    """Temperature of the surroundings that the object reflects, degC."""
    lens: str = ""
    field_of_view_deg: float | None = None
    """Horizontal angle of view of the lens, degrees."""
    stamp_ns: int | None = None
    """Time of the picture since 1970, ns."""


@dataclass(frozen=True, slots=True, eq=False)
class FlirPicture:
    """The contents of one FFF container."""

    raw: Counts
    """(h, w) uint16."""
    planck: Planck | None
    """None where the file has no constants, or impossible ones."""
    visible: Pixels | None
    """(H, W) or (H, W, 3) BGR uint8."""
    geometry: Geometry | None
    facts: Facts


def read_fff(data: Buffer, name: str, max_pixels: int = MAX_PIXELS) -> FlirPicture:
    """Read a container.

    Raises DamagedPicture, which names the record, for one without readable raw values, and InputError for more than
    `max_pixels` pixels.
    """
    records = read_directory(data, name)
    data = memoryview(data)
    found = {kind: data[begin : begin + length] for kind, (begin, length) in records.items()}
    if RAW not in found:
        raise DamagedPicture(f"{name} has no raw values (record 0x01): save the picture as a radiometric one")
    camera = found.get(CAMERA)
    try:
        facts, planck, zoom = _camera(camera) if camera is not None else (Facts(), None, 1.0)
        raw = _raw(found[RAW], name, max_pixels)
        visible = _visible(found[EMBEDDED], name, max_pixels) if EMBEDDED in found else None
        geometry = _geometry(found[GEOMETRY], zoom) if GEOMETRY in found else None
    except struct.error:
        raise DamagedPicture(f"{name}: a record of the FLIR data ends too early: copy the file again") from None
    return FlirPicture(raw, planck, visible, geometry, facts)


def read_directory(data: Buffer, name: str) -> Mapping[int, tuple[int, int]]:
    """Return offset and length of the first record of each kind.

    Raises DamagedPicture for data that are no container, or in which a record is cut off.
    """
    order, begin, count = read_header(data, name)
    found = read_entries(data[begin : begin + count * ENTRY_BYTES], order, count, name)
    for kind, (offset, length) in found.items():
        if offset + length > len(data):
            raise DamagedPicture(f"{name}: record 0x{kind:02x} of the FLIR data is cut off: copy the file again")
    return found


def read_header(data: Buffer, name: str) -> tuple[str, int, int]:
    """Return the byte order, the offset of the directory and its number of entries; raises DamagedPicture."""
    if len(data) < HEADER_BYTES or bytes(data[:4]) != MAGIC:
        raise DamagedPicture(f"{name} has no FLIR header")
    order = _order(data, 20, 4, 1000)
    begin, count = struct.unpack_from(f"{order}II", data, 24)
    if not 0 < count <= MOST_RECORDS:
        raise DamagedPicture(f"{name}: the directory of the FLIR data claims {count} records")
    return order, begin, count


def read_entries(directory: Buffer, order: str, count: int, name: str) -> dict[int, tuple[int, int]]:
    """Return offset and length of the first record of each kind, by the directory alone; raises DamagedPicture."""
    if len(directory) < count * ENTRY_BYTES:
        raise DamagedPicture(f"{name}: the directory of the FLIR data is cut off: copy the file again")
    found: dict[int, tuple[int, int]] = {}
    for at in range(0, count * ENTRY_BYTES, ENTRY_BYTES):
        kind = struct.unpack_from(f"{order}H", directory, at)[0]
        offset, length = struct.unpack_from(f"{order}II", directory, at + 12)
        if kind and length and kind not in found:
            found[kind] = offset, length
    return found


def _order(data: Buffer, at: int, size: int, limit: int) -> str:
    """Return the byte order, < or >, in which the number at `at` is below `limit`."""
    return "<" if int.from_bytes(data[at : at + size], "little") < limit else ">"


def _size(record: memoryview) -> tuple[int, int]:
    """(height, width) of the picture in a record."""
    width, height = struct.unpack_from(f"{_order(record, 0, 2, 256)}HH", record, 2)
    return height, width


def _raw(record: memoryview, name: str, max_pixels: int) -> Counts:
    """Decode the raw values: a PNG, JPEG-LS or the bytes.

    Bytes are in the order of the record; PNG and JPEG-LS often hold them in the other order than they should.
    """
    height, width = _size(record)
    check_pixels(name, width, height, max_pixels)
    if min(height, width) == 0:
        raise DamagedPicture(f"{name}: the raw values of the FLIR data have no pixels")
    body = record[_PIXELS_AT:]
    if bytes(body[:4]) == b"\x89PNG":
        decoded = decode_image(bytes(body), name, max_pixels)
    elif bytes(body[:2]) == b"\xff\xd8":
        decoded = decode_grey(bytes(body), "jpegls", max_pixels)
    else:
        if len(body) < 2 * height * width:
            raise DamagedPicture(f"{name}: the raw values of the FLIR data are cut off: copy the file again")
        values = np.frombuffer(body, f"{_order(record, 0, 2, 256)}u2", height * width)
        return values.astype(np.uint16).reshape(height, width)
    if decoded is None or decoded.ndim != 2 or decoded.dtype != np.uint16:
        raise DamagedPicture(f"{name}: the raw values of the FLIR data cannot be decoded: copy the file again")
    return _in_order(cast(Counts, decoded))


def _in_order(raw: Counts) -> Counts:
    """Return the values in the byte order in which neighbours are more alike."""
    swapped = raw.byteswap()
    steps = [float(np.abs(np.diff(values.astype(np.int32))).mean()) for values in (raw, swapped)]
    return raw if steps[0] <= steps[1] else swapped


def _camera(record: memoryview) -> tuple[Facts, Planck | None, float]:
    """Read the camera's facts, its constants, and the digital zoom of the picture that it showed."""
    order = _order(record, 0, 2, 256)

    def numbers(at: int, count: int, kind: str = "f") -> tuple[float, ...]:
        return cast("tuple[float, ...]", struct.unpack_from(f"{order}{count}{kind}", record, at))

    emissivity, distance_m, reflected_k, air_k, window_k, window_transmission = numbers(0x20, 6)
    (humidity,) = numbers(0x3C, 1)
    r1, b, f = numbers(0x58, 3)
    a1, a2, b1, b2, x = numbers(0x70, 5)
    (max_k,) = numbers(0x90, 1)
    (o,) = numbers(0x308, 1, "i")
    (r2,) = numbers(0x30C, 1)
    try:
        planck = Planck(
            *(r1, r2, b, f, o),
            emissivity=emissivity,
            distance_m=distance_m,
            reflected_k=reflected_k,
            air_k=air_k,
            humidity=humidity / 100 if humidity > 1 else humidity,  # older cameras store per cent
            window_k=window_k if window_transmission < 1 else 293.15,
            window_transmission=window_transmission,
            air=(a1, a2, b1, b2, x),
            max_c=max_k - 273.15,
        )
    except ValueError:
        planck = None
    (zoom,) = numbers(0x36C, 1)
    (angle_deg,) = numbers(0x1B4, 1)
    facts = Facts(
        camera=_text(record[0xD4:0xF4]),
        emissivity=emissivity if planck is not None else None,
        distance_m=distance_m if planck is not None else None,
        reflected_c=reflected_k - ZERO_CELSIUS_K if planck is not None else None,
        lens=_text(record[0x170:0x190]),
        field_of_view_deg=angle_deg if 1 < angle_deg < 180 else None,
        stamp_ns=stamp_of(record),
    )
    return facts, planck, zoom if 1 <= zoom <= 16 else 1.0


def stamp_of(record: Buffer) -> int | None:
    """Return the time of the picture in a camera record, ns since 1970; None where it is not set."""
    order = _order(record, 0, 2, 256)
    seconds, fraction = struct.unpack_from(f"{order}II", record, STAMP_AT)
    return (seconds * 1000 + (fraction & 0xFFFF) % 1000) * 1_000_000 if seconds else None


def rate_of(record: Buffer) -> int:
    """Return the frame rate in a camera record, Hz; 0 where it is not set."""
    order = _order(record, 0, 2, 256)
    return int(struct.unpack_from(f"{order}H", record, RATE_AT)[0])


def _text(field: memoryview) -> str:
    """Return a text field; empty where it holds none, as after somebody has removed it (`*`)."""
    text = bytes(field).split(b"\0")[0].decode("utf-8", "replace").strip()
    return text if text.isprintable() and any(map(str.isalnum, text)) else ""


def _visible(record: memoryview, name: str, max_pixels: int) -> Pixels | None:
    """Decode the embedded visible picture; None where it is damaged: then the raw values are still of use."""
    body = bytes(record[_PIXELS_AT:])
    decoded = decode_image(body, f"{name}, visible picture", max_pixels)
    if decoded is None or decoded.dtype != np.uint8:
        return None
    if decoded.ndim == 3 and body[:4] == b"\x89PNG":  # its three channels are not R, G and B, but Y, Cb and Cr
        y_cr_cb = cast("npt.NDArray[np.uint8]", decoded[:, :, (2, 0, 1)])
        return cast("npt.NDArray[np.uint8]", cv2.cvtColor(np.ascontiguousarray(y_cr_cb), cv2.COLOR_YCrCb2BGR))
    return decoded


def _geometry(record: memoryview, zoom: float) -> Geometry | None:
    """Read the geometry (Real2IR, OffsetX, OffsetY); None where it is not set.

    Real2IR is of the picture as it was shown, zoomed by `zoom`; the raw values are never zoomed.
    """
    order = next((o for o in "<>" if 0.1 < struct.unpack_from(f"{o}f", record)[0] < 100), None)
    if order is None:
        return None
    ratio, x, y = struct.unpack_from(f"{order}fhh", record)
    return Geometry(ratio / zoom, x, y)
