"""What every source of frames promises."""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from streamfuse.closeable import Closeable
from streamfuse.frames import Clock, Frame


class State(enum.StrEnum):
    """Of a source, as other threads see it."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"
    """Connected, but no frame has come for a while."""
    BACKOFF = "waiting to reconnect"


class Source(Closeable):
    """An iterator of frames with rising stamps.

    Made in any thread; iterated, then closed, by one thread only.  The attributes describe what is
    known before the first frame; `drops`, `repeated` and `damage` fill while it is iterated and may be read
    from other threads.
    """

    name: str
    """Safe to show: no password, no query."""
    live: bool = False
    """A live source never ends by itself and cannot be held back."""
    reconnects: int = 0
    """How often a live source came back."""
    clock: Clock = Clock.MEDIA
    size: tuple[int, int] | None = None
    """(height, width) in pixels as coded, where the header tells; frames of a turned recording are upright."""
    frame_count: int | None = None
    """How many frames it should give, where the header tells."""
    period_ns: int | None = None
    """Nominal time between frames, ns."""
    first_stamp_ns: int | None = None
    """Where the header says that the time line starts, ns."""
    files: Sequence[Path] = ()
    """What it reads from; an output must not be one of them."""
    damage: str | None = None
    """What is missing from a recording that ended too early; None while all is well."""

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        """Frames that could not be delivered, by reason."""
        self.repeated: Counter[str] = Counter()
        """Frames that repeat the last good picture, by reason: flat-field correction (FFC) of a thermal camera."""

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...

    def cut_before(self, stamp_ns: int) -> int | None:
        """The last place at or before `stamp_ns` where reading may begin cheaply, as a stamp in ns; None: nowhere.

        Only before the source is iterated.
        """
        return None

    def start_at(self, stamp_ns: int) -> None:  # what cannot jump is read from its beginning
        """Begin the iteration at the last place at or before `stamp_ns` (ns) that can be jumped to.

        Frames before `stamp_ns` may come, too.  Only before the source is iterated.
        """

    @property
    def state(self) -> State:
        """Recordings are live until they end; any thread may ask."""
        return State.LIVE

    def interrupt(self) -> None:  # what never waits need not be interrupted
        """End the iteration soon, even if no frame comes; any thread may call it."""

    def close(self) -> None:  # many sources hold nothing that needs closing
        """Release files and devices.  Calling it twice is fine."""
