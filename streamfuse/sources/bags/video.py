"""Video in messages: each holds one frame as an encoder made it, and key frames bring what a decoder needs."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias, cast

if TYPE_CHECKING:
    from av import VideoCodecContext
    from av.video.frame import VideoFrame

FORMATS = {"h264": "h264", "h265": "hevc", "hevc": "hevc", "vp9": "vp9", "av1": "libdav1d"}
"""Formats of messages, and FFmpeg's names of their decoders; its own one for AV1 needs a GPU."""
MOST_WAITING = 64
"""Most frames that a decoder may hold back; a stream that claims more is not followed."""


Decoded: TypeAlias = "tuple[int, int, VideoFrame | None]"
"""Index and stamp (ns) of a message, and its frame; None for one that is lost."""


class VideoDecoder:
    """Decodes the messages of one topic in their order."""

    def __init__(self, kind: str, max_pixels: int) -> None:
        """`kind`: one of FORMATS.  Larger frames than `max_pixels` are lost."""
        import av

        av.logging.set_level(None)
        self._context = cast("VideoCodecContext", av.CodecContext.create(FORMATS[kind], "r"))
        self._context.options = {"max_pixels": str(max_pixels)}
        self._context.thread_count = 1  # more hold frames back
        self._kind = kind
        self._waiting: dict[int, tuple[int, int]] = {}
        """Index and stamp of each message that is in the decoder, by the number of its packet."""
        self._packets = 0
        self._started = False

    def decode(self, index: int, stamp_ns: int, data: bytes) -> Iterator[Decoded]:
        """Decode a message; frames before the first key frame, and damaged ones, are lost."""
        import av

        self._started = self._started or is_key(data, self._kind) is not False
        if not self._started or not data:
            yield index, stamp_ns, None
            return
        packet = av.Packet(data)
        packet.pts = packet.dts = self._packets
        self._waiting[self._packets] = index, stamp_ns
        self._packets += 1
        try:
            frames = self._context.decode(packet)
        except av.error.FFmpegError:
            yield *self._waiting.pop(packet.pts), None
            return
        yield from self._taken(frames)
        while len(self._waiting) > MOST_WAITING:
            yield *self._waiting.pop(next(iter(self._waiting))), None

    def flush(self) -> Iterator[Decoded]:
        """Return what the decoder still holds."""
        import av

        with contextlib.suppress(av.error.FFmpegError):
            yield from self._taken(self._context.decode(None) if self._packets else [])
        for index, stamp_ns in self._waiting.values():
            yield index, stamp_ns, None
        self._waiting.clear()

    def _taken(self, frames: list[VideoFrame]) -> Iterator[Decoded]:
        for frame in frames:
            if frame.pts is not None and (found := self._waiting.pop(frame.pts, None)) is not None:
                yield *found, None if frame.is_corrupt else frame


def first_size(kind: str, messages: Iterable[bytes], max_pixels: int) -> tuple[int, int] | None:
    """Return (height, width) of the first frame that can be decoded; None where there is none."""
    decoder = VideoDecoder(kind, max_pixels)
    found = (one for index, data in enumerate(messages) for one in decoder.decode(index, 0, data))
    for one in itertools.chain(found, decoder.flush()):
        if one[2] is not None:
            return one[2].height, one[2].width
    return None


def is_key(data: bytes, kind: str) -> bool | None:
    """Tell whether a message begins with a key frame; None for formats of which that is not read.

    H.264 (ITU-T H.264, 7.4.1) and H.265 (ITU-T H.265, 7.4.2) in Annex B: the type of the first unit that is part of a
    picture.
    """
    if FORMATS[kind] not in ("h264", "hevc"):
        return None
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        byte = data[at + 3]
        if FORMATS[kind] == "h264" and 1 <= (unit := byte & 0x1F) <= 5:
            return unit == 5
        if FORMATS[kind] == "hevc" and (unit := byte >> 1 & 0x3F) < 32:
            return 16 <= unit <= 21
        at = data.find(b"\0\0\1", at + 3)
    return False
