"""The constant time offset between two streams without a common clock, from motion that both see.

Infrared and visible pictures look different, but motion appears in both.  Each pair of consecutive pictures gives the
amount of motion in each cell of a grid, and the offset is the peak of the normalised cross-correlation of the two
series, refined by a parabola through three points.  The grid is more reliable than the motion of the whole picture (on
the demo scene, at 25 and 30 fps: correlation 0.83 instead of 0.52, error 0.4 ms instead of 9.3), provided that both
cameras see about the same; where they do not, the motion of the whole picture is used.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import parabola_vertex
from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.frames import DEFAULT_PERIOD_NS, Role
from streamfuse.sources.base import Source

Series: TypeAlias = npt.NDArray[np.float64]

SMALL = (160, 120)
"""(width, height) of the reduced picture in which motion is measured: a sixteenth of the noise of 640x480, and fast."""
GRID = (4, 3)
"""(columns, rows) of the grid on which motion is measured."""
HIGH_PASS = 6.0
"""Sigma of the high-pass filter, px of the reduced picture: wider than an arm, narrower than clouds and AGC changes."""
NOISE = 3.0
"""Threshold of motion as a multiple of the median change of a pixel."""
GRID_S = 0.005
"""Step of the common time grid."""
DETREND_S = 3.0
"""Window of the running median that is subtracted: slow changes of traffic and gain correlate with everything."""
MIN_S = 4.0
"""Shortest usable stream."""
MIN_PEAK = 0.45
"""Smallest correlation at the peak; below it the two streams did not see the same motion."""
MIN_LEAD = 0.12
"""Smallest difference between the highest peak and the next one."""
MIN_SMOOTHNESS = 0.35
"""Smallest correlation of a picture's motion with the next one's; measured: 0.84 and more for motion, 0.34 and less for
noise."""
WAVE = "wave a hand through both pictures for ten seconds, irregularly, and measure again"


@dataclass(frozen=True)
class Motion:
    """The amount of motion in one stream over time."""

    times_s: Series
    """(N,) midpoint between the two pictures of each change, s on the stream's clock; rising."""
    energy: Series
    """(N, P) motion in each cell of the grid, 0 or more, in any unit."""
    period_s: float
    """Median time between two pictures."""


@dataclass(frozen=True)
class TimeOffset:
    """The time offset between two streams and its reliability."""

    offset_ms: float
    """Time to add to every infrared stamp."""
    correlation: float
    """Correlation of the two series at the offset: 1 for identical series, 0 for unrelated ones."""
    lead: float
    """Difference between this correlation and that at the next best offset."""
    halves_ms: float
    """Difference between the offsets of the first and the second half of the recording."""

    @property
    def confidence(self) -> float:
        """Confidence, 0 to 1: the correlation, reduced where another offset is nearly as good."""
        return max(0.0, self.correlation) * min(1.0, self.lead / 0.4)


class MotionMeter:
    """Measures the motion in a stream, picture by picture."""

    def __init__(self) -> None:
        self._before: Series | None = None
        self._before_ns = 0
        self._times_s: list[float] = []
        self._gaps_s: list[float] = []
        self._energy: list[Series] = []

    def add(self, luma: Plane, stamp_ns: int) -> None:
        """Add a picture (H, W) uint8 of constant size; stamps must rise."""
        details = _details(luma)
        if self._before is not None:
            change = np.abs(details - self._before)
            # Most of a picture stands still, so the median change is noise, of the sensor or of AGC.
            threshold = NOISE * float(np.median(change)) + 0.02
            moved = np.maximum(change - threshold, 0)
            self._energy.append(cv2.resize(moved, GRID, interpolation=cv2.INTER_AREA).ravel().astype(np.float64))
            self._times_s.append((stamp_ns + self._before_ns) / 2e9)
            self._gaps_s.append((stamp_ns - self._before_ns) / 1e9)
        self._before, self._before_ns = details, stamp_ns

    def motion(self) -> Motion:
        """Return the motion between all pictures so far."""
        gaps_s = np.array(self._gaps_s)
        period_s = float(np.median(gaps_s)) if len(gaps_s) else DEFAULT_PERIOD_NS / 1e9
        energy = np.array(self._energy, np.float64).reshape(len(gaps_s), GRID[0] * GRID[1])
        # Across a lost picture, objects move twice as far.
        return Motion(np.array(self._times_s), energy * (period_s / gaps_s)[:, None], period_s)


def _details(luma: Plane) -> Series:
    """High-pass filter a picture and normalise its contrast, (120, 160): invariant to gain and brightness."""
    small = cv2.resize(luma, SMALL, interpolation=cv2.INTER_AREA).astype(np.float64)
    quiet = cv2.GaussianBlur(small, (0, 0), 1.0)
    details = np.asarray(quiet - cv2.GaussianBlur(quiet, (0, 0), HIGH_PASS), np.float64)
    return details / max(float(details.std()), 0.5)


def estimate(ir: Motion, vis: Motion, max_lag_s: float = 2.0) -> TimeOffset:
    """Estimate the time to add to every infrared stamp, within +-`max_lag_s`.

    Where the two time lines hardly overlap, both streams are assumed to start at the same time, to within `max_lag_s`.

    Raises InputError, which says what to do, unless the result is certain: a stream is too short, nothing moves in it,
    the two have no motion in common, another offset is nearly as good (periodic motion), or the two halves of the
    recording differ by more than the frame interval of the slower stream.
    """
    _check_length(ir, vis, max_lag_s)
    for role, motion in zip(Role, (ir, vis), strict=True):
        if _smoothness(motion) < MIN_SMOOTHNESS:
            raise InputError(f"nothing moves in the {role.label} picture: {WAVE}")
    try:
        return _agree(ir, vis, max_lag_s)
    except InputError as unclear:
        try:
            return _agree(_whole(ir), _whole(vis), max_lag_s)
        except InputError:
            raise unclear from None


def _agree(ir: Motion, vis: Motion, max_lag_s: float) -> TimeOffset:
    a, b = _resample(ir), _resample(vis)
    steps = round(max_lag_s / GRID_S)
    center = _center(a, b)
    correlation = _slide(a, b, center, steps)
    best = int(np.argmax(correlation))
    peak, lead = float(correlation[best]), _lead(correlation, best)
    if peak < MIN_PEAK:
        raise InputError(
            f"the two pictures have no motion in common within {max_lag_s * 1000:.0f} ms (correlation {peak:.2f}): "
            f"{WAVE}, or give a larger --max-lag-ms"
        )
    if best in (0, 2 * steps):
        raise InputError(f"the offset is more than {max_lag_s * 1000:.0f} ms: give a larger --max-lag-ms")
    if lead < MIN_LEAD:
        raise InputError(
            f"the motion is periodic: several offsets fit (correlation {peak:.2f}, the next {lead:.2f} less); {WAVE}"
        )
    found = [_refine(half, int(np.argmax(half))) for half in (_slide(each, b, center, steps) for each in a.halves())]
    halves_s = abs(found[1] - found[0]) * GRID_S
    if halves_s > max(ir.period_s, vis.period_s):
        raise InputError(
            f"the two halves of the recording give different offsets ({halves_s * 1000:.0f} ms apart): "
            f"{WAVE}; if this persists, the cameras' clocks run at different rates"
        )
    offset_s = (_refine(correlation, best) - steps + center) * GRID_S
    return TimeOffset(offset_s * 1000, peak, lead, halves_s * 1000)


def _whole(motion: Motion) -> Motion:
    return replace(motion, energy=motion.energy.mean(axis=1, keepdims=True))


def _check_length(ir: Motion, vis: Motion, max_lag_s: float) -> None:
    needed_s = max(MIN_S, 2 * max_lag_s)
    for role, motion in zip(Role, (ir, vis), strict=True):
        length_s = float(motion.times_s[-1] - motion.times_s[0]) if len(motion.times_s) else 0.0
        if length_s < needed_s:
            raise InputError(
                f"{length_s:.1f} s of the {role.label} stream are too short: {needed_s:.0f} s are needed to search "
                f"{max_lag_s * 1000:.0f} ms; record longer, or give a smaller --max-lag-ms"
            )


def _smoothness(motion: Motion) -> float:
    """Correlation of each picture's motion with the next one's: motion continues, noise does not."""
    strength = _strength(_whole(motion))[:, 0]
    first, second = strength[:-1] - strength[:-1].mean(), strength[1:] - strength[1:].mean()
    return float(first @ second) / max(math.sqrt(float(first @ first) * float(second @ second)), 1e-12)


def _strength(motion: Motion) -> Series:
    """Square root of the motion without its slow changes, (N, P)."""
    strength = np.sqrt(motion.energy)  # else a single person who passes close by dominates the correlation
    half = max(round(DETREND_S / motion.period_s / 2), 1)
    padded = np.pad(strength, ((half, half), (0, 0)), constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=0)
    detrended: Series = strength - np.nanmedian(around, axis=-1)
    return detrended


@dataclass(frozen=True)
class _Grid:
    """Motion on the common time grid, (N, P): row k belongs to the time (start + k) * GRID_S."""

    start: int
    values: Series

    def halves(self) -> tuple[_Grid, _Grid]:
        middle = len(self.values) // 2
        return _Grid(self.start, self.values[:middle]), _Grid(self.start + middle, self.values[middle:])


def _resample(motion: Motion) -> _Grid:
    start, end = math.ceil(motion.times_s[0] / GRID_S), math.floor(motion.times_s[-1] / GRID_S)
    times_s = np.arange(start, end + 1) * GRID_S
    cells = [np.interp(times_s, motion.times_s, cell) for cell in _strength(motion).T]
    return _Grid(start, np.stack(cells, axis=1))


def _center(a: _Grid, b: _Grid) -> int:
    """Centre of the search, in grid steps: 0 where the time lines overlap, else the distance between their starts."""
    overlap = min(a.start + len(a.values), b.start + len(b.values)) - max(a.start, b.start)
    return 0 if overlap >= min(len(a.values), len(b.values)) / 2 else b.start - a.start


def _slide(a: _Grid, b: _Grid, center: int, steps: int) -> Series:
    """Pearson's correlation of a(t) and b(t + lag), over all cells together, at 2 * steps + 1 lags around `center`.

    Lags are in grid steps.  The result is -1 where less than half of a overlaps b.
    """
    found = np.full(2 * steps + 1, -1.0)
    for index in range(2 * steps + 1):
        shift = a.start + center + index - steps - b.start  # a[0] corresponds to b[shift]
        first, last = max(0, -shift), min(len(a.values), len(b.values) - shift)
        if last - first < len(a.values) / 2:
            continue
        x, y = a.values[first:last], b.values[first + shift : last + shift]
        x, y = (x - x.mean(axis=0)).ravel(), (y - y.mean(axis=0)).ravel()
        found[index] = float(x @ y) / max(math.sqrt(float(x @ x) * float(y @ y)), 1e-12)
    return found


def _lead(correlation: Series, best: int) -> float:
    """Height of the peak above the highest value outside it; a peak ends where it has fallen to half."""
    valley = correlation < correlation[best] / 2
    left = best - np.argmax(valley[best::-1]) if valley[: best + 1].any() else 0
    right = best + np.argmax(valley[best:]) if valley[best:].any() else len(correlation) - 1
    others = np.concatenate([correlation[:left], correlation[right + 1 :]])
    return float(correlation[best] - max(others.max(initial=0.0), 0.0))


def _refine(correlation: Series, best: int) -> float:
    """Position of the peak with subsample accuracy, in grid steps."""
    if not 0 < best < len(correlation) - 1:
        return float(best)
    return best + parabola_vertex(*(float(value) for value in correlation[best - 1 : best + 2]))


def measure(
    ir: Source,
    vis: Source,
    *,
    seconds: float = 20.0,
    max_lag_s: float = 2.0,
    patience_s: float = 20.0,
    clock: Callable[[], float] = time.monotonic,
) -> TimeOffset:
    """Measure the offset of two sources over their first `seconds`; both are read concurrently and closed.

    Stamps are used unchanged, as in `Pipeline`.  `patience_s`: additional time to wait for a live source.  `clock`: s.
    Raises InputError as `estimate` does, for sources with different kinds of clock, and for a source without frames.
    """
    if ir.clock is not vis.clock or ir.live is not vis.live:
        for source in (ir, vis):
            source.close()
        raise InputError("a recording cannot be compared with a live source: record both, or use both live")
    readers = [_Reader(role, source, seconds) for role, source in zip(Role, (ir, vis), strict=True)]
    deadline_s = clock() + seconds + patience_s if ir.live else math.inf
    for reader in readers:
        reader.start()
    try:
        while any(reader.is_alive() for reader in readers) and clock() < deadline_s:
            for reader in readers:
                reader.join(0.1)
    finally:
        for reader in readers:
            reader.stop.set()
    for reader in readers:
        reader.join(0.5)  # let it finish the current frame; a reader that waits for a camera does not end
    return estimate(readers[0].result(), readers[1].result(), max_lag_s)


class _Reader(threading.Thread):
    """Reads one source; a daemon thread, because nothing can end a wait for a silent camera."""

    def __init__(self, role: Role, source: Source, seconds: float) -> None:
        super().__init__(name=f"streamfuse motion {role}", daemon=True)
        self.stop = threading.Event()
        self._source, self._seconds = source, seconds
        self._meter = MotionMeter()
        self._error: BaseException | None = None
        self._frames = 0

    def run(self) -> None:
        try:
            with self._source as source:
                first_ns: int | None = None
                for frame in source:
                    first_ns = frame.stamp_ns if first_ns is None else first_ns
                    if self.stop.is_set() or frame.stamp_ns - first_ns > self._seconds * 1e9:
                        break
                    self._meter.add(frame.luma, frame.stamp_ns)
                    self._frames += 1
        except BaseException as error:  # raised again by `result`
            self._error = error

    def result(self) -> Motion:
        """Return the motion; raises the source's error, or InputError for fewer than two frames."""
        if self._error is not None:
            raise self._error
        if self._frames < 2:
            raise InputError(f"{self._source.name} gave no frames: check the camera")
        return self._meter.motion()
