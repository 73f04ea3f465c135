"""Age of live frames at the sink, with an engine that cannot keep up.

    python benchmarks/live.py [--seconds 120] [--slow 10] [--max-age-ms 500]

Two synthetic cameras send at 25 fps in real time, and the engine only waits for `--slow` frame intervals.  The age is
the time from the arrival of a pair's earlier frame to the call of the sink.  It must stay below the age budget plus one
run of the engine, and must not grow: the table has one row for each quarter of the run.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from pipeline import PassThrough

from streamfuse.color import Plane, Raw
from streamfuse.frames import FusedFrame, Role
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sinks.base import Sink
from streamfuse.telemetry import each_count

PERIOD_S = 0.04


class Slow(PassThrough):
    """An engine that takes `seconds` for a pair and computes nothing."""

    name = "slow"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def fuse(self, ir: Plane, vis: Plane) -> Raw:
        time.sleep(self._seconds)
        return super().fuse(ir, vis)


class Ages(Sink):
    name = "ages"
    waits = False

    def __init__(self) -> None:
        self.ages_ms: list[float] = []

    def write(self, frame: FusedFrame) -> None:
        self.ages_ms.append((time.monotonic_ns() - frame.arrival_ns) / 1e6)

    def close(self, *, failed: bool = False) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--slow", type=float, default=10, help="engine time in frame intervals")
    parser.add_argument("--max-age-ms", type=float, default=500)
    options = parser.parse_args()
    sink = Ages()
    cameras = (f"synthetic:{channel}?live=1&size=320x240&seconds={options.seconds:.0f}" for channel in ("ir", "vis"))
    fuser = Fuser(engine=Slow(options.slow * PERIOD_S), tone="per-frame")
    summary = Pipeline(*cameras, sinks=[sink], fuser=fuser, max_age_ms=options.max_age_ms).run()
    limit_ms = options.max_age_ms + options.slow * PERIOD_S * 1e3
    print(f"{Path(sys.argv[0]).name}: {summary.fused} of {summary.read[Role.VIS]} frames, limit {limit_ms:.0f} ms")
    print(f"{'quarter':>8}{'median ms':>11}{'worst ms':>10}")
    for number, ages in enumerate(np.array_split(np.array(sink.ages_ms), 4), 1):
        print(f"{number:>8}{np.median(ages):>11.0f}{ages.max():>10.0f}")
    for stream, reason, count in each_count(summary.drops):
        print(f"{count:>8} {stream}: {reason}")
    return 0 if max(sink.ages_ms) < limit_ms else 1


if __name__ == "__main__":
    sys.exit(main())
