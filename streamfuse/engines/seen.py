"""The visible picture as a network gets it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from streamfuse.color import Plane
from streamfuse.network.config import Veil

log = logging.getLogger("streamfuse")


def as_seen(veil: Veil, ir: Plane, vis: Plane) -> Plane:
    """Return the visible picture as a network with this treatment of veils gets it; `vis` itself if nothing changes."""
    lift = _lift() if veil is Veil.LIFTED else None
    return vis if lift is None else lift(ir, vis)


@functools.cache
def _lift() -> Callable[[Plane, Plane], Plane] | None:
    # Engines are also measured on machines that have little more than PyTorch.
    try:
        from streamfuse.engines.veil import lift_veil
    except ModuleNotFoundError:
        log.warning("opencv-python is not installed: what infrared sees behind white smoke is not shown")
        return None
    return lift_veil
