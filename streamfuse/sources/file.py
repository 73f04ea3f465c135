"""Video files: any container and codec that FFmpeg reads, through PyAV.

Only the thread that iterates touches the container (closing it under a blocked read crashes the process).
Frames that the decoder could not make sense of are skipped and counted; a file that ends before its header
says so is read to its end and reported as damaged.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.errors import InputError
from streamfuse.frames import DEFAULT_PERIOD_NS, Clock, Frame
from streamfuse.sources.base import Source
from streamfuse.sources.limits import check_pixels
from streamfuse.sources.options import DEFAULT, SourceOptions
from streamfuse.sources.pixels import PixelReader
from streamfuse.support.notes import warn_once

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


_MATROSKA_DURATION = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")
"""00:00:03.333000000: end of the stream, not its duration."""

_INDEXED = frozenset({"mov", "mp4", "matroska", "webm"})
"""Containers with an index, in which a seek leads exactly to a key frame."""

CORRUPT = "corrupt frame"
BACKWARDS = "stamp not after the one before"
SMALL_PIXELS = 1280 * 720
"""Up to this size one decoding thread keeps up, and more threads only take memory."""


class VideoFile(Source):
    """The first video stream of a file.

    Stamps are the file's presentation times in ns; in MPEG-TS and MPEG-PS, whose clock starts anywhere, they are
    relative to the container's start.  The constructor raises InputError for a file that cannot be opened or decoded,
    UsageError for an unknown `options.agc`.
    """

    clock = Clock.MEDIA

    def __init__(self, path: Path, options: SourceOptions = DEFAULT) -> None:
        super().__init__()
        self.name = str(path)
        self.files = [path]
        self._pixels = PixelReader(options, self.name, self.repeated)
        self._container = _open(path)
        try:
            if options.gpu is not None and (on_gpu := _on_gpu(path, options.gpu)) is not None:
                self._container.close()
                self._container = on_gpu
            self._stream = _video_stream(path, self._container, options.max_pixels)
            self._read_header()
        except BaseException:
            self._container.close()
            raise
        self._packets = self._delivered = 0
        self._jumped = False

    def _read_header(self) -> None:
        codec = self._stream.codec_context
        codec.thread_count = 1 if codec.width * codec.height <= SMALL_PIXELS else os.cpu_count() or 1
        self.size = (codec.height, codec.width)
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.period_ns = round(1e9 / rate) if rate else None
        base = self._stream.time_base or Fraction(1, 1_000_000)
        self._ns_per_tick = base * 1_000_000_000
        self._origin_ns = 0
        if self._container.format.name in {"mpegts", "mpeg"} and self._container.start_time is not None:
            self._origin_ns = self._container.start_time * 1000
        start = self._stream.start_time
        self.first_stamp_ns = self._to_ns(start) if start is not None else None
        self.frame_count = self._expected_frames()

    def _to_ns(self, ticks: int) -> int:
        return round(ticks * self._ns_per_tick) - self._origin_ns

    def _expected_frames(self) -> int | None:
        if self._counted_frames():
            return self._counted_frames()
        duration_s = self._duration_s()
        rate = self._stream.average_rate
        return round(duration_s * rate) if duration_s and rate else None

    def _counted_frames(self) -> int:
        """Number of frames in the index, 0 without one; AVI also counts frames that were dropped while recording."""
        return self._stream.frames if self._container.format.name != "avi" else 0

    def _duration_s(self) -> float | None:
        """Duration in s as the header claims it."""
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        if match := _MATROSKA_DURATION.fullmatch(stream.metadata.get("DURATION", "")):
            end_s = int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
            return end_s - max(self.first_stamp_ns or 0, 0) / 1e9
        if self._container.duration is not None and len(self._container.streams) == 1:
            return self._container.duration / 1e6
        return None

    def cut_before(self, stamp_ns: int) -> int | None:
        """Stamp of the last key frame at or before `stamp_ns`; None in containers without an index."""
        if not self._seek(stamp_ns):
            return None
        key = next((p.pts for p in self._container.demux(self._stream) if p.is_keyframe and p.pts is not None), None)
        return None if key is None else self._to_ns(key)

    def start_at(self, stamp_ns: int) -> None:
        self._jumped = self._seek(stamp_ns)

    def _seek(self, stamp_ns: int) -> bool:
        import av

        if _INDEXED.isdisjoint(self._container.format.name.split(",")):
            return False
        try:
            self._container.seek(int((stamp_ns + self._origin_ns) / self._ns_per_tick), stream=self._stream)
        except av.error.FFmpegError:
            return False
        return True

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        last_ns: int | None = None
        began = time.monotonic_ns()
        for decoded, ticks in self._decode():
            if decoded is None:
                self.drops[CORRUPT] += 1
                index += 1
                continue
            if ticks is not None:
                stamp_ns = self._to_ns(ticks)
            else:
                stamp_ns = 0 if last_ns is None else last_ns + (self.period_ns or DEFAULT_PERIOD_NS)
            if last_ns is not None and stamp_ns <= last_ns:
                self.drops[BACKWARDS] += 1
                index += 1
                continue
            last_ns = stamp_ns
            picture = self._pixels.read(decoded, stamp_ns)
            self._delivered += 1
            yield self._recorded(picture, stamp_ns, index, began)
            began = time.monotonic_ns()
            index += 1
        self._check_complete(last_ns)

    def _decode(self) -> Iterator[tuple[VideoFrame | None, int | None]]:
        """Yield frames in presentation order with their stamps in ticks; None for a frame that is lost."""
        import av

        # AVI stores no presentation times.  Its decoding times rise by the same steps, so frame n gets the n-th.
        without_pts = self._container.format.name == "avi"
        decoding_times: deque[int | None] = deque()
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                self.damage = f"reading stopped: {error.strerror}"
                return
            if packet is None:
                return
            if packet.size:
                self._packets += 1
                decoding_times.append(packet.dts)
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                if decoding_times:
                    decoding_times.popleft()
                yield None, None
                continue
            for frame in frames:
                decoding_time = decoding_times.popleft() if decoding_times else None
                ticks = decoding_time if without_pts else frame.pts
                yield (None if frame.is_corrupt else frame), ticks

    def _check_complete(self, last_ns: int | None) -> None:
        period_ns = self.period_ns or 0
        claimed_s = self._duration_s()
        end_s = ((last_ns if last_ns is not None else 0) + period_ns - (self.first_stamp_ns or 0)) / 1e9
        if self.damage is not None:
            self.damage = f"{self.damage} at {end_s:.2f} s"
        elif self._counted_frames():
            # A trimmed file lists more frames than it plays: then it ends where its duration says.
            plays_s = (self._container.duration or 0) / 1e6
            short = self._jumped or self._packets < self._counted_frames()
            if short and end_s < plays_s - 2 * period_ns / 1e9:
                read = f"{self._delivered} of {self._counted_frames()} frames could be read"
                self.damage = f"cut off at {end_s:.2f} s of {plays_s:.2f} s" if self._jumped else f"cut off: {read}"
        elif claimed_s is not None and end_s < claimed_s - max(5 * period_ns / 1e9, 0.1):
            self.damage = f"cut off at {end_s:.2f} s of {claimed_s:.2f} s"

    def close(self) -> None:
        self._container.close()


def _open(path: Path) -> InputContainer:
    import av

    av.logging.set_level(None)  # FFmpeg writes every oddity to stderr; what matters is counted or raised
    try:
        return av.open(f"file:{path}", metadata_errors="replace")
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except PermissionError:
        raise InputError(f"{path} may not be read: permission denied") from None
    except av.error.FFmpegError as error:
        raise InputError(f"{path} {_why_unreadable(path, str(error.strerror))}") from None


def _video_stream(path: Path, container: InputContainer, max_pixels: int) -> VideoStream:
    """Return the first video stream, which refuses pictures of more than `max_pixels`; raises InputError."""
    video = container.streams.video
    if not video:
        raise InputError(f"{path} has no video stream")
    codec = video[0].codec_context
    if codec is None or codec.width == 0:
        raise InputError(f"{path}: the video stream cannot be decoded (unknown codec, or its header is damaged)")
    check_pixels(str(path), codec.width, codec.height, max_pixels)
    codec.options = {"max_pixels": str(max_pixels)}  # the decoder applies it to later changes of size, too
    return video[0]


def _on_gpu(path: Path, gpu: int) -> InputContainer | None:
    """Open a readable file so that a GPU decodes it into host memory; None if that GPU cannot decode it."""
    import av
    from av.codec.hwaccel import HWAccel

    try:
        return av.open(
            f"file:{path}", metadata_errors="replace", hwaccel=HWAccel("cuda", gpu, allow_software_fallback=True)
        )
    except (av.error.FFmpegError, NotImplementedError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        warn_once(f"cuda:{gpu} does not decode this kind of video here ({reason}); decoding on the CPU")
        return None


def _why_unreadable(path: Path, ffmpeg_says: str) -> str:
    """Tell apart what FFmpeg calls "invalid data" in every case."""
    if path.stat().st_size == 0:
        return "is empty (0 bytes)"
    if _mp4_without_index(path):
        return (
            "was cut off before its index (the moov box) was written, so nothing in it can be decoded; "
            "copy it again from where it was recorded"
        )
    return f"is not a video that can be read ({ffmpeg_says.lower()})"


def _mp4_without_index(path: Path) -> bool:
    size = path.stat().st_size
    with path.open("rb") as file:
        offset = 0
        kinds: list[bytes] = []
        while offset + 8 <= size and len(kinds) < 64:
            file.seek(offset)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            kinds.append(kind)
            if length < 8:
                break
            offset += length
    return kinds[:1] == [b"ftyp"] and b"moov" not in kinds and b"moof" not in kinds
