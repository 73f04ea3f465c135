"""The sink that sends H.264 to a media server such as MediaMTX or go2rtc: `-o rtsp://server/path`.

FFmpeg holds Python's global lock during the handshake, so a server that does not answer would block every thread.
Therefore a separate process connects to the server; it gets the encoded stream through a pipe and forwards it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from streamfuse.errors import UsageError
from streamfuse.frames import DEFAULT_PERIOD_NS, FusedFrame
from streamfuse.sinks.base import Sink
from streamfuse.sinks.encoder import Encoder
from streamfuse.sinks.encoder_preset import keep_up
from streamfuse.sinks.video_format import VideoFormat
from streamfuse.sources.connection import Lost, explain
from streamfuse.support.backoff import Backoff
from streamfuse.support.urls import expand, redact

if TYPE_CHECKING:
    from av.container import OutputContainer

log = logging.getLogger("streamfuse")

SCHEMES = frozenset({"rtsp", "rtsps"})
PIPE_S = 3.0
"""Time without progress after which the connection counts as lost."""
AWAY = "the server was not available"
_URL = "STREAMFUSE_PUSH_URL"
"""Environment variable that passes the URL to the process; other users can see command lines."""


class PushSink(Sink):
    """Sends a stream to a media server; it reconnects automatically, and drops frames meanwhile."""

    waits = False

    def __init__(
        self,
        url: str,
        video: VideoFormat | None = None,
        *,
        period_ns: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """`period_ns`: nominal time between frames; `clock` (s) and `rng` determine the times of the attempts."""
        self.name = redact(url)
        self._url = expand(url)
        self._format = video or VideoFormat()
        if self._format.codec != "h264":
            raise UsageError(f"-o {self.name}: {self._format.codec} cannot be sent: use --codec h264")
        self.drops: Counter[str] = Counter()
        self._period_ns = period_ns or DEFAULT_PERIOD_NS
        self._clock = clock
        self._backoff = Backoff(rng=rng)
        self._push: _Push | None = None
        self._next_s = 0.0
        self._told: str | None = None
        self._seen = False

    def prepare(self, example: FusedFrame, period_ns: int) -> None:
        self._format = keep_up(self._format, example, period_ns, self.name)

    def write(self, frame: FusedFrame) -> None:
        if self._push is None:
            if self._clock() < self._next_s:
                self.drops[AWAY] += 1
                return
            self._push = _Push(self._url)
        try:
            self._push.write(frame, self._format, self.name, self._period_ns)
        except (OSError, ValueError):  # the pipe is closed, or was full for too long
            self._lose(self._push.end())
            return
        if self._push.connected and (self._backoff.failures or not self._seen):
            log.info("%s: %s", self.name, "reconnected" if self._seen else "connected")
            self._seen, self._told = True, None
            self._backoff.succeed()

    def _lose(self, lost: Lost) -> None:
        self.drops[AWAY] += 1
        self._push = None
        if str(lost) != self._told:
            self._told = str(lost)
            log.warning("%s: %s; reconnecting until it is available", self.name, self._told)
        self._next_s = self._clock() + self._backoff.fail(lost.most_backoff_s)

    def close(self, *, failed: bool = False) -> None:
        if self._push is not None:
            with contextlib.suppress(OSError, ValueError):
                self._push.finish()
            self._push.end()


class _Push:
    """A connection: the sending process and the pipe to it."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, _URL: url},
        )
        self._container: OutputContainer | None = None
        self._encoder: Encoder | None = None
        self._said = b""
        self.connected = False
        try:
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)
        except BaseException:
            self.end()
            raise

    def write(self, frame: FusedFrame | None, video: VideoFormat, name: str, period_ns: int) -> None:
        import av

        if self._container is None:
            assert frame is not None
            self._container = av.open(_Pipe(self._process), "w", format="nut", options={"flush_packets": "1"})
            self._encoder = Encoder(self._container, video, frame, name=name, period_ns=period_ns)
        assert self._encoder is not None
        self._container.mux(self._encoder.encode(frame))
        self._look()

    def _look(self) -> None:
        """Read the process's report on its connection; raises BrokenPipeError if it failed."""
        assert self._process.stdout is not None
        if not self.connected and select.select([self._process.stdout], [], [], 0)[0]:
            self._said = self._process.stdout.readline()
            self.connected = self._said == b"connected\n"
            if not self.connected:
                raise BrokenPipeError

    def finish(self) -> None:
        """Flush the codec and end the stream."""
        if self._container is not None and self._encoder is not None:
            self._container.mux(self._encoder.encode(None))
            self._container.close()

    def end(self) -> Lost:
        """Stop the process and return why the connection ended."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        said = (self._said + process.stdout.read()).splitlines()
        process.stdout.close()
        reasons = [line for line in said if line.startswith(b"{")]
        if not reasons:
            return Lost("the other end closed it" if self.connected else "it does not answer")
        told = json.loads(reasons[-1])
        return Lost(told["reason"], most_backoff_s=told["most_backoff_s"])


class _Pipe:
    """A file object for FFmpeg that writes to the process, and waits at most `PIPE_S` for space in the pipe."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        self._file = process.stdin.fileno()

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        end = time.monotonic() + PIPE_S
        while left:
            if not select.select([], [self._file], [], max(end - time.monotonic(), 0))[1]:
                raise BrokenPipeError("the pipe is full")
            left = left[os.write(self._file, left) :]
        return len(data)


def main() -> None:
    """Forward standard input to the server until either ends; this runs as a process of its own."""
    import av

    av.logging.set_level(None)
    url = os.environ.pop(_URL)
    quick = {"fflags": "nobuffer", "probesize": "32", "analyzeduration": "0"}  # else FFmpeg buffers 5 s first
    try:
        # Unbuffered: a buffered file returns nothing to FFmpeg until it has all the bytes requested.
        with (
            open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as pipe,
            av.open(pipe, "r", format="nut", options=quick) as source,
        ):
            stream = source.streams.video[0]
            options = {"rtsp_transport": "tcp", "timeout": str(int(PIPE_S * 1e6))}
            with av.open(url, "w", format="rtsp", options=options) as server:
                sent = server.add_stream_from_template(stream)
                for number, packet in enumerate(source.demux(stream)):
                    if packet.size:
                        packet.stream = sent
                        server.mux(packet)
                    if number == 0:
                        print("connected", flush=True)
    except (OSError, av.error.FFmpegError) as error:
        lost = explain(error, "rtsp")
        print(json.dumps({"reason": str(lost), "most_backoff_s": lost.most_backoff_s}), flush=True)


if __name__ == "__main__":
    main()
