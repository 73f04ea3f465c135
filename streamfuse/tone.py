"""From the network's raw output to luma 0..255.

A `direct` network gives luma; a `minmax` network gives any range, which the published code stretches
to 0..255 over each image by itself.  In video that is the flicker to beat: measured on five real videos,
it raises the frame-to-frame change of the mean level 6 to 66 times (0.043 to 2.86 grey levels on one),
because one bright or dark pixel sets the contrast of its frame.  `smooth` follows the range over time.
A direct network's mean level still trembles by a tenth of a grey level or so with sensor noise and with the
quality of each coded frame; there `smooth` holds the level.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane, Raw
from streamfuse.errors import UsageError

TONES = "per-frame, smooth or fixed:LO,HI"


class Tone(Protocol):
    def apply(self, raw: Raw, stamp_ns: int) -> Plane:
        """(H, W) float32 of any range to (H, W) uint8; stamps rise from call to call."""


def _stretch(raw: Raw, low: float, high: float, guard: float = 0.0) -> Plane:
    """`guard` keeps a flat picture from dividing by zero."""
    scale = 255.0 / (high - low + guard)
    levels = np.multiply(raw, np.float32(scale))
    levels += np.float32(0.5 - low * scale)  # the cast below truncates: this rounds
    np.clip(levels, 0, 255, out=levels)
    return levels.astype(np.uint8)


class Direct:
    """luma = 255 * raw, clamped."""

    def apply(self, raw: Raw, stamp_ns: int) -> Plane:
        return _stretch(raw, 0.0, 1.0)


class PerFrame:
    """Each image stretched by itself, (x - min) / (max - min + 1e-6) * 255: as published."""

    def apply(self, raw: Raw, stamp_ns: int) -> Plane:
        return _stretch(raw, float(raw.min()), float(raw.max()), 1e-6)


class Fixed:
    """`low` becomes 0 and `high` 255."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def apply(self, raw: Raw, stamp_ns: int) -> Plane:
        return _stretch(raw, self._low, self._high)


class Smooth:
    """The range followed over time by a `RangeFollower`."""

    def __init__(self) -> None:
        self._range = RangeFollower()

    def apply(self, raw: Raw, stamp_ns: int) -> Plane:
        return _stretch(raw, *self._range.update(raw, stamp_ns), 1e-6)


class Steady:
    """Luma of a direct network, its mean level held against trembling.

    The level follows the pictures' with a time constant and is never further than `REACH` from it, so that a
    true change of brightness goes through, at most that much late, and nothing is ever shifted by more.
    """

    REACH = 2.5 / 255
    """Of a picture, by which its level may be moved: more than the trembling, less than anyone sees."""
    STEADY_S = 1.0
    """Time constant, as that of `RangeFollower`."""

    def __init__(self) -> None:
        self._level: float | None = None
        self._stamp_ns = 0

    def apply(self, raw: Raw, stamp_ns: int) -> Plane:
        level = float(np.clip(raw, 0, 1).mean(dtype=np.float64))
        held = level
        if self._level is not None:
            gap_s = max(stamp_ns - self._stamp_ns, 0) / 1e9
            held = level + (self._level - level) * math.exp(-gap_s / self.STEADY_S)
            held = min(max(held, level - self.REACH), level + self.REACH)
        self._level, self._stamp_ns = held, stamp_ns
        return _stretch(raw, level - held, 1.0 + level - held)


class RangeFollower:
    """The range of a stream of pictures: steady over time, blind to a few outlier pixels.

    Each picture's range is taken between two quantiles of a regular sample of its pixels.  The
    answer follows it with a time constant, faster where it has fallen far behind, and at once where two
    pictures in a row differ so much that the scene was cut.  All distances are relative to the width of the range.
    """

    QUANTILE = 0.002
    """Cut off at each end."""
    SAMPLES = 16_384
    """At least so many pixels of a picture are looked at: every fourth of each row and column at 640x480."""
    STEADY_S = 1.0
    """Time constant; at 25 fps a picture moves the range by 4 % of its own departure: below notice."""
    BEHIND = 0.25
    HURRY_S = 0.25
    """Time constant while the range is more than BEHIND away: a departure of 100 % is under 5 % after 0.8 s."""
    CUT = 0.4
    """Two pictures in a row that differ by this much are different scenes."""

    def __init__(self) -> None:
        self._low = self._high = 0.0
        self._last: tuple[float, float] | None = None
        self._hurry = False
        self._stamp_ns = 0

    def update(self, picture: npt.NDArray[np.float32] | npt.NDArray[np.uint16], stamp_ns: int) -> tuple[float, float]:
        """(H, W) in, (low, high) out, low < high unless the picture is flat."""
        low, high = self._quantiles(picture)
        gap_ns = max(stamp_ns - self._stamp_ns, 0)
        if self._last is None or self._departure(low, high, *self._last) > self.CUT:
            self._low, self._high, self._hurry = low, high, False
        else:
            departure = self._departure(low, high, self._low, self._high)
            # Once in a hurry, stay so until nearly there: a change of pace half-way would show.
            self._hurry = departure > (self.BEHIND / 5 if self._hurry else self.BEHIND)
            follow = 1 - math.exp(-gap_ns / 1e9 / (self.HURRY_S if self._hurry else self.STEADY_S))
            self._low += follow * (low - self._low)
            self._high += follow * (high - self._high)
        self._last, self._stamp_ns = (low, high), stamp_ns
        return self._low, self._high

    def shift(self, levels: float) -> None:
        """The same scene goes on with all of its levels changed by so much: so does the range, at once."""
        self._low += levels
        self._high += levels
        if self._last is not None:
            self._last = self._last[0] + levels, self._last[1] + levels

    def _quantiles(self, picture: npt.NDArray[np.float32] | npt.NDArray[np.uint16]) -> tuple[float, float]:
        step = max(1, math.isqrt(picture.size // self.SAMPLES))
        sample = picture[::step, ::step].ravel()
        rank = int(self.QUANTILE * sample.size)
        ordered = np.partition(sample, (rank, sample.size - 1 - rank))
        return float(ordered[rank]), float(ordered[-1 - rank])

    @staticmethod
    def _departure(low: float, high: float, from_low: float, from_high: float) -> float:
        width = max(from_high - from_low, 1e-6)
        return max(abs(low - from_low), abs(high - from_high)) / width


def make_tone(name: str, output: str) -> Tone:
    """`name` is per-frame, smooth or fixed:LO,HI; of a network whose `output` is "direct", smooth holds the level.

    The others leave such a network's luma as it is.

    Raises UsageError for anything else.
    """
    tone: Tone
    if name == "per-frame":
        tone = PerFrame()
    elif name == "smooth":
        tone = Smooth()
    elif name.startswith("fixed:"):
        tone = _parse_fixed(name)
    else:
        raise UsageError(f"unknown tone {name!r}: use {TONES}")
    if output == "direct":
        return Steady() if name == "smooth" else Direct()
    return tone


def _parse_fixed(name: str) -> Fixed:
    try:
        low, high = (float(value) for value in name.removeprefix("fixed:").split(","))
    except ValueError:
        raise UsageError(f"{name!r}: give two numbers, as in fixed:-0.2,1.1") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"{name!r}: LO must be less than HI")
    return Fixed(low, high)
