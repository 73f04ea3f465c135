"""The state of a run as JSON: for the page, for `streamfuse top`, and for whoever asks if it is ready."""

from __future__ import annotations

import math
import time
from typing import Any

from streamfuse import __version__
from streamfuse.color import Plane
from streamfuse.sources.base import State
from streamfuse.telemetry import SourceSummary, Summary
from streamfuse.web.hub import Hub

STREAMS = {"infrared": "ir", "visible": "vis"}
"""What users read, and the role in the summary."""
FRESH_S = 2.0
"""A live stream is fresh if its last frame is not older, or not older than five periods."""


def not_ready(summary: Summary) -> list[str]:
    """Why the run is not ready, in words; empty if it is."""
    reasons = [
        f"{stream}: {why}"
        for stream, role in STREAMS.items()
        if (why := _not_fresh(summary.silent_s.get(role), summary.sources.get(stream)))
    ]
    return reasons if summary.engine_loaded else [*reasons, "the engine is not loaded yet"]


def _not_fresh(silent_s: float | None, source: SourceSummary | None) -> str | None:
    if source is not None and source.state is not State.LIVE:
        return str(source.state)
    if silent_s is None:
        return "no frame yet"
    # Recordings are held back as long as the engine needs.
    if source is not None and silent_s > max(FRESH_S, 5 * (source.period_s or 0)):
        return f"no frame for {silent_s:.1f} s"
    return None


def status(summary: Summary, hub: Hub) -> dict[str, Any]:
    """Everything that is worth showing; values that are not known are None."""
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
        "read": summary.read,
        "paired": summary.pairs,
        "fused": summary.fused,
        "alone": summary.alone,
        "written": summary.written,
        "dropped": summary.dropped,
        "drops": summary.drops,
        "held": summary.held,
        "sources": [_source(summary, stream, role) for stream, role in STREAMS.items()],
        "stages": {
            name: {"p50_ms": _rounded(stage.p50_ms), "p95_ms": _rounded(stage.p95_ms), "p99_ms": _rounded(stage.p99_ms)}
            for name, stage in summary.stages.items()
        },
        "viewers": hub.viewers,
        "jpegs": hub.encoded.total(),
    }


def _source(summary: Summary, stream: str, role: str) -> dict[str, Any]:
    source = summary.sources.get(stream)
    silent_s = summary.silent_s.get(role)
    return {
        "stream": stream,
        "name": source.name if source else None,
        "state": str(source.state) if source else "recording",
        "fresh": _not_fresh(silent_s, source) is None,
        "reconnects": source.reconnects if source else 0,
        "silent_s": None if silent_s is None else round(silent_s, 2),
        "clock": str(summary.clocks[role]) if role in summary.clocks else None,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 2)


def _size(luma: Plane) -> str:
    height, width = luma.shape
    return f"{width}x{height}"
