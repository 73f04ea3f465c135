"""Queues between the reader threads and the compute thread: frames in, pairs out.

Recordings wait for each other and for the engine, and no frame is lost.  Live streams cannot wait: frames for which
the engine has no time are dropped, so that the engine gets new ones.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Protocol, TypeAlias

from streamfuse.channel import Channel
from streamfuse.frames import Clock, Frame, FramePair, Role
from streamfuse.pairing.live import LivePairing
from streamfuse.pairing.recorded import OTHER_ENDED, OnDrop, pair_frames
from streamfuse.sources.base import Source, State

log = logging.getLogger("streamfuse")

AHEAD = 4
"""Frames that the reader of a recording may be ahead of the engine."""
TICK_S = 0.05
"""Interval between checks of live streams while no frame arrives."""

Item: TypeAlias = FramePair | tuple[Role, Frame]
"""A pair, or a frame to pass through because the other stream is away."""


class OnLoss(enum.StrEnum):
    """Behaviour of a live run while one of its streams is away."""

    WAIT = "wait"
    """Output pauses until the stream is back."""
    PASSTHROUGH = "passthrough"
    """The frames of the other stream are passed through without fusion."""


class Flow(Protocol):
    """A queue of frames of two streams that gives pairs."""

    def put(self, role: Role, frame: Frame) -> bool:
        """Add a frame, from a reader thread; False if no more frames are wanted."""

    def end(self, role: Role) -> None:
        """Mark a stream as ended."""

    def abandon(self) -> dict[Role, int]:
        """Refuse further frames and discard those that wait; return their number for each stream."""

    def items(self) -> Generator[Item]:
        """Yield pairs in order of time, for the compute thread."""


class RecordedFlow:
    """A `Flow` of two recordings, whose readers wait for the engine."""

    def __init__(self, *, tolerance_ns: int, ir_offset_ns: int, on_drop: OnDrop) -> None:
        self._lanes: dict[Role, Channel[Frame]] = {role: Channel(AHEAD) for role in Role}
        self._pairs = pair_frames(
            *self._lanes.values(), tolerance_ns=tolerance_ns, ir_offset_ns=ir_offset_ns, on_drop=on_drop
        )

    def put(self, role: Role, frame: Frame) -> bool:
        return self._lanes[role].put(frame)

    def end(self, role: Role) -> None:
        self._lanes[role].close()

    def abandon(self) -> dict[Role, int]:
        return {role: lane.abandon() for role, lane in self._lanes.items()}

    def items(self) -> Generator[Item]:
        return self._pairs


class LiveFlow:
    """A `Flow` of two live streams, which drops frames for which the engine has no time."""

    def __init__(
        self,
        sources: Mapping[Role, Source],
        pairing: LivePairing,
        *,
        on_loss: OnLoss = OnLoss.WAIT,
        on_drop: OnDrop = lambda role, reason: None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._sources = sources
        self._pairing = pairing
        self._on_loss = on_loss
        self._on_drop = on_drop
        self._clock = clock
        self._changed = threading.Condition()
        self._ended: set[Role] = set()
        self._closed = False

    def put(self, role: Role, frame: Frame) -> bool:
        with self._changed:
            if not self._closed:
                self._pairing.add(role, frame)
                self._changed.notify_all()
            return not self._closed

    def end(self, role: Role) -> None:
        with self._changed:
            self._ended.add(role)
            self._changed.notify_all()

    def abandon(self) -> dict[Role, int]:
        with self._changed:
            self._closed = True
            counts = {role: self._pairing.clear(role) for role in Role}
            self._changed.notify_all()
        return counts

    def items(self) -> Generator[Item]:
        while (item := self._next()) is not None:
            yield item

    def _next(self) -> Item | None:
        with self._changed:
            while not self._closed:
                now_ns = self._clock()
                self._pairing.rates(*(self._sources[role].period_ns for role in Role))
                pair = self._pairing.take(now_ns, final=len(self._ended) == 2)
                if pair is not None:
                    return pair
                if (single := self._single(now_ns)) is not None:
                    return single
                if any(not self._pairing.has_waiting(role) for role in self._ended) or len(self._ended) == 2:
                    self._closed = True
                    for role in Role:
                        for _ in range(self._pairing.clear(role)):
                            self._on_drop(role, OTHER_ENDED)
                    return None
                self._changed.wait(TICK_S)
            return None

    def _single(self, now_ns: int) -> tuple[Role, Frame] | None:
        away = [
            role for role, source in self._sources.items() if role not in self._ended and source.state is not State.LIVE
        ]
        if len(away) != 1:
            return None
        if self._on_loss is OnLoss.WAIT:
            self._pairing.away(away[0])
            return None
        frame = self._pairing.take_single(away[0].other, now_ns)
        return None if frame is None else (away[0].other, frame)


class ClockNotes:
    """Log the clock by which live streams are paired, once for each change."""

    def __init__(self) -> None:
        self._said: tuple[object, ...] | None = None

    def __call__(self, by_stamp: bool, ir: Frame, vis: Frame) -> None:
        # The estimate of the sender's clock after a reconnect is not reported as a change.
        state = (by_stamp, *(Clock.SENDER if c is Clock.SENDER_DELAY else c for c in (ir.clock, vis.clock)))
        if state == self._said:
            return
        self._said = state
        if by_stamp and ir.clock is vis.clock:
            log.info("pairing by the clock: %s", ir.clock)
        elif by_stamp:
            log.info("pairing by the clocks: infrared %s, visible %s", ir.clock, vis.clock)
        elif ir.clock.of_sender and vis.clock.of_sender:
            apart_s = (ir.stamp_ns - vis.stamp_ns - (ir.arrival_ns - vis.arrival_ns)) / 1e9
            log.warning(
                "the clocks of the two senders are %+.1f s apart, so pairing is by arrival: "
                "synchronise them (NTP), or give --ir-offset-ms",
                apart_s,
            )
        else:
            log.warning(
                "pairing by arrival: infrared has the clock %s, visible has %s; "
                "`streamfuse calibrate time` measures the offset between them",
                ir.clock,
                vis.clock,
            )
