"""Temperatures drawn into the picture: `--overlay spots`, `area:X,Y,W,H`, `scale`.

Text is white with a black rim, without colour, so that it can be read on anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

import cv2
import numpy as np

from streamfuse.color import Chroma, Plane
from streamfuse.errors import UsageError
from streamfuse.frames import FusedFrame
from streamfuse.temperature import Spot, TemperaturePlane, in_unit
from streamfuse.thermometry.palette import Palette

_AREA = re.compile(r"area:(\d{1,5}),(\d{1,5}),(\d{1,5}),(\d{1,5})", re.ASCII)
FONT = cv2.FONT_HERSHEY_SIMPLEX
_Draw: TypeAlias = Callable[[Plane, int], None]
"""Draws in white into a plane, with a thickness."""
_WHITE = 255
_EDGE = 4
"""Pixels between a text and the edge of the picture: as wide as the rim of the letters."""


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle of the output, px."""

    x: int
    y: int
    width: int
    height: int


class Overlay:
    """Draws temperatures into the luma of frames."""

    def __init__(self, elements: tuple[str, ...], palette: Palette | None = None, unit: str = "C") -> None:
        """`elements`: spots, scale, area:X,Y,W,H.  `palette`: whose colours the scale shows.  `unit`: C or F.

        Raises UsageError.
        """
        self._unit = unit
        self._palette = palette
        self._spots, self._scale = "spots" in elements, "scale" in elements
        self._areas = [_parse_area(text) for text in elements if text not in ("spots", "scale")]

    def draw(self, frame: FusedFrame) -> tuple[Plane, Chroma | None]:
        """Return luma and chroma of a frame with the temperatures; both are copies if anything was drawn."""
        plane = frame.temperature
        extremes = plane.extremes() if plane is not None else None
        if plane is None or extremes is None:
            return frame.luma, frame.chroma
        height, width = frame.luma.shape
        size = max(height / 700, 0.35)
        labels, drawings = _Labels(size, height, width), list[_Draw]()
        if self._spots:
            for spot in (extremes.coldest, extremes.hottest):
                right = _bar_box(height, width)[2] if self._scale else width
                drawings += _spot(spot, self._shown(spot.celsius), labels, right)
        for area in self._areas:
            part = plane.values[area.y : area.y + area.height, area.x : area.x + area.width]
            found = TemperaturePlane(part, plane.scale).extremes() if part.size else None
            text = "no temperature"
            if found is not None:
                values = found.coldest.celsius, found.mean, found.hottest.celsius
                text = " / ".join(f"{in_unit(value, self._unit):.1f}" for value in values) + f" {self._unit}"
            drawings += _area(area, text, labels)
        if self._scale:
            low, high = extremes.coldest.celsius, extremes.hottest.celsius
            if self._palette is not None:
                low, high = self._palette.low_c, self._palette.high_c
            drawings += _scale_text(self._shown(low), self._shown(high), labels, height, width)
        ink = np.zeros((height, width), np.uint8)
        for draw in drawings:
            draw(ink, max(round(size * 1.6), 1))
        wide = 2 * max(round(size * 2), 2) + 1  # of one pixel is too little over bright ground
        rim = cv2.dilate(ink, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (wide, wide)))
        luma = cast(Plane, cv2.max(cv2.subtract(frame.luma, rim), ink))
        chroma = _without_colour(frame.chroma, cast(Plane, rim))
        if self._scale:
            chroma = self._bar(luma, chroma)
        return luma, chroma

    def _shown(self, celsius: float) -> str:
        return f"{in_unit(celsius, self._unit):.1f} {self._unit}"

    def _bar(self, luma: Plane, chroma: Chroma | None) -> Chroma | None:
        """Fill the bar of the scale: the colours of the palette, else grey from black to white."""
        top, bottom, left, right = _bar_box(*luma.shape)
        high, low = (255, 0) if self._palette is None or chroma is None else (220, 90)
        luma[top:bottom, left:right] = np.rint(np.linspace(high, low, bottom - top)).astype(np.uint8)[:, None]
        if chroma is None:
            return None
        sy, sx = (-(-full // side) for full, side in zip(luma.shape, chroma.u.shape, strict=True))
        rows, columns = slice(top // sy, bottom // sy), slice(left // sx, right // sx)
        u, v = chroma.u.copy(), chroma.v.copy()
        u[rows, columns] = v[rows, columns] = 128
        if self._palette is not None:
            colors = self._palette.scale_bar(rows.stop - rows.start)
            u[rows, columns], v[rows, columns] = colors.u, colors.v
        return Chroma(u, v, chroma.full_range, chroma.matrix)


def _parse_area(text: str) -> Area:
    match = _AREA.fullmatch(text)
    if match is None:
        raise UsageError(f"--overlay {text} is not known: use spots, scale or area:X,Y,WIDTH,HEIGHT in pixels")
    area = Area(*map(int, match.groups()))
    if not (area.width and area.height):
        raise UsageError(f"--overlay {text}: the area is empty")
    return area


def _spot(spot: Spot, text: str, labels: _Labels, right: int) -> list[_Draw]:
    """Draw a ring around a pixel, and its temperature beside it; `right`: end of the room for it, px."""
    center, radius = (spot.column, spot.row), max(round(9 * labels.size), 4)
    wide, tall = labels.measure(text)
    fits = spot.column + radius + wide + 8 < right
    x = spot.column + radius + 4 if fits else spot.column - radius - 4 - wide
    return [
        lambda plane, thick: _drawn(cv2.circle(plane, center, radius, _WHITE, thick, cv2.LINE_AA)),
        labels.put(text, x, spot.row + tall // 2, right),
    ]


def _area(area: Area, text: str, labels: _Labels) -> list[_Draw]:
    corners = (area.x, area.y), (area.x + area.width - 1, area.y + area.height - 1)
    _, tall = labels.measure(text)
    y = area.y - 6 if area.y > tall + 10 else area.y + area.height + tall + 6
    return [
        lambda plane, thick: _drawn(cv2.rectangle(plane, *corners, _WHITE, thick)),
        labels.put(text, area.x, y),
    ]


def _bar_box(height: int, width: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the scale's bar; even, so that chroma has the same edges."""
    top, bottom = round(height * 0.2) // 2 * 2, round(height * 0.8) // 2 * 2
    wide = max(round(width * 0.015) // 2 * 2, 4)
    right = (width - max(round(width * 0.02), 2)) // 2 * 2
    return top, bottom, right - wide, right


def _scale_text(low: str, high: str, labels: _Labels, height: int, width: int) -> list[_Draw]:
    top, bottom, left, right = _bar_box(height, width)
    drawings: list[_Draw] = [
        lambda plane, thick: _drawn(cv2.rectangle(plane, (left - 1, top - 1), (right, bottom), _WHITE, thick))
    ]
    for text, y in ((high, top - 8), (low, bottom + round(26 * labels.size) + 4)):
        drawings.append(labels.put(text, right - labels.measure(text)[0], y))
    return drawings


class _Labels:
    """Texts that stay inside the picture and off one another."""

    def __init__(self, size: float, height: int, width: int) -> None:
        self.size, self._height, self._width = size, height, width
        self._taken: list[tuple[int, int, int, int]] = []

    def measure(self, text: str) -> tuple[int, int]:
        """Return width and height of a text, px."""
        (wide, tall), _ = cv2.getTextSize(text, FONT, self.size, 1)
        return wide, tall

    def put(self, text: str, x: int, y: int, right: int | None = None) -> _Draw:
        """Write a text whose lower left corner is at (x, y), or as near above or below as there is room.

        `right`: end of the room for it, px; None: the edge of the picture.
        """
        wide, tall = self.measure(text)
        x = max(min(x, (self._width if right is None else right) - wide - _EDGE), _EDGE)
        steps = [0, *(sign * step * (tall + 2 * _EDGE) for step in (1, 2, 3) for sign in (1, -1))]
        places = [max(min(y + step, self._height - _EDGE), tall + _EDGE) for step in steps]
        y = next((place for place in places if not self._covers(x, place, wide, tall)), places[0])
        self._taken.append((x, y, wide, tall))
        return lambda plane, thick: _drawn(
            cv2.putText(plane, text, (x, y), FONT, self.size, _WHITE, thick, cv2.LINE_AA)
        )

    def _covers(self, x: int, y: int, wide: int, tall: int) -> bool:
        """Tell whether a text there would touch an earlier one."""
        return any(
            x < other_x + other_wide + _EDGE
            and other_x < x + wide + _EDGE
            and y - tall < other_y + _EDGE
            and other_y - other_tall < y + _EDGE
            for other_x, other_y, other_wide, other_tall in self._taken
        )


def _drawn(plane: object) -> None:
    """Ignore the result of a function of OpenCV that draws in place."""


def _without_colour(chroma: Chroma | None, touched: Plane) -> Chroma | None:
    """Remove the colour where something was drawn."""
    if chroma is None:
        return None
    rows, columns = chroma.u.shape
    mask = cv2.resize(touched, (columns, rows), interpolation=cv2.INTER_AREA) > 0
    u, v = (np.where(mask, np.uint8(128), plane) for plane in (chroma.u, chroma.v))
    return Chroma(u, v, chroma.full_range, chroma.matrix)
