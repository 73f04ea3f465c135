"""Recording of sources to video files without fusion, for the demo and for measurements."""

from __future__ import annotations

from pathlib import Path

from streamfuse.frames import FusedFrame
from streamfuse.sinks import open_sink
from streamfuse.sinks.video_format import VideoFormat
from streamfuse.sources import open_source

CAMERA_CRF = 21
"""CRF with which the demo scene has the bit rate of a camera: 1 Mbit/s at 640x480, 6 to 9 at 1920x1080."""


def record(uri: str, path: Path, *, force: bool = False, crf: int = 16) -> None:
    """Record a source that ends to an H.264 file.  Raises InputError and OutputError."""
    with open_source(uri) as source:
        sink = open_sink(str(path), video=VideoFormat(crf=crf), force=force, period_ns=source.period_ns)
        failed = True
        try:
            for frame in source:
                sink.write(FusedFrame(frame.luma, frame.chroma, frame.index, frame.stamp_ns))
            failed = False
        finally:
            sink.close(failed=failed)


def record_scene(directory: Path, size: tuple[int, int], frames: int, crf: int = CAMERA_CRF) -> tuple[Path, Path]:
    """Record the demo scene, (height, width) at 25 fps, to ir.mp4 and vis.mp4 in `directory`; return their paths."""
    height, width = size
    paths = directory / "ir.mp4", directory / "vis.mp4"
    for path in paths:
        record(f"synthetic:{path.stem}?fps=25&size={width}x{height}&seconds={frames / 25}", path, crf=crf)
    return paths
