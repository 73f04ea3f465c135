"""A live source: connects, notices silence, reconnects automatically; it may run for weeks.

            ┌────────────── connecting ◄──────────┐
            │ connected          │ failed         │ time is up
            ▼                    ▼                │
    ┌──── live ──── lost ───► backoff ────────────┘
    ▼       ▲                    ▲
  stalled ──┘ a frame            │
    └─────── silent for long ────┘

Other threads read the state; each change is logged once.
"""

from __future__ import annotations

import logging
import random
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from streamfuse.errors import InputError
from streamfuse.frames import Clock, Frame
from streamfuse.sources.address import Address
from streamfuse.sources.base import Source, State
from streamfuse.sources.clocks import SECOND, Stamper
from streamfuse.sources.connection import Connection, Decoded, Lost
from streamfuse.sources.file import BACKWARDS, CORRUPT
from streamfuse.sources.options import DEFAULT, SourceOptions
from streamfuse.sources.pixels import PixelReader
from streamfuse.support.backoff import FIRST_S, Backoff

log = logging.getLogger("streamfuse")

STALE = "stale: delayed on the way"
NO_CLOCK_YET = "before the sender's clock was known"
STEPS = 31
"""Intervals between frames of which the median is the period."""
SET_BACK_NS = SECOND
"""A stamp that goes back by more shows that the clock was set."""
BLIND_S = 15.0
"""Longer than the interval of key frames, before the first of which nothing can be decoded."""
GIVE_UP_STALLS = 3
"""Silence, in multiples of `stall_s`, after which the source connects again."""


class Link(Protocol):
    """Interface of `Connection`, for tests."""

    period_ns: int | None

    @property
    def description(self) -> str: ...
    @property
    def start_since_1970_ns(self) -> int | None: ...
    def read(self) -> Iterator[Decoded | None]: ...
    def close(self) -> None: ...


class LiveSource(Source):
    """Endless frames of a camera or a network stream.

    The iteration raises InputError if the first connection is refused for a reason that waiting does not change (no
    such path, a wrong password, no such device); any later failure is an outage, and the source reconnects.
    """

    live = True

    def __init__(
        self,
        address: Address,
        options: SourceOptions = DEFAULT,
        *,
        connect: Callable[[Address, SourceOptions], Link] = Connection,
        clock: Callable[[], int] = time.monotonic_ns,
        wait: Callable[[float], object] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`clock` (ns), `wait` (s) and `rng` determine when it connects; tests replace them."""
        super().__init__()
        self.name = address.name
        self.clock = Clock.ARRIVAL
        self._address = address
        self._connect = connect
        self._options = options
        self._now = clock
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._backoff = Backoff(rng=rng)
        self._stamper = Stamper(wait_ns=round(address.clock_wait_s * SECOND))
        self._pixels = PixelReader(options, self.name, self.repeated)
        self._state = State.CONNECTING
        self._index = 0
        self._size: tuple[int, ...] | None = None
        self._last_stamp: tuple[int, Clock] | None = None
        self._steps_ns: deque[int] = deque(maxlen=STEPS)
        self._shown_ns = 0
        """Monotonic time of the last frame that could be shown, ns."""
        self._seen = False
        """A frame has been received since the start."""
        self._away_ns: int | None = None
        """Begin of the current outage; None: there is none."""
        self._told: str | None = None

    @property
    def state(self) -> State:
        silent_s = (self._now() - self._shown_ns) / SECOND
        return State.STALLED if self._state is State.LIVE and silent_s > self._stall_s() else self._state

    def _stall_s(self) -> float:
        return max(self._address.stall_s, 5 * (self.period_ns or 0) / SECOND)

    def interrupt(self) -> None:
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        while not self._stopped.is_set():
            self._state = State.CONNECTING
            try:
                link = self._connect(self._address, self._options)
            except Lost as lost:
                self._back_off(lost)
                continue
            try:
                if not self._seen:
                    log.info("%s: connected, %s", self.name, link.description)
                yield from self._frames(link)
            except Lost as lost:
                self._back_off(lost)
            finally:
                link.close()

    def _frames(self, link: Link) -> Iterator[Frame]:
        heard_ns = self._shown_ns = self._now()
        self._stamper.restart(heard_ns)
        self.period_ns = link.period_ns or self.period_ns
        self._last_stamp = None
        self._steps_ns.clear()
        for decoded in link.read():
            if self._stopped.is_set():
                return
            now = self._now()
            heard_ns = heard_ns if decoded is None else now
            frame = None if decoded is None else self._frame(link, decoded)
            if frame is not None:
                self._arrived(link, frame)
                yield frame
            else:
                self._notice_silence((now - heard_ns) / SECOND, (now - self._shown_ns) / SECOND)

    def _frame(self, link: Link, decoded: Decoded) -> Frame | None:
        """Make a frame; None for one that must not be shown, which is counted by reason."""
        index = self._index
        self._index += 1
        if self._address.sender_clock:
            if decoded.reference is not None:
                self._stamper.reference(*decoded.reference)
            elif link.start_since_1970_ns is not None:
                self._stamper.start_reference(link.start_since_1970_ns)
        if decoded.frame is None:
            self.drops[CORRUPT] += 1
            return None
        stamp = self._stamper.stamp(decoded.media_ns, decoded.arrival_ns, kernel=self._address.kernel)
        if stamp is None:
            self.drops[NO_CLOCK_YET] += 1
            return None
        if stamp.late_ns > self._address.late_s * SECOND:
            self.drops[STALE] += 1
            return None
        before, self._last_stamp = self._last_stamp, (stamp.stamp_ns, stamp.clock)
        if before is not None and stamp.clock is before[1]:
            step_ns = stamp.stamp_ns - before[0]
            if -SET_BACK_NS < step_ns <= 0:
                self._last_stamp = before
                self.drops[BACKWARDS] += 1
                return None
            self._measure_period(step_ns)
        picture = self._pixels.read(decoded.frame, stamp.tracked_ns)
        return Frame(
            picture.luma,
            picture.chroma,
            stamp.stamp_ns,
            stamp.clock,
            index,
            self.name,
            arrival_ns=decoded.arrival_ns,
            read_ns=self._now() - decoded.arrival_ns,
            tracked_ns=stamp.tracked_ns,
            temperature=picture.temperature,
        )

    def _measure_period(self, step_ns: int) -> None:
        """Measure the period as the median interval: headers are often wrong, and frames may be lost."""
        self._steps_ns.append(step_ns)
        if len(self._steps_ns) == STEPS:
            self.period_ns = round(statistics.median(self._steps_ns))
            self._steps_ns.clear()

    # States and log lines.

    def _arrived(self, link: Link, frame: Frame) -> None:
        self.clock = frame.clock
        if self._size is not None and frame.luma.shape != self._size:
            old, new = (f"{size[1]}x{size[0]}" for size in (self._size, frame.luma.shape))
            log.warning("%s: pictures are %s now, and were %s", self.name, new, old)
        self._size = frame.luma.shape
        self.size = frame.luma.shape
        self._shown_ns = self._now()
        if self._state is State.LIVE:
            return
        if self._away_ns is not None and self._seen:
            self.reconnects += self._state is State.CONNECTING
            log.warning("%s: back after %.1f s", self.name, (self._now() - self._away_ns) / SECOND)
        self._state = State.LIVE
        self._seen = True
        self._away_ns = self._told = None
        self._backoff.succeed()

    def _notice_silence(self, silent_s: float, blind_s: float) -> None:
        """React to `silent_s` without data and `blind_s` without a frame that could be shown."""
        stall_s = self._stall_s()
        if silent_s > GIVE_UP_STALLS * stall_s:
            raise Lost(f"no frame for {silent_s:.1f} s")
        if blind_s > max(BLIND_S, GIVE_UP_STALLS * stall_s):
            raise Lost(f"it sends, but nothing that can be shown for {blind_s:.0f} s")
        if blind_s > stall_s and self._state is State.LIVE:
            self._state = State.STALLED
            self._away_ns = self._shown_ns
            log.warning("%s: stalled, no frame for %.1f s", self.name, blind_s)

    def _back_off(self, lost: Lost) -> None:
        if self._stopped.is_set():
            return
        if lost.hopeless and not self._seen:
            raise InputError(f"{self.name}: {lost}")
        self._state = State.BACKOFF
        if self._away_ns is None:
            self._away_ns = self._now()
        if str(lost) != self._told:
            self._told = str(lost)
            log.warning("%s: %s; trying again until it is there", self.name, self._told)
        self._wait(self._backoff.fail(FIRST_S if self._address.listens else lost.most_backoff_s))
