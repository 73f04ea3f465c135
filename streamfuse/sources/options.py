"""The options of a source: parsed once, then passed whole to whatever opens or reads it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from streamfuse.errors import UsageError
from streamfuse.sources.limits import MAX_PIXELS

LAYOUTS = ("auto", "plain", "infiray", "lepton", "seek", "y16")
"""Values of `layout`; `streamfuse.sources.thermal.layouts` describes them."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Options of a source; raises UsageError for a value that is not possible."""

    fps: float | None = None
    """Frames per second of images; None: as the sequence says, else 25.  Other sources have their own rate."""
    agc: str = "percentile"
    """Gain control for grey of more than 8 bits: one of `streamfuse.sources.agc.AGCS`, or a span of
    temperatures such as temperature:10C..40C."""
    gpu: int | None = None
    """Index of the NVIDIA GPU that decodes video files, if it can; None: the CPU decodes."""
    max_pixels: int = MAX_PIXELS
    """Largest picture that is read, in pixels; a larger one is refused before it is decoded."""

    layout: str = "auto"
    """Layout of a thermal camera's frames: one of `streamfuse.sources.thermal.layouts.Layout`."""
    temperature: str = ""
    """How counts become temperatures, as `streamfuse.sources.thermal.degrees` describes; "": only a file's own way."""

    def __post_init__(self) -> None:
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise UsageError(f"fps must be a number above 0, got {self.fps:g}")
        if self.max_pixels < 1:
            raise UsageError(f"max_pixels must be at least 1, got {self.max_pixels}")
        if self.layout not in LAYOUTS:
            raise UsageError(f"layout={self.layout} is not known: use {', '.join(LAYOUTS)}")

    def with_fps(self, fps: float | None) -> SourceOptions:
        """Return the same options with another frame rate, where one is given."""
        return self if fps is None else replace(self, fps=fps)


DEFAULT = SourceOptions()
