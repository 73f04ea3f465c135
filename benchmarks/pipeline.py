"""Cost and gain of the threads around the engine.

Two ratios, each measured within one run:

1. frame rate end to end with the real engine, relative to that of the engine on pictures in memory (1: decoding,
   pairing and encoding cost nothing);
2. frame rate end to end with an engine that does nothing, relative to a plain loop in one thread that decodes both
   files and encodes one, with the same codecs and settings (above 1: the threads gain more than they cost).

    python benchmarks/pipeline.py [--ir FILE --vis FILE] [--frames N] [--json FILE]

Without files, the demo scene is rendered first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamfuse.bench.measure import fuse_files, machine
from streamfuse.bench.recording import record_scene
from streamfuse.bench.timing import time_pairs
from streamfuse.color import Plane
from streamfuse.engines import create_engine
from streamfuse.engines.base import Engine, Precision
from streamfuse.frames import FusedFrame
from streamfuse.fuser import Fuser
from streamfuse.network.config import Output
from streamfuse.sinks.video import VideoSink
from streamfuse.sources.file import VideoFile


class PassThrough(Engine):
    """An engine that returns the infrared picture as raw output, at the cost of one conversion."""

    name = "pass-through"
    precision = Precision.FP32
    output = Output.DIRECT
    device = "none"

    def prepare(self, height: int, width: int) -> None:
        pass

    def fuse(self, ir: Plane, vis: Plane) -> npt.NDArray[np.float32]:
        return np.multiply(ir, np.float32(1 / 255))


def bare_loop(ir: Path, vis: Path, out: Path, frames: int) -> float:
    """Return frames per second of decoding both files and encoding one in this thread."""
    sink = VideoSink(out, period_ns=40_000_000)
    with VideoFile(ir) as a, VideoFile(vis) as b:
        begin = time.perf_counter()
        for count, (first, second) in enumerate(zip(a, b, strict=False), 1):
            sink.write(FusedFrame(first.luma, second.chroma, count, second.stamp_ns))
            if count == frames:
                break
        sink.close()
        return count / (time.perf_counter() - begin)


def engine_alone(fuser: Fuser, ir: Path, vis: Path, frames: int) -> float:
    """Return frames per second of the engine on one pair in memory."""
    with VideoFile(ir) as a, VideoFile(vis) as b:
        first, second = next(iter(a)).luma, next(iter(b)).luma
    return 1000 / float(time_pairs(fuser.engine, first, second, frames).mean())


def measure(ir: Path, vis: Path, frames: int, rounds: int, engine: str, scratch: Path) -> dict[str, Any]:
    """Measure in interleaved rounds; return medians."""
    light = Fuser(engine=PassThrough())
    loops, passes = [], []
    for k in range(2 * rounds + 1):
        loop = bare_loop(ir, vis, scratch / f"loop{k}.mp4", 10 * frames)
        threads = fuse_files(light, ir, vis, 10 * frames, scratch / f"pass{k}.mp4")
        if k:  # the first round warms up
            loops.append(loop)
            passes.append(threads)
    with Fuser(engine=create_engine(engine)) as fuser, VideoFile(vis) as size:
        assert size.size is not None
        fuser.prepare(*size.size)
        engine_alone(fuser, ir, vis, 3)
        alone, whole = [], []
        for k in range(rounds):
            alone.append(engine_alone(fuser, ir, vis, frames))
            whole.append(fuse_files(fuser, ir, vis, frames, scratch / f"whole{k}.mp4"))
        name = f"{fuser.engine.name} {fuser.engine.precision}"
    result: dict[str, Any] = {
        "engine": name,
        "engine_fps": statistics.median(alone),
        "end_to_end_fps": statistics.median(whole),
        "bare_loop_fps": statistics.median(loops),
        "pass_through_fps": statistics.median(passes),
    }
    result["end_to_end_over_engine"] = statistics.median(w / a for w, a in zip(whole, alone, strict=True))
    result["pass_through_over_bare_loop"] = statistics.median(p / b for p, b in zip(passes, loops, strict=True))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ir", type=Path)
    parser.add_argument("--vis", type=Path)
    parser.add_argument("--frames", type=int, default=30, help="frames per round; ten times as many without an engine")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ir, vis = options.ir, options.vis
        if ir is None or vis is None:
            ir, vis = record_scene(Path(scratch), (480, 640), 10 * options.frames)
        result = measure(ir, vis, options.frames, options.rounds, options.engine, Path(scratch))
    result["machine"] = machine()
    print(f"machine              {result['machine']}")
    print(f"engine alone         {result['engine_fps']:8.2f} fps  ({result['engine']})")
    print(
        f"end to end           {result['end_to_end_fps']:8.2f} fps  "
        f"{result['end_to_end_over_engine']:.3f} of the engine"
    )
    print(f"bare loop            {result['bare_loop_fps']:8.2f} fps  (one thread: decode, decode, encode)")
    print(
        f"pass-through engine  {result['pass_through_fps']:8.2f} fps  "
        f"{result['pass_through_over_bare_loop']:.3f} of the bare loop"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
