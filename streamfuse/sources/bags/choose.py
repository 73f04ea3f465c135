"""The infrared and the visible topic of a bag, found by what their pictures are."""

from __future__ import annotations

import enum
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from streamfuse.errors import InputError, UsageError
from streamfuse.sources.bags.address import BagAddress
from streamfuse.sources.bags.bag import Bag
from streamfuse.sources.bags.encodings import COLOR_ENCODINGS, DEPTH_HEADER, GREY_ENCODINGS
from streamfuse.sources.bags.messages import Picture, read_picture
from streamfuse.sources.bags.records import Damaged
from streamfuse.sources.bags.source import because, read_begin
from streamfuse.sources.bags.topic import Topic
from streamfuse.sources.bags.video import first_size
from streamfuse.sources.decode import decode_image
from streamfuse.sources.limits import MAX_PIXELS

log = logging.getLogger("streamfuse")

_THERMAL = re.compile(
    r"(?<![a-z])(ir|lwir|mwir|therm(al|o)\w*|infra\w*|flir\w*|boson|lepton|tau2?|seek|optris|xenics|vue)(?![a-z])"
)
_VISIBLE = re.compile(r"(?<![a-z])(rgb|vis|visible|visual|colou?r|eo|webcam)(?![a-z])")
_NEITHER = re.compile(r"(?<![a-z])(depth|disparity|aligned_depth_to_color|confidence|mask)(?![a-z])")
_TRANSPORTS = ("/compressed", "/compressedDepth")


class Look(enum.IntEnum):
    """Kind of a topic's pictures."""

    GREY = 0
    """Grey of 8 bits."""
    DEEP = 1
    """Grey of more bits, as thermal cameras have."""
    COLOR = 2


@dataclass(frozen=True, slots=True)
class ImageTopic:
    """A topic of pictures, and what its first picture is like."""

    topic: Topic
    encoding: str
    """Encoding or format, as the message has it."""
    size: tuple[int, int]
    """(height, width)."""
    look: Look
    frame: str
    """Name of the camera's coordinate frame."""

    @property
    def image(self) -> str:
        """Name of the topic without the suffix of its compression."""
        name = self.topic.name
        return next((name.removesuffix(end) for end in _TRANSPORTS if name.endswith(end)), name)

    @property
    def camera(self) -> str:
        """Namespace of the camera: several topics may show the same pictures."""
        return self.image.rpartition("/")[0]

    def __str__(self) -> str:
        height, width = self.size
        return f"{self.topic.name} ({self.encoding.strip() or 'unknown'}, {width}x{height})"


def survey(bag: Bag) -> list[ImageTopic]:
    """Look at the first picture of each topic of pictures; topics without one that can be read are left out."""
    found = []
    for message in read_begin(bag).values():
        if message.topic.is_image:
            try:
                picture = read_picture(message)
                size, look = _look(picture)
            except (Damaged, InputError):
                continue
            found.append(ImageTopic(message.topic, picture.encoding, size, look, picture.frame))
    return sorted(found, key=lambda one: one.topic.name)


def _look(picture: Picture) -> tuple[tuple[int, int], Look]:
    """Return the size of a picture and its kind; raises Damaged and InputError."""
    if picture.video:
        size = first_size(picture.video, [picture.data.tobytes()], MAX_PIXELS)
        if size is None:
            raise Damaged("a frame of video that cannot be decoded")
        return size, Look.COLOR
    if picture.compressed:
        data = picture.data.tobytes()
        if "compresseddepth" in picture.encoding.lower().replace(" ", ""):
            data = data[DEPTH_HEADER:]
        pixels = decode_image(data, "a picture", MAX_PIXELS)
        if pixels is None:
            raise Damaged("a picture that cannot be decoded")
        look = Look.COLOR if pixels.ndim == 3 else Look.DEEP if pixels.dtype == np.uint16 else Look.GREY
        return (pixels.shape[0], pixels.shape[1]), look
    encoding = picture.encoding.lower()
    look = Look.COLOR
    if encoding in GREY_ENCODINGS:
        look = Look.GREY if GREY_ENCODINGS[encoding] is np.uint8 else Look.DEEP
    elif encoding not in COLOR_ENCODINGS:
        raise Damaged("a picture of an unknown encoding")
    return (picture.height, picture.width), look


Pair: TypeAlias = tuple[ImageTopic, ImageTopic]
"""The infrared and the visible topic."""


def find_pair(bag: Bag, ask: Callable[[Sequence[ImageTopic]], Pair] | None = None) -> Pair:
    """Find the infrared and the visible topic.

    Where that is not certain, `ask` chooses two of the topics; without it, raises UsageError, which lists them.
    """
    topics = survey(bag)
    cameras = _cameras(topics)
    pair = _decide(cameras)
    if pair is not None:
        return pair
    if not topics:
        raise InputError(f"{bag.path} has no topic of pictures that can be read{because(bag)}")
    if ask is not None and len(topics) > 1:
        return ask(topics)
    first = BagAddress(bag.path, topics[0].topic.name)
    raise UsageError(
        f"{bag.path}: which topic is infrared, and which visible?  It has {', '.join(map(str, topics))}; "
        f"give two of them instead of --bag: --ir '{first}' --vis '{bag.path}?topic=...'"
    )


def addresses(path: Path, ask: Callable[[Sequence[ImageTopic]], Pair] | None = None) -> tuple[str, str]:
    """Return the addresses of the infrared and the visible topic of a bag; arguments and errors as for `find_pair`."""
    with Bag(path) as bag:
        ir, vis = find_pair(bag, ask)
    log.info("%s: infrared is %s, visible %s", path, ir, vis)
    return str(BagAddress(path, ir.topic.name)), str(BagAddress(path, vis.topic.name))


def _cameras(topics: Sequence[ImageTopic]) -> list[ImageTopic]:
    """Choose one topic of each camera: more bits before fewer, colour before grey, uncompressed before compressed."""
    by_camera: dict[str, list[ImageTopic]] = {}
    for one in topics:
        by_camera.setdefault(one.camera or one.image, []).append(one)
    return [
        max(several, key=lambda one: (one.look, "compressed" not in one.topic.name)) for several in by_camera.values()
    ]


def _decide(cameras: Sequence[ImageTopic]) -> tuple[ImageTopic, ImageTopic] | None:
    def named(pattern: re.Pattern[str], several: Sequence[ImageTopic]) -> list[ImageTopic]:
        return [one for one in several if pattern.search(one.topic.name.lower())]

    thermal = named(_THERMAL, cameras)
    cameras = [one for one in cameras if one in thermal or not _NEITHER.search(one.topic.name.lower())]
    deep = [one for one in cameras if one.look is Look.DEEP]
    infrared = [one for one in thermal if one in deep] or thermal or deep
    if not infrared:  # two grey cameras, or a grey one beside a colour one: the grey one, else the smaller one
        grey = [one for one in cameras if one.look is Look.GREY]
        colored = any(one.look is Look.COLOR for one in cameras)
        if not colored and len(grey) == 2 and grey[0].size != grey[1].size:
            grey = [min(grey, key=lambda one: one.size[0] * one.size[1])]
        infrared = grey
    visible = [one for one in cameras if one not in infrared and one not in thermal]
    visible = [one for one in visible if one.look is Look.COLOR] or [one for one in visible if one.look is Look.GREY]
    if len(visible) > 1:
        visible = named(_VISIBLE, visible)
    return (infrared[0], visible[0]) if len(infrared) == len(visible) == 1 else None
