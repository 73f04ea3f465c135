"""The options of a fusion: what `streamfuse run` and `streamfuse batch` both take, parsed once and passed whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamfuse.sinks.video_format import VideoFormat
from streamfuse.sources.options import SourceOptions

if TYPE_CHECKING:
    from streamfuse.calibration.model import Calibration
    from streamfuse.engines.base import Engine
    from streamfuse.fuser import Fuser


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which engine runs, and where; the values are those of `streamfuse.engines.create_engine`."""

    engine: str = "auto"
    precision: str = "auto"
    preset: str = "auto"
    weights: Path | None = None
    """A safetensors file; None: the shipped weights."""
    device: str = "auto"

    def open(self, threads: int | None = None) -> Engine:
        """Create the engine, with `threads` of them on a CPU; raises EngineError and UsageError."""
        from streamfuse.engines import create_engine

        return create_engine(
            self.engine,
            weights=self.weights,
            precision=self.precision,
            threads=threads,
            device=self.device,
            preset=self.preset,
        )

    def fuser(
        self,
        tone: str,
        calib: Path | Calibration | None = None,
        crop: bool = False,
        distance_m: str | None = None,
        align: str | None = None,
    ) -> Fuser:
        """Create a Fuser with an engine of its own.  Raises EngineError, InputError and UsageError."""
        from streamfuse.fuser import Fuser

        return Fuser(
            self.weights, self.engine, self.precision, tone, calib, crop, self.preset, self.device, distance_m, align
        )


@dataclass(frozen=True, slots=True)
class FusionOptions:
    """Everything that determines the fused pictures of a recording, and how they are encoded."""

    engine: EngineChoice = field(default_factory=EngineChoice)
    sources: SourceOptions = field(default_factory=SourceOptions)
    video: VideoFormat = field(default_factory=VideoFormat)
    tone: str = "smooth"
    """per-frame, smooth or fixed:LO,HI; see `streamfuse.tone`."""
    calib: Path | None = None
    """Calibration file."""
    crop: bool = False
    """Cut the result to the area that both cameras see."""
    distance_m: str | None = None
    """Distance of what must coincide: metres, far or auto; None: that of the calibration."""
    ignore_camera_info: bool = False
    """Do not use the calibration that a bag holds."""
    ir_offset_ms: float = 0.0
    """Added to every infrared stamp."""
    tolerance_ms: float | None = None
    """Largest time between the two frames of a pair; None: half the frame interval of the slower stream."""

    def fuser(self, calibration: Calibration | None = None, align: str | None = None) -> Fuser:
        """Create the Fuser; raises EngineError, InputError and UsageError.

        `calibration`: that of the recording, where there is no calibration file.  `align`: what is done where infrared
        does not fit the visible picture, as for `Fuser`.
        """
        return self.engine.fuser(self.tone, self.calib or calibration, self.crop, self.distance_m, align)

    def as_dict(self) -> dict[str, Any]:
        """Return all values by the names of the command line's options, as JSON has them."""
        values = asdict(self)
        engine, sources, video = (values.pop(key) for key in ("engine", "sources", "video"))
        encoder = {"encoder_preset": video.pop("preset"), "hw_encode": video.pop("hardware")}
        every = {**values, **engine, **sources, **video, **encoder}
        return {key: str(value) if isinstance(value, Path) else value for key, value in every.items()}
