"""The sink that writes an MCAP file: `-o fused.mcap`, for Foxglove and for programs that read bags of ROS 2.

Its messages are those of ROS 2.  A killed run leaves a file without its index, which holds all but the last moments.

    /fused/video               foxglove_msgs/msg/CompressedVideo, H.264 or H.265; with the codec jpeg instead:
    /fused/image/compressed    sensor_msgs/msg/CompressedImage
    /fused/temperature         sensor_msgs/msg/Image, 16UC1: kelvin = value * step + offset, see below
    /fused/frames              diagnostic_msgs/msg/DiagnosticArray: of each frame its stamps, skew and content
    /fused/run                 diagnostic_msgs/msg/DiagnosticArray, once, at the end: frames read, paired, dropped
    calibration.toml           an attachment: the calibration, if there is one

The scale of the temperatures is in the metadata of their channel (`temperature_step_k`, `temperature_offset_k`) and,
for readers that do not show it, in /fused/frames.  Another scale gets another channel of the same topic.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from streamfuse.color import Plane
from streamfuse.errors import OutputError
from streamfuse.frames import DEFAULT_PERIOD_NS, FusedFrame, Role
from streamfuse.sinks.about import NOTHING, About
from streamfuse.sinks.base import Sink
from streamfuse.sinks.encoder import Encoder
from streamfuse.sinks.encoder_preset import keep_up
from streamfuse.sinks.images import encode_image
from streamfuse.sinks.target import Target
from streamfuse.sinks.video_format import JPEG, VideoFormat
from streamfuse.sources.bags.messages import typestore
from streamfuse.sources.bags.packages import ros_packages
from streamfuse.support.files import reason
from streamfuse.telemetry import Summary, each_count
from streamfuse.temperature import Scale, TemperaturePlane

with ros_packages():
    import mcap.writer

    from streamfuse.sources.bags.mcap_file import OFFSET, STEP

if TYPE_CHECKING:
    from av.container import OutputContainer

FRAME = "fused"
"""Name of the coordinate frame in the messages."""
VIDEO, IMAGE, FRAMES, RUN = "/fused/video", "/fused/image/compressed", "/fused/frames", "/fused/run"
TEMPERATURE = "/fused/temperature"
CALIBRATION = "calibration.toml"
FLUSH_S = 0.5
"""Wall-clock time after which what was written is handed to the system."""
_STREAMS = {"h264": "h264", "hevc": "h265"}
"""Codec to the name that Foxglove has for it; FFmpeg's container without a header has that of the codec."""


class McapSink(Sink):
    """Writes fused frames, their frame accounting and the calibration."""

    def __init__(
        self,
        path: Path,
        video: VideoFormat | None = None,
        *,
        force: bool = False,
        period_ns: int | None = None,
        about: About = NOTHING,
    ) -> None:
        """`period_ns`: nominal time between frames.  Where the epoch is not known, live streams begin at this moment,
        and recordings in 1970.  Raises UsageError and OutputError.
        """
        self._format = video or VideoFormat()
        self._format.check(path)
        self.name = str(path)
        self._period_ns = period_ns or DEFAULT_PERIOD_NS
        self._epoch_ns, self._calibration = about.epoch_ns, about.calibration
        self._state: Callable[[], Summary] | None = None
        self._store = typestore("cdr")
        self._target = Target(path, force=force)
        self._file: BinaryIO = self._target.writing.open("wb")
        self._writer = mcap.writer.Writer(self._file, compression=mcap.writer.CompressionType.ZSTD)
        self._writer.start("ros2")
        self._channels: dict[tuple[str, Scale | None], int] = {}
        self._raw: OutputContainer | None = None
        self._encoder: Encoder | None = None
        self._coding: deque[int] = deque()
        """Times of the frames in the encoder, ns since 1970."""
        self._last_ns = 0
        self._frames = 0
        self._flushed = time.monotonic()

    def attach(self, state: Callable[[], Summary]) -> None:
        self._state = state

    def prepare(self, example: FusedFrame, period_ns: int) -> None:
        if self._format.codec != JPEG:
            with self._errors():
                self._format = keep_up(self._format, example, period_ns, self.name)

    def write(self, frame: FusedFrame) -> None:
        if self._epoch_ns is None:
            self._epoch_ns = time.time_ns() - frame.time_ns if frame.live else 0
        at_ns = max(self._epoch_ns + frame.time_ns, 0)
        with self._errors():
            if self._format.codec == JPEG:
                picture: Plane = frame.luma if frame.chroma is None else frame.to_bgr()
                self._add_picture(IMAGE, at_ns, np.frombuffer(encode_image(self.name, ".jpg", picture), np.uint8))
            else:
                self._coding.append(at_ns)
                self._encode(frame)
            if frame.temperature is not None:
                self._add_temperature(at_ns, frame.temperature)
            self._add_diagnostics(FRAMES, at_ns, "frame", f"frame {frame.index}", _described(frame))
            self._last_ns = at_ns
            self._frames += 1
            if time.monotonic() - self._flushed >= FLUSH_S:
                self._writer.flush()  # type: ignore[no-untyped-call]
                self._flushed = time.monotonic()

    def close(self, *, failed: bool = False) -> None:
        whole = False
        try:
            with self._errors():
                if self._encoder is not None:
                    self._encode(None)
                if self._frames and self._calibration is not None:
                    data = self._calibration.encode()
                    self._writer.add_attachment(0, self._last_ns, CALIBRATION, "application/toml", data)
                if self._frames and self._state is not None:
                    summary = self._state()
                    self._add_diagnostics(RUN, self._last_ns, "run", f"{summary.fused} frames fused", _counted(summary))
                self._writer.finish()  # type: ignore[no-untyped-call]
                self._file.close()
            whole = not failed
        finally:
            self._file.close()
            if self._frames:
                self._target.finish(failed=not whole)
            else:
                self._target.discard()

    def _encode(self, frame: FusedFrame | None) -> None:
        """Encode a frame, or with None what the encoder still has, and write what comes of it."""
        if self._encoder is None:
            import av

            assert frame is not None
            # A container without headers, so that each key frame brings its own; nothing is written to it.
            self._raw = av.open(io.BytesIO(), "w", format=self._format.codec)
            self._encoder = Encoder(self._raw, self._format, frame, name=self.name, period_ns=self._period_ns)
        for packet in self._encoder.encode(frame):
            self._add_picture(VIDEO, self._coding.popleft(), np.frombuffer(bytes(packet), np.uint8))

    def _add_picture(self, topic: str, at_ns: int, data: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        types = self._store.types
        if topic == VIDEO:
            kind = "foxglove_msgs/msg/CompressedVideo"
            message = types[kind](self._time(at_ns), FRAME, data, _STREAMS[self._format.codec])
        else:
            kind = "sensor_msgs/msg/CompressedImage"
            message = types[kind](self._header(at_ns), "jpeg", data)
        self._add(topic, kind, at_ns, message)

    def _add_temperature(self, at_ns: int, plane: TemperaturePlane) -> None:
        height, width = plane.values.shape
        data = np.ascontiguousarray(plane.values, "<u2").view(np.uint8).ravel()
        kind = "sensor_msgs/msg/Image"
        message = self._store.types[kind](self._header(at_ns), height, width, "16UC1", 0, 2 * width, data)
        self._add(TEMPERATURE, kind, at_ns, message, plane.scale)

    def _add_diagnostics(self, topic: str, at_ns: int, name: str, text: str, values: Mapping[str, str]) -> None:
        types = self._store.types
        pairs = [types["diagnostic_msgs/msg/KeyValue"](key, value) for key, value in values.items()]
        status = types["diagnostic_msgs/msg/DiagnosticStatus"](0, f"streamfuse: {name}", text, "streamfuse", pairs)
        kind = "diagnostic_msgs/msg/DiagnosticArray"
        self._add(topic, kind, at_ns, types[kind](self._header(at_ns), [status]))

    def _time(self, at_ns: int) -> Any:
        return self._store.types["builtin_interfaces/msg/Time"](*divmod(at_ns, 1_000_000_000))

    def _header(self, at_ns: int) -> Any:
        return self._store.types["std_msgs/msg/Header"](self._time(at_ns), FRAME)

    def _add(self, topic: str, kind: str, at_ns: int, message: Any, scale: Scale | None = None) -> None:
        if (topic, scale) not in self._channels:
            definition, _ = self._store.generate_msgdef(kind, ros_version=2)
            schema = self._writer.register_schema(kind, "ros2msg", definition.encode())
            metadata = {} if scale is None else {STEP: repr(scale.step), OFFSET: repr(scale.offset)}
            self._channels[topic, scale] = self._writer.register_channel(topic, "cdr", schema, metadata)
        data = bytes(self._store.serialize_cdr(message, kind))
        self._writer.add_message(self._channels[topic, scale], at_ns, data, at_ns)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        import av

        try:
            yield
        except av.codec.codec.UnknownCodecError:
            raise OutputError(
                f"cannot write {self.name}: this FFmpeg has no encoder for {self._format.codec}; use --codec jpeg"
            ) from None
        except av.error.FFmpegError as error:
            raise OutputError(f"cannot write {self.name}: {reason(error.errno, str(error.strerror))}") from None
        except OSError as error:
            raise OutputError(f"cannot write {self.name}: {reason(error.errno, str(error))}") from None


def _described(frame: FusedFrame) -> dict[str, str]:
    """Describe a frame; what is not known is left out."""
    values = {
        "index": frame.index,
        "content": str(frame.content),
        "ir_stamp_ns": frame.ir_stamp_ns,
        "vis_stamp_ns": frame.vis_stamp_ns,
        "ir_clock": frame.ir_clock,
        "vis_clock": frame.vis_clock,
        "skew_ns": frame.skew_ns,
    }
    found = {key: str(value) for key, value in values.items() if value is not None}
    if (plane := frame.temperature) is not None and (extremes := plane.extremes()) is not None:
        found |= {STEP: repr(plane.scale.step), OFFSET: repr(plane.scale.offset)}
        for name, spot in (("coldest", extremes.coldest), ("hottest", extremes.hottest)):
            found[f"{name}_celsius"], found[f"{name}_x_y"] = f"{spot.celsius:.2f}", f"{spot.column} {spot.row}"
        found["mean_celsius"] = f"{extremes.mean:.2f}"
    return found


def _counted(summary: Summary) -> dict[str, str]:
    """Return the frame accounting of a run."""
    values: dict[str, int] = {f"read {role.label}": summary.read.get(role, 0) for role in Role}
    values |= {"paired": summary.pairs, "fused": summary.fused}
    values |= {"lifted": summary.lifted} if summary.lifted else {}
    values |= {f"passed {role}": count for role, count in summary.passthrough.items()}
    values |= {f"dropped {stream}: {why}": count for stream, why, count in each_count(summary.drops)}
    values |= {f"repeated {stream}: {why}": count for stream, why, count in each_count(summary.repeated)}
    return {key: str(value) for key, value in values.items()}
