"""Engines that stay in a worker from unit to unit."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.batch.fusing import Fusing
from streamfuse.errors import EngineError, StreamfuseError

if TYPE_CHECKING:
    from streamfuse.engines.base import Engine
    from streamfuse.fuser import Fuser

# Engines that are not in use.  A worker with several threads has as many engines as it runs units at once.
_idle: dict[tuple[object, ...], list[Engine]] = {}


@contextmanager
def warm_fuser(fusing: Fusing) -> Iterator[Fuser]:
    """A fuser with a tone of its own around an engine that is kept; one whose engine fails is not kept."""
    from streamfuse.fuser import Fuser

    key = (
        fusing.weights_digest,
        fusing.engine,
        fusing.precision,
        fusing.preset,
        fusing.device,
        fusing.threads,
    )
    try:
        engine = _idle.setdefault(key, []).pop()
    except IndexError:
        engine = _make_engine(fusing)
    kept = False
    try:
        yield Fuser(engine=engine, tone=fusing.tone, calibration=fusing.calib, crop=fusing.crop)
        kept = True
    except StreamfuseError as error:
        kept = not isinstance(error, EngineError) and engine.pending == 0
        raise
    finally:
        if kept:
            _idle[key].append(engine)
        else:
            engine.close()


def _make_engine(fusing: Fusing) -> Engine:
    import cv2

    from streamfuse.engines import create_engine
    from streamfuse.errors import WeightsError
    from streamfuse.network.checkpoint import default_weights, read_info

    path = Path(fusing.weights) if fusing.weights else default_weights()
    if read_info(path).whole_digest != fusing.weights_digest:
        raise WeightsError(f"worker {socket.gethostname()} has other weights in {path}: give all the same file")
    cv2.setNumThreads(fusing.threads)
    return create_engine(
        fusing.engine,
        weights=path,
        precision=fusing.precision,
        threads=fusing.threads,
        device=fusing.device,
        preset=fusing.preset,
    )
