"""Temperatures of an infrared picture: one number for each pixel, and the scale that makes kelvin of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Counts: TypeAlias = npt.NDArray[np.uint16]
"""(H, W) uint16 as a camera delivers them, or in a unit of a `Scale`."""
Celsius: TypeAlias = npt.NDArray[np.float32]
"""(H, W) float32, degC; NaN where there is no value."""

ZERO_CELSIUS_K = 273.15
NONE, OVER = 0, 65_535
"""The ends of every scale: 0 where a pixel has no value (nothing was measured there, or it is colder than the scale
reaches), 65,535 where it is hotter than the scale reaches.  Neither may be mixed with its neighbours."""


_NUMBER = re.compile(r"([+-]?\d{1,5}(?:\.\d{1,4})?)\s?(C|F|K)", re.ASCII | re.IGNORECASE)


def parse_celsius(text: str) -> float:
    """Return the degC of a text such as 30C, -4F or 300K; raises ValueError, which says what to write."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no temperature: write it as in 30C, 86F or 303K")
    value = float(match[1])
    return {"C": value, "F": (value - 32) / 1.8, "K": value - ZERO_CELSIUS_K}[match[2].upper()]


UNITS = ("C", "F")
"""Units in which temperatures may be shown."""


def in_unit(celsius: float, unit: str) -> float:
    """Return degC in one of UNITS."""
    return celsius * 1.8 + 32 if unit == "F" else celsius


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear scale: kelvin = value * step + offset."""

    step: float
    """K for each step of the value, above 0."""
    offset: float = 0.0
    """K at the value 0."""

    def kelvin(self, value: float) -> float:
        return value * self.step + self.offset

    def celsius(self, value: float) -> float:
        return self.kelvin(value) - ZERO_CELSIUS_K

    def value(self, celsius: float) -> int:
        """The value nearest to a temperature in degC, limited to 1..65,534."""
        return min(max(round((celsius + ZERO_CELSIUS_K - self.offset) / self.step), NONE + 1), OVER - 1)


class Spot(NamedTuple):
    """A pixel and its temperature."""

    row: int
    column: int
    celsius: float


class Extremes(NamedTuple):
    """The coldest and the hottest pixel, and the mean of all, degC."""

    coldest: Spot
    mean: float
    hottest: Spot


@dataclass(frozen=True, slots=True, repr=False)
class TemperaturePlane:
    """The temperature of every pixel of a picture."""

    values: Counts
    """(H, W) uint16; `NONE` and `OVER` are the ends of the scale."""
    scale: Scale

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.uint16:
            raise ValueError(f"TemperaturePlane.values must be (H, W) uint16, got {self.values.shape}")

    def __repr__(self) -> str:
        height, width = self.values.shape
        return f"TemperaturePlane({width}x{height}, {self.scale})"

    def celsius(self) -> Celsius:
        """Return (H, W) float32 degC: NaN where there is no value, infinity where it is above the scale."""
        found: Celsius = self.values * np.float32(self.scale.step)
        found += np.float32(self.scale.offset - ZERO_CELSIUS_K)
        found[self.values == NONE] = np.nan
        found[self.values == OVER] = np.inf
        return found

    def extremes(self) -> Extremes | None:
        """Return the coldest and the hottest pixel and the mean; None where no pixel has a value.

        Pixels above the scale count as the hottest, with the temperature at its end.
        """
        height, width = self.values.shape
        known = self.values != NONE
        count = int(np.count_nonzero(known))
        if count == 0 or width == 0 or height == 0:
            return None
        hottest = divmod(int(self.values.argmax()), width)
        coldest = divmod(int(np.where(known, self.values, OVER).argmin()), width)
        mean = float(self.values.sum(dtype=np.int64)) / count  # without a value is 0
        return Extremes(self._spot(*coldest), self.scale.celsius(mean), self._spot(*hottest))

    def _spot(self, row: int, column: int) -> Spot:
        return Spot(row, column, self.scale.celsius(int(self.values[row, column])))
