"""The demo scene as a pair of cameras: `synthetic:ir` and `synthetic:vis`.

    synthetic:ir?seconds=10&fps=25&size=640x480&live=1&seed=0
    synthetic:ir?baseline_m=0.06&fov_deg=60

With `baseline_m` the infrared camera is so far to the right of the visible one, and everything is displaced by its
distance; `fov_deg`, the horizontal angle of view of both, says what the distances are (`distances_m`).

Endless without `seconds`.  Without `live` it is a recording: as fast as it is read, stamps from 0.  With
`live=1` it is a camera: one picture each time the machine's monotonic clock passes a multiple of the
period.  The grid belongs to the clock and not to the source, so an infrared and a visible source that
start at different moments still give the same stamps and show the same moment.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Self
from urllib.parse import parse_qsl

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.color import Chroma, Matrix, Plane
from streamfuse.errors import UsageError
from streamfuse.frames import Clock, Frame, Role
from streamfuse.sources.base import Source
from streamfuse.sources.scene.paint import LARGEST_BASELINE_M, View, distance_m, focal_units
from streamfuse.sources.scene.scene import Scene

SCHEME = "synthetic:"
SMALLEST, LARGEST = 32, 4096
"""Sides that can be drawn, pixels."""
SLOWEST, FASTEST = 1, 240
"""Frame rates, 1/s."""
LONGEST_S = 1_000_000
NARROWEST_DEG, WIDEST_DEG = 5, 150
"""Horizontal angles of view, degrees."""
FOV_DEG = 50.0
"""Angle of view for which the scene was laid out."""
NANO = 1_000_000_000

_ALLOWED = {
    "seconds": f"a number above 0, at most {LONGEST_S}; leave it out for an endless stream",
    "fps": f"a number from {SLOWEST} to {FASTEST} such as 25 or 30000/1001",
    "size": f"WIDTHxHEIGHT such as 640x480, each side {SMALLEST} to {LARGEST}",
    "live": "0 or 1",
    "seed": "a whole number from 0 to 4294967295",
    "baseline_m": f"a number from 0 to {LARGEST_BASELINE_M}, of synthetic:ir only",
    "fov_deg": f"a number from {NARROWEST_DEG} to {WIDEST_DEG}",
}
# Short digit runs only: Fraction("1e999999999") would take the machine down with it.
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9}|/[1-9]\d{0,8})?", re.ASCII)
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
_SEED = re.compile(r"\d{1,10}", re.ASCII)


class SyntheticSource(Source):
    """One camera of the demo scene."""

    def __init__(
        self,
        channel: str,
        *,
        height: int = 480,
        width: int = 640,
        fps: Fraction | int = 25,
        seconds: Fraction | int | None = None,
        live: bool = False,
        seed: int = 0,
        baseline_m: float = 0.0,
        fov_deg: float = FOV_DEG,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`channel`: the role, "ir" or "vis".  `baseline_m`: how far the infrared camera is to the right of the
        visible one, m.  `fov_deg`: horizontal angle of view of both cameras, degrees.
        `clock` (ns) and `sleep` (s) pace a live source and stamp arrivals.

        Raises UsageError for a value out of range.
        """
        super().__init__()
        if channel not in list(Role):
            raise UsageError(f"{SCHEME}{channel} does not exist; use {SCHEME}ir or {SCHEME}vis")
        self.name = SCHEME + channel
        self._require(SLOWEST <= fps <= FASTEST, "fps", fps)
        self._require(seconds is None or 0 < seconds <= LONGEST_S, "seconds", seconds)
        fits = SMALLEST <= height <= LARGEST and SMALLEST <= width <= LARGEST
        self._require(fits, "size", f"{width}x{height}")
        self._require(0 <= seed < 1 << 32, "seed", seed)
        possible = 0 <= baseline_m <= (LARGEST_BASELINE_M if channel == Role.IR else 0)
        self._require(possible, "baseline_m", baseline_m)
        self._require(NARROWEST_DEG <= fov_deg <= WIDEST_DEG, "fov_deg", fov_deg)
        self.live = live
        self.clock = Clock.ARRIVAL if live else Clock.MEDIA
        self.size = (height, width)
        self.period_ns = round(NANO / Fraction(fps))
        self.first_stamp_ns = None if live else 0
        self.frame_count = None if seconds is None else max(round(Fraction(seconds) * Fraction(fps)), 1)
        self._fps = Fraction(fps)
        self._seed = seed
        self._baseline_m, self._fov_deg = baseline_m, fov_deg
        self._infrared = channel == Role.IR
        self._now, self._sleep = clock, sleep

    @classmethod
    def from_uri(
        cls,
        text: str,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Self:
        """Open `synthetic:ir` or `synthetic:vis` with an optional query; raises UsageError for an unknown one."""
        address, _, query = text.partition("?")
        channel = address.removeprefix(SCHEME)
        if not address.startswith(SCHEME) or channel not in list(Role):
            raise UsageError(f"{address} does not exist; use {SCHEME}ir or {SCHEME}vis")
        values: dict[str, str] = {}
        for key, value in parse_qsl(query, keep_blank_values=True):
            if key not in _ALLOWED:
                raise UsageError(f"{address} knows no {key!r}; it knows {', '.join(_ALLOWED)}")
            if key in values:
                raise UsageError(f"{address} has {key} twice; give it once")
            values[key] = value

        def match(key: str, pattern: re.Pattern[str], default: str) -> re.Match[str]:
            value = values.get(key, default)
            found = pattern.fullmatch(value)
            if found is None:
                raise _refused(address, key, value)
            return found

        size = match("size", _SIZE, "640x480")
        return cls(
            channel,
            height=int(size[2]),
            width=int(size[1]),
            fps=Fraction(match("fps", _NUMBER, "25")[0]),
            seconds=Fraction(match("seconds", _NUMBER, "")[0]) if "seconds" in values else None,
            live=match("live", re.compile("[01]"), "0")[0] == "1",
            seed=int(match("seed", _SEED, "0")[0]),
            baseline_m=float(Fraction(match("baseline_m", _NUMBER, "0")[0])),
            fov_deg=float(Fraction(match("fov_deg", _NUMBER, str(FOV_DEG))[0])),
            clock=clock,
            sleep=sleep,
        )

    def __iter__(self) -> Iterator[Frame]:
        assert self.size is not None
        scene = Scene(*self.size, self._seed, self._baseline_m)
        return self._live_frames(scene) if self.live else self._recorded_frames(scene)

    @property
    def parallax_px_m(self) -> float:
        """Shift to the left of a thing at 1 m in this camera's picture, px; at d metres it is this / d."""
        assert self.size is not None
        return self._baseline_m * focal_units(self._fov_deg) * View(*self.size).scale

    def distances_m(self, time_s: float) -> npt.NDArray[np.float64]:
        """Return the distance of what the visible camera sees at every pixel at `time_s` seconds, (H, W) float64, m."""
        assert self.size is not None
        return np.asarray(distance_m(Scene(*self.size, self._seed).grounds(time_s), self._fov_deg), np.float64)

    def _recorded_frames(self, scene: Scene) -> Iterator[Frame]:
        index = 0
        while self.frame_count is None or index < self.frame_count:
            yield self._frame(scene, index, round(index * NANO / self._fps), index)
            index += 1

    def _live_frames(self, scene: Scene) -> Iterator[Frame]:
        assert self.period_ns is not None
        self._frame(scene, 0, 0, 0)  # draws what stands still, which takes many periods
        first = tick = self._now() // self.period_ns + 1
        while self.frame_count is None or tick - first < self.frame_count:
            while (early := tick * self.period_ns - self._now()) > 0:
                self._sleep(early / NANO)
            yield self._frame(scene, tick - first, tick * self.period_ns, tick)
            # A camera does not wait for a slow reader: go on with the latest moment that has passed.
            upcoming = max(tick + 1, self._now() // self.period_ns)
            if upcoming > tick + 1:
                self.drops["late"] += upcoming - (tick + 1)
            tick = upcoming

    def _frame(self, scene: Scene, index: int, stamp_ns: int, noise: int) -> Frame:
        begin = self._now()
        chroma = None
        if self._infrared:
            luma: Plane = scene.infrared(stamp_ns / NANO, noise)
        else:
            luma, chroma = _split_420(scene.visible(stamp_ns / NANO, noise))
        arrival = self._now()
        return Frame(luma, chroma, stamp_ns, self.clock, index, self.name, arrival, arrival - begin)

    def _require(self, possible: bool, key: str, value: object) -> None:
        if not possible:
            raise _refused(self.name, key, value)


def _refused(address: str, key: str, value: object) -> UsageError:
    return UsageError(f"{address}: {key}={value} is not possible; {key} is {_ALLOWED[key]}")


def _split_420(bgr: npt.NDArray[np.uint8]) -> tuple[Plane, Chroma]:
    """BGR (H, W, 3) to full-range BT.601 luma (H, W) and 4:2:0 chroma, H / 2 and W / 2 rounded up."""
    luma, cr, cb = cv2.split(cv2.cvtColor(bgr, cv2.COLOR_BGR2YCrCb))
    height, width = luma.shape
    half = ((width + 1) // 2, (height + 1) // 2)

    def halved(plane: cv2.typing.MatLike) -> Plane:
        even = cv2.copyMakeBorder(plane, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        return cv2.resize(even, half, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)

    return luma.astype(np.uint8, copy=False), Chroma(halved(cb), halved(cr), full_range=True, matrix=Matrix.BT601)
