"""The result of an evaluation, and its JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from streamfuse.evaluation.score import METRICS, UNDEFINED, Scores, mean_scores
from streamfuse.evaluation.video import Temporal

RANKED_BY = ("true_MI", "Q_ABF", "SSIM", "VIF")
"""Metrics whose mean rank orders the scenes: neither a copy nor an average wins in all four."""


@dataclass(frozen=True, slots=True)
class Case:
    """One scene, or one frame of a stream."""

    name: str
    scores: Scores
    pictures: tuple[bytes, bytes, bytes] | None = None
    """JPEG of infrared, visible and fused; None without a report."""
    faults: bytes | None = None
    """JPEG of the map of faults; None without a report."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All scenes of one fusion method."""

    method: str
    """Origin of the fused pictures: a directory, or weights with engine and tone."""
    inputs: str
    cases: Sequence[Case]
    temporal: Temporal | None = None
    """Metrics over all frames; only for a stream."""
    notes: Sequence[str] = field(default_factory=list)
    """Notes for the reader: what was left out, which frames were scored."""

    @property
    def mean(self) -> Scores:
        return mean_scores([case.scores for case in self.cases])

    @property
    def undefined(self) -> dict[str, str]:
        """Reason why a metric has no value for some cases, with their number, by metric."""
        found = {}
        for name in METRICS:
            count = sum(math.isnan(case.scores.get(name, 0.0)) for case in self.cases)
            if count:
                why = UNDEFINED.get(name, "undefined: a picture is constant or too small")
                found[name] = f"{why} ({count} of {len(self.cases)})"
        return found

    def ranked(self) -> list[Case]:
        """Return the cases from best to worst, by mean rank in RANKED_BY."""
        places = dict.fromkeys(range(len(self.cases)), 0)
        for name in RANKED_BY:
            values = [case.scores[name] for case in self.cases]
            order = sorted(places, key=lambda i: -math.inf if math.isnan(values[i]) else values[i], reverse=True)
            for place, index in enumerate(order):
                places[index] += place
        return [self.cases[index] for index in sorted(places, key=lambda i: places[i])]

    def to_json(self) -> str:
        """Convert to JSON; undefined values are null, with the reason in `undefined`."""
        content: dict[str, Any] = {
            "method": self.method,
            "inputs": self.inputs,
            "count": len(self.cases),
            "mean": self.mean,
            "undefined": self.undefined,
            "notes": list(self.notes),
            "images": [{"name": case.name, **case.scores} for case in self.cases],
        }
        if self.temporal is not None:
            content["video"] = self.temporal.to_dict()
        return json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value
