"""A bounded channel between two threads.

`queue.Queue` cannot be closed and cannot drop its oldest item; the queues between the stages of a pipeline do both.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """A first-in-first-out queue in which at most `capacity` items wait.  No item may be None.

    With `drop_oldest` a full channel drops its oldest item to make room and passes it to `on_drop`; otherwise `put`
    waits for room (back-pressure).
    """

    def __init__(self, capacity: int, *, drop_oldest: bool = False, on_drop: Callable[[T], None] | None = None) -> None:
        self._capacity = capacity
        self._drop_oldest = drop_oldest
        self._on_drop = on_drop
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

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
            self._items.append(item)
            self._changed.notify_all()
        if dropped is not None and self._on_drop is not None:
            self._on_drop(dropped)
        return True

    def take(self, timeout_s: float | None = None) -> T | None:
        """Return the next item; None if none comes in time, or if the channel is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items, timeout_s)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
        return item

    def __iter__(self) -> Iterator[T]:
        """Yield items until the channel is closed and empty."""
        while (item := self.take()) is not None:
            yield item

    def close(self) -> None:
        """Refuse further items; iteration ends after those that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> int:
        """Close the channel, throw away the items that wait, and return their number."""
        with self._changed:
            self._closed = True
            count = len(self._items)
            self._items.clear()
            self._changed.notify_all()
        return count
