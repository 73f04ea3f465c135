"""Encoding of fused frames, for video files and for streams to a server.

The default is H.264 in yuv420p with limited range, which every player supports.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from streamfuse.av_frames import to_av
from streamfuse.color import Matrix, Plane
from streamfuse.color_conversion import narrow_chroma, narrow_luma, resize_chroma, widen_chroma
from streamfuse.errors import OutputError
from streamfuse.frames import Content, FusedFrame
from streamfuse.sinks.video_format import AUTO, CODECS, DEFAULT_PRESET, PRESETS, VideoFormat
from streamfuse.support.notes import warn_once

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

log = logging.getLogger("streamfuse")

TICKS = 90_000
"""Ticks per second of the output's time base: exact for all common frame rates, at most 5.6 us off for others."""
KEYFRAME_S = 2.0
"""Interval between key frames, to which players can seek."""
SMALL_PIXELS = 1280 * 720
"""Largest picture that one encoding thread handles in real time."""

# AVCOL_SPC, AVCOL_PRI, AVCOL_TRC of each matrix.
_COLOR_TAGS = {Matrix.BT601: (6, 6, 6), Matrix.BT709: (1, 1, 1), Matrix.BT2020: (9, 9, 14)}


NVENC = {"h264": "h264_nvenc", "hevc": "hevc_nvenc"}


@functools.cache
def why_not(encoder: str) -> str | None:
    """Return why FFmpeg's encoder of this name does not work here, None if it does; it is opened to find out."""
    import av

    av.logging.set_level(None)
    try:
        context = av.CodecContext.create(encoder, "w")
        context.width, context.height, context.pix_fmt = 256, 256, "yuv420p"  # type: ignore[attr-defined]
        context.framerate = 25  # type: ignore[attr-defined]
        if encoder == "libx265":
            context.options = {"x265-params": "log-level=none"}
        context.open()
    except av.error.FFmpegError as error:
        return str(error.strerror).lower()
    except ValueError as error:  # not part of this FFmpeg
        return str(error)
    return None


class Encoder:
    """Encodes one video stream of a container, configured by its first frame.

    Stamps are `FusedFrame.time_ns`, relative to the first frame if that is negative.  For 4:2:0 an odd side is made
    even by repeating the last row or column.  FFmpeg's errors are raised unchanged.
    """

    def __init__(
        self,
        container: OutputContainer,
        video: VideoFormat,
        first: FusedFrame,
        *,
        name: str,
        period_ns: int,
        threads: int | None = None,
    ) -> None:
        """`name`: of the output, for messages; `period_ns`: nominal time between frames; `threads`: None for one per
        core where a frame is large.
        """
        self._format = replace(video, preset=DEFAULT_PRESET) if video.preset == AUTO else video
        # FFV1 keeps the full range of the fused luma: limited range has 220 levels instead of 256.
        self._lossless = video.codec == "ffv1"
        self._name = name
        self._period_ns = period_ns
        self._shape = first.luma.shape
        self._threads = threads or self.threads(*self._shape)
        self._announced: tuple[int, ...] | None = None
        self._origin_ns = min(first.time_ns, 0)
        self._last_pts = -1
        self._pixel_format = self._choose_pixel_format(first)
        self._stream = self._add_stream(container, first)

    @staticmethod
    def threads(height: int, width: int) -> int:
        """Number of threads that encode frames of this size."""
        return 1 if height * width <= SMALL_PIXELS else os.cpu_count() or 1

    def encode(self, frame: FusedFrame | None) -> Sequence[Packet[VideoStream]]:
        """Encode a frame and return packets for the container; None flushes the codec.

        Raises OutputError if the size of a recording changes.
        """
        if frame is None:
            return self._stream.encode(None)
        if frame.luma.shape != self._shape:
            frame = self._fitted(frame)
        picture = to_av(self._stream.width, self._stream.height, self._pixel_format, self._planes(frame))
        # The container rejects two stamps that round to the same tick.
        pts = max(round((frame.time_ns - self._origin_ns) * TICKS / 1_000_000_000), self._last_pts + 1)
        self._last_pts = pts
        picture.pts, picture.time_base = pts, Fraction(1, TICKS)
        picture.duration = round(self._period_ns * TICKS / 1_000_000_000)
        return self._stream.encode(picture)

    def _add_stream(self, container: OutputContainer, first: FusedFrame) -> VideoStream:
        rate = Fraction(1_000_000_000, self._period_ns).limit_denominator(1_000_000)
        encoder = self._choose_encoder()
        stream = cast("VideoStream", container.add_stream(encoder, rate=rate))
        height, width = self._shape
        if self._pixel_format == "yuv420p" and not self._lossless:
            height, width = height + height % 2, width + width % 2
        stream.height, stream.width, stream.pix_fmt = height, width, self._pixel_format
        codec = stream.codec_context
        codec.time_base = stream.time_base = Fraction(1, TICKS)
        codec.thread_count = self._threads
        codec.color_range = 2 if self._lossless else 1
        matrix = first.chroma.matrix if first.chroma is not None else Matrix.BT601
        codec.colorspace, codec.color_primaries, codec.color_trc = _COLOR_TAGS[matrix]
        keyframe = max(1, round(KEYFRAME_S * rate))
        if self._format.codec == "ffv1":
            codec.options = {"level": "3", "slicecrc": "1", "g": "1"}
        elif encoder in NVENC.values():
            level = 1 + PRESETS.index(self._format.preset) * 6 // (len(PRESETS) - 1)  # p1 to p7
            options = {"preset": f"p{level}", "tune": "ll", "rc": "constqp", "qp": str(self._format.crf)}
            # No look-ahead and no B-frames, as below.
            codec.options = options | {"zerolatency": "1", "delay": "0", "bf": "0", "g": str(keyframe)}
            if self._format.codec == "hevc":
                codec.codec_tag = "hvc1"
        else:
            # zerolatency: no look-ahead and no B-frames, so every frame is in the file as soon as it is written.
            options = {"preset": self._format.preset, "crf": str(self._format.crf), "tune": "zerolatency"}
            if self._format.codec == "hevc":
                options["x265-params"] = f"log-level=none:keyint={keyframe}"
                codec.codec_tag = "hvc1"  # required by Apple's players
            else:
                options |= {"g": str(keyframe), "bf": "0"}
            codec.options = options
        return stream

    def _choose_encoder(self) -> str:
        codec = self._format.codec
        if self._format.hardware:
            reason = why_not(NVENC[codec])
            if reason is None:
                return NVENC[codec]
            warn_once(f"{NVENC[codec]} is not available ({reason}); encoding on the CPU")
        return CODECS[codec]

    def _choose_pixel_format(self, first: FusedFrame) -> str:
        chroma = first.chroma
        if not self._lossless or first.content is Content.INFRARED:  # colour may follow
            return "yuv420p"
        if chroma is None:
            return "gray"
        rows, columns = (-(-a // b) for a, b in zip(self._shape, chroma.u.shape, strict=True))
        return {(1, 1): "yuv444p", (1, 2): "yuv422p"}.get((rows, columns), "yuv420p")

    def _fitted(self, frame: FusedFrame) -> FusedFrame:
        """Resize a frame of a live stream that reconnected with another size; raises OutputError for a recording."""
        (height, width), (rows, columns) = self._shape, frame.luma.shape
        if not frame.live:
            raise OutputError(
                f"{self._name}: frame {frame.index} is {columns}x{rows} and the video is "
                f"{width}x{height}; write pictures of different sizes as images: -o out/%06d.png"
            )
        if self._announced != frame.luma.shape:
            self._announced = frame.luma.shape
            log.warning("%s is %dx%d: pictures of %dx%d are resized to it", self._name, width, height, columns, rows)
        method = cv2.INTER_AREA if height <= rows and width <= columns else cv2.INTER_LINEAR
        return replace(frame, luma=cast(Plane, cv2.resize(frame.luma, (width, height), interpolation=method)))

    def _planes(self, frame: FusedFrame) -> list[Plane]:
        luma = frame.luma if self._lossless else narrow_luma(frame.luma)
        if self._pixel_format == "gray":
            return [luma]
        height, width = self._shape
        down = {"yuv420p": (2, 2), "yuv422p": (1, 2), "yuv444p": (1, 1)}[self._pixel_format]
        shape = -(-height // down[0]), -(-width // down[1])
        if frame.chroma is None:
            neutral = np.full(shape, 128, np.uint8)
            return [luma, neutral, neutral]
        chroma = resize_chroma(frame.chroma, *shape)
        chroma = widen_chroma(chroma) if self._lossless else narrow_chroma(chroma)
        return [luma, chroma.u, chroma.v]
