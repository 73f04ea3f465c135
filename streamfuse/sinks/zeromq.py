"""The sink that publishes fused frames to other programs: `--publish tcp://127.0.0.1:5556`."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from dataclasses import replace

import zmq

from streamfuse.errors import OutputError, UsageError
from streamfuse.frames import FusedFrame
from streamfuse.sinks.base import Sink
from streamfuse.support.files import reason
from streamfuse.zeromq.curve import ServerKeys
from streamfuse.zeromq.payload import describe_temperature, encode, encode_temperature
from streamfuse.zeromq.publisher import join
from streamfuse.zeromq.wire import STREAM, STREAM_RULE, Buffer, Encoding, Header, pack, step_of

QUALITY = 85
DEFAULT_STREAM = "main"


class ZeroMQSink(Sink):
    """Publishes each frame as `streamfuse.zeromq.wire` describes it, for `streamfuse.Subscriber`.

    Sinks with the same URL in one process share its socket.  Frames must not be changed after they were given to the
    sink: they are sent without a copy.
    """

    waits = False

    def __init__(
        self,
        url: str,
        *,
        stream: str = DEFAULT_STREAM,
        encoding: Encoding = Encoding.BGR8,
        quality: int = QUALITY,
        keys: ServerKeys | None = None,
        insecure: bool = False,
        calibration: str | None = None,
        model: str | None = None,
        temperature: bool = False,
    ) -> None:
        """`url`: tcp://, ipc:// or inproc://; `tcp://127.0.0.1:*` finds a free port, see `address`.

        `quality`: of JPEG, 1..100.  `keys`: result of `streamfuse.zeromq.curve.server_keys`; without keys, the URL must
        be an address of this machine, unless `insecure`.  `calibration` and `model`: sent in every `Header`.
        `temperature`: send the temperature of every pixel, too, where there is one.  Raises UsageError, and OutputError
        if the address cannot be bound.
        """
        if not STREAM.fullmatch(stream):
            raise UsageError(f"invalid stream name {stream!r}: {STREAM_RULE}")
        self._encoding = Encoding(encoding)
        self._quality = quality
        self._calibration = calibration
        self._model = model
        self._temperature = temperature
        self._stream = stream
        self._run = secrets.token_hex(8)
        self._seq = 0
        self._lost = Counter[str]()
        self.drops = self._lost
        self.encoded = 0
        """Number of frames whose pixels were encoded."""
        self._publisher, self._topic = join(url, stream, keys, insecure=insecure)
        self.address = self._publisher.address
        """URL for subscribers."""
        self.name = f"{self._publisher.name} ({stream})"

    def write(self, frame: FusedFrame) -> None:
        message = _Message(self, frame, self._seq)
        self._seq += 1
        try:
            lost = self._publisher.offer(self._topic, message)
        except zmq.ZMQError as error:
            raise OutputError(f"cannot publish on {self.name}: {reason(error.errno, str(error))}") from None
        if lost is not None:
            self._lost[lost] += 1

    def close(self, *, failed: bool = False) -> None:
        self._publisher.leave(self._topic)

    def _header(self, frame: FusedFrame, seq: int, *, resent: bool) -> Header:
        """Header of a frame that is published now."""
        height, width = frame.luma.shape
        planar = self._encoding is Encoding.YUV420P and frame.chroma is not None
        return Header(
            run=self._run,
            seq=seq,
            stream=self._stream,
            content=frame.content,
            ir_stamp_ns=frame.ir_stamp_ns,
            vis_stamp_ns=frame.vis_stamp_ns,
            ir_clock=frame.ir_clock,
            vis_clock=frame.vis_clock,
            skew_ns=frame.skew_ns,
            time_ns=frame.time_ns,
            published_ns=time.time_ns(),
            age_ns=time.monotonic_ns() - frame.arrival_ns if frame.arrival_ns else None,
            width=width,
            height=height,
            step=step_of(self._encoding, width),
            encoding=self._encoding,
            matrix=frame.chroma.matrix if planar and frame.chroma is not None else None,
            calibration=self._calibration,
            model=self._model,
            resent=resent,
            temperature=describe_temperature(frame.temperature, part=self._temperature) if frame.temperature else None,
            alarms=frame.alarms,
        )

    def _encode(self, frame: FusedFrame) -> tuple[Buffer, ...]:
        self.encoded += 1
        payload = encode(frame, self._encoding, self._quality)
        if frame.temperature is None or not self._temperature:
            return (payload,)
        return payload, encode_temperature(frame.temperature)


class _Message:
    """A frame that is encoded at most once, when there is a subscriber."""

    def __init__(self, sink: ZeroMQSink, frame: FusedFrame, seq: int) -> None:
        self._sink = sink
        self._frame = frame
        self._seq = seq
        self._made: tuple[Header, tuple[Buffer, ...]] | None = None
        self._lock = threading.Lock()

    def parts(self, *, resent: bool) -> tuple[bytes, *tuple[Buffer, ...]]:
        with self._lock:
            if self._made is None:
                payloads = self._sink._encode(self._frame)
                self._made = self._sink._header(self._frame, self._seq, resent=resent), payloads
            header, payloads = self._made
        return pack(header if header.resent is resent else replace(header, resent=resent)), *payloads
