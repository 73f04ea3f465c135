"""Radiometric images: files that hold the raw values of a thermal camera, and often the visible picture, too.

| file | raw values | degrees |
|---|---|---|
| FLIR: JPEG, FFF | FFF container in APP1 segments `FLIR`, or alone | by its Planck constants |
| Workswell: JPEG | FFF container in APP1 segments `WORK` | unknown: it has no Planck constants |
| DJI: JPEG | little-endian, in the APP3 segments (XT S: APP4) | only DJI's own library knows |
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from streamfuse.sources.decode import Pixels
from streamfuse.sources.limits import MAX_PIXELS, check_pixels
from streamfuse.sources.thermal.fff import MAGIC, Facts, Geometry, read_fff
from streamfuse.support.notes import warn_once
from streamfuse.temperature import Counts, TemperaturePlane

MOST_SEGMENTS = 1000
DJI_SIZES = ((512, 640), (1024, 1280), (256, 320), (120, 160))
"""(height, width) of the raw values of DJI's cameras."""
LEAST_DJI_BYTES = 100_000
"""Smaller segments hold no raw values; XT S: APP3 has 32 KB of calibration, and APP4 the values."""
NO_DJI = "DJI's temperatures need its Thermal SDK, which streamfuse does not use: raw values without degrees"
NO_PLANCK = "it has no Planck constants: raw values without degrees"


@dataclass(frozen=True, slots=True, eq=False)
class Radiometric:
    """The contents of a radiometric image."""

    raw: Counts
    """(h, w) uint16."""
    temperature: TemperaturePlane | None
    """(h, w); None where the file does not tell how to compute it."""
    visible: Pixels | None
    """(H, W) or (H, W, 3) BGR uint8: the picture of the camera's visible sensor, if the file holds it."""
    geometry: Geometry | None
    facts: Facts
    note: str = ""
    """The reason why there are no temperatures."""

    def describe(self, *, note: bool = True) -> str:
        """Return the facts of the file and the range of its temperatures, for people; `note`: with `note`."""
        height, width = self.raw.shape
        said = [self.facts.camera] if self.facts.camera else []
        if self.facts.field_of_view_deg is not None:
            lens = f"lens {self.facts.lens}" if self.facts.lens else "lens"
            said.append(f"{lens} of {self.facts.field_of_view_deg:.0f} deg")
        said.append(f"infrared {width}x{height}")
        if self.visible is not None:
            said.append(f"visible {self.visible.shape[1]}x{self.visible.shape[0]}")
        extremes = self.temperature.extremes() if self.temperature is not None else None
        if extremes is not None:
            said.append(f"{extremes.coldest.celsius:.1f} to {extremes.hottest.celsius:.1f} degC")
            if self.facts.emissivity is not None and self.facts.distance_m is not None:
                said.append(f"emissivity {self.facts.emissivity:.2g} at {self.facts.distance_m:.3g} m")
            if self.facts.reflected_c is not None:
                said.append(f"reflected {self.facts.reflected_c:.3g} degC")
        return ", ".join([*said, self.note] if self.note and note else said)


def read_radiometric(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Radiometric | None:
    """Read the bytes of a file; None for one that holds no raw values whose layout is known.

    Raises DamagedPicture where the raw values are damaged, InputError for more than `max_pixels` pixels; `name` is for
    their texts.
    """
    if data[:4] == MAGIC:
        return _flir(data, name, max_pixels)
    if data[:2] != b"\xff\xd8":
        return None
    found = list(_segments(memoryview(data)))
    for begins in (b"FLIR\0", b"WORK\0"):
        parts = [part for marker, part in found if marker == 0xE1 and bytes(part[:5]) == begins]
        if parts:
            parts.sort(key=lambda part: part[6] if len(part) > 8 else 0)
            body = b"".join(part[8:] for part in parts)
            return _flir(body, name, max_pixels) if body[:4] == MAGIC else None
    return _dji(found, name, max_pixels)


def _flir(data: bytes, name: str, max_pixels: int) -> Radiometric:
    picture = read_fff(data, name, max_pixels)
    temperature = picture.planck.plane(picture.raw) if picture.planck is not None else None
    return Radiometric(
        picture.raw,
        temperature,
        picture.visible,
        picture.geometry,
        picture.facts,
        "" if temperature is not None else NO_PLANCK,
    )


def _dji(found: list[tuple[int, memoryview]], name: str, max_pixels: int) -> Radiometric | None:
    exif = next((bytes(part[:2000]) for marker, part in found if marker == 0xE1 and bytes(part[:4]) == b"Exif"), b"")
    if b"DJI\0" not in exif:
        return None
    for marker in (0xE3, 0xE4):
        parts = [part for kind, part in found if kind == marker]
        length = sum(map(len, parts))
        size = next((size for size in DJI_SIZES if 2 * size[0] * size[1] == length), None)
        if size is not None:
            check_pixels(name, size[1], size[0], max_pixels)
            raw = np.frombuffer(b"".join(parts), "<u2").astype(np.uint16).reshape(size)
            return Radiometric(raw, None, None, None, Facts(f"DJI {_model(exif)}".rstrip()), NO_DJI)
        if length >= LEAST_DJI_BYTES:
            warn_once(
                f"a DJI picture holds {length:,} bytes of raw values, whose layout is not known: "
                "its picture is used instead"
            )
            return None
    return None


_MODEL, _ASCII = 0x0110, 2
"""Tag of the camera's model in EXIF, and the type of text."""


def _model(exif: bytes) -> str:
    """Return the model that an EXIF segment (TIFF 6.0 behind a head of 6 bytes) names; empty for none."""
    data = exif[6:]
    order = "<" if data[:2] == b"II" else ">"
    try:
        (begin,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, begin)
        for at in range(begin + 2, begin + 2 + 12 * min(count, 100), 12):
            tag, kind, length, offset = struct.unpack_from(f"{order}HHII", data, at)
            if (tag, kind) == (_MODEL, _ASCII):
                start = at + 8 if length <= 4 else offset
                text = data[start : start + min(length, 32)].split(b"\0")[0].decode("ascii", "replace").strip()
                return text if text.isprintable() else ""
    except struct.error:
        pass
    return ""


def _segments(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield marker and payload of the segments of a JPEG, up to its picture."""
    at = 2
    for _ in range(MOST_SEGMENTS):
        if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] == 0xDA:
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield data[at + 1], data[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)
