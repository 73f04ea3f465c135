"""A bounded channel between two threads.

`queue.Queue` cannot be closed, cannot drop its oldest item and cannot say how full it has been; what
connects the stages of a pipeline must do all three.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    waiting: int
    capacity: int
    most_waiting: int
    passed: int
    dropped: int


class Channel(Generic[T]):
    """First in, first out; at most `capacity` items wait.  No item may be None.

    With `drop_oldest` a full channel makes room by dropping its oldest item and telling `on_drop`;
    without, `put` waits: back-pressure.
    """

    def __init__(self, capacity: int, *, drop_oldest: bool = False, on_drop: Callable[[T], None] | None = None) -> None:
        self._capacity = capacity
        self._drop_oldest = drop_oldest
        self._on_drop = on_drop
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._most = self._passed = self._dropped = 0

    def put(self, item: T) -> bool:
        """Add an item, waiting for room unless oldest items are dropped; False if the channel is closed."""
        dropped: T | None = None
        with self._changed:
            if not self._drop_oldest:
                self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if self._closed:
                return False
            if len(self._items) >= self._capacity:
                dropped = self._items.popleft()
                self._dropped += 1
            self._items.append(item)
            self._most = max(self._most, len(self._items))
            self._changed.notify_all()
        if dropped is not None and self._on_drop is not None:
            self._on_drop(dropped)
        return True

    def take(self, timeout_s: float | None = None) -> T | None:
        """The next item; None when none comes in time, or the channel is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items, timeout_s)
            if not self._items:
                return None
            item = self._items.popleft()
            self._passed += 1
            self._changed.notify_all()
        return item

    def __iter__(self) -> Iterator[T]:
        """Items until the channel is closed and empty."""
        while (item := self.take()) is not None:
            yield item

    def close(self) -> None:
        """No more items: `put` refuses, iteration ends after what is waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> int:
        """Close and throw away what is waiting; how many that were."""
        with self._changed:
            self._closed = True
            count = len(self._items)
            self._items.clear()
            self._dropped += count
            self._changed.notify_all()
        return count

    def statistics(self) -> ChannelStatistics:
        with self._changed:
            return ChannelStatistics(len(self._items), self._capacity, self._most, self._passed, self._dropped)
