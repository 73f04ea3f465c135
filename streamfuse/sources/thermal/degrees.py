"""Temperatures from counts as an address names them: `temperature=kelvin/64`, `planck:...`, `lepton`.

| text | kelvin |
|---|---|
| `kelvin`, `celsius` | the value itself, as topics of floating point have it |
| `kelvin/64` | count / 64 |
| `celsius/10-100` | count / 10 - 100 + 273.15 |
| `lepton` | count * 0.01 or 0.1, as the camera's telemetry says |
| `planck:R1,R2,B,F,O` | by Planck's law; more numbers: emissivity, m, reflected and air degC, humidity |
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from streamfuse.errors import UsageError
from streamfuse.sources.thermal.layouts import Telemetry
from streamfuse.sources.thermal.planck import Planck
from streamfuse.temperature import NONE, OVER, ZERO_CELSIUS_K, Counts, Scale, TemperaturePlane

EXAMPLES = "kelvin, celsius, kelvin/64, kelvin/100, celsius/10-100, lepton or planck:R1,R2,B,F,O"
_LINEAR = re.compile(r"(kelvin|celsius)(?:/(\d{1,5}(?:\.\d{1,6})?))?([+-]\d{1,4}(?:\.\d{1,6})?)?", re.ASCII)
FINE_K, COARSE_K = 0.01, 0.1
"""Steps in which values that are no 16-bit counts are kept, K: they reach up to 655 and 6553 K."""
_LARGEST = 1e12
"""Larger values, as some drivers have for pixels without a value, are above every scale."""
FINE_TO_K = 620.0
"""Hottest pixel for which the fine step is chosen, K: it leaves some room."""

Degrees: TypeAlias = Callable[[Counts, Telemetry], TemperaturePlane | None]
"""Computes the temperatures of counts (h, w); None where the telemetry does not tell how."""


def parse_degrees(text: str) -> Degrees:
    """Parse a text as in the table above; raises UsageError."""
    if text == "lepton":
        return _lepton
    if match := _LINEAR.fullmatch(text):
        divisor, offset = float(match[2] or 1), float(match[3] or 0)
        if divisor <= 0:
            raise UsageError(f"temperature={text}: the number after / must be above 0")
        return Linear(Scale(1 / divisor, offset + (ZERO_CELSIUS_K if match[1] == "celsius" else 0)))
    if text.startswith("planck:"):
        return _ByPlanck(_parse_planck(text))
    raise UsageError(f"temperature={text} is not understood: use {EXAMPLES}")


def as_double(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Return values as float64; without the warning of NumPy for a signalling NaN, which hostile bytes may hold."""
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Linear:
    """Temperatures that are linear in the values."""

    scale: Scale

    def __call__(self, counts: Counts, telemetry: Telemetry) -> TemperaturePlane:
        return TemperaturePlane(counts, self.scale)

    def step_for(self, values: npt.NDArray[np.generic]) -> float:
        """Return the step in which values of any kind like these are kept, K."""
        numbers = as_double(values)
        kelvin = self._kelvin(numbers[np.abs(numbers) < _LARGEST])
        return FINE_K if kelvin.size == 0 or kelvin.max() < FINE_TO_K else COARSE_K

    def keep(self, values: npt.NDArray[np.generic], step_k: float) -> TemperaturePlane:
        """Return the temperatures of values (h, w) of any kind, rounded to a step; what is no number has no value."""
        steps = np.clip(np.rint(self._kelvin(values) / step_k), NONE, OVER)
        return TemperaturePlane(np.nan_to_num(steps, nan=NONE).astype(np.uint16), Scale(step_k))

    def _kelvin(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Return kelvin, limited so that nothing overflows."""
        limited = np.clip(as_double(values), -_LARGEST, _LARGEST)
        return limited * self.scale.step + self.scale.offset


def _lepton(counts: Counts, telemetry: Telemetry) -> TemperaturePlane | None:
    return None if telemetry.step_k is None else TemperaturePlane(counts, Scale(telemetry.step_k))


class _ByPlanck:
    def __init__(self, planck: Planck) -> None:
        self._scale, self._table = planck.scale, planck.table()

    def __call__(self, counts: Counts, telemetry: Telemetry) -> TemperaturePlane:
        return TemperaturePlane(np.take(self._table, counts), self._scale)


def _parse_planck(text: str) -> Planck:
    parts = text.removeprefix("planck:").split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if not 5 <= len(numbers) <= 10:
        raise UsageError(
            f"temperature={text}: give planck:R1,R2,B,F,O and, if they are known, the emissivity, the distance in m, "
            "the reflected and the air temperature in degC, and the humidity from 0 to 1"
        )
    r1, r2, b, f, o = numbers[:5]
    emissivity, distance_m, reflected_c, air_c, humidity = (
        *numbers[5:],
        *(1.0, 0.0, 20.0, 20.0, 0.5)[len(numbers) - 5 :],
    )
    try:
        return Planck(
            *(r1, r2, b, f, o),
            emissivity=emissivity,
            distance_m=distance_m,
            reflected_k=reflected_c + ZERO_CELSIUS_K,
            air_k=air_c + ZERO_CELSIUS_K,
            humidity=humidity,
        )
    except (ValueError, OverflowError) as error:
        raise UsageError(f"temperature={text}: {error}") from None
