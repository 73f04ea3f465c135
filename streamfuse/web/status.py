"""The state of a run as JSON, for the page, `streamfuse top` and readiness checks."""

from __future__ import annotations

import math
import time
from typing import Any

from streamfuse import __version__
from streamfuse.color import Plane
from streamfuse.frames import Role
from streamfuse.sources.base import State
from streamfuse.telemetry import AlignmentSummary, SourceSummary, Summary
from streamfuse.web.hub import Hub
from streamfuse.web.thermometer import Wanted

FRESH_S = 2.0
"""Age in s up to which the last frame of a live stream is fresh; up to five frame intervals if that is longer."""

NOT_LOADED = "the network is not loaded yet: it is compiled once per picture size, which can take minutes"


def not_ready(summary: Summary) -> list[str]:
    """Return the reasons why the run is not ready; empty if it is ready."""
    reasons = [
        f"{role.label}: {why}"
        for role in Role
        if (why := _not_fresh(summary.silent_s.get(role), summary.sources.get(role)))
    ]
    return reasons if summary.engine_loaded else [*reasons, NOT_LOADED]


def _not_fresh(silent_s: float | None, source: SourceSummary | None) -> str | None:
    if source is not None and source.state is not State.LIVE:
        return str(source.state)
    if silent_s is None:
        return "no frame yet"
    # Recordings wait for the engine, however long it takes.
    if source is not None and silent_s > max(FRESH_S, 5 * (source.period_s or 0)):
        return f"no frame for {silent_s:.1f} s"
    return None


def status(summary: Summary, hub: Hub) -> dict[str, Any]:
    """Return the state as `/status` sends it; unknown values are None."""
    shown = hub.newest
    reasons = not_ready(summary)
    return {
        "version": __version__,
        "time": round(time.time(), 3),
        "live": bool(summary.sources),
        "ready": not reasons,
        "reasons": reasons,
        "engine_loaded": summary.engine_loaded,
        "fps": round(hub.fps(), 2),
        "mean_fps": round(summary.fps, 2),
        "latency_ms": _rounded(hub.latency_ms()),
        "frame_age_ms": None if shown is None else _rounded((hub.now_ns() - shown.frame.arrival_ns) / 1e6),
        "skew_ms": _rounded(summary.skew_ms),
        "content": None if shown is None else str(shown.frame.content),
        "size": None if shown is None else _size(shown.frame.luma),
        "temperature": None if shown is None else shown.measure(Wanted()),
        "alarms": [] if shown is None else list(shown.frame.alarms),
        "read": summary.read,
        "paired": summary.pairs,
        "fused": summary.fused,
        "passthrough": summary.passthrough,
        "lifted": summary.lifted,
        "written": summary.written,
        "dropped": summary.dropped,
        "drops": summary.drops,
        "repeated": summary.repeated,
        "alignment": _alignment(summary.alignment),
        "sources": [_source(summary, role) for role in Role],
        "stages": {
            name: {"p50_ms": _rounded(stage.p50_ms), "p95_ms": _rounded(stage.p95_ms), "p99_ms": _rounded(stage.p99_ms)}
            for name, stage in summary.stages.items()
        },
        "viewers": hub.viewers,
        "jpegs": hub.encoded.total(),
    }


def _source(summary: Summary, role: Role) -> dict[str, Any]:
    source = summary.sources.get(role)
    silent_s = summary.silent_s.get(role)
    return {
        "stream": role.label,
        "name": source.name if source else None,
        "state": str(source.state) if source else "recording",
        "fresh": _not_fresh(silent_s, source) is None,
        "reconnects": source.reconnects if source else 0,
        "silent_s": None if silent_s is None else round(silent_s, 2),
        "clock": str(summary.clocks[role]) if role in summary.clocks else None,
    }


def _alignment(alignment: AlignmentSummary | None) -> dict[str, Any] | None:
    if alignment is None:
        return None
    return {
        "error_px": _rounded(alignment.error_px),
        "distance_m": "far" if alignment.distance_m == math.inf else _rounded(alignment.distance_m),
        "automatic": alignment.automatic,
        "answered": alignment.answered,
        "kept": alignment.kept,
        "confidence": _rounded(alignment.confidence),
        "by_object": alignment.by_object,
        "warm": alignment.warm,
        "apart": alignment.apart,
        "apart_total": alignment.apart_total,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 2)


def _size(luma: Plane) -> str:
    height, width = luma.shape
    return f"{width}x{height}"
