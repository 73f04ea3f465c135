"""Frames published for tests, by this process or by another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from media import SIZE, luma_of

from streamfuse.color import Chroma, Matrix, Plane
from streamfuse.frames import Clock, FusedFrame
from streamfuse.sinks.zeromq import ZeroMQSink
from streamfuse.temperature import TemperaturePlane
from streamfuse.zeromq.wire import Encoding


def noise(index: int, size: tuple[int, int] = SIZE) -> Plane:
    """Random luma of all levels, with its number in the first pixel."""
    luma = np.random.default_rng(index).integers(0, 256, size, dtype=np.uint8)
    luma[0, 0] = index % 256
    return luma


def published(
    index: int,
    *,
    size: tuple[int, int] = SIZE,
    colour: bool = True,
    luma: Plane | None = None,
    temperature: TemperaturePlane | None = None,
) -> FusedFrame:
    """A frame of a live run with all fields set and uniform chroma."""
    rows, columns = -(-size[0] // 2), -(-size[1] // 2)
    chroma = Chroma(
        np.full((rows, columns), 100, np.uint8), np.full((rows, columns), 160, np.uint8), True, Matrix.BT709
    )
    return FusedFrame(
        noise(index, size) if luma is None else luma,
        chroma if colour else None,
        index,
        time_ns=40_000_000 * index,
        ir_stamp_ns=1_700_000_000_000_000_123 + index,
        vis_stamp_ns=1_700_000_000_008_000_456 + index,
        ir_clock=Clock.SENDER,
        vis_clock=Clock.ARRIVAL,
        skew_ns=-8_000_333,
        arrival_ns=time.monotonic_ns() - 20_000_000,
        temperature=temperature,
    )


@contextmanager
def publishing(
    url: str, *, period_s: float = 0.02, encoding: str = "mono8", size: tuple[int, int] = SIZE
) -> Iterator[Any]:
    """Publish frames from another process until the block ends; yields the process, which may be killed earlier."""
    request = json.dumps({"url": url, "period_s": period_s, "encoding": encoding, "size": size})
    process = subprocess.Popen(
        [sys.executable, __file__, request],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _publish_for_ever(url: str, period_s: float, encoding: str, size: list[int]) -> None:
    sink = ZeroMQSink(url, encoding=Encoding(encoding))
    print("ready", flush=True)
    begin = time.monotonic()
    index = 0
    while True:
        time.sleep(max(begin + index * period_s - time.monotonic(), 0))
        height, width = size
        sink.write(published(index, size=(height, width), luma=luma_of(index, (height, width))))
        index += 1


if __name__ == "__main__":
    _publish_for_ever(**json.loads(sys.argv[1]))
