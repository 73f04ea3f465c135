"""Delays between attempts to reconnect."""

from __future__ import annotations

import random

FIRST_S = 0.25
"""Delay after the first failure, s."""
MOST_DOUBLINGS = 10


class Backoff:
    """Delays that double with every failure, up to a limit.

    They vary at random by `jitter`, so that many clients of one server do not come back at the same moment.  The
    caller waits, by its own clock.
    """

    def __init__(self, first_s: float = FIRST_S, *, jitter: float = 0.25, rng: random.Random | None = None) -> None:
        """`jitter`: largest deviation of a delay, as a fraction of it.  `rng`: its random numbers."""
        self.failures = 0
        """Failures since the last success."""
        self._first_s = first_s
        self._jitter = jitter
        self._rng = rng or random.Random()

    def delay_s(self, limit_s: float) -> float:
        """Return the delay after the failures so far, s; at most `limit_s`, apart from the jitter."""
        delay_s = min(self._first_s * 2.0 ** min(self.failures, MOST_DOUBLINGS), limit_s)
        return delay_s * self._rng.uniform(1 - self._jitter, 1 + self._jitter)

    def fail(self, limit_s: float) -> float:
        """Count a failure and return the delay before the next attempt, s: the first one after `first_s`."""
        delay_s = self.delay_s(limit_s)
        self.failures += 1
        return delay_s

    def succeed(self) -> None:
        """Start again with the first delay."""
        self.failures = 0
