"""A simulated GPU, to test the synchronisation of streams without one.

Streams are queues, as in CUDA.  Whenever the host enqueues work or waits, a seeded scheduler executes some of the
queued work, on streams of different speed; a stream stops only at a wait whose event is not reached.  A missing wait
therefore gives wrong results under some schedules, and a seed always gives the same schedule.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Kind: TypeAlias = tuple[str, str]
"""A kind of wait: the waiting party (host or a stream), and the stream that it waits for."""

STREAMS = ("upload", "compute", "finish")
"""Names of the streams, in the order in which the ring makes them."""


class Marker:
    """A point in a stream's queue."""

    def __init__(self, stream: SimStream) -> None:
        self.stream = stream
        self.reached = False

    def reach(self) -> None:
        self.reached = True


class SimEvent:
    def __init__(self, device: SimDevice) -> None:
        self._device = device
        self.marker: Marker | None = None

    def record(self, stream: SimStream) -> None:
        self.marker = Marker(stream)
        stream.queue.append(self.marker.reach)

    def synchronize(self) -> None:
        marker = self.marker
        if marker is None or self._device.leaves_out("host", marker):
            return
        while not marker.reached:
            self._device.step()
        if self._device.fails:
            self._device.fails -= 1
            raise RuntimeError("CUDA error: an illegal memory access was encountered")


class SimStream:
    def __init__(self, device: SimDevice, name: str) -> None:
        self._device = device
        self.name = name
        self.speed = device.random.choice((0.05, 0.3, 1.0))
        self.queue: deque[Callable[[], None] | Marker] = deque()

    def wait_event(self, event: SimEvent) -> None:
        if event.marker is not None and not self._device.leaves_out(self.name, event.marker):
            self.queue.append(event.marker)

    def synchronize(self) -> None:
        while self.queue:
            self._device.step()

    @property
    def ready(self) -> bool:
        return bool(self.queue) and not (isinstance(self.queue[0], Marker) and not self.queue[0].reached)

    def advance(self) -> None:
        work = self.queue.popleft()
        if not isinstance(work, Marker):
            work()


class SimDevice:
    """A simulated `streamfuse.engines.device.Device`."""

    name = "simulated"

    def __init__(self, seed: int = 0, without: Kind | None = None) -> None:
        """`without`: a kind of wait to omit."""
        self.random = random.Random(seed)
        self.made = 0
        """Number of streams, events and buffers made so far."""
        self.kinds: set[Kind] = set()
        """Kinds of waits that occurred."""
        self.fails = 0
        """Number of the host's next waits that report an error of the device."""
        self.refuses: int | None = None
        """Number of further launches until one is refused."""
        self._without = without
        self._streams: list[SimStream] = []

    def leaves_out(self, waiter: str, marker: Marker) -> bool:
        kind = (waiter, marker.stream.name)
        self.kinds.add(kind)
        return kind == self._without

    def stream(self) -> SimStream:
        self.made += 1
        self._streams.append(SimStream(self, STREAMS[len(self._streams) % len(STREAMS)]))
        return self._streams[-1]

    def event(self) -> SimEvent:
        self.made += 1
        return SimEvent(self)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        self.made += 1
        return torch.full(shape, 99, dtype=dtype)

    buffer = pinned

    def run(self, stream: SimStream, work: Callable[[], None]) -> None:
        if self.refuses is not None:
            self.refuses -= 1
            if self.refuses < 0:
                self.refuses = None
                raise RuntimeError("CUDA error: too many resources requested for launch")
        stream.queue.append(work)
        for _ in range(self.random.randrange(6)):
            if any(stream.ready for stream in self._streams):
                self.step()

    def step(self) -> None:
        """Execute the next work of a random stream; AssertionError on a deadlock."""
        ready = [stream for stream in self._streams if stream.ready]
        assert ready, "deadlock"
        self.random.choices(ready, [stream.speed for stream in ready])[0].advance()

    def time(self, stream: SimStream, work: Callable[[], None], runs: int) -> list[float]:
        raise NotImplementedError
