"""Layouts of the frames that thermal cameras send: which part of a frame is the picture, and what the rest says.

| layout | frame | picture |
|---|---|---|
| `infiray` | two pictures, one above the other, in the bytes of YUYV | the lower half: 16-bit values, little-endian |
| `lepton` | Y16 with 2 rows (160 pixels wide) or 3 rows (80) of telemetry, above or below | the rest |
| `seek` | Y16 of 208x156 or 342x260 with border columns and rows | 206x156 or 320x240 |
| `y16` | 16-bit values, even if they are called YUYV | all of it |

InfiRay P2 Pro, TOPDON TC001 and Thermal Master P2 send 256x384 and some of their kin 256x386 or 160x240: the upper
half is a picture of the camera's own gain, the lower half what the sensor measured.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamfuse.temperature import Counts


class Layout(enum.StrEnum):
    """A layout that an address may name; `AUTO` guesses by the size."""

    AUTO = "auto"
    PLAIN = "plain"
    """The whole frame is the picture."""
    INFIRAY = "infiray"
    LEPTON = "lepton"
    SEEK = "seek"
    Y16 = "y16"


class Telemetry(NamedTuple):
    """Telemetry of one frame."""

    ffc: bool | None = None
    """A flat-field correction is in progress; None: it does not say."""
    step_k: float | None = None
    """K for each count (TLinear); None: the counts are no temperatures, or it does not say."""


NO_TELEMETRY = Telemetry()


class Cut(NamedTuple):
    """The picture of a frame, and what came with it."""

    counts: Counts
    """(h, w) uint16."""
    telemetry: Telemetry


SENSORS = frozenset({(192, 256), (120, 160), (288, 384), (512, 640)})
"""(height, width) of the sensors whose cameras stack two pictures."""
EXTRA_ROWS = 2
_SEEK = {(156, 208): (0, 0, 156, 206), (260, 342): (4, 1, 240, 320)}
"""(height, width) of a frame: row, column, height and width of its picture."""
_SEEK_KIND = {(156, 208): 10, (260, 342): 2}
"""Position of the word that tells the kind of a frame; 1 is the shutter."""
_LEPTON_ROWS = {160: 2, 80: 3}
_LEPTON_SIZES = frozenset({(122, 160), (63, 80)})
_STATUS, _FPA_TEMPERATURE, _TLINEAR, _RESOLUTION = 3, 24, 208, 209
"""Words of the Lepton's telemetry: the status (low word first), the sensor's temperature in K / 100, and from the
third packet of 80 words whether the counts are linear in temperature, and in which steps."""
_FFC_BITS, _FFC_IN_PROGRESS = 0x30, 0x20


def guess(height: int, width: int, *, yuyv: bool) -> Layout:
    """Guess the layout by the size of a frame in px; `yuyv`: it is called YUYV, else it has 16 bits a pixel."""
    if yuyv:
        stacked = any((height - extra) % 2 == 0 and ((height - extra) // 2, width) in SENSORS for extra in (0, 2))
        return Layout.INFIRAY if stacked else Layout.PLAIN
    return Layout.LEPTON if (height, width) in _LEPTON_SIZES else Layout.PLAIN


def cut(frame: Counts, layout: Layout) -> Cut | None:
    """Cut the picture out of a frame (H, W) of 16 bits a pixel; None if the frame cannot have this layout."""
    height, width = frame.shape
    if layout is Layout.INFIRAY:
        return _lower_half(frame) if height >= 4 and height % 2 == 0 else None
    if layout is Layout.LEPTON:
        return _lepton(frame)
    if layout is Layout.SEEK and (height, width) in _SEEK:
        row, column, tall, wide = _SEEK[height, width]
        kind = int(frame.ravel()[_SEEK_KIND[height, width]])
        return Cut(frame[row : row + tall, column : column + wide], Telemetry(ffc=kind == 1))
    return Cut(frame, NO_TELEMETRY)


def _lower_half(frame: Counts) -> Cut:
    """Cut off the upper half; two rows more than two pictures have lie below them or between them."""
    height, width = frame.shape
    whole = next((sensor[0] for sensor in SENSORS if sensor[1] == width and 2 * sensor[0] in (height, height - 2)), 0)
    half = whole or height // 2
    if height == 2 * half:
        return Cut(frame[half:], NO_TELEMETRY)
    below, between = frame[half : 2 * half], frame[half + EXTRA_ROWS :]
    return Cut(below if _step(below[:3]) <= _step(between[-3:][::-1]) else between, NO_TELEMETRY)


def _step(rows: Counts) -> float:
    """Mean difference of the first row to the third: large where it belongs to no picture."""
    return float(np.abs(np.diff(rows[::2].astype(np.int32), axis=0)).mean())


def _lepton(frame: Counts) -> Cut | None:
    height, width = frame.shape
    rows = _LEPTON_ROWS.get(width, 0)
    if not rows or height <= rows:
        return None
    for words, picture in ((frame[-rows:], frame[:-rows]), (frame[:rows], frame[rows:])):
        found = words.ravel()
        if _is_telemetry(found):
            return Cut(picture, _read_lepton(found))
    return Cut(frame, NO_TELEMETRY)  # 160x120: no telemetry


def _is_telemetry(words: npt.NDArray[np.uint16]) -> bool:
    """Tell the telemetry from pixels: a revision of two small numbers, and a sensor between -73 and 127 degC."""
    return max(divmod(int(words[0]), 256)) < 32 and 200_00 < words[_FPA_TEMPERATURE] < 400_00


def _read_lepton(words: npt.NDArray[np.uint16]) -> Telemetry:
    linear = bool(words[_TLINEAR] == 1)
    return Telemetry(
        ffc=int(words[_STATUS]) & _FFC_BITS == _FFC_IN_PROGRESS,
        step_k=(0.01 if words[_RESOLUTION] == 1 else 0.1) if linear else None,
    )
