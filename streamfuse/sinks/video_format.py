"""Codec, quality and speed of an encoded video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streamfuse.errors import UsageError
from streamfuse.sinks.target import VIDEO_SUFFIXES

AUTO = "auto"
"""The preset that is measured for live sources; otherwise `DEFAULT_PRESET`."""
DEFAULT_PRESET = "veryfast"
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
CODECS = {"h264": "libx264", "hevc": "libx265", "ffv1": "ffv1"}
"""Codec to FFmpeg's encoder on the CPU."""
JPEG = "jpeg"
"""A codec of MCAP files only: a picture in each message."""
MCAP = ".mcap"


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """Encoder options; `check` compares them with the file's suffix."""

    codec: str = "h264"
    """h264, hevc, ffv1 (lossless, in .mkv) or jpeg (in .mcap)."""
    crf: int = 20
    """Constant quality, 0..51, less is better; not for ffv1."""
    preset: str = AUTO
    """auto or one of PRESETS; not for ffv1."""
    hardware: bool = False
    """Encode on an NVIDIA GPU if it can; `crf` is then a constant quantiser.  Not for ffv1."""

    def check(self, path: Path) -> None:
        """Raise UsageError for options that are not possible, or do not fit the suffix of `path`."""
        suffix = path.suffix.lower()
        if suffix not in VIDEO_SUFFIXES and suffix != MCAP:
            known = " ".join((*sorted(VIDEO_SUFFIXES), MCAP))
            images = ", or with `run` a pattern of images such as out/%06d.png"
            raise UsageError(f"{path}: unknown kind of output; use {known}{images}")
        if self.codec not in CODECS and self.codec != JPEG:
            raise UsageError(f"unknown codec {self.codec!r}: use {', '.join((*CODECS, JPEG))}")
        if self.codec == JPEG and suffix != MCAP:
            raise UsageError(f"jpeg goes into {MCAP}, not {suffix}; for numbered images give a pattern, out/%06d.jpg")
        if self.codec == "ffv1" and suffix != ".mkv":
            raise UsageError(f"ffv1 goes into .mkv, not {suffix}")
        if self.codec == "ffv1" and self.hardware:
            raise UsageError("ffv1 is encoded on the CPU only: leave out --hw-encode")
        if not 0 <= self.crf <= 51:
            raise UsageError(f"crf must be 0..51, got {self.crf}")
        if self.preset not in (AUTO, *PRESETS):
            raise UsageError(f"unknown encoder preset {self.preset!r}: use auto, {', '.join(PRESETS)}")
