"""Size of the picture in an image file, from its header, before anything decodes it.

Formats: PNG, JPEG, TIFF, BMP, PNM, WebP, JPEG 2000.  Memory and time are bounded by the size of the header.
"""

from __future__ import annotations

import re
import struct
from typing import TypeAlias

Buffer: TypeAlias = bytes | memoryview
Shape: TypeAlias = tuple[int, int]

MOST_STEPS = 10_000
"""Most segments, tags or boxes that are read; a real header has tens."""
_PNG = b"\x89PNG\r\n\x1a\n"
_WORD = re.compile(rb"(?:\s|#[^\n]*\n)*(\d{1,10})\s")  # `\s+` would be tried in every way that spaces can be split
_FILLING = re.compile(rb"\xff+")


def image_shape(data: Buffer) -> Shape | None:
    """Return (height, width) in pixels as stored; None for another format or an incomplete header."""
    data = memoryview(data)
    try:
        for begins, read in _KINDS:
            if bytes(data[: len(begins)]) == begins:
                return read(data)
    except (struct.error, IndexError, OverflowError):
        pass
    return None


def jpeg_shape(data: Buffer) -> Shape | None:
    """Return (height, width) of a JPEG, from its first frame header."""
    at = 2
    for _ in range(MOST_STEPS):
        if filling := _FILLING.match(data, at):  # as much as there is before a marker, which begins with its last byte
            at = filling.end() - 1
        if at + 9 > len(data) or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _png(data: memoryview) -> Shape | None:
    if bytes(data[12:16]) != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def png_complete(data: Buffer) -> bool:
    """Tell whether all chunks of a PNG are there; True for another format.

    OpenCV cannot decode one that is cut off, and takes seconds to find out where the last chunk claims gigabytes.
    """
    data = memoryview(data)
    if bytes(data[:8]) != _PNG:
        return True
    at = len(_PNG)
    for _ in range(MOST_STEPS):
        if at + 12 > len(data):
            return False
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + int(length)
        if kind == b"IEND":
            return at <= len(data)
    return True


def _bmp(data: memoryview) -> Shape | None:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(height), abs(width)  # a negative height: rows from the top


def _pnm(data: memoryview) -> Shape | None:
    head = bytes(data[2:4096])
    width = _WORD.match(head)
    height = _WORD.match(head, width.end() - 1) if width else None
    return (int(height[1]), int(width[1])) if width and height else None


def _webp(data: memoryview) -> Shape | None:
    kind = bytes(data[12:16]) if bytes(data[8:12]) == b"WEBP" else b""
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    return None


def _tiff(data: memoryview) -> Shape | None:
    """Return the size of the first picture; where a side is given twice, the larger one."""
    order = "<" if data[0] == ord("I") else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    at = struct.unpack_from(f"{order}Q", data, 8)[0] if big else struct.unpack_from(f"{order}I", data, 4)[0]
    count = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, at)[0]
    at += 8 if big else 2
    sides = {256: 0, 257: 0}  # width, height
    for _ in range(min(count, MOST_STEPS)):
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if tag in sides:
            form = {3: "H", 4: "I", 16: "Q"}.get(kind)
            if form is None:
                return None
            sides[tag] = max(sides[tag], struct.unpack_from(f"{order}{form}", data, at + (12 if big else 8))[0])
        at += 20 if big else 12
    return (sides[257], sides[256]) if all(sides.values()) else None


def _jp2(data: memoryview) -> Shape | None:
    """Read boxes up to the code stream, whose size is the one that a decoder uses."""
    at = 0
    for _ in range(MOST_STEPS):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            length, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        if kind == b"jp2c":
            return _code_stream(data[at + head :])
        if length < head:
            return None
        at += length
    return None


def _code_stream(data: memoryview) -> Shape | None:
    if bytes(data[:4]) != b"\xff\x4f\xff\x51":
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
    return bottom - top, right - left


_KINDS = (
    (_PNG, _png),
    (b"\xff\xd8", jpeg_shape),
    (b"II*\0", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0*", _tiff),
    (b"MM\0+", _tiff),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    (b"\0\0\0\x0cjP  \r\n\x87\n", _jp2),
    (b"\xff\x4f\xff\x51", _code_stream),
    *((b"P%d" % number, _pnm) for number in range(1, 7)),
)
