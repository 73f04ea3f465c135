"""The dominant distance: where most of two pictures' structure coincides, with a confidence.

The correlation at each distance is summed over all cells and over the last pairs; the answer is the peak.  Its
confidence is a logistic function of how the peak stands out, fitted on registered videos that were pulled apart, wrong
pairs, flat, dark and noisy pictures and dense smoke (`benchmarks/distance.py`).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamfuse.calibration.evidence import COLUMNS, ROWS, Evidence, Surfaces
from streamfuse.calibration.geometry import Points, parabola_vertex

PAIRS = 4
"""Pairs whose evidence is summed: the last second, at four pairs a second."""
RESAMPLES = 48
"""Random choices of cells, with which the answer is computed again."""
CONFIDENT = 0.9
"""Confidence from which an answer is used."""
STEADY = 0.7
"""The same for an answer that each of `PAIRS` pairs alone and `STEADY_SHARE` of the resampled cells agree with.  Of 15
such answers in 1022 cases, all were right: most of them of scenes in smoke and of two planes, whose peak is broad."""
STEADY_SHARE = 0.9
AGREE_PX = 0.75
"""Largest distance of an agreeing answer, reduced px."""
CHANGED_PX = 1.0
"""Difference between the answer of the last pair alone and that of all, reduced px, above which earlier pairs are
forgotten if that answer is sure."""
APART_PX = 1.5
"""Distance from which another peak is a rival, reduced px."""

# Logistic regression on 840 cases: the weights of what `_measures` returns.
_WEIGHTS = np.array([-6.37, 2.26, -3.37, 2.47, 0.55, 3.63, 1.09])

Curves = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A distance and how sure it is."""

    inverse_m: float
    """1 / distance, 1/m; 0 for far."""
    confidence: float
    """Probability that the warp for this distance is right to 2 px at a picture width of 640, 0..1."""
    steady: bool = False
    """True where all the pairs of the last second say the same, each alone."""

    @property
    def sure(self) -> bool:
        return self.confidence >= (STEADY if self.steady else CONFIDENT)


class DominantDistance:
    """Gathers the evidence of successive pairs."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._step_px = _step_px(evidence)
        self.measures: npt.NDArray[np.float64] = np.zeros(len(_WEIGHTS))
        """Measures of the last answer, from which its confidence follows."""
        self._kept: deque[tuple[Curves, Surfaces]] = deque(maxlen=PAIRS)
        random = np.random.default_rng(0)
        cells = ROWS * COLUMNS
        self._weights = random.multinomial(cells, [1 / cells] * cells, size=RESAMPLES).astype(np.float32)

    def forget(self) -> None:
        """Start again, after a cut."""
        self._kept.clear()

    def add(self, surfaces: Surfaces, moved: Points | None = None) -> Estimate:
        """Add the evidence of a pair and return the present answer; `moved`: as in `Evidence.curves`."""
        self._kept.append((self._evidence.curves(surfaces, moved), surfaces.sum(axis=0)))
        if len(self._kept) > 1:
            last, before = self._answer(len(self._kept) - 1), self._answer(0)
            apart = abs(last.inverse_m - before.inverse_m) / float(self._evidence.inverse_m[1]) * self._step_px
            if last.sure and apart > CHANGED_PX:  # the scene is at another distance now
                newest = self._kept.pop()
                self._kept.clear()
                self._kept.append(newest)
        return self._answer(0)

    def _answer(self, first: int) -> Estimate:
        """Answer by the evidence of the pairs from the `first` on."""
        chosen = list(self._kept)[first:]
        curves = np.stack([curve for curve, _ in chosen])  # (pairs, cells, n)
        index = peak_of(curves.sum(axis=(0, 1)))
        self.measures = self._measures(curves, np.sum([surface for _, surface in chosen], axis=0), index)
        confidence = 1 / (1 + math.exp(-float(_WEIGHTS @ self.measures)))
        resampled, by_pair = self.measures[3:5]
        steady = len(chosen) == PAIRS and by_pair == 1 and resampled >= STEADY_SHARE
        return Estimate(index * float(self._evidence.inverse_m[1]), confidence, bool(steady))

    def _measures(self, curves: Curves, surface: Surfaces, index: float) -> npt.NDArray[np.float64]:
        """How the peak at `index` stands out, (7,): 1, its height in deviations of all shifts, its height beside the
        highest of all shifts, shares of resampled cells, of pairs and of single cells that agree, and its rival."""
        total = curves.sum(axis=(0, 1))
        peak = float(total[min(round(index), len(total) - 1)])
        mean, deviation, highest = float(surface.mean()), float(surface.std()) + 1e-6, float(surface.max())
        cells = curves.sum(axis=0)
        resampled = (self._weights @ cells).argmax(axis=1)
        by_pair = np.array([peak_of(curve.sum(axis=0)) for curve in curves])
        apart = np.abs(np.arange(len(total)) - index) * self._step_px
        rivals = total[apart > APART_PX]
        rival = (float(rivals.max()) - mean) / max(peak - mean, 1e-6) if len(rivals) else 0.0

        def agreeing(found: npt.NDArray[np.integer | np.floating]) -> float:
            return float(np.mean(np.abs(found - index) * self._step_px <= AGREE_PX))

        return np.array(
            [
                1.0,
                (peak - mean) / deviation,
                (peak - mean) / max(highest - mean, 1e-6),
                agreeing(resampled),
                agreeing(by_pair),
                agreeing(cells.argmax(axis=1)),
                min(max(rival, 0.0), 1.0),
            ]
        )


def _step_px(evidence: Evidence) -> float:
    """Reduced px from one searched distance to the next, in the middle of the picture."""
    return float(np.hypot(*evidence.shift_px_m)) * float(evidence.inverse_m[1])


def peak_of(curve: npt.NDArray[np.floating]) -> float:
    """Position of the highest value, between the samples."""
    index = int(curve.argmax())
    if not 0 < index < len(curve) - 1:
        return float(index)
    return index + parabola_vertex(*(float(value) for value in curve[index - 1 : index + 2]))
