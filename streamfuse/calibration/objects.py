"""The distance of each warm thing, with a confidence.

The structure of infrared inside a region and along its outline is correlated with that of the visible picture at the
shifts of all distances, and beside them.  The correlation is normalised by the structure that the visible picture has
there: a wall full of windows must not attract what walks before it.  It is summed over the last looks; the answer is
the peak.  Its confidence is a logistic function of how the peak stands out, fitted on registered videos in which people
were displaced, wrong pairs and dark pictures (`benchmarks/objects.py`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.dominant import Estimate, peak_of
from streamfuse.calibration.evidence import Evidence
from streamfuse.calibration.geometry import Points
from streamfuse.calibration.grid import Map
from streamfuse.calibration.similarity import Similarity
from streamfuse.calibration.structure import Features
from streamfuse.calibration.warm import Labels

LOOKS = 5
"""Looks whose evidence is summed: a little more than a second, at four looks a second."""
FADING = 0.75
"""Weight of a look beside the next one: people walk towards the camera."""
BANDS = 3
"""Parts of a region, from top to bottom, that are also looked at one by one."""
RIM_PX = 2
"""Width of the rim around a region that is looked at, reduced px: its outline."""
PIXELS = 320
"""Pixels of a region with the strongest structure, which are looked at: more cost time and tell little."""
ASIDE_PX = 3
"""Shifts to both sides of the path of the distances that are looked at too, reduced px."""
AGREE_PX = 1.0
"""Largest distance of an agreeing answer, reduced px."""
APART_PX = 2.0
"""Distance from which another peak is a rival, reduced px."""

Reals = npt.NDArray[np.float32]

SURE = 0.8
"""Confidence from which an answer is used: 93 % of those were right to 3 px in the fit."""

# Logistic regression on 5,800 cases: the weights of what `_answer` measures.
_WEIGHTS = np.array([-8.24, 2.77, 0.7, 0.37, 0.43, 0.42, -1.87, 0.32, 0.53, 0.37, 4.16])


class Seen(NamedTuple):
    """A region in the labels of a picture."""

    number: int
    """Number of the thing."""
    label: int
    touches: bool
    """True at the edge of the picture, where its outline is not its own."""


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """Correlation of one region in one pair."""

    bands: Reals
    """(bands, n) correlation at every distance."""
    energy: Reals
    """(bands, n) structure of the visible picture there."""
    around: tuple[float, float, float]
    """Mean, deviation and highest of the normalised correlation on and beside the path."""
    own: float
    """Structure of the region."""
    touches: bool


class ObjectDistances:
    """Gathers the evidence for each thing over successive pairs."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._shape: tuple[int, ...] | None = None
        self._maps: tuple[Map, Map]
        self._step_px = float(np.hypot(*evidence.shift_px_m)) * float(evidence.inverse_m[1])
        self._kept: dict[int, deque[_Look]] = {}
        self.measures: dict[int, npt.NDArray[np.float64]] = {}
        """Measures of the last answers, from which their confidences follow."""

    def forget(self) -> None:
        """Start again, after a cut."""
        self._kept.clear()

    def add(
        self,
        structures: tuple[Features, Features],
        labels: Labels,
        seen: Sequence[Seen],
        scene: Estimate,
        moved: Similarity | None = None,
    ) -> dict[int, Estimate]:
        """Add the evidence of a pair and return the present answer for each thing, by its number.

        `structures`: as `Evidence.structures` returns them.  `labels`: (h, w) of infrared.  `scene`: the answer for the
        whole picture: where that is sure, the two pictures belong together.  `moved`: displacement of infrared by a
        drift of the cameras.
        """
        if self._shape != labels.shape:
            self._shape, self._maps = labels.shape, self._evidence.maps_of(labels.shape)
        placed = cv2.remap(labels, *self._maps, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
        present = {one.number for one in seen}
        self._kept = {number: looks for number, looks in self._kept.items() if number in present}
        self.measures = {}
        found = {}
        boxes = [_box_of(cast(Labels, placed), one.label) for one in seen]
        middles = np.array([((c.start + c.stop - 1) / 2, (r.start + r.stop - 1) / 2) for r, c in boxes]).reshape(-1, 2)
        paths = self._evidence.paths(middles)
        if moved is not None:
            paths = paths + moved.displacements(middles, self._evidence.size)[:, None]
        for one, (rows, columns), path in zip(seen, boxes, paths, strict=True):
            if rows.stop == rows.start:
                continue
            look = self._look(*structures, placed == one.label, (rows, columns), path, one.touches)
            looks = self._kept.setdefault(one.number, deque(maxlen=LOOKS))
            looks.append(look)
            found[one.number] = self._answer(one.number, list(looks), scene)
        return found

    def _look(
        self,
        found: Features,
        there: Features,
        mask: npt.NDArray[np.bool_],
        box: tuple[slice, slice],
        path: Points,
        touches: bool,
    ) -> _Look:
        height, width = self._evidence.size
        rows, columns = (
            slice(max(side.start - RIM_PX, 0), min(side.stop + RIM_PX, most))
            for side, most in zip(box, (height, width), strict=True)
        )
        weight = cv2.blur(cv2.dilate(mask[rows, columns].astype(np.float32), np.ones((3, 3), np.uint8)), (3, 3))
        cell = (found[rows, columns] * weight[..., None]).reshape(-1, 4)
        strength = np.einsum("pc,pc->p", cell, cell)
        chosen = np.argpartition(strength, -PIXELS)[-PIXELS:] if len(strength) > PIXELS else np.arange(len(strength))
        chosen = np.sort(chosen)
        y, x = np.divmod(chosen, columns.stop - columns.start)
        steps, offsets = _steps(path)
        at_x, at_y = x + columns.start + offsets[..., :1], y + rows.start + offsets[..., 1:]  # (3, steps, pixels)
        inside = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
        index = np.where(inside, at_y * width + at_x, 0)
        values = there.reshape(-1, 4)[index]  # (3, steps, pixels, 4)
        products = np.einsum("askc,kc->ask", values, cell[chosen]) * inside
        squares = np.einsum("askc,askc->ask", values, values) * inside * np.square(weight.ravel()[chosen])
        edges = np.searchsorted(y, np.linspace(0, rows.stop - rows.start, BANDS + 1)[:-1])
        edges = np.minimum(edges, len(y) - 1)
        by_band, norms = (np.add.reduceat(each, edges, axis=2) for each in (products, squares))  # (3, steps, bands)
        own = float(strength[chosen].sum())
        normalised = by_band.sum(axis=2) / np.sqrt(norms.sum(axis=2) * own + 1)
        bands, energies = (_resampled(each[1].T, steps, path) for each in (by_band, norms))
        around = float(normalised.mean()), float(normalised.std()), float(normalised.max())
        return _Look(bands, np.maximum(energies, 0), around, own, touches)

    def _answer(self, number: int, looks: list[_Look], scene: Estimate) -> Estimate:
        fading = FADING ** np.arange(len(looks))[::-1]
        bands = np.sum([w * look.bands for w, look in zip(fading, looks, strict=True)], axis=0)
        energy = np.sum([w * look.energy for w, look in zip(fading, looks, strict=True)], axis=0)
        own = float(np.sum([w * look.own for w, look in zip(fading, looks, strict=True)]))
        curve = bands.sum(axis=0) / np.sqrt(energy.sum(axis=0) * own + 1)
        index = peak_of(curve)
        peak = float(curve.max())
        mean, deviation, highest = (float(value) for value in fading @ [look.around for look in looks] / fading.sum())
        step = max(self._step_px, 1e-6)
        apart = np.abs(np.arange(len(curve)) - index) * step
        rivals = curve[apart > APART_PX]
        rival = (float(rivals.max()) - mean) / max(peak - mean, 1e-3) if len(rivals) else 0.0
        by_band = (bands / np.sqrt(energy * own + 1)).argmax(axis=1)
        by_look = np.array([peak_of(look.bands.sum(axis=0) / np.sqrt(look.energy.sum(axis=0) + 1)) for look in looks])
        measures = np.array(
            [
                1.0,
                peak,
                (peak - mean) / (deviation + 1e-3),
                (peak - mean) / max(highest - mean, 1e-3),
                float(np.mean(np.abs(by_band - index) * step <= AGREE_PX)),
                float(np.mean(np.abs(by_look - index) * step <= AGREE_PX)),
                min(max(rival, 0.0), 1.0),
                math.log(len(looks)),
                math.log(own / len(looks) + 1),
                float(looks[-1].touches),
                scene.confidence,
            ]
        )
        self.measures[number] = measures
        confidence = 1 / (1 + math.exp(-float(_WEIGHTS @ measures)))
        return Estimate(index * float(self._evidence.inverse_m[1]), confidence)


def _box_of(labels: Labels, label: int) -> tuple[slice, slice]:
    """Return rows and columns of a label's pixels."""
    left, top, wide, tall = cv2.boundingRect((labels == label).view(np.uint8))
    return slice(top, top + tall), slice(left, left + wide)


def _steps(path: Points) -> tuple[Reals, npt.NDArray[np.int64]]:
    """Return whole px along the path (n, 2), on its longer axis, (s,); and shifts (3, s, 2) there and to both sides."""
    axis = int(np.abs(path[-1] - path[0]).argmax())
    low, high = np.floor(path[:, axis].min()) - 1, np.ceil(path[:, axis].max()) + 1
    steps = np.arange(low, high + 1)
    order = path[:, axis].argsort()
    across = np.interp(steps, path[order, axis], path[order, 1 - axis])
    shifts = np.empty((3, len(steps), 2))
    shifts[..., axis] = steps
    shifts[..., 1 - axis] = across + np.array([[-ASIDE_PX], [0], [ASIDE_PX]])
    return steps.astype(np.float32), np.rint(shifts).astype(np.int64)


def _resampled(curves: Reals, steps: Reals, path: Points) -> Reals:
    """Interpolate curves (bands, s) at whole px to the distances of the path, (bands, n)."""
    axis = int(np.abs(path[-1] - path[0]).argmax())
    x = np.broadcast_to((path[:, axis] - steps[0]).astype(np.float32), (len(curves), len(path)))
    y = np.broadcast_to(np.arange(len(curves), dtype=np.float32)[:, None], x.shape)
    found = cv2.remap(
        curves.astype(np.float32),
        np.ascontiguousarray(x),
        np.ascontiguousarray(y),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(found, np.float32)
