"""A recording played at its own frame rate, with a simulated clock."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from media import every, write_video

from streamfuse.frames import Clock, Frame
from streamfuse.sources.base import Source
from streamfuse.sources.file import VideoFile
from streamfuse.sources.paced import LATE_NS, PacedSource

MS = 1_000_000


class Stamped(Source):
    """A source of frames with the given stamps, ms."""

    name = "stamped"

    def __init__(self, *stamps_ms: int) -> None:
        super().__init__()
        self._stamps_ms = stamps_ms
        self.damage = "cut off"
        self.closed = False

    def __iter__(self) -> Iterator[Frame]:
        for index, stamp_ms in enumerate(self._stamps_ms):
            yield Frame(np.zeros((2, 2), np.uint8), None, stamp_ms * MS, Clock.MEDIA, index, self.name, 0)

    def close(self) -> None:
        self.closed = True


class Time:
    def __init__(self) -> None:
        self.now_ns = 5_000 * MS

    def clock(self) -> int:
        return self.now_ns

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)

    def paced(self, source: Source) -> PacedSource:
        return PacedSource(source, clock=self.clock, wait=self.wait)


def test_frames_are_delivered_at_their_stamps() -> None:
    time = Time()
    came = [(time.now_ns // MS, frame.stamp_ns // MS) for frame in time.paced(Stamped(700, 740, 780, 1000))]
    assert came == [(5000, 700), (5040, 740), (5080, 780), (5300, 1000)]


@pytest.mark.parametrize(("delay_ms", "next_ms"), [(30, 5040), (100, 5100), (LATE_NS // MS + 50, 5250)])
def test_slow_reader_catches_up_only_after_short_delays(delay_ms: int, next_ms: int) -> None:
    """Delays up to `LATE_NS` are caught up; after longer ones the following frames keep their intervals."""
    time = Time()
    came = []
    for frame in time.paced(Stamped(0, 40, 80, 120, 160, 200, 240)):
        came.append(time.now_ns // MS)
        if frame.index == 0:
            time.now_ns += delay_ms * MS
    assert came[1] == next_ms
    if delay_ms > LATE_NS // MS:
        assert [b - a for a, b in itertools.pairwise(came[1:])] == [40] * 5
    else:
        assert came[-1] == 5240


def test_interruption_ends_a_wait_immediately() -> None:
    source = PacedSource(Stamped(0, 1_000_000))
    frames = iter(source)
    assert next(frames).stamp_ns == 0
    source.interrupt()
    assert next(frames, None) is None


def test_paced_source_equals_the_recording_otherwise(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", every(40, 5))
    time = Time()
    with VideoFile(path) as plain, time.paced(VideoFile(path)) as paced:
        for key in ("name", "clock", "size", "files", "period_ns", "first_stamp_ns", "frame_count", "live"):
            assert getattr(paced, key) == getattr(plain, key)
        assert [frame.stamp_ns for frame in paced] == [frame.stamp_ns for frame in plain]
    inner = Stamped(0)
    with time.paced(inner) as paced:
        assert len(list(paced)) == 1
        assert paced.damage == "cut off"
    assert inner.closed
