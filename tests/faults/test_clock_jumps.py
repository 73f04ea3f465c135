"""Clocks that are set during a live run.

The machine's clock is not changed: the program reads a simulated one here, and the senders' clocks are simulated too.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from fault_table import FaultTable
from media import MS, PassThrough, frame_at, read_video
from runner import LIVE

from streamfuse.frames import Frame, Role
from streamfuse.fuser import Fuser
from streamfuse.pairing.live import LivePairing, Policy
from streamfuse.pairing.time_line import TimeLine
from streamfuse.pipeline import Pipeline
from streamfuse.sinks.video import VideoSink
from streamfuse.sinks.zeromq import ZeroMQSink
from streamfuse.sources.clocks import SECOND, Stamper
from streamfuse.telemetry import Telemetry
from streamfuse.zeromq.subscriber import Subscriber

HOUR = 3600 * SECOND


def test_machine_clock_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: FaultTable) -> None:
    """A live run with a file and a subscriber; the clock since 1970 is set back by an hour, then forward by two."""
    real = time.time_ns
    shift_ns = [0]
    monkeypatch.setattr(time, "time_ns", lambda: real() + shift_ns[0])
    monkeypatch.setattr(time, "time", lambda: (real() + shift_ns[0]) / 1e9)
    sink = ZeroMQSink(f"ipc://{tmp_path}/s")
    path = tmp_path / "out.mp4"
    pipeline = Pipeline(
        f"synthetic:ir{LIVE}",
        f"synthetic:vis{LIVE}",
        sinks=[VideoSink(path), sink],
        fuser=Fuser(engine=PassThrough(), tone="per-frame"),
        frames=40,
    )
    with Subscriber(sink.address, timeout_s=20) as subscriber, pipeline:
        for frame in pipeline:
            if frame.index in (12, 26):
                shift_ns[0] += -HOUR if frame.index == 12 else 2 * HOUR
                before = subscriber.statistics().received
                subscriber.latest()
        assert subscriber.statistics().received > before
        summary = pipeline.summary()
    times, _ = read_video(path)
    assert len(times) == summary.fused == 40
    steps_ms = np.diff(times)
    assert steps_ms.min() > 0
    assert steps_ms.max() < 1000
    assert summary.silent_s[Role.IR] < 5
    faults.add(
        "the machine's clock is set back and ahead by an hour (simulated)",
        times=2,
        lost=f"0 of {summary.fused} frames",
        promised="only the monotonic clock is used; time stamps keep rising",
    )


class _Pair:
    """Two senders in one network, 25 fps each, with RTCP reports; the clock of each can be set."""

    def __init__(self) -> None:
        self.clocks_ns = {Role.IR: 1_700_000_000 * SECOND, Role.VIS: 1_700_000_000 * SECOND}
        self._stampers = {role: Stamper() for role in self.clocks_ns}
        self._tick = 0

    def step(self, pairing: LivePairing) -> int | None:
        """Advance by one frame interval; return the skew of the resulting pair, ns."""
        now = 100 * SECOND + self._tick * 40 * MS
        for role, stamper in self._stampers.items():
            media = self._tick * 40 * MS
            if self._tick % 25 == 0:  # a report each second
                stamper.reference(media, self.clocks_ns[role] + media)
            stamp = stamper.stamp(media, now)
            assert stamp is not None
            plain = frame_at(0)
            pairing.add(
                role,
                Frame(
                    plain.luma,
                    None,
                    stamp.stamp_ns,
                    stamp.clock,
                    self._tick,
                    role,
                    arrival_ns=now,
                    tracked_ns=stamp.tracked_ns,
                ),
            )
        self._tick += 1
        pair = pairing.take(now)
        return None if pair is None else pair.skew_ns


@pytest.mark.parametrize("step_ns", [HOUR, -HOUR, 300 * MS], ids=["an hour on", "an hour back", "300 ms"])
def test_sender_clock_is_set(step_ns: int, faults: FaultTable) -> None:
    """Pairing is by arrival while the clocks differ, and by the senders' clocks again once both are set."""
    senders = _Pair()
    pairing = LivePairing(max_age_ns=500 * MS, policy=Policy.ORDERED)
    for _ in range(100):
        senders.step(pairing)
    counts = []
    for role in Role:  # the other sender is set too: both are synchronised again
        senders.clocks_ns[role] += step_ns
        skews = [senders.step(pairing) for _ in range(150)]
        counts.append(sum(skew is None for skew in skews))
        assert all(skew is not None and abs(skew) < 20 * MS for skew in skews[-25:]) or role == Role.IR
    final = [senders.step(pairing) for _ in range(50)]
    assert final == [0] * 50
    if abs(step_ns) == HOUR:
        assert max(counts) <= 2
        faults.add(
            f"a sender's clock is set {'ahead' if step_ns > 0 else 'back'} by an hour (simulated)",
            times=2,
            lost=f"{max(counts)} of 150 pairs",
            recovered_s=[max(counts) * 0.04],
            promised="pairing by arrival time while the senders' clocks disagree",
        )


def test_output_times_never_go_back() -> None:
    """For any stamps of any clock."""
    random = np.random.default_rng(0)
    line, places = TimeLine(), []
    for k in range(2000):
        jump = int(random.integers(-HOUR, HOUR)) if random.random() < 0.1 else 0
        plain = frame_at(40 * k)
        stamp, arrival = plain.stamp_ns + jump, 100 * SECOND + k * 40 * MS
        places.append(line.place(Frame(plain.luma, None, stamp, plain.clock, k, "vis", arrival_ns=arrival)))
    assert np.all(np.diff(places) >= 0)
    assert places[-1] == pytest.approx(1999 * 40 * MS, rel=0.02)


def test_figures_of_a_run_tolerate_a_clock_that_stops_or_goes_back() -> None:
    now = [10 * SECOND]
    telemetry = Telemetry(lambda: now[0])
    telemetry.frame_read(Role.IR, 0)
    telemetry.frame_fused(now[0], now[0], {"fuse": 0, "tone": -5})
    now[0] -= HOUR
    telemetry.frame_fused(now[0], now[0], {"fuse": 3})
    summary = telemetry.summary()
    assert summary.fused == 2
    assert summary.fps >= 0
    assert all(stage.p50_ms >= 0 for stage in summary.stages.values())
