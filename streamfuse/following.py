"""The distance followed automatically: an estimate a few times a second, in a thread of its own.

The compute thread offers every pair.  One every quarter of a second of the streams' time is copied and looked at; its
answer is taken up a tenth of a second later.  So the same recordings always give the same pictures, however fast the
machine is.  Only an answer that is sure moves the warp; otherwise the last good one is kept, and both are counted.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.alignment import Aligner
from streamfuse.calibration.dominant import DominantDistance, Estimate
from streamfuse.calibration.evidence import Evidence
from streamfuse.calibration.geometry import Size, size_of
from streamfuse.calibration.model import Calibration
from streamfuse.color import Plane
from streamfuse.errors import UsageError
from streamfuse.support.closeable import Closeable
from streamfuse.support.notes import warn_once

INTERVAL_NS = 250_000_000
"""Time between two pairs that are looked at: four a second take a tenth of a core at 640x480."""
ANSWER_NS = 100_000_000
"""Time after which the answer is taken up; it takes a fifth of that."""
STILL_PX = 0.5
"""Change of the answer that is not followed, visible px at a width of 640: so much the answers of a still scene
differ."""
UNSURE = 20
"""Successive pairs without a sure answer after which the user is told: five seconds."""
THUMBNAIL = (32, 24)
"""Width and height of the pictures that are compared to notice cuts."""
CUT_CORRELATION = 0.5
"""Correlation of two successive visible thumbnails below which the scene was cut."""


@dataclass(frozen=True, slots=True)
class Followed:
    """State of the estimate."""

    answered: int = 0
    """Pairs whose answer was sure."""
    kept: int = 0
    """Pairs whose answer was not sure, so that the last good one was kept."""
    cuts: int = 0
    """Changes to another scene."""
    confidence: float | None = None
    """Confidence of the last answer, 0..1; None before the first."""


class DistanceFollower(Closeable):
    """Moves the warp of an aligner to the dominant distance of the scene."""

    def __init__(self, aligner: Aligner, *, waits: bool = True) -> None:
        """`waits`: an answer that is due is waited for; otherwise it is taken up once it is there.

        Raises UsageError where the calibration has no parallax.
        """
        if aligner.calibration is None or aligner.calibration.parallax is None:
            raise UsageError(
                "the distance auto needs a calibration with parallax: calibrate with boards or points at two "
                "distances, or with --baseline-m and --fov-deg"
            )
        self._aligner = aligner
        self.waits = waits
        self._look = _Look(aligner.calibration)
        self._worker = ThreadPoolExecutor(1, "streamfuse distance")
        self._pending: Future[tuple[Estimate, bool]] | None = None
        self._last_ns: int | None = None
        self._unsure = 0
        self._lock = threading.Lock()
        self._closed = False
        self._cut = True
        """The scene is not that of the last sure answer: the warp may jump."""
        self.state = Followed()
        """Counts and the last confidence; any thread may read it."""

    def offer(self, ir: Plane, vis: Plane, stamp_ns: int) -> None:
        """Look at a pair if one is due; (h, w) and (H, W) uint8, before it is aligned."""
        last_ns = self._last_ns
        since_ns = stamp_ns - last_ns if last_ns is not None else INTERVAL_NS
        if self._pending is not None and not 0 <= since_ns < ANSWER_NS:
            if not (self.waits or self._pending.done()):
                return
            self._take(*self._pending.result())
            self._pending = None
        if 0 <= since_ns < INTERVAL_NS:
            return
        with self._lock:
            if self._closed:
                return
            self._pending = self._worker.submit(self._look, ir.copy(), vis.copy())
        if last_ns is None and self.waits:  # the first picture is warped right at once
            self._take(*self._pending.result())
            self._pending = None
        self._last_ns = stamp_ns

    def _take(self, found: Estimate, cut: bool) -> None:
        self._cut |= cut
        state = replace(self.state, confidence=found.confidence, cuts=self.state.cuts + cut)
        if not found.sure:
            self.state = replace(state, kept=state.kept + 1)
            self._unsure += 1
            if self._unsure == UNSURE:
                warn_once("the pictures do not tell the distance of the scene: the last one is kept while they do not")
            return
        self._unsure = 0
        self.state = replace(state, answered=state.answered + 1)
        now_m = self._aligner.distance_m
        assert now_m is not None
        if self._cut or abs(found.inverse_m - 1 / now_m) > STILL_PX * self._look.unit_inverse_m:
            with self._lock:
                if not self._closed:
                    distance_m = 1 / found.inverse_m if found.inverse_m else math.inf
                    self._aligner.set_distance(distance_m, jump=self._cut)
        self._cut = False

    def close(self) -> None:
        """End the thread; the warp stays where it is."""
        with self._lock:
            self._closed = True
        self._worker.shutdown()


class _Look:
    """Looks at pairs; used in the worker's thread only."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        width = calibration.vis_size[1]
        self.unit_inverse_m = width / 640 / max(float(np.hypot(*calibration.shift_px_m)), 1e-6)
        """Change of 1 / distance that moves the warp by a pixel at a width of 640, 1/m."""
        self._size: Size | None = None
        self._evidence: Evidence
        self._distance: DominantDistance
        self._before: npt.NDArray[np.float32] | None = None

    def __call__(self, ir: Plane, vis: Plane) -> tuple[Estimate, bool]:
        """Return the answer and whether the scene was cut since the last pair."""
        if self._size != vis.shape:
            self._size = size_of(vis.shape)
            self._evidence = Evidence(self._calibration, vis.shape)
            self._distance = DominantDistance(self._evidence)
            self._before = None
        now = cv2.resize(vis, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        cut = self._before is not None and _correlation(self._before, now) < CUT_CORRELATION
        self._before = cast("npt.NDArray[np.float32]", now)
        if cut:
            self._distance.forget()
        return self._distance.add(self._evidence.surfaces(ir, vis)), cut


def _correlation(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Return the correlation of two pictures, -1..1; 1 for flat ones."""
    a, b = one - one.mean(), other - other.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / norm if norm > one.size else 1.0
