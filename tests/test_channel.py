"""The bounded channel between stages."""

from __future__ import annotations

import threading

from streamfuse.channel import Channel


def test_items_come_in_order_and_end_after_close() -> None:
    channel: Channel[int] = Channel(3)
    for item in (1, 2, 3):
        assert channel.put(item)
    channel.close()
    assert not channel.put(4)
    assert list(channel) == [1, 2, 3]


def test_full_channel_blocks_the_producer() -> None:
    channel: Channel[int] = Channel(2)
    accepted = 0
    ahead: list[int] = []

    def produce() -> None:
        nonlocal accepted
        for item in range(50):
            channel.put(item)
            accepted += 1
        channel.close()

    thread = threading.Thread(target=produce)
    thread.start()
    received = []
    for item in channel:
        received.append(item)
        ahead.append(accepted - len(received))
    thread.join()
    assert received == list(range(50))
    assert max(ahead) <= 2


def test_newest_item_is_kept_and_drops_are_reported() -> None:
    dropped: list[int] = []
    channel: Channel[int] = Channel(2, drop_oldest=True, on_drop=dropped.append)
    for item in range(5):
        assert channel.put(item)
    channel.close()
    assert dropped == [0, 1, 2]
    assert list(channel) == [3, 4]


def test_abandon_frees_a_waiting_producer_and_counts() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(1)
    outcome: list[bool] = []
    thread = threading.Thread(target=lambda: outcome.append(channel.put(2)))
    thread.start()
    assert channel.abandon() == 1
    thread.join()
    assert outcome == [False]
    assert list(channel) == []
