"""The options of a batch: sent to the workers beside the paths of each recording."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from streamfuse import __version__
from streamfuse.batch.recordings import Recording, path_of
from streamfuse.errors import InputError, UsageError
from streamfuse.options import FusionOptions
from streamfuse.sinks.video_format import JPEG, MCAP

_SAME_RESULT = frozenset({"weights", "calib", "gpu", "max_pixels"})
"""Fusion options that do not change the result, and files that are identified by their content."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Options for fusing the recordings of a batch; every path is absolute."""

    fusion: FusionOptions = field(default_factory=FusionOptions)
    weights_digest: str = ""
    """SHA-256 of the weights, hex; a worker that finds other weights refuses them."""
    threads: int = 1
    """Threads of each engine on a CPU."""
    split_s: float | None = None
    """Longer recordings are fused in segments of about this many seconds; None: never."""
    version: str = __version__
    """A worker with another version refuses the recording."""

    @property
    def suffix(self) -> str:
        """Suffix of an output whose name is not given: .mkv for FFV1, .mcap for JPEG, else .mp4."""
        return {"ffv1": ".mkv", JPEG: MCAP}.get(self.fusion.video.codec, ".mp4")

    def for_recording(self, recording: Recording) -> FusionOptions:
        """Return the fusion options with the recording's own calibration and offset, where it has them."""
        offset_ms = self.fusion.ir_offset_ms if recording.ir_offset_ms is None else recording.ir_offset_ms
        calib = Path(recording.calib) if recording.calib else self.fusion.calib
        return replace(self.fusion, calib=calib, ir_offset_ms=offset_ms)


def check(options: BatchOptions, recordings: list[Recording]) -> BatchOptions:
    """Return the options with the digest of the weights.

    Raises what a run with these options would raise at its start: UsageError and EngineError (WeightsError).
    Calibration files are read where they are used.
    """
    from streamfuse.alignment import AUTO, parse_distance
    from streamfuse.engines import engine_names
    from streamfuse.engines.base import parse_device, parse_precision
    from streamfuse.engines.presets import parse_preset
    from streamfuse.errors import EngineError
    from streamfuse.network.checkpoint import default_weights, read_info
    from streamfuse.tone import make_tone

    fusion = options.fusion
    choice = fusion.engine
    if choice.engine != "auto" and choice.engine not in engine_names():
        raise EngineError(f"unknown engine {choice.engine!r}: use auto, {', '.join(engine_names())}")
    parse_precision(choice.precision)
    if choice.device != "auto":
        parse_device(choice.device)
    if choice.preset != "auto":
        parse_preset(choice.preset)
    info = read_info(choice.weights or default_weights())
    make_tone(fusion.tone, str(info.config.output))
    if fusion.distance_m in AUTO:
        raise UsageError(
            f"--distance-m {fusion.distance_m} follows a scene, and a batch may split it: use `run`, or give metres or "
            "far"
        )
    if fusion.distance_m is not None:
        parse_distance(fusion.distance_m)
    for recording in recordings:
        fusion.video.check(recording.output)
        if options.split_s is not None and recording.output.suffix.lower() == MCAP:
            raise UsageError(f"{recording.output.name}: segments of {MCAP} cannot be joined: leave out --split")
    if options.split_s is not None and options.split_s < 1:
        raise UsageError(f"segments must be at least 1 s long, got {options.split_s:g}")
    return replace(options, weights_digest=info.whole_digest)


def made_of(recording: Recording, options: BatchOptions) -> dict[str, Any]:
    """Return everything that the output of a recording depends on, as JSON has it.

    Two results are equal if and only if the output need not be made again.  Files are identified by path, size and
    time of change.  Raises InputError for a file that is missing.
    """
    fusion = options.for_recording(recording)
    return {
        "inputs": hashlib.sha256("".join(map(_identity, recording.inputs)).encode()).hexdigest(),
        "options": {key: value for key, value in fusion.as_dict().items() if key not in _SAME_RESULT},
        "weights": options.weights_digest,
        "calibration": _digest(fusion.calib) if fusion.calib is not None else None,
        "version": options.version,
    }


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _identity(text: str) -> str:
    from streamfuse.sources.sequence import is_pattern, match_pattern

    path = Path(path_of(text))
    rest = text.removeprefix(path_of(text))
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
            lines.append(f"{file}{rest}\0{stat.st_size}\0{stat.st_mtime_ns}\n")
    except FileNotFoundError:
        raise InputError(f"there is no {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return "".join(lines)
