"""One connection to a live stream, through PyAV: open, read, decode, fail with a reason that may be shown.

Only the thread that reads touches the container: closing it under a blocked read crashes the process.  So every wait
in here is short, and every timeout is reported to the reader.
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from streamfuse.errors import InputError
from streamfuse.sources.address import Address
from streamfuse.sources.clocks import SECOND
from streamfuse.sources.limits import check_pixels
from streamfuse.sources.options import DEFAULT, SourceOptions

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.error import FFmpegError
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

OPEN_S, READ_S = 3.0, 0.5
"""Longest time for opening and for one read.  FFmpeg takes twice as long the first time and loses the packet that it
had begun, so this must be longer than short interruptions of a network."""
MOST_BACKOFF_S, REFUSED_BACKOFF_S = 1.5, 15.0
"""Longest time between attempts to connect, 25 % more or less: a source that is back is found within two seconds.
The second where a password is refused: accounts get locked."""
_PRFT = struct.Struct("<q")
"""First field of AVProducerReferenceTime: microseconds since 1970."""


class Lost(Exception):
    """The connection failed or was lost; the text contains no secret."""

    def __init__(self, reason: str, *, hopeless: bool = False, most_backoff_s: float = MOST_BACKOFF_S) -> None:
        """`hopeless`: another attempt can only succeed after a change at the other end.
        `most_backoff_s`: longest time between attempts.
        """
        super().__init__(reason)
        self.hopeless = hopeless
        self.most_backoff_s = most_backoff_s


@dataclass(frozen=True, slots=True)
class Decoded:
    """A received frame; `frame` is None if it could not be decoded."""

    frame: VideoFrame | None
    media_ns: int | None
    """The stream's own stamp, ns."""
    arrival_ns: int
    reference: tuple[int, int] | None = None
    """A stamp of the sender (ns) and the time at which it was taken (ns since 1970)."""


class Connection:
    """An open connection to a live stream."""

    def __init__(
        self, address: Address, options: SourceOptions = DEFAULT, *, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Connect; raises Lost where that fails, or pictures are larger than `options.max_pixels`.

        `clock`: time of arrival, ns.
        """
        self._clock = clock
        self._container = _open(address)
        try:
            self._stream = _video_of(self._container, options.max_pixels)
            rate = self._stream.average_rate or self._stream.guessed_rate
            self.period_ns = round(SECOND / rate) if rate and 0.5 <= rate <= 1000 else None
            self._ns_per_tick = (self._stream.time_base or Fraction(1, 90_000)) * SECOND
            without_stamps = self._container.format.name in ("mpjpeg", "mjpeg", "image2pipe")
            self.has_stamps = address.has_stamps and not without_stamps
            self.description = self._describe()
        except BaseException:
            self._container.close()
            raise

    def _describe(self) -> str:
        codec = self._stream.codec_context
        size = f"{codec.width}x{codec.height} " if codec.width else ""
        rate = f" at {SECOND / self.period_ns:.4g} fps" if self.period_ns else ""
        return f"{size}{codec.name}{rate}"

    @property
    def start_since_1970_ns(self) -> int | None:
        """Time of the sender's stamp 0, ns since 1970; None while the sender has not reported it."""
        start_us = self._container.start_time_realtime
        return start_us * 1000 if start_us is not None else None

    def read(self) -> Iterator[Decoded | None]:
        """Yield frames as they arrive, and None after each `READ_S` without one; raises Lost at the end."""
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.ExitError, av.error.BlockingIOError, av.error.TimeoutError):
                packets = self._container.demux(self._stream)
                yield None
                continue
            except av.error.FFmpegError as error:
                raise Lost(f"reading failed: {_words(error)}") from None
            arrival_ns = self._clock()
            if packet is None or packet.size == 0:
                raise Lost("the other end closed it")
            reference = self._reference(packet)
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                yield Decoded(None, None, arrival_ns, reference)
                continue
            for frame in frames:
                media_ns = self._to_ns(frame.pts) if frame.pts is not None and self.has_stamps else None
                yield Decoded(None if frame.is_corrupt else frame, media_ns, arrival_ns, reference)
                reference = None  # told once

    def _to_ns(self, ticks: int) -> int:
        return round(ticks * self._ns_per_tick)

    def _reference(self, packet: Packet[VideoStream]) -> tuple[int, int] | None:
        if packet.pts is None or not packet.has_sidedata("prft"):
            return None
        since_1970_us = _PRFT.unpack_from(bytes(packet.get_sidedata("prft")))[0]
        return self._to_ns(packet.pts), since_1970_us * 1000

    def close(self) -> None:
        self._container.close()


def _open(address: Address) -> InputContainer:
    import av

    av.logging.set_level(None)  # FFmpeg writes URLs with their passwords to stderr
    try:
        return av.open(
            address.url,
            format=address.format,
            options=dict(address.options),
            timeout=(OPEN_S, READ_S),
            metadata_errors="replace",
        )
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise explain(error, address.format, local=address.local) from None


def explain(error: Exception, form: str | None = None, *, local: bool = False) -> Lost:
    """Convert an error of `av.open` or of the first packet, whose text contains the URL, to a Lost without secrets.

    `form`: FFmpeg's name of the requested format.  `local`: the address is a device of this machine.
    """
    import av

    refused = REFUSED_BACKOFF_S
    if isinstance(error, ValueError) and not isinstance(error, av.error.FFmpegError):
        return Lost(f"this PyAV knows no {form}", hopeless=True)
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return Lost("it asks for another user name or password (401)", hopeless=True, most_backoff_s=refused)
    if isinstance(error, av.error.HTTPForbiddenError):
        return Lost("it refuses access (403)", hopeless=True, most_backoff_s=refused)
    if isinstance(error, av.error.HTTPNotFoundError):
        return Lost("there is no such stream on that server (404): check the path", hopeless=True)
    if isinstance(error, av.error.HTTPClientError):
        return Lost(f"the server refuses the request ({_words(error)})", hopeless=True)
    if isinstance(error, ConnectionRefusedError):
        return Lost("nothing listens there (connection refused): is it on, and is the port right?")
    if isinstance(error, FileNotFoundError):
        if local:
            text = "there is no such camera: connect it, or name one that `streamfuse doctor` lists"
            return Lost(text, hopeless=True)
        return Lost("there is no such file")
    if isinstance(error, PermissionError):
        return Lost("it may not be opened (permission denied): join the group video", hopeless=local)
    if isinstance(error, av.error.ExitError):
        return Lost(f"it did not answer within {OPEN_S:g} s")
    if isinstance(error, av.error.InvalidDataError):
        return Lost("it does not answer, or its answer is not a stream that can be read")
    # FFmpeg's end of file is no OSError.
    if isinstance(error, OSError | av.error.FFmpegError):
        if error.errno == errno.EBUSY:
            return Lost("another program is using it", hopeless=local)
        return Lost(f"it cannot be reached, or it is not a stream ({_words(error)})")
    raise error


def _words(error: OSError | FFmpegError) -> str:
    """Return FFmpeg's message without the URL that its errors carry."""
    return str(error.strerror or "unknown error").lower()


def _video_of(container: InputContainer, max_pixels: int) -> VideoStream:
    video = container.streams.video
    if not video:
        raise Lost("it has no video stream", hopeless=True)
    stream = video[0]
    codec = stream.codec_context
    if codec is None:
        raise Lost("its codec is unknown", hopeless=True)
    try:
        check_pixels("it", codec.width, codec.height, max_pixels)
    except InputError as error:
        raise Lost(str(error), hopeless=True) from None
    codec.options = {"max_pixels": str(max_pixels)}  # the decoder applies it to later changes of size, too
    codec.thread_count = 1  # more would each hold a frame back
    codec.flags |= _LOW_DELAY
    return stream


_LOW_DELAY = 1 << 19
"""AV_CODEC_FLAG_LOW_DELAY: a frame comes out with its packet and not with the next."""
