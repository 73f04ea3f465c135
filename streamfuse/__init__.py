"""Fuse an infrared and a visible stream into one picture that shows both.

>>> import streamfuse
>>> fused = streamfuse.Fuser().fuse(ir, vis)

>>> with streamfuse.Pipeline("ir.mp4", "vis.mp4") as pipeline:
...     for frame in pipeline:
...         show(frame.to_bgr())

Names are imported on first use, so importing the package is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamfuse.errors import (
        DamagedInput,
        EngineError,
        InputError,
        NothingReceived,
        OutputError,
        StreamfuseError,
        UsageError,
        WeightsError,
    )
    from streamfuse.frames import Frame, FramePair, FusedFrame
    from streamfuse.fuser import Fuser
    from streamfuse.pipeline import Pipeline
    from streamfuse.sinks import open_sink
    from streamfuse.sources import SourceOptions, open_source
    from streamfuse.zeromq.subscriber import Subscriber

__version__ = "0.1.0"

_MODULES = {
    "Fuser": "streamfuse.fuser",
    "Pipeline": "streamfuse.pipeline",
    "Subscriber": "streamfuse.zeromq.subscriber",
    "open_sink": "streamfuse.sinks",
    "SourceOptions": "streamfuse.sources",
    "open_source": "streamfuse.sources",
    **dict.fromkeys(("Frame", "FramePair", "FusedFrame"), "streamfuse.frames"),
    **dict.fromkeys(
        (
            "DamagedInput",
            "EngineError",
            "InputError",
            "NothingReceived",
            "OutputError",
            "StreamfuseError",
            "UsageError",
            "WeightsError",
        ),
        "streamfuse.errors",
    ),
}

__all__ = [
    "DamagedInput",
    "EngineError",
    "Frame",
    "FramePair",
    "FusedFrame",
    "Fuser",
    "InputError",
    "NothingReceived",
    "OutputError",
    "Pipeline",
    "SourceOptions",
    "StreamfuseError",
    "Subscriber",
    "UsageError",
    "WeightsError",
    "open_sink",
    "open_source",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'streamfuse' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
