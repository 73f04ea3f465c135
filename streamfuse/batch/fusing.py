"""How the clips of a batch are fused: what travels to the workers beside the paths."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from streamfuse import __version__
from streamfuse.batch.recordings import Clip
from streamfuse.errors import InputError, UsageError
from streamfuse.sinks.encoder import VideoFormat
from streamfuse.sources.limits import MAX_PIXELS

_SAME_RESULT = frozenset({"weights", "weights_digest", "calib", "threads", "split_s", "hw_decode", "max_pixels"})
"""Options that do not change what comes out, and files that are known by what they hold."""


@dataclass(frozen=True, slots=True)
class Fusing:
    """Options of `streamfuse run`, as they are written there; paths are absolute."""

    weights: str | None = None
    """None for the shipped ones."""
    weights_digest: str = ""
    """SHA-256, hex; a worker that finds other weights refuses them."""
    engine: str = "auto"
    precision: str = "auto"
    preset: str = "auto"
    device: str = "auto"
    threads: int = 1
    """Of each engine, on a CPU."""
    tone: str = "smooth"
    calib: str | None = None
    crop: bool = False
    codec: str = "h264"
    crf: int = 20
    effort: str = "veryfast"
    hw_encode: bool = False
    hw_decode: bool = False
    fps: float | None = None
    agc: str = "percentile"
    ir_offset_ms: float = 0.0
    tolerance_ms: float | None = None
    split_s: float | None = None
    """Recordings that are longer are fused in parts of about so many seconds."""
    max_pixels: int = MAX_PIXELS
    """Of one picture; see `streamfuse.sources.limits`."""
    version: str = __version__
    """A worker that runs another one refuses the clip."""

    @property
    def video(self) -> VideoFormat:
        return VideoFormat(self.codec, self.crf, self.effort, self.hw_encode)

    @property
    def suffix(self) -> str:
        """Of outputs that are not named."""
        return ".mkv" if self.codec == "ffv1" else ".mp4"

    def for_clip(self, clip: Clip) -> Fusing:
        """With what the clip says for itself."""
        offset_ms = self.ir_offset_ms if clip.ir_offset_ms is None else clip.ir_offset_ms
        return replace(self, calib=clip.calib or self.calib, ir_offset_ms=offset_ms)


def check(fusing: Fusing, clips: list[Clip]) -> Fusing:
    """The same, with the digest of its weights.  Raises what a run with these options would raise at its start.

    That is UsageError and EngineError (WeightsError); calibration files are read where they are used.
    """
    from streamfuse.engines import engine_names
    from streamfuse.engines.base import parse_device, parse_precision
    from streamfuse.engines.presets import parse_preset
    from streamfuse.errors import EngineError
    from streamfuse.network.checkpoint import default_weights, read_info
    from streamfuse.tone import make_tone

    if fusing.engine != "auto" and fusing.engine not in engine_names():
        raise EngineError(f"unknown engine {fusing.engine!r}: use auto, {', '.join(engine_names())}")
    parse_precision(fusing.precision)
    if fusing.device != "auto":
        parse_device(fusing.device)
    if fusing.preset != "auto":
        parse_preset(fusing.preset)
    info = read_info(Path(fusing.weights) if fusing.weights else default_weights())
    make_tone(fusing.tone, str(info.config.output))
    for clip in clips:
        fusing.video.check(clip.output)
    if fusing.split_s is not None and fusing.split_s < 1:
        raise UsageError(f"parts must be at least 1 s long, got {fusing.split_s:g}")
    return replace(fusing, weights_digest=info.whole_digest)


def made_of(clip: Clip, fusing: Fusing) -> dict[str, Any]:
    """All that a clip's output depends on, as JSON has it: equal if and only if it need not be made again.

    Files are known by path, size and time of change.  Raises InputError for what is not there.
    """
    fusing = fusing.for_clip(clip)
    options = {key: value for key, value in asdict(fusing).items() if key not in _SAME_RESULT | {"version"}}
    return {
        "inputs": hashlib.sha256("".join(map(_identity, clip.inputs)).encode()).hexdigest(),
        "options": options,
        "weights": fusing.weights_digest,
        "calibration": _digest(Path(fusing.calib)) if fusing.calib else None,
        "version": fusing.version,
    }


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _identity(text: str) -> str:
    from streamfuse.sources.sequence import is_pattern, match_pattern

    path = Path(text)
    try:
        if is_pattern(path.name) and not path.exists():
            files = [file for file, _ in match_pattern(path)]
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
        else:
            files = [path]
        if not files:
            raise InputError(f"there are no images {path}")
        lines = []
        for file in files:
            stat = file.stat()
            lines.append(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n")
    except FileNotFoundError:
        raise InputError(f"there is no {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return "".join(lines)
