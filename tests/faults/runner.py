"""A run in a process of its own, to be killed: live input into whatever outputs are named, told frame by frame.

As a program, `python runner.py OUTPUT...`, it prints how many frames each output has been given, after each frame.
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


class Told(Sink):
    """Says how many frames have come, when all others have had them."""

    name = "told"
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
    """The process, which has said nothing yet; killed at the latest when the block is left."""
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


def given(process: subprocess.Popen[str], least: int) -> int:
    """How many frames the outputs have had, as soon as these are so many."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= least:
            return int(line)
    raise AssertionError("it ended by itself")


def rest(process: subprocess.Popen[str]) -> list[int]:
    """What it had still said before it died."""
    assert process.stdout is not None
    return [int(line) for line in process.stdout.read().splitlines() if line]


if __name__ == "__main__":
    sink = Told(open_sinks(sys.argv[1:], period_ns=1_000_000_000 // FPS))
    fuser = Fuser(engine=PassThrough(), tone="per-frame")
    Pipeline(f"synthetic:ir{LIVE}", f"synthetic:vis{LIVE}", sinks=[sink], fuser=fuser).run()
