"""Temperature of raw counts by Planck's law, as FLIR's cameras are calibrated.

A camera's signal for a black body at T kelvin is S(T) = R1 / (R2 (exp(B / T) - F)) - O.  It receives the object's own
radiation, what the object reflects, and what air and a window add (Minkina and Dudzik, Infrared Thermography: Errors
and Uncertainties, Wiley 2009, section 2.2):

    S = ta tw ta e S(object) + ta tw ta (1 - e) S(reflected) + (1 - ta) tw ta S(air) + (1 - tw) ta S(window)
        + (1 - ta) S(air)

e: emissivity; tw: transmission of the window, in the middle of the path; ta: transmission of half the air,

    ta = X exp(-sqrt(d / 2) (a1 + b1 sqrt(w))) + (1 - X) exp(-sqrt(d / 2) (a2 + b2 sqrt(w)))

d: distance, m; w: water in the air, from humidity and temperature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamfuse.temperature import NONE, OVER, ZERO_CELSIUS_K, Counts, Scale, TemperaturePlane

FINE, COARSE = Scale(1 / 64), Scale(1 / 16)
"""Scales of the planes: 1/64 K up to 750 degC; 1/16 K up to 3800 degC."""
FINE_MAX_C = 700.0
"""Highest temperature of a camera's range for which the fine scale is used."""


@dataclass(frozen=True, slots=True)
class Planck:
    """The constants of a camera and the conditions of a measurement; raises ValueError for impossible ones."""

    r1: float
    r2: float
    b: float
    f: float
    o: float
    emissivity: float = 1.0
    """Emissivity of the object, above 0 and up to 1."""
    distance_m: float = 0.0
    reflected_k: float = 293.15
    """Apparent temperature of what the object reflects, K."""
    air_k: float = 293.15
    humidity: float = 0.5
    """Relative humidity of the air, 0..1."""
    window_k: float = 293.15
    window_transmission: float = 1.0
    air: tuple[float, float, float, float, float] = (0.006569, 0.01262, -0.002276, -0.00667, 1.9)
    """a1, a2, b1, b2 and X of the air's transmission; FLIR's are the same in every camera."""
    max_c: float = 150.0
    """End of the camera's range, degC; only for the choice of the scale."""

    def __post_init__(self) -> None:
        numbers = (self.r1, self.r2, self.b, self.f, self.o, self.reflected_k, self.air_k, self.window_k, *self.air)
        if not all(map(math.isfinite, numbers)):
            raise ValueError("the Planck constants must be finite numbers")
        if not (self.r1 > 0 and self.r2 > 0 and self.b > 0):
            raise ValueError("the Planck constants R1, R2 and B must be above 0")
        if not 0 < self.emissivity <= 1:
            raise ValueError(f"the emissivity must be above 0 and at most 1, not {self.emissivity:g}")
        if not 0 < self.window_transmission <= 1:
            raise ValueError("the transmission of the window must be above 0 and at most 1")
        if not (0 <= self.distance_m <= 1e6 and 0 <= self.humidity <= 1):
            raise ValueError("the distance must be 0 to 1,000,000 m and the humidity 0 to 1")
        if not all(100 <= kelvin <= 5000 for kelvin in (self.reflected_k, self.air_k, self.window_k)):
            raise ValueError("the temperatures of surroundings, air and window must be -173 to 4727 degC")
        if not 0.001 < self.air_transmission() <= 1.5:
            raise ValueError("the distance and the constants of the air's transmission must let radiation through")
        try:
            signals = [self.signal(kelvin) for kelvin in (self.reflected_k, self.air_k, self.window_k)]
        except (ZeroDivisionError, OverflowError):
            signals = [math.nan]
        if not all(abs(signal) < 1e12 for signal in signals):
            raise ValueError("the Planck constants must give finite signals for the surroundings, air and window")

    @property
    def scale(self) -> Scale:
        """The scale of the planes that `plane` makes."""
        return FINE if self.max_c <= FINE_MAX_C else COARSE

    def signal(self, kelvin: float) -> float:
        """Return the raw value that a black body at `kelvin` gives."""
        return self.r1 / (self.r2 * (math.exp(min(self.b / kelvin, 700)) - self.f)) - self.o

    def air_transmission(self) -> float:
        """Return ta, the transmission of half the air between object and camera."""
        t = self.air_k - ZERO_CELSIUS_K
        exponent = 1.5587 + 0.06939 * t - 0.00027816 * t**2 + 0.00000068455 * t**3
        water = math.sqrt(self.humidity * math.exp(min(exponent, 50)))
        path = math.sqrt(self.distance_m / 2)
        a1, a2, b1, b2, x = self.air
        return x * _decay(path * (a1 + b1 * water)) + (1 - x) * _decay(path * (a2 + b2 * water))

    def kelvin(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the object's temperature for raw values of any shape, K; NaN where no temperature gives the value."""
        e, tw, ta = self.emissivity, self.window_transmission, self.air_transmission()
        air = self.signal(self.air_k)
        other = ta * tw * ta * (1 - e) * self.signal(self.reflected_k)
        other += (1 - ta) * tw * ta * air + (1 - tw) * ta * self.signal(self.window_k) + (1 - ta) * air
        own = (raw - other) / (ta * tw * ta * e)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = self.b / np.log(self.r1 / (self.r2 * (own + self.o)) + self.f)
        return np.where((own + self.o > 0) & (found > 0), found, np.nan)

    def plane(self, raw: Counts) -> TemperaturePlane:
        """Return the temperatures of raw values (H, W)."""
        return TemperaturePlane(self.table()[raw], self.scale)

    def table(self) -> Counts:
        """Return the value on `scale` for each of the 65,536 raw values."""
        kelvin = self.kelvin(np.arange(65_536, dtype=np.float64))
        steps = np.clip(np.rint((kelvin - self.scale.offset) / self.scale.step), NONE, OVER)
        return np.where(np.isnan(steps), NONE, steps).astype(np.uint16)


def _decay(exponent: float) -> float:
    return math.exp(min(max(-exponent, -700), 700))
