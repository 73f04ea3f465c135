"""Small recordings for tests: real files, written by FFmpeg through PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.color import Chroma, Plane
from streamfuse.engines.base import Engine, Precision
from streamfuse.frames import Clock, Frame
from streamfuse.network.config import Output
from streamfuse.sources.base import Source

if TYPE_CHECKING:
    from av.video.stream import VideoStream

SIZE = (48, 64)
"""(height, width) of test pictures."""
MS = 1_000_000


def luma_of(index: int, size: tuple[int, int] = SIZE) -> Plane:
    """A picture that encodes its number: 30 + 3 * index grey levels, index below 70, and a bright corner."""
    picture = np.full(size, 30 + 3 * (index % 70), np.uint8)
    picture[: size[0] // 4, : size[1] // 4] = 230
    return picture


def number_of(luma: Plane) -> int:
    """Read the number that `luma_of` wrote; works after any codec."""
    height, width = luma.shape
    return round((float(luma[height // 2 :, width // 2 :].mean()) - 30) / 3)


def write_video(
    path: Path,
    stamps_ms: Sequence[float],
    *,
    size: tuple[int, int] = SIZE,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    u: int = 128,
    v: int = 128,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    rate: int = 25,
    grain: bool = False,
) -> Path:
    """Write a video whose frame k shows number k at the given times.  `u`, `v`: its colour; `grain`: large frames."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=container or {}) as output:
        stream = cast("VideoStream", output.add_stream(codec, rate=rate))
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        stream.bit_rate = 4_000_000
        stream.codec_context.time_base = Fraction(1, 1000 if codec == "mpeg4" else 90_000)
        stream.codec_context.options = {"crf": "10", "bf": "0", **(options or {})} if codec == "libx264" else {}
        for index, stamp in enumerate(stamps_ms):
            yuv = av.VideoFrame(size[1], size[0], "yuv444p")
            limited = np.rint(luma_of(index, size) * (219 / 255) + 16).astype(np.uint8)
            if grain:
                limited[: size[0] // 2, size[1] // 2 :] = rng.integers(16, 236, (size[0] // 2, -(-size[1] // 2)))
            for plane, values in zip(yuv.planes, (limited, u, v), strict=True):
                np.frombuffer(memoryview(plane), np.uint8).reshape(size[0], plane.line_size)[:, : size[1]] = values
            frame = yuv.reformat(format=pixel_format)
            frame.pts, frame.time_base = round(stamp * 90), Fraction(1, 90_000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def every(period_ms: float, count: int, start_ms: float = 0) -> list[float]:
    return [start_ms + period_ms * k for k in range(count)]


def read_video(path: Path) -> tuple[list[float], list[Plane]]:
    """Read presentation times in ms and full-range luma, with PyAV only."""
    times, pictures = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            assert frame.time is not None
            times.append(frame.time * 1000)
            pictures.append(cast(Plane, frame.to_ndarray(format="gray")))
    return times, pictures


def write_images(directory: Path, names: Iterable[str], *, size: tuple[int, int] = SIZE, colour: bool = False) -> Path:
    """Write images; image k shows number k."""
    directory.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        picture: npt.NDArray[np.uint8] = luma_of(index, size)
        if colour:
            picture = cast("npt.NDArray[np.uint8]", cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR))
        assert cv2.imwrite(str(directory / name), picture)
    return directory


def frame_at(stamp_ms: float, *, source: str = "test", index: int = 0, colour: bool = False) -> Frame:
    chroma = Chroma(np.full((24, 32), 100, np.uint8), np.full((24, 32), 160, np.uint8)) if colour else None
    return Frame(luma_of(index), chroma, round(stamp_ms * MS), Clock.MEDIA, index, source)


class ListSource(Source):
    """Frames from a list: a source without a file."""

    def __init__(self, frames: Sequence[Frame], *, live: bool = False, period_ns: int = 40 * MS) -> None:
        super().__init__()
        self.name = frames[0].source if frames else "empty"
        self.live = live
        self.period_ns = period_ns
        self.frame_count = len(frames)
        self.first_stamp_ns = frames[0].stamp_ns if frames else None
        self.closed = False
        self._frames = frames

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield from self._frames

    def close(self) -> None:
        self.closed = True


class PassThrough(Engine):
    """An engine that returns the infrared picture in the way of a network with direct output."""

    name = "pass-through"
    precision = Precision.FP32
    output = Output.DIRECT
    device = "none"

    def prepare(self, height: int, width: int) -> None:
        pass

    def fuse(self, ir: Plane, vis: Plane) -> npt.NDArray[np.float32]:
        return ir.astype(np.float32) / np.float32(255)
