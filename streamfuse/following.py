"""The alignment watched while it runs: the distance of the scene, and whether the cameras were moved.

The compute thread offers every pair.  A few a second, by the streams' time, are copied and looked at in a thread of its
own; an answer is taken up a tenth of a second later.  So the same recordings always give the same pictures, however
fast the machine is.  Only an answer that is sure moves the warp; otherwise the last good one is kept, and both are
counted.
"""

from __future__ import annotations

import enum
import logging
import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.alignment import Aligner, need_parallax
from streamfuse.calibration.dominant import DominantDistance, Estimate
from streamfuse.calibration.drift import Drift, Misfit
from streamfuse.calibration.evidence import Evidence
from streamfuse.calibration.geometry import Points, Size, size_of
from streamfuse.calibration.model import Calibration
from streamfuse.calibration.objects import ObjectDistances, Seen
from streamfuse.calibration.similarity import Similarity
from streamfuse.calibration.warm import Labels
from streamfuse.color import Plane
from streamfuse.errors import UsageError
from streamfuse.layers import Things
from streamfuse.objects import WarmThings
from streamfuse.support.closeable import Closeable
from streamfuse.support.notes import warn_once

log = logging.getLogger("streamfuse")

INTERVAL_NS = 250_000_000
"""Time between two pairs that are looked at for the distance: four a second take a tenth of a core at 640x480."""
DRIFT_INTERVAL_NS = 500_000_000
"""The same where only drift is looked for."""
ANSWER_NS = 100_000_000
"""Time after which an answer is taken up; it takes a fifth of that."""
STILL_PX = 0.5
"""Change of the answer that is not followed, px at a width of 640: so much the answers of a still scene differ."""
UNSURE = 20
"""Successive pairs without a sure answer after which the user is told: five seconds."""
SMALLEST = 64
"""Side of a visible picture, px, below which nothing is looked for."""
THUMBNAIL = (32, 24)
"""Width and height of the pictures that are compared to notice cuts."""
CUT_CORRELATION = 0.5
"""Correlation of two successive visible thumbnails below which the scene was cut."""
DRIFT_EVERY = 2
"""Pairs from one estimate of the drift to the next, which takes as long as the evidence of a pair."""
TOLERATED_PX = 2.0
"""Misfit, px at a width of 640, that is reported where it lasts `REPORT_NS`."""
REPORT_NS = 5_000_000_000
FOLLOWED = 0.3
"""Share of the difference to the last estimate by which a correction follows it: estimates differ by half a pixel."""
NOTICED_PX = 0.75
"""Misfit from which the distance is looked for where the cameras look now."""


class Align(enum.StrEnum):
    """Reaction to a drift of the cameras."""

    FIXED = "fixed"
    """It is told."""
    FOLLOW = "follow"
    """It is told and corrected."""


@dataclass(frozen=True, slots=True)
class Followed:
    """State of the watch."""

    automatic: bool = False
    """True where the warp follows the distance of the scene."""
    answered: int = 0
    """Pairs whose answer for the distance was sure."""
    kept: int = 0
    """Pairs whose answer was not sure, so that the last good one was kept."""
    cuts: int = 0
    """Changes to another scene."""
    confidence: float | None = None
    """Confidence of the last distance, 0..1; None before the first."""
    error_px: float | None = None
    """Misfit of the calibration, px at a width of 640, by the last sure estimate; None before the first."""
    drifted: bool = False
    """True where the misfit has exceeded `TOLERATED_PX` for `REPORT_NS`."""
    by_object: bool = False
    """True where warm things get distances of their own."""
    warm: int = 0
    """Warm things in the last picture."""
    apart: int = 0
    """Those of them that are warped for a distance of their own."""
    apart_total: int = 0
    """How many things had one so far."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Findings in one pair."""

    cut: bool
    distance: Estimate | None = None
    misfit: Misfit | None = None
    things: dict[int, Estimate] | None = None
    """Distances of warm things, by their numbers."""


class AlignmentWatch(Closeable):
    """Moves the warp of an aligner to the dominant distance of the scene, and after the cameras where they drift."""

    def __init__(
        self,
        aligner: Aligner,
        *,
        automatic: bool = False,
        by_object: bool = False,
        align: str | None = None,
        waits: bool = True,
    ) -> None:
        """`automatic`: follow the distance, with `by_object` also those of warm things.  `align`: fixed, follow, or
        None: do not look for drift.

        `waits`: an answer that is due is waited for; otherwise it is taken up once it is there.  Raises UsageError
        where there is no calibration, or one without parallax for `automatic`.
        """
        if aligner.calibration is None:
            raise UsageError("watching the alignment needs a calibration: give one")
        self._aligner = aligner
        self._align = align
        self.waits = waits
        self._look = _Look(aligner.calibration, drift=align is not None)
        self._worker = ThreadPoolExecutor(1, "streamfuse alignment")
        self._pending: Future[_Seen] | None = None
        self._last_ns: int | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._unsure = 0
        self._jumps = True
        """With the next answer the warp may jump: it is the first of a scene, which nobody has watched yet."""
        self._exceeded_ns: int | None = None
        self._correction = Similarity()
        self._things = WarmThings(self._look.unit_inverse_m)
        self.state = Followed()
        """Counts and last answers; any thread may read it."""
        if automatic:
            self.follow_distance(True, by_object)

    def follow_distance(self, wanted: bool, by_object: bool = False) -> None:
        """Begin or end following the distance, with `by_object` also those of warm things; any thread may call it.

        Raises UsageError without parallax.
        """
        if wanted:
            need_parallax(self._aligner.calibration)
        with self._lock:
            self.state = replace(self.state, automatic=wanted, by_object=wanted and by_object)

    def offer(self, ir: Plane, vis: Plane, stamp_ns: int) -> Things | None:
        """Look at a pair if one is due; (h, w) and (H, W) uint8, before it is aligned.

        Returns the warm things of this pair that have distances of their own, for `Aligner.align`.
        """
        state = self.state
        if not state.by_object and not self._things.busy:
            self._look_at(ir, vis, stamp_ns, state)
            return None
        self._things.look(ir)
        if not state.by_object:
            self._things.release()
        first = self._last_ns is None
        self._look_at(ir, vis, stamp_ns, state)
        assert self._aligner.distance_m is not None
        most = None if first else self._aligner.step_inverse_m(vis.shape)
        things = self._things.step(1 / self._aligner.distance_m, most)
        with self._lock:
            self.state = replace(
                self.state, warm=self._things.seen, apart=self._things.own, apart_total=self._things.total
            )
        return things

    def _look_at(self, ir: Plane, vis: Plane, stamp_ns: int, state: Followed) -> None:
        automatic = state.automatic
        if not automatic and self._align is None:
            return
        interval_ns = INTERVAL_NS if automatic else DRIFT_INTERVAL_NS
        last_ns = self._last_ns
        since_ns = stamp_ns - last_ns if last_ns is not None else interval_ns
        if self._pending is not None and not 0 <= since_ns < ANSWER_NS:
            if not (self.waits or self._pending.done()):
                return
            self._take(self._pending.result(), stamp_ns)
            self._pending = None
        if 0 <= since_ns < interval_ns:
            return
        with self._lock:
            if self._closed:
                return
            shown = self._things.shown() if state.by_object else None
            self._pending = self._worker.submit(self._look, ir.copy(), vis.copy(), automatic, shown)
        if last_ns is None and automatic and self.waits:  # the first picture is warped right at once
            self._take(self._pending.result(), stamp_ns)
            self._pending = None
        self._last_ns = stamp_ns

    def _take(self, seen: _Seen, stamp_ns: int) -> None:
        with self._lock:
            self._jumps |= seen.cut
            self.state = replace(self.state, cuts=self.state.cuts + seen.cut)
            if seen.distance is not None and self.state.automatic:
                self._take_distance(seen.distance)
            if seen.cut:
                self._things.forget()
            elif seen.things is not None and self.state.by_object:
                assert self._aligner.distance_m is not None
                self._things.take(seen.things, 1 / self._aligner.distance_m)
            if seen.misfit is not None and seen.misfit.sure:
                self._take_misfit(seen.misfit, stamp_ns)

    def _take_distance(self, found: Estimate) -> None:
        state = replace(self.state, confidence=found.confidence)
        jump, self._jumps = self._jumps, False
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
        if jump or abs(found.inverse_m - 1 / now_m) > STILL_PX * self._look.unit_inverse_m:
            distance_m = 1 / found.inverse_m if found.inverse_m else math.inf
            self._aligner.set_distance(distance_m, jump=jump)

    def _take_misfit(self, found: Misfit, stamp_ns: int) -> None:
        exceeds = found.error_px > TOLERATED_PX
        if not exceeds or self._exceeded_ns is None or stamp_ns < self._exceeded_ns:
            self._exceeded_ns = stamp_ns if exceeds else None
        drifted = self._exceeded_ns is not None and stamp_ns - self._exceeded_ns >= REPORT_NS
        if drifted and not self.state.drifted:
            advice = (
                "it is corrected"
                if self._align == Align.FOLLOW
                else "look with `streamfuse calibrate check`, calibrate again, or let --align follow correct it"
            )
            log.warning(
                "infrared does not fit the visible picture by %.1f px: the cameras have moved since the calibration; "
                "%s",
                found.error_px,
                advice,
            )
        self.state = replace(self.state, error_px=found.error_px, drifted=drifted)
        if self._align == Align.FOLLOW:
            goal = self._correction
            self._correction = Similarity(*(a + FOLLOWED * (b - a) for a, b in zip(goal, found.moved, strict=True)))
            self._aligner.set_correction(self._correction)

    def close(self) -> None:
        """End the thread; the warp stays where it is."""
        with self._lock:
            self._closed = True
        self._worker.shutdown()


class _Look:
    """Looks at pairs; used in the worker's thread only."""

    def __init__(self, calibration: Calibration, drift: bool) -> None:
        self._calibration = calibration
        self._looks_for_drift = drift
        width = calibration.vis_size[1]
        self.unit_inverse_m = width / 640 / max(float(np.hypot(*calibration.shift_px_m)), 1e-6)
        """Change of 1 / distance that moves the warp by a pixel at a width of 640, 1/m."""
        self._size: Size | None = None
        self._evidence: Evidence
        self._distance: DominantDistance
        self._drift: Drift
        self._objects: ObjectDistances
        self._moved: Similarity | None = None
        self._count = 0
        self._before: npt.NDArray[np.float32] | None = None

    def __call__(self, ir: Plane, vis: Plane, automatic: bool, shown: tuple[Labels, list[Seen]] | None = None) -> _Seen:
        """`shown`: labels of warm things in infrared, and their numbers."""
        if min(vis.shape) < SMALLEST:
            return _Seen(False, Estimate(0.0, 0.0) if automatic else None)
        if self._size != vis.shape:
            self._size = size_of(vis.shape)
            self._evidence = Evidence(self._calibration, vis.shape)
            self._distance = DominantDistance(self._evidence)
            self._drift = Drift(self._evidence)
            self._objects = ObjectDistances(self._evidence)
            self._before = None
        now = cv2.resize(vis, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        cut = self._before is not None and _correlation(self._before, now) < CUT_CORRELATION
        self._before = cast("npt.NDArray[np.float32]", now)
        if cut:
            self._distance.forget()
            self._objects.forget()
        structures = self._evidence.structures(ir, vis)
        surfaces = self._evidence.correlate(*structures)
        misfit = None
        if self._looks_for_drift:
            self._drift.add(surfaces)
            self._count += 1
            if self._count % DRIFT_EVERY == 0:
                misfit = self._drift.estimate()
            if misfit is not None and misfit.sure:
                self._moved = misfit.moved if misfit.error_px > NOTICED_PX else None
        if not automatic:
            return _Seen(cut, None, misfit)
        distance = self._distance.add(surfaces, self._displaced())
        things = None if shown is None else self._objects.add(structures, *shown, distance, self._moved)
        return _Seen(cut, distance, misfit, things)

    def _displaced(self) -> Points | None:
        """Return the displacement of the evidence's cells by the drift."""
        evidence = self._evidence
        return None if self._moved is None else self._moved.displacements(evidence.middles, evidence.size)


def _correlation(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Return the correlation of two pictures, -1..1; 1 for flat ones."""
    a, b = one - one.mean(), other - other.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / norm if norm > one.size else 1.0
