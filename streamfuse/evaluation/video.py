"""Metrics of video: flicker, and the consistency of the fused picture with the motion of the scene.

A network whose output is stretched frame by frame raises the frame-to-frame change of the mean level 6 to 66 times
(measured on five recordings) although every single picture looks right; metrics of single pictures do not show that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane

FIT_CHANGES = 3
"""Least number of changes: fewer are always fitted exactly by the changes of the two sources."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PerStream:
    """A figure of the fused stream and the same figure of its sources."""

    fused: float
    ir: float
    vis: float


@dataclass(frozen=True, slots=True)
class Temporal:
    """Figures of a stream, all in grey levels; NaN if there are too few frames."""

    frames: int
    flicker: PerStream
    """RMS of the change of the mean level from frame to frame."""
    largest_step: PerStream
    """Largest absolute change of the mean level from frame to frame."""
    own_flicker: float
    """Flicker of the fused stream that no linear mix of the sources' changes explains."""
    temporal_error: PerStream
    """Mean absolute difference to the previous frame, moved by the visible stream's optical flow."""
    levels: dict[str, list[float]]
    """Mean level of every frame of the three streams."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class TemporalScorer:
    """Computes the figures from the frames of a stream, one by one.

    >>> scorer = TemporalScorer()
    >>> for ir, vis, fused in frames:
    ...     scorer.add(ir, vis, fused)
    >>> scorer.result().own_flicker
    """

    def __init__(self) -> None:
        self._levels: dict[str, list[float]] = {"fused": [], "ir": [], "vis": []}
        self._errors: dict[str, list[float]] = {"fused": [], "ir": [], "vis": []}
        self._flow: cv2.DISOpticalFlow | None = None
        self._before: dict[str, Plane] | None = None

    def add(self, ir: Plane, vis: Plane, fused: Plane) -> None:
        """Add a frame: (H, W) uint8 each, of one shape; motion starts again after a change of shape."""
        planes = {"fused": fused, "ir": ir, "vis": vis}
        for name, plane in planes.items():
            self._levels[name].append(float(plane.mean(dtype=np.float64)))
        if self._before is not None and self._before["vis"].shape == vis.shape:
            places = self._places(vis, self._before["vis"])
            for name, plane in planes.items():
                self._errors[name].append(_moved_error(plane, self._before[name], places))
        self._before = {name: plane.copy() for name, plane in planes.items()}  # a decoder may reuse its buffers

    def _places(self, now: Plane, before: Plane) -> npt.NDArray[np.float32]:
        """Return the position of each pixel of this visible frame in the previous one, (H, W, 2) x and y."""
        if self._flow is None:
            self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        if min(now.shape) < 16:  # too small for DIS: assume no motion
            flow = np.zeros((*now.shape, 2), np.float32)
        else:
            flow = cast("npt.NDArray[np.float32]", self._flow.calc(np.ascontiguousarray(now), before, None))  # type: ignore[call-overload]
        rows, columns = np.indices(now.shape, dtype=np.float32)
        flow[..., 0] += columns
        flow[..., 1] += rows
        return flow

    def result(self) -> Temporal:
        changes = {name: np.diff(np.array(levels)) for name, levels in self._levels.items()}
        return Temporal(
            frames=len(self._levels["fused"]),
            flicker=PerStream(**{name: rms(change) for name, change in changes.items()}),
            largest_step=PerStream(
                **{name: float(np.abs(change).max()) if change.size else math.nan for name, change in changes.items()}
            ),
            own_flicker=own_flicker(changes["fused"], changes["ir"], changes["vis"]),
            temporal_error=PerStream(
                **{name: math.fsum(e) / len(e) if e else math.nan for name, e in self._errors.items()}
            ),
            levels=self._levels,
        )


def rms(values: Floats) -> float:
    return math.sqrt(float(np.square(values).mean())) if values.size else math.nan


def own_flicker(fused: Floats, ir: Floats, vis: Floats) -> float:
    """RMS of the fused changes minus their best linear fit by the sources' changes, all (n,); NaN for n under 3.

    Changes of the scene, which both cameras see, do not count as flicker of the fusion.  The fit has no constant term:
    a constant drift that the sources do not have counts.
    """
    if fused.size < FIT_CHANGES:
        return math.nan
    sources = np.stack((ir, vis), axis=1)  # (n, 2)
    weights, *_ = np.linalg.lstsq(sources, fused, rcond=None)
    return rms(fused - sources @ weights)


def _moved_error(now: Plane, before: Plane, places: npt.NDArray[np.float32]) -> float:
    """Mean absolute difference over pixels that were inside the previous frame; NaN if there are none."""
    height, width = now.shape
    x, y = cv2.split(places)
    moved = cv2.remap(before, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    difference = cv2.absdiff(now, moved)
    return float(difference[inside].mean()) if inside.any() else math.nan


def every_nth(expected: int | None, wanted: int) -> int:
    """Return the step that scores about `wanted` of `expected` frames; 10 if the length is unknown."""
    return 10 if expected is None else max(1, math.ceil(expected / wanted))


def temporal_rows(temporal: Temporal) -> Iterator[tuple[str, str, float, float, float]]:
    """Yield key, title, and the figures of fused, infrared and visible; NaN if a source has none."""
    for key, title in (
        ("flicker", "flicker, RMS"),
        ("largest_step", "largest step"),
        ("temporal_error", "temporal error"),
    ):
        figure: PerStream = getattr(temporal, key)
        yield key, title, figure.fused, figure.ir, figure.vis
    yield "own_flicker", "own flicker", temporal.own_flicker, math.nan, math.nan
