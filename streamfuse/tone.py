"""Tones: the mapping from the network's raw output to luma 0..255.

A `direct` network gives luma.  A `minmax` network gives values of any range, which the published code stretches to
0..255 for each image separately.  In video that flickers: measured on five real videos, it raises the frame-to-frame
change of the mean level 6 to 66 times (0.043 to 2.86 grey levels on one), because one bright or dark pixel sets the
contrast of its frame.  `smooth` follows the range over time.  The mean level of a direct network still flickers by
about a tenth of a grey level with sensor noise and with the quality of each coded frame; there `smooth` stabilises the
brightness.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane, Raw
from streamfuse.errors import UsageError

TONES = "per-frame, smooth or fixed:LO,HI"


class RawPicture(Protocol):
    """Raw output for one pair, (H, W) float32 of any range, in the memory of the host or of a device."""

    def numpy(self) -> Raw:
        """Return the values in the memory of the host; they belong to the caller."""

    def extremes(self) -> tuple[float, float]:
        """Return the least and the largest value."""

    def level(self) -> float:
        """Return the mean of the values, each limited to 0..1."""

    def quantiles(self, share: float, samples: int) -> tuple[float, float]:
        """Return the values below and above which `share` of the pixels lie.

        They are those of a regular sample of at least `samples` pixels, or of all if there are fewer.
        """

    def stretch(self, low: float, high: float, guard: float = 0.0) -> Plane:
        """Map `low` to 0 and `high` to 255, limited and rounded: (H, W) uint8 in new memory of the host.

        `guard`: added to the range, so that a flat picture does not divide by zero.
        """


def stretching(low: float, high: float, guard: float) -> tuple[np.float32, np.float32]:
    """Return the factor and the summand of `RawPicture.stretch`; a cast that truncates then rounds."""
    scale = 255.0 / (high - low + guard)
    return np.float32(scale), np.float32(0.5 - low * scale)


def sample_step(size: int, samples: int) -> int:
    """Return the step along rows and columns at which at least `samples` of `size` pixels are taken."""
    return max(1, math.isqrt(size // samples))


def quantile_rank(share: float, size: int) -> int:
    """Return the index of the lower quantile in `size` values in order; that of the upper one counts from the end."""
    return int(share * size)


class HostPicture:
    """A `RawPicture` in the memory of the host; integers are allowed where it is not stretched."""

    def __init__(self, raw: Raw | npt.NDArray[np.uint16]) -> None:
        self._raw = raw

    def numpy(self) -> Raw:
        return np.asarray(self._raw, np.float32)

    def finite(self) -> bool:
        """Return True if all values are finite."""
        return bool(np.isfinite(self._raw).all())

    def extremes(self) -> tuple[float, float]:
        return float(self._raw.min()), float(self._raw.max())

    def level(self) -> float:
        return float(np.clip(self._raw, 0, 1).mean(dtype=np.float64))

    def quantiles(self, share: float, samples: int) -> tuple[float, float]:
        step = sample_step(self._raw.size, samples)
        sample = self._raw[::step, ::step].ravel()
        rank = quantile_rank(share, sample.size)
        ordered = np.partition(sample, (rank, sample.size - 1 - rank))
        return float(ordered[rank]), float(ordered[-1 - rank])

    def stretch(self, low: float, high: float, guard: float = 0.0) -> Plane:
        scale, shift = stretching(low, high, guard)
        levels = np.multiply(self._raw, scale)
        levels += shift
        np.clip(levels, 0, 255, out=levels)
        return levels.astype(np.uint8)


class Tone(ABC):
    """A mapping from raw output to luma, which may depend on the frames before."""

    @abstractmethod
    def render(self, picture: RawPicture, stamp_ns: int) -> Plane:
        """Map a picture to luma, (H, W) uint8.  `stamp_ns`: time of the frame; rises from call to call."""

    def apply(self, raw: Raw, stamp_ns: int) -> Plane:
        """Map a picture in the host's memory, (H, W) float32, as `render` does."""
        return self.render(HostPicture(raw), stamp_ns)


class Direct(Tone):
    """luma = 255 * raw, clamped."""

    def render(self, picture: RawPicture, stamp_ns: int) -> Plane:
        return picture.stretch(0.0, 1.0)


class PerFrame(Tone):
    """Each image stretched separately, (x - min) / (max - min + 1e-6) * 255, as published."""

    def render(self, picture: RawPicture, stamp_ns: int) -> Plane:
        return picture.stretch(*picture.extremes(), 1e-6)


class Fixed(Tone):
    """A fixed range: `low` becomes 0 and `high` 255, on any network."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def render(self, picture: RawPicture, stamp_ns: int) -> Plane:
        return picture.stretch(self._low, self._high)


class Smooth(Tone):
    """The range that a `RangeFollower` finds over time."""

    def __init__(self) -> None:
        self._range = RangeFollower()

    def render(self, picture: RawPicture, stamp_ns: int) -> Plane:
        return picture.stretch(*self._range.update(picture, stamp_ns), 1e-6)


class Stabilised(Tone):
    """Luma of a direct network with stabilised brightness: its mean level is smoothed to remove flicker.

    The smoothed level follows that of the pictures with a time constant but never differs from it by more than
    `REACH`.  So no picture is shifted by more than that, and larger changes of brightness pass at once.
    """

    REACH = 2.5 / 255
    """Largest shift of a picture's level: more than the flicker, less than is visible."""
    STEADY_S = 1.0
    """Time constant, the same as in `RangeFollower`."""

    def __init__(self) -> None:
        self._level: float | None = None
        self._stamp_ns = 0

    def render(self, picture: RawPicture, stamp_ns: int) -> Plane:
        level = picture.level()
        smoothed = level
        if self._level is not None:
            gap_s = max(stamp_ns - self._stamp_ns, 0) / 1e9
            smoothed = level + (self._level - level) * math.exp(-gap_s / self.STEADY_S)
            smoothed = min(max(smoothed, level - self.REACH), level + self.REACH)
        self._level, self._stamp_ns = smoothed, stamp_ns
        return picture.stretch(level - smoothed, 1.0 + level - smoothed)


class RangeFollower:
    """The range of a stream of pictures: smooth over time, robust against a few outlier pixels.

    The range of each picture is taken between two quantiles of a regular sample of its pixels.  The result follows it
    with a time constant: faster if it is far behind, and at once if two successive pictures differ so much that the
    scene was cut.  All distances are relative to the width of the range.
    """

    QUANTILE = 0.002
    """Share of the pixels that is cut off at each end."""
    SAMPLES = 16_384
    """Least number of pixels in the sample: every fourth of each row and column at 640x480."""
    STEADY_S = 1.0
    """Time constant; at 25 fps one picture moves the range by 4 % of its difference, which is not visible."""
    BEHIND = 0.25
    HURRY_S = 0.25
    """Time constant while the range differs by more than BEHIND: a difference of 100 % is under 5 % after 0.8 s."""
    CUT = 0.4
    """Two successive pictures that differ by this much are different scenes."""

    def __init__(self) -> None:
        self._low = self._high = 0.0
        self._last: tuple[float, float] | None = None
        self._hurry = False
        self._stamp_ns = 0

    def update(self, picture: RawPicture, stamp_ns: int) -> tuple[float, float]:
        """Return (low, high) after a picture; low < high unless the picture is flat."""
        low, high = picture.quantiles(self.QUANTILE, self.SAMPLES)
        gap_ns = max(stamp_ns - self._stamp_ns, 0)
        if self._last is None or self._departure(low, high, *self._last) > self.CUT:
            self._low, self._high, self._hurry = low, high, False
        else:
            departure = self._departure(low, high, self._low, self._high)
            # Keep the fast time constant until the range is nearly reached: a change half-way would be visible.
            self._hurry = departure > (self.BEHIND / 5 if self._hurry else self.BEHIND)
            follow = 1 - math.exp(-gap_ns / 1e9 / (self.HURRY_S if self._hurry else self.STEADY_S))
            self._low += follow * (low - self._low)
            self._high += follow * (high - self._high)
        self._last, self._stamp_ns = (low, high), stamp_ns
        return self._low, self._high

    def shift(self, levels: float) -> None:
        """Shift the range immediately by `levels`, because all levels of the scene have shifted by that."""
        self._low += levels
        self._high += levels
        if self._last is not None:
            self._last = self._last[0] + levels, self._last[1] + levels

    @staticmethod
    def _departure(low: float, high: float, from_low: float, from_high: float) -> float:
        width = max(from_high - from_low, 1e-6)
        return max(abs(low - from_low), abs(high - from_high)) / width


def make_tone(name: str, output: str) -> Tone:
    """Make a tone.  `name`: per-frame, smooth or fixed:LO,HI.  `output`: that of the network, "direct" or "minmax".

    For a direct network, per-frame keeps its luma, smooth stabilises its brightness, and fixed:LO,HI stretches its
    luma, of which black is 0 and white is 1.

    Raises UsageError for another name.
    """
    direct = output == "direct"
    if name == "per-frame":
        return Direct() if direct else PerFrame()
    if name == "smooth":
        return Stabilised() if direct else Smooth()
    if name.startswith("fixed:"):
        return _parse_fixed(name)
    raise UsageError(f"unknown tone {name!r}: use {TONES}")


def _parse_fixed(name: str) -> Fixed:
    try:
        low, high = (float(value) for value in name.removeprefix("fixed:").split(","))
    except ValueError:
        raise UsageError(f"{name!r}: give two numbers, as in fixed:-0.2,1.1") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"{name!r}: LO must be less than HI")
    return Fixed(low, high)
