"""Two streams without a calibration: whether they fit each other, and a calibration if they do not.

Pairs of the first seconds are gathered.  Mostly they fit, which a quick look shows.  Otherwise they are registered as
`streamfuse calibrate scene` does it, in a thread that nobody waits for: it takes half a minute of a core, once.
"""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Sequence

import numpy as np

from streamfuse.calibration.checking import FITS_PX, check_fit
from streamfuse.calibration.geometry import (
    Matrix3,
    corners,
    difference,
    overlap_corners,
    project,
    resize_matrix,
    size_of,
)
from streamfuse.calibration.model import SIDES, Calibration
from streamfuse.calibration.outcome import make_calibration
from streamfuse.calibration.registration import estimate, rejection_reason
from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.support.closeable import Closeable

log = logging.getLogger("streamfuse")

INTERVAL_NS = 700_000_000
PAIRS = 6
"""Pairs that are gathered: four seconds."""
REGISTERED = 3
"""Pairs of these that are registered."""
SMALLEST = 120
"""Side of a picture, px, below which nothing is looked for."""

PlanePair = tuple[Plane, Plane]


class FirstLook(Closeable):
    """Gathers the first pairs and looks whether they fit."""

    def __init__(self, *, calibrates: bool) -> None:
        """`calibrates`: make a calibration where they do not fit, instead of only saying so."""
        self._calibrates = calibrates
        self._pairs: list[PlanePair] = []
        self._last_ns: int | None = None
        self._thread: threading.Thread | None = None
        self._found: Calibration | None = None
        self._closed = False

    def offer(self, ir: Plane, vis: Plane, stamp_ns: int) -> Calibration | None:
        """Gather a pair, (h, w) and (H, W) uint8; return the calibration once it is found."""
        found, self._found = self._found, None
        if self._thread is not None:
            return found
        if self._last_ns is not None and 0 <= stamp_ns - self._last_ns < INTERVAL_NS:
            return None
        if min(*ir.shape, *vis.shape) < SMALLEST or max(*ir.shape, *vis.shape) > SIDES[-1]:
            return None
        if self._pairs and (self._pairs[0][0].shape, self._pairs[0][1].shape) != (ir.shape, vis.shape):
            self._pairs.clear()
        self._last_ns = stamp_ns
        self._pairs.append((ir.copy(), vis.copy()))
        if len(self._pairs) == PAIRS:
            pairs, self._pairs = self._pairs, []
            self._thread = threading.Thread(target=self._look, args=(pairs,), name="streamfuse first look", daemon=True)
            self._thread.start()
        return None

    def _look(self, pairs: list[PlanePair]) -> None:
        try:
            found = look(pairs)
        except InputError:  # what was found fits no pair of cameras
            found = None
        if self._closed or found is None:
            if found is None and self._calibrates and not self._closed and not fits(pairs):
                log.warning(
                    "the first seconds do not tell how infrared lies in the visible picture: it stays as it is; "
                    "calibrate with `streamfuse calibrate scene`, `board` or `points`"
                )
            return
        if self._calibrates:
            log.warning("infrared and visible do not fit each other by %s: calibrated from the first seconds", found[1])
            self._found = found[0]
        else:
            log.warning(
                "infrared and visible do not fit each other by %s: make a calibration with `streamfuse calibrate "
                "scene` and give it with --calib, or let --align auto do it",
                found[1],
            )

    def close(self) -> None:
        """Forget what is being looked at; the thread ends by itself."""
        self._closed = True
        self._pairs.clear()


def as_they_are(pair: PlanePair) -> Calibration:
    """Return the calibration of streams that are pixel-aligned: infrared is only resized."""
    ir, vis = size_of(pair[0].shape), size_of(pair[1].shape)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return Calibration(ir, vis, resize_matrix(ir, vis), None, None, today, "pixel-aligned")


def fits(pairs: Sequence[PlanePair]) -> bool:
    """Return True where pairs are pixel-aligned beyond doubt."""
    return check_fit(as_they_are(pairs[0]), pairs).fits


def look(pairs: Sequence[PlanePair]) -> tuple[Calibration, str] | None:
    """Return a calibration and by how much it differs from none; None where the pairs fit or do not tell."""
    if fits(pairs):
        return None
    chosen = pairs[:: max(len(pairs) // REGISTERED, 1)][:REGISTERED]
    found = estimate([ir for ir, _ in chosen], [vis for _, vis in chosen])
    if found is None or rejection_reason(found) is not None:
        return None
    plain = as_they_are(pairs[0])
    at = overlap_corners(found.homography, plain.ir_size, plain.vis_size)
    off = float(difference(found.homography, plain.homography, at).mean())
    if off <= FITS_PX * plain.vis_size[1] / 640:
        return None
    name = f"natural scenes, first {len(chosen)} pairs"
    made = make_calibration(found.homography, plain.ir_size, plain.vis_size, name, rms_px=found.rms_px, distance_m=None)
    return made, f"{off:.0f} px, {_zoom(found.homography, plain):+.0%} in size"


def _zoom(homography: Matrix3, plain: Calibration) -> float:
    """Relative size of the infrared picture in the visible one, beside that of a resized one."""
    sides = [np.ptp(project(each, corners(plain.ir_size)), axis=0).mean() for each in (homography, plain.homography)]
    return float(sides[0] / sides[1]) - 1
