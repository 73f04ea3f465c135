"""Engines that a worker keeps from one unit to the next."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamfuse.batch.options import BatchOptions
from streamfuse.errors import EngineError, StreamfuseError
from streamfuse.options import FusionOptions

if TYPE_CHECKING:
    from streamfuse.calibration.model import Calibration
    from streamfuse.engines.base import Engine
    from streamfuse.fuser import Fuser

# Engines that are not in use.  A worker with several threads has as many engines as it runs units at once.
_idle: dict[tuple[object, ...], list[Engine]] = {}


@contextmanager
def warm_fuser(options: BatchOptions, fusion: FusionOptions, calibration: Calibration | None = None) -> Iterator[Fuser]:
    """Provide a fuser with its own tone and an engine that is kept afterwards, unless the engine failed.

    `fusion`: the options of the recording, as `BatchOptions.for_recording` gives them; `calibration`: that of the
    recording, where there is no calibration file.
    """
    from streamfuse.fuser import Fuser

    key = (options.weights_digest, options.threads, fusion.engine)
    try:
        engine = _idle.setdefault(key, []).pop()
    except IndexError:
        engine = _make_engine(options)
    kept = False
    try:
        yield Fuser(
            engine=engine,
            tone=fusion.tone,
            calibration=fusion.calib or calibration,
            crop=fusion.crop,
            distance_m=fusion.distance_m,
        )
        kept = True
    except StreamfuseError as error:
        kept = not isinstance(error, EngineError) and engine.pending == 0
        raise
    finally:
        if kept:
            _idle[key].append(engine)
        else:
            engine.close()


def _make_engine(options: BatchOptions) -> Engine:
    import cv2

    from streamfuse.errors import WeightsError
    from streamfuse.network.checkpoint import default_weights, read_info

    choice = options.fusion.engine
    path = choice.weights or default_weights()
    if read_info(path).whole_digest != options.weights_digest:
        raise WeightsError(f"worker {socket.gethostname()} has other weights in {path}: give all the same file")
    cv2.setNumThreads(options.threads)
    return choice.open(options.threads)
