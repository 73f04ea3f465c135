"""A live run in its own process, which tests kill.

As a program, `python runner.py OUTPUT...`, it prints after each frame the number of frames written to each output.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from media import PassThrough

from streamfuse.frames import FusedFrame
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sinks import open_sinks
from streamfuse.sinks.base import Sink

TESTS = Path(__file__).parent.parent
FPS = 25
LIVE = f"?live=1&size=64x48&fps={FPS}"


class Counting(Sink):
    """Passes frames on to the other sinks, then prints the number of frames."""

    name = "counting"
    waits = False

    def __init__(self, others: list[Sink]) -> None:
        self._others = others
        self._count = 0

    def write(self, frame: FusedFrame) -> None:
        for other in self._others:
            other.write(frame)
        self._count += 1
        print(self._count, flush=True)

    def close(self, *, failed: bool = False) -> None:
        for other in self._others:
            other.close(failed=failed)


@contextmanager
def running(*outputs: str) -> Iterator[subprocess.Popen[str]]:
    """Start the process; kill it at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, __file__, *outputs],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def wait_for_frames(process: subprocess.Popen[str], least: int) -> int:
    """Wait until at least `least` frames were written; return their number."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= least:
            return int(line)
    raise AssertionError("the process ended too early")


def remaining_counts(process: subprocess.Popen[str]) -> list[int]:
    """Return the numbers that the killed process had printed and that were not read yet."""
    assert process.stdout is not None
    return [int(line) for line in process.stdout.read().splitlines() if line]


if __name__ == "__main__":
    sink = Counting(open_sinks(sys.argv[1:], period_ns=1_000_000_000 // FPS))
    fuser = Fuser(engine=PassThrough(), tone="per-frame")
    Pipeline(f"synthetic:ir{LIVE}", f"synthetic:vis{LIVE}", sinks=[sink], fuser=fuser).run()
