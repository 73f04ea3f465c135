"""Delays between attempts to reconnect."""

from __future__ import annotations

import random

import pytest

from streamfuse.backoff import Backoff


def test_delays_double_up_to_the_limit_and_start_again_after_a_success() -> None:
    backoff = Backoff(0.25, jitter=0)
    assert [backoff.fail(1.5) for _ in range(5)] == [0.25, 0.5, 1.0, 1.5, 1.5]
    assert (backoff.delay_s(15.0), backoff.failures) == (8.0, 5)
    backoff.succeed()
    assert (backoff.fail(1.5), backoff.failures) == (0.25, 1)


def test_many_clients_do_not_reconnect_at_the_same_time() -> None:
    delays = [Backoff(1.0, jitter=0.25, rng=random.Random(seed)).fail(10.0) for seed in range(200)]
    assert 0.75 <= min(delays) < 0.8
    assert 1.2 < max(delays) <= 1.25
    assert sum(delays) / len(delays) == pytest.approx(1, abs=0.05)


def test_a_client_that_never_gets_through_keeps_trying() -> None:
    backoff = Backoff()
    assert all(backoff.fail(15.0) <= 15.0 * 1.25 for _ in range(5000))
