"""Choice of the best preset that is fast enough for live sources on this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np

from streamfuse.color import Plane
from streamfuse.engines.base import Engine
from streamfuse.errors import UsageError
from streamfuse.network.config import Preset

log = logging.getLogger("streamfuse")

SHARE = 0.8
"""Share of the frame interval that the engine may take; the rest is for decoding and encoding."""
TRIES = 3
"""Timed runs per preset; the fastest counts."""


def parse_preset(text: str) -> Preset:
    """Parse the name of a preset; raises UsageError."""
    try:
        return Preset(text)
    except ValueError:
        raise UsageError(f"unknown preset {text!r}: use auto, {', '.join(Preset)}") from None


def choose_preset(
    engine: Engine, height: int, width: int, period_ns: int, clock: Callable[[], int] = time.perf_counter_ns
) -> None:
    """Switch `engine` to the best preset that takes at most `SHARE` of `period_ns` per frame, else to the fastest.

    Presets slower than the one in use, which is recommended for the weights, are not tried.  Each of the others is
    prepared for (height, width) and timed; the result is logged.  `clock`: ns.  Raises the engine's EngineError.
    """
    candidates = engine.presets[engine.presets.index(engine.preset) :]
    if len(candidates) == 1:
        return
    grey = np.full((height, width), 128, np.uint8)
    tried = []
    for preset in candidates:
        engine.use(preset)
        engine.prepare(height, width)
        engine.fuse(grey, grey)
        best_ns = min(_time(engine, grey, clock) for _ in range(TRIES))
        tried.append(f"{preset} {best_ns / 1e6:.0f} ms")
        if best_ns <= SHARE * period_ns:
            break
    if len(tried) > 1:
        log.info(
            "preset %s: the frame interval is %.0f ms, and the network takes: %s; --preset overrides this choice",
            engine.preset,
            period_ns / 1e6,
            ", ".join(tried),
        )


def _time(engine: Engine, grey: Plane, clock: Callable[[], int]) -> int:
    begin = clock()
    engine.fuse(grey, grey)
    return clock() - begin
