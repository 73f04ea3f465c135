"""Automatic gain control (AGC): grey of more than 8 bits to 8 bits, without flicker.

Thermal cameras use a few hundred of 65,536 levels; a fixed shift would give a black picture.  Every few minutes they
close a shutter in front of the sensor for 0.3 to 1 s, the flat-field correction (FFC): the picture freezes, or shows
the shutter.  A gain that followed it would amplify noise.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from typing import Protocol, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane
from streamfuse.errors import UsageError
from streamfuse.temperature import ZERO_CELSIUS_K, Scale, parse_celsius
from streamfuse.tone import HostPicture, RangeFollower, sample_step

log = logging.getLogger("streamfuse")

Grey: TypeAlias = npt.NDArray[np.uint16]
"""(H, W) uint16, of any part of the 65,536 levels."""

AGCS = ("percentile", "plateau")
SPAN = "temperature:"
"""Begin of the name of a gain control with a fixed span of temperatures."""
SHUTTER = "shutter closed"
FROZEN = "picture frozen"


class Agc(Protocol):
    def to_luma(self, grey: Grey, stamp_ns: int) -> Plane:
        """(H, W) uint16 to (H, W) uint8, full range; stamps rise from call to call."""

    def shift(self, levels: int) -> None:
        """Adapt to a change of all levels of the same scene by `levels`, so that it looks as before."""


class Percentile:
    """All levels between two percentiles, in proportion: the range is a `RangeFollower`'s."""

    def __init__(self) -> None:
        self._range = RangeFollower()

    def to_luma(self, grey: Grey, stamp_ns: int) -> Plane:
        low, high = self._range.update(HostPicture(grey), stamp_ns)
        scale = 255.0 / max(high - low, 1.0)
        levels = (grey.astype(np.float32) - np.float32(low)) * np.float32(scale)
        luma: Plane = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
        return luma

    def shift(self, levels: int) -> None:
        self._range.shift(levels)


class Plateau:
    """Plateau equalisation: levels that are common get more of the 256, but none more than a plateau allows.

    With h(k) the pixels of level k and T the plateau, luma(k) = 255 F(k) / F(max), F(k) = sum over j <= k of
    min(h(j), T) (Vickers, Plateau equalization algorithm for real-time display of high-quality infrared imagery,
    Optical Engineering 35(7), 1996).  So neither a small hot spot nor a large plain sky takes the contrast
    of everything else.  h follows the pictures' histograms with a time constant, and at once at a cut of the scene.
    """

    LEVEL = 0.5
    """T, relative to the share of each level if all levels were equally common.  On real pictures, 1 and more lose
    the details of warm objects and show the noise of a plain sky."""
    RARE = 1e-6
    """Levels with a smaller share of the picture are ignored: a third of a pixel at 640x480."""
    STEADY_S = 1.0
    """Time constant, as that of `RangeFollower`."""
    CUT = 0.5
    """Overlap of the luma histograms of two consecutive pictures below which they are different scenes."""

    def __init__(self) -> None:
        self._histogram: npt.NDArray[np.float32] | None = None
        self._curve: npt.NDArray[np.uint8] = np.zeros(65_536, np.uint8)
        self._last: npt.NDArray[np.float64] | None = None
        self._stamp_ns = 0

    def to_luma(self, grey: Grey, stamp_ns: int) -> Plane:
        now = np.bincount(grey.ravel(), minlength=65_536).astype(np.float32) / np.float32(grey.size)
        if self._histogram is None or self._is_cut(now):
            self._histogram = now
        else:
            gap_s = max(stamp_ns - self._stamp_ns, 0) / 1e9
            self._histogram += np.float32(1 - math.exp(-gap_s / self.STEADY_S)) * (now - self._histogram)
        self._stamp_ns = stamp_ns
        self._curve = self._equalise(self._histogram)
        self._last = _shown(self._curve, now)
        luma: Plane = self._curve[grey]
        return luma

    def shift(self, levels: int) -> None:
        if self._histogram is not None:
            self._histogram, self._curve = np.roll(self._histogram, levels), np.roll(self._curve, levels)

    def _is_cut(self, now: npt.NDArray[np.float32]) -> bool:
        """Compare both pictures under the current curve, so that the result does not depend on the sensor's levels."""
        assert self._last is not None
        return float(np.minimum(_shown(self._curve, now), self._last).sum()) < self.CUT

    def _equalise(self, histogram: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Return the curve from level to luma, rising."""
        share = histogram.astype(np.float64)
        levels = np.count_nonzero(share > self.RARE)
        clipped = np.minimum(share, self.LEVEL / levels)
        rising = np.cumsum(clipped) - clipped / 2
        cut = RangeFollower.QUANTILE
        first, last = np.searchsorted(rising, np.array((cut, 1 - cut)) * rising[-1])
        low, high = rising[first], rising[min(last, len(rising) - 1)]
        curve = (rising - low) / max(high - low, 1e-9) * 255 if high > low else np.full(len(rising), 127.5)
        return np.asarray(np.clip(np.rint(curve), 0, 255), np.uint8)


def _shown(curve: npt.NDArray[np.uint8], histogram: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the share of the picture in each of 32 bins of luma, (32,)."""
    return np.bincount(curve >> 3, histogram, minlength=32).astype(np.float64)


class TemperatureSpan:
    """A fixed span of temperatures: the lower end is black, the upper one white, whatever the picture shows."""

    def __init__(self, low_c: float, high_c: float) -> None:
        """`low_c` and `high_c`: the ends, degC; raises UsageError unless they rise."""
        if not low_c < high_c:
            raise UsageError(f"the span of temperatures must rise, not go from {low_c:g} to {high_c:g} degC")
        self._low_c, self._high_c = low_c, high_c
        self._scale: Scale | None = None
        self._curve: Plane = np.zeros(65_536, np.uint8)

    def use(self, scale: Scale) -> None:
        """Take the following pictures as values of this scale."""
        if scale != self._scale:
            self._scale = scale
            celsius = np.arange(65_536) * scale.step + scale.offset - ZERO_CELSIUS_K
            share = (celsius - self._low_c) / (self._high_c - self._low_c)
            self._curve = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)

    def to_luma(self, grey: Grey, stamp_ns: int) -> Plane:
        luma: Plane = self._curve[grey]
        return luma

    def shift(self, levels: int) -> None:  # a camera that corrects its levels delivers better temperatures
        pass


def _parse_span(text: str) -> TemperatureSpan:
    low, found, high = text.partition("..")
    try:
        if not found:
            raise ValueError("its ends are missing: write it as in temperature:10C..40C")
        return TemperatureSpan(parse_celsius(low), parse_celsius(high))
    except ValueError as error:
        raise UsageError(f"gain control temperature:{text}: {error}") from None


def make_agc(name: str) -> Agc:
    """Make a gain control by its name, one of AGCS or `temperature:10C..40C`; raises UsageError for any other."""
    if name.startswith(SPAN):
        return _parse_span(name.removeprefix(SPAN))
    if name == "percentile":
        return Percentile()
    if name == "plateau":
        return Plateau()
    raise UsageError(f"unknown gain control {name!r}: use {', '.join(AGCS)} or {SPAN}10C..40C")


class FlatFieldGuard:
    """A gain control that repeats the last good picture during a flat-field correction (FFC).

    An FFC shows as an exact repetition of a picture, or as a sudden plain field: a small part of the contrast of the
    picture before, without any structure but noise and shading.  A scene that loses its contrast slowly is never a
    sudden plain field, and a scene of little contrast after a cut still has structure.  A picture that stays longer
    than any FFC is the scene.

    Afterwards the gain continues as if no time had passed, shifted by the levels that the camera has corrected.
    """

    LONGEST_S = 3.0
    FROZEN_S = 0.2
    """Shorter repetitions are not counted: they are from a camera that is slower than its stream."""
    PLAIN = 0.25
    """Contrast of a plain field, relative to that of the last good picture."""
    NOISE = 1.0
    """Least structure, in multiples of the noise of a pixel; white noise has 0.07."""

    def __init__(self, agc: Agc, name: str, repeated: Counter[str]) -> None:
        """`name`: name of the stream, for the note.  `repeated`: counts the repeated pictures, by reason."""
        self._agc, self._name, self._repeated = agc, name, repeated
        self._before: Grey | None = None
        self._before_ns = 0
        self._good: Plane | None = None
        self._sample: npt.NDArray[np.int32] | None = None
        self._contrast = 0.0
        self._pause_ns: int | None = None
        self._certain = False
        self.repeats = False
        """The last result of `to_luma` was the last good picture again."""
        self._uncounted = self._paused_ns = self._still_ns = 0

    def to_luma(self, grey: Grey, stamp_ns: int, ffc: bool | None = None) -> Plane:
        """Return the luma of the gain control, or the last good picture again.

        `ffc`: the camera says that it corrects, or that it does not; None: the pictures tell.
        """
        frozen = self._before is not None and np.array_equal(grey, self._before)
        contrast, structured = (self._contrast, True) if frozen else _contrast(grey)
        closed = not structured and contrast < self.PLAIN * self._contrast
        if ffc is not None:
            frozen, closed = frozen and ffc, ffc
        gap_ns, self._before, self._before_ns = stamp_ns - self._before_ns, grey, stamp_ns
        if self._good is not None and (frozen or closed) and self._good.shape == grey.shape:
            self._pause_ns = stamp_ns if self._pause_ns is None else self._pause_ns
            paused_s = (stamp_ns - self._pause_ns) / 1e9
            if paused_s <= self.LONGEST_S:
                self._paused_ns += gap_ns
                self._count(FROZEN if frozen else SHUTTER, closed or paused_s >= self.FROZEN_S)
                self.repeats = True
                return self._good
        self.repeats = False
        sample = _sample(grey)
        if self._certain:
            self._still_ns += self._paused_ns
            if self._sample is not None and not (frozen or closed) and sample.shape == self._sample.shape:
                self._agc.shift(round(float(np.median(sample - self._sample))))
        if not (frozen or closed):
            self._pause_ns = None
        self._certain, self._uncounted, self._paused_ns = False, 0, 0
        self._good, self._contrast, self._sample = self._agc.to_luma(grey, stamp_ns - self._still_ns), contrast, sample
        return self._good

    def _count(self, reason: str, certain: bool) -> None:
        self._uncounted += 1
        self._certain |= certain
        if certain:
            if not self._repeated:
                log.info("%s: the last good picture is repeated while the camera's shutter is closed", self._name)
            self._repeated[reason] += self._uncounted
            self._uncounted = 0


def _sample(grey: Grey) -> npt.NDArray[np.int32]:
    step = sample_step(grey.size, RangeFollower.SAMPLES)
    return grey[::step, ::step].astype(np.int32)


def _contrast(grey: Grey) -> tuple[float, bool]:
    """Return the range between the 1st and 99th percentile, in levels, and whether there is structure beside noise."""
    height, width = grey.shape
    size = (max(width // 4, 8), max(height // 4, 8))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    low, high = np.percentile(small, (1, 99))
    things = cv2.GaussianBlur(small, (0, 0), 1.0) - cv2.GaussianBlur(small, (0, 0), 6.0)
    rows = grey[:: max(height // 128, 1)].astype(np.float32)
    steps = np.diff(rows, axis=1) if width > 1 else np.zeros((1, 1), np.float32)
    noise = float(np.median(np.abs(steps))) / 0.954  # of the difference of two: 0.6745 * sqrt(2)
    return float(high - low), float(things.std()) > FlatFieldGuard.NOISE * max(noise, 0.5)
