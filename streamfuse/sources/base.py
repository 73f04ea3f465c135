"""Interface of a source of frames."""

from __future__ import annotations

import enum
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from streamfuse.frames import Clock, Frame
from streamfuse.support.closeable import Closeable

if TYPE_CHECKING:
    from streamfuse.sources.pixels import Picture


class State(enum.StrEnum):
    """State of a source; any thread may read it."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"
    """Connected, but no frame has come for a while."""
    BACKOFF = "waiting to reconnect"


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """The position of infrared in visible pictures, as the camera's own files tell it."""

    homography: npt.NDArray[np.float64]
    """(3, 3) infrared to visible pixels."""
    ir_size: tuple[int, int]
    """(height, width), px."""
    vis_size: tuple[int, int]

    def distance_px(self, other: Placement) -> float:
        """Return how far apart a corner of infrared is placed at most, px of the visible picture."""
        height, width = self.ir_size
        corners = np.array([(x, y, 1) for x in (0, width - 1) for y in (0, height - 1)], np.float64).T
        one, two = (place.homography @ corners for place in (self, other))
        return float(np.linalg.norm(one[:2] / one[2] - two[:2] / two[2], axis=0).max())


class Source(Closeable):
    """An iterator of frames with rising stamps.

    Made in any thread; iterated, then closed, by one thread only.  The attributes describe what is known before the
    first frame; `drops`, `repeated` and `damage` change while it is iterated and may be read by other threads.
    """

    name: str
    """Safe to show: no password, no query."""
    live: bool = False
    """A live source never ends, and does not wait for its reader."""
    real_time: bool = False
    """A recording that is read at the pace of its stamps, for somebody who watches it."""
    reconnects: int = 0
    """Number of times that a live source has reconnected."""
    clock: Clock = Clock.MEDIA
    size: tuple[int, int] | None = None
    """(height, width) in pixels as coded, from the header; frames of a rotated recording are upright."""
    frame_count: int | None = None
    """Expected number of frames, from the header."""
    period_ns: int | None = None
    """Nominal time between frames, ns."""
    first_stamp_ns: int | None = None
    """Start of the time line, ns, from the header."""
    epoch_ns: int | None = None
    """Time of stamp 0, ns since 1970; None: not known."""
    files: Sequence[Path] = ()
    """Files that it reads; an output must not be one of them."""
    damage: str | None = None
    """Description of what is missing from a recording that ended too early; None: nothing."""

    placement: Placement | None = None
    """Position of its pictures in those of the visible source that was opened with it; None: not known from files."""

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        """Frames that could not be delivered, by reason."""
        self.repeated: Counter[str] = Counter()
        """Frames that repeat the last good picture during a flat-field correction (FFC), by reason."""

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...

    def _recorded(self, picture: Picture, stamp_ns: int, index: int, began_ns: int) -> Frame:
        """Make the frame of a picture of a recording; `began_ns`: monotonic time when its reading began."""
        now = time.monotonic_ns()
        return Frame(
            *(picture.luma, picture.chroma, stamp_ns, self.clock, index, self.name, now, now - began_ns),
            temperature=picture.temperature,
        )

    def cut_before(self, stamp_ns: int) -> int | None:
        """Return the stamp (ns) of the last frame at or before `stamp_ns` from which reading can start; None: no such.

        Call it only before the source is iterated.
        """
        return None

    def start_at(self, stamp_ns: int) -> None:  # a source that cannot seek is read from its beginning
        """Start the iteration at the last position at or before `stamp_ns` (ns) that a seek can reach.

        Frames before `stamp_ns` may come, too.  Call it only before the source is iterated.
        """

    def set_epoch(self, epoch_ns: int) -> None:  # only sources with an `epoch_ns` have a choice
        """Choose another time of stamp 0, ns since 1970; call it only before the source is iterated."""

    @property
    def state(self) -> State:
        """State; recordings are live until they end.  Any thread may read it."""
        return State.LIVE

    def describe(self) -> str:
        """Return what its files tell about a thermal camera and its settings, for people; empty for nothing."""
        return ""

    def interrupt(self) -> None:  # a source that never waits need not be interrupted
        """End the iteration soon, even if no frame comes; any thread may call it."""

    def close(self) -> None:  # many sources have nothing to close
        """Release files and devices.  Calling it twice is fine."""


def share_epoch(first: Source, second: Source) -> None:
    """Put the stamps of two recordings with an `epoch_ns` on one time line: that of the earlier one."""
    if first.epoch_ns is not None and second.epoch_ns is not None:
        epoch_ns = min(first.epoch_ns, second.epoch_ns)
        for source in (first, second):
            source.set_epoch(epoch_ns)
