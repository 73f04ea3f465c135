"""Choice of the best preset that is fast enough on this machine, for live sources and for recordings in real time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from streamfuse.color import Plane
from streamfuse.engines.base import Engine
from streamfuse.errors import UsageError
from streamfuse.network.config import Preset

log = logging.getLogger("streamfuse")

SHARE = 0.8
"""Share of the frame interval that the engine may take."""
CPU_SHARE = 0.7
"""The same for a better preset than the fastest on a CPU, where decoding and encoding need the same cores: with 0.8,
`balanced` was chosen for 640x480 at 30 fps on two cores, and one frame in seventeen was dropped."""
TRIES = 3
"""Timed runs per preset; the fastest counts."""
LEAST_STEP = 2
"""The next better preset takes at least this many times as long: 2.5 to 5 times by docs/performance.md."""


def parse_preset(text: str) -> Preset:
    """Parse the name of a preset; raises UsageError."""
    try:
        return Preset(text)
    except ValueError:
        raise UsageError(f"unknown preset {text!r}: use auto, {', '.join(Preset)}") from None


def choose_preset(
    engine: Engine, height: int, width: int, period_ns: int, clock: Callable[[], int] = time.perf_counter_ns
) -> None:
    """Switch `engine` to the best preset that takes at most its share of `period_ns` per frame, else to the fastest.

    Presets slower than the one in use, which is recommended for the weights, are not tried.  Those that are tried are
    prepared for (height, width) and timed; the choice is logged unless it is the recommended one.

    On a GPU the slowest is tried first, because it usually keeps up.  On a CPU the fastest is tried first, and the next
    one only if it may keep up: compiling a large network takes a slow machine a minute, in which nothing is shown.
    `clock`: ns.  Raises the engine's EngineError.
    """
    candidates = engine.presets[engine.presets.index(engine.preset) :]
    if len(candidates) == 1:
        return
    grey = np.full((height, width), 128, np.uint8)
    on_gpu = engine.gpu is not None
    most_ns = (SHARE if on_gpu else CPU_SHARE) * period_ns
    chosen, times_ns = candidates[-1], {}
    for preset in candidates if on_gpu else reversed(candidates):
        engine.use(preset)
        engine.prepare(height, width)
        engine.fuse(grey, grey)
        took_ns = times_ns[preset] = min(_time(engine, grey, clock) for _ in range(TRIES))
        if took_ns <= most_ns:
            chosen = preset
        if took_ns <= most_ns if on_gpu else LEAST_STEP * took_ns > most_ns:
            break
    engine.use(chosen)
    _log_choice(chosen, candidates, times_ns, period_ns)


def _log_choice(chosen: Preset, candidates: Sequence[Preset], times_ns: Mapping[Preset, int], period_ns: int) -> None:
    took_ns, period_ms = times_ns[chosen], period_ns / 1e6
    if took_ns > SHARE * period_ns:
        log.warning(
            "preset %s, the fastest, is too slow for every frame: the frame interval is %.0f ms, and the network takes "
            "%.0f ms, so expect about %.2g fps",
            chosen,
            period_ms,
            took_ns / 1e6,
            1e9 / took_ns,
        )
    elif chosen is not candidates[0]:
        log.info(
            "preset %s: the frame interval is %.0f ms, and the network takes: %s; --preset overrides this choice",
            chosen,
            period_ms,
            ", ".join(f"{preset} {times_ns[preset] / 1e6:.0f} ms" for preset in candidates if preset in times_ns),
        )


def _time(engine: Engine, grey: Plane, clock: Callable[[], int]) -> int:
    begin = clock()
    engine.fuse(grey, grey)
    return clock() - begin
