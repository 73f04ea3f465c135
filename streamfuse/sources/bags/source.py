"""The pictures of one topic of a bag."""

from __future__ import annotations

import itertools
import logging
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from streamfuse.errors import InputError, UsageError
from streamfuse.frames import Clock, Frame
from streamfuse.sources.bags.address import BagAddress
from streamfuse.sources.bags.bag import Bag
from streamfuse.sources.bags.encodings import EncodingReader
from streamfuse.sources.bags.messages import Picture, read_picture
from streamfuse.sources.bags.records import Damaged
from streamfuse.sources.bags.topic import Message, Topic
from streamfuse.sources.bags.video import Decoded, VideoDecoder, first_size, is_key
from streamfuse.sources.base import Source
from streamfuse.sources.file import BACKWARDS, CORRUPT
from streamfuse.sources.image_header import image_shape
from streamfuse.sources.options import DEFAULT, SourceOptions
from streamfuse.sources.pixels import PixelReader
from streamfuse.sources.sequence import UNREADABLE

log = logging.getLogger("streamfuse")

FIRST = 10
"""Messages that are looked at before the first frame: they tell the size and the time between frames."""
MARGIN_NS = 1_000_000_000
"""Time before a wanted stamp from which the bag is read: a message is logged after its picture was taken, and late by
varying times."""


@dataclass(frozen=True, slots=True)
class _Begin:
    """Facts from the first messages."""

    pictures: int
    unset: bool
    """The stamps in the headers are not set."""
    first_ns: int
    period_ns: int | None
    delay_ns: int
    """Longest log time after the stamp, ns."""
    video: str
    """Format of the frames of video; empty for pictures."""
    size: tuple[int, int] | None


class BagSource(Source):
    """The pictures of a topic, with the stamps of their headers.

    Stamps are relative to `epoch_ns`, the first one unless `set_epoch` chooses another.  A message that cannot be read
    is skipped and counted; a bag that is cut off is read as far as it goes and reported as damaged.
    """

    clock = Clock.MEDIA

    def __init__(self, address: BagAddress, options: SourceOptions = DEFAULT) -> None:
        """Raises InputError for a bag that cannot be opened or has no such topic, UsageError for a topic that is no
        picture, and where a package is missing.
        """
        super().__init__()
        self.path = address.path
        self._bag = Bag(address.path)
        try:
            self._topic = _find(self._bag, address)
            self.name = str(BagAddress(address.path, self._topic.name))
            self.files = self._bag.files
            self._max_pixels = options.max_pixels
            self._pixels = PixelReader(options, self.name, self.repeated)
            self._encodings = EncodingReader(self.name, self._pixels, options)
            self._begin = self._look()
        except BaseException:
            self._bag.close()
            raise
        self.size, self.period_ns = self._begin.size, self._begin.period_ns
        self.frame_count = self._topic.count
        self.epoch_ns: int = self._begin.first_ns
        self.first_stamp_ns = 0
        self._start_ns: int | None = None
        self._key_ns: int | None = None
        """Stamp of the key frame from which video is decoded; None: from the beginning."""

    @property
    def topic(self) -> Topic:
        return self._topic

    def set_epoch(self, epoch_ns: int) -> None:
        self.epoch_ns = epoch_ns
        self.first_stamp_ns = self._begin.first_ns - epoch_ns

    def _look(self) -> _Begin:
        """Read the first messages; raises InputError where there are none."""
        found: list[tuple[Picture, int]] = []
        for message in self._bag.messages({self._topic.name}):
            try:
                found.append((read_picture(message), message.log_ns))
            except Damaged:
                continue
            if len(found) == FIRST:
                break
        if not found:
            raise InputError(f"{self.name} has no picture that can be read{because(self._bag)}")
        unset = all(picture.stamp_ns == 0 for picture, _ in found)
        if unset:
            log.warning("%s: its headers have no stamps; the times at which it was recorded are used", self.name)
        stamps = [log_ns if unset else picture.stamp_ns for picture, log_ns in found]
        steps = [b - a for a, b in itertools.pairwise(stamps) if b > a]
        first = found[0][0]
        return _Begin(
            pictures=len(found),
            unset=unset,
            first_ns=stamps[0],
            period_ns=round(statistics.median(steps)) if steps else None,
            delay_ns=max(log_ns - stamp for stamp, (_, log_ns) in zip(stamps, found, strict=True)),
            video=first.video,
            size=self._size([picture for picture, _ in found]),
        )

    def _size(self, pictures: Sequence[Picture]) -> tuple[int, int] | None:
        """Return (height, width) by the first of some pictures, or None."""
        first = pictures[0]
        if not first.compressed:
            return first.height, first.width
        if not first.video:
            return image_shape(first.data.tobytes())
        return first_size(first.video, [picture.data.tobytes() for picture in pictures], self._max_pixels)

    def __iter__(self) -> Iterator[Frame]:
        last_ns: int | None = None
        began = time.monotonic_ns()
        for index, stamp_ns, found in self._decoded() if self._begin.video else self._stored():
            if found is None:
                self.drops[CORRUPT if self._begin.video else UNREADABLE] += 1
                continue
            if self._start_ns is not None and stamp_ns < self._start_ns:
                continue
            if last_ns is not None and stamp_ns <= last_ns:
                self.drops[BACKWARDS] += 1
                continue
            if isinstance(found, Picture):
                planes = self._encodings.read(found, stamp_ns)
            else:
                planes = self._pixels.read(found, stamp_ns)
            if planes is None:
                self.drops[UNREADABLE] += 1
                continue
            last_ns = stamp_ns
            yield self._recorded(planes, stamp_ns, index, began)
            began = time.monotonic_ns()
        self.damage = self._bag.damage

    def _stored(self) -> Iterator[tuple[int, int, Picture | None]]:
        """Yield index, stamp and picture of each message; None for one that is none."""
        for index, message in enumerate(self._messages()):
            picture, stamp_ns = self._stamped(message)
            yield index, stamp_ns or 0, None if stamp_ns is None else picture

    def _decoded(self) -> Iterator[Decoded]:
        """Yield index, stamp and frame of each message of video, from a key frame on."""
        decoder = VideoDecoder(self._begin.video, self._max_pixels)
        for index, stamp_ns, picture in self._stored():
            if picture is None or picture.video != self._begin.video:
                yield index, stamp_ns, None
            elif self._key_ns is None or stamp_ns >= self._key_ns:
                yield from decoder.decode(index, stamp_ns, picture.data.tobytes())
        yield from decoder.flush()

    def _messages(self) -> Iterator[Message]:
        start_ns = self._key_ns if self._begin.video else self._start_ns
        from_ns = None if start_ns is None else self._log_ns(start_ns)
        return self._bag.messages({self._topic.name}, from_ns)

    def _log_ns(self, stamp_ns: int) -> int:
        """Return a time before which no message of this stamp was logged, ns since 1970."""
        return self.epoch_ns + stamp_ns + min(self._begin.delay_ns, 0) - MARGIN_NS

    def _stamped(self, message: Message) -> tuple[Picture | None, int | None]:
        """Return the picture of a message and its stamp on this source's time line; None, None if it is none."""
        try:
            picture = read_picture(message)
        except Damaged:
            return None, None
        return picture, (message.log_ns if self._begin.unset else picture.stamp_ns) - self.epoch_ns

    def cut_before(self, stamp_ns: int) -> int | None:
        """Stamp of the last picture or key frame at or before `stamp_ns`; None for a bag without an index."""
        if not self._bag.indexed:
            return None
        margin_ns = MARGIN_NS
        while (found := self._last_before(stamp_ns, margin_ns)) is None and self._begin.video:
            if stamp_ns - margin_ns < self._begin.first_ns - self.epoch_ns:
                break
            margin_ns *= 4  # key frames may be far apart
        return found

    def _last_before(self, stamp_ns: int, margin_ns: int) -> int | None:
        """Stamp of the last picture or key frame at or before a stamp, and not much more than `margin_ns` before it."""
        found: int | None = None
        for message in self._bag.messages({self._topic.name}, self._log_ns(stamp_ns) - margin_ns):
            picture, stamp = self._stamped(message)
            if picture is None or stamp is None:
                continue
            if stamp > stamp_ns:
                break
            if not picture.video or is_key(picture.data.tobytes(), picture.video):
                found = stamp
        return found

    def start_at(self, stamp_ns: int) -> None:
        self._start_ns = stamp_ns
        self._key_ns = self.cut_before(stamp_ns) if self._begin.video else None

    def interrupt(self) -> None:
        self._bag.interrupt()

    def close(self) -> None:
        self._bag.close()


def _find(bag: Bag, address: BagAddress) -> Topic:
    """Return the topic of an address; raises InputError and UsageError."""
    if address.topic is not None and not bag.indexed:  # its first message shows it, if it is there
        next(bag.messages({address.topic}), None)
    elif not bag.indexed:
        read_begin(bag)
    topics = bag.topics()
    images = [topic for topic in topics if topic.is_image]
    listed = ", ".join(topic.name for topic in images) or "none"
    if address.topic is None:
        if len(images) != 1:
            raise UsageError(f"{bag.path} has these topics of pictures: {listed}; choose one: {bag.path}?topic=NAME")
        return images[0]
    for topic in topics:
        if topic.name == address.topic:
            if not topic.is_image:
                raise UsageError(
                    f"{address}: this topic is {topic.type or 'of an unknown type'} in {topic.coding}, not a picture; "
                    f"topics of pictures: {listed}"
                )
            return topic
    raise InputError(f"{address}: there is no such topic{because(bag)}; topics of pictures: {listed}")


def because(bag: Bag) -> str:
    """Return the damage of a bag, as an addition to a message."""
    return f" ({bag.damage})" if bag.damage is not None else ""


BEGIN_NS = 10_000_000_000
"""Time of a recording in which every topic is taken to have had a message, ns."""


def read_begin(bag: Bag) -> dict[str, Message]:
    """Return the first message of each topic of the first ten seconds; with an index, of topics of pictures only."""
    first: dict[str, Message] = {}
    start_ns: int | None = None
    wanted = {topic.name for topic in bag.topics() if topic.is_image and topic.count} if bag.indexed else None
    for message in bag.messages(wanted):
        first.setdefault(message.topic.name, message)
        start_ns = message.log_ns if start_ns is None else start_ns
        if (wanted is not None and len(first) == len(wanted)) or message.log_ns - start_ns > BEGIN_NS:
            break
    return first
