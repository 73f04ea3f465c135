"""The best preset that keeps up with live sources on this machine, by trying."""

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
"""Of the time between two frames that the engine may take: decoding and encoding want the rest."""
TRIES = 3


def parse_preset(text: str) -> Preset:
    """Raises UsageError."""
    try:
        return Preset(text)
    except ValueError:
        raise UsageError(f"unknown preset {text!r}: use auto, {', '.join(Preset)}") from None


def choose_preset(
    engine: Engine, height: int, width: int, period_ns: int, clock: Callable[[], int] = time.perf_counter_ns
) -> None:
    """Switch `engine` to the dearest preset that takes at most `SHARE` of `period_ns` a frame, else to the cheapest.

    None is tried that is dearer than the one in use, which is what the weights are best run at.

    Each is prepared for (height, width) and run a few times, which is told with the outcome; raises EngineError
    for what the engine does.  `clock` in ns.
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
            "preset %s: of %.0f ms from frame to frame the network takes: %s; --preset chooses",
            engine.preset,
            period_ns / 1e6,
            ", ".join(tried),
        )


def _time(engine: Engine, grey: Plane, clock: Callable[[], int]) -> int:
    begin = clock()
    engine.fuse(grey, grey)
    return clock() - begin
