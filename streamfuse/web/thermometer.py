"""Temperatures that a browser asks for: the extremes of a picture, of the pixel under the pointer, of an area.

Positions are fractions of the picture's width and height, from the top left, so that they do not depend on the size at
which a browser shows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from streamfuse.temperature import NONE, Extremes, Spot, TemperaturePlane


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where a browser measures."""

    point: tuple[float, float] | None = None
    """(x, y), 0..1."""
    area: tuple[float, float, float, float] | None = None
    """Left, top, right and bottom, 0..1."""


def parse_wanted(message: object) -> Wanted:
    """Parse what a browser sent; whatever is malformed counts as not wanted."""
    if not isinstance(message, dict):
        return Wanted()
    point, area = _fractions(message.get("point"), 2), _fractions(message.get("area"), 4)
    if area is not None and not (area[0] < area[2] and area[1] < area[3]):
        area = None
    return Wanted(
        None if point is None else (point[0], point[1]), None if area is None else (area[0], area[1], area[2], area[3])
    )


def _fractions(values: object, count: int) -> list[float] | None:
    if not isinstance(values, list) or len(values) != count:
        return None
    if not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
        return None
    return [float(value) for value in values]


def measure(plane: TemperaturePlane, extremes: Extremes | None, wanted: Wanted) -> dict[str, Any]:
    """Return the temperatures of a picture for JSON, degC; None where there is no value.

    `extremes`: those of the whole plane.
    """
    height, width = plane.values.shape
    found: dict[str, Any] = {"point": None, "area": None, **_described(extremes, height, width)}
    if wanted.point is not None:
        row, column = (_index(side, size) for side, size in zip(wanted.point[::-1], (height, width), strict=True))
        value = int(plane.values[row, column])
        found["point"] = None if value == NONE else round(plane.scale.celsius(value), 2)
    if wanted.area is not None:
        left, right = (_index(side, width) for side in wanted.area[::2])
        top, bottom = (_index(side, height) for side in wanted.area[1::2])
        part = TemperaturePlane(plane.values[top : bottom + 1, left : right + 1], plane.scale)
        found["area"] = _range(part.extremes())
    return found


def _index(fraction: float, size: int) -> int:
    return min(math.floor(fraction * size), size - 1)


def _range(extremes: Extremes | None) -> dict[str, float] | None:
    if extremes is None:
        return None
    return {
        "min": round(extremes.coldest.celsius, 2),
        "mean": round(extremes.mean, 2),
        "max": round(extremes.hottest.celsius, 2),
    }


def _described(extremes: Extremes | None, height: int, width: int) -> dict[str, Any]:
    if extremes is None:
        return dict.fromkeys(("min", "mean", "max", "min_at", "max_at"))

    def place(spot: Spot) -> list[float]:
        return [round((spot.column + 0.5) / width, 5), round((spot.row + 0.5) / height, 5)]

    return {
        **(_range(extremes) or {}),
        "min_at": place(extremes.coldest),
        "max_at": place(extremes.hottest),
    }
