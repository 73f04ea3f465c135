"""Frames a second of a local cluster of `streamfuse batch` with one worker and with two (or more).

    python benchmarks/batch.py [--size 320x240] [--recordings N] [--frames N] [--rounds N] [--workers N] [--json FILE]

Each worker has an engine of one thread.  The recordings show the demo scene, H.264 in, H.264 out.  The rounds are
interleaved (one, two, one, two ...), each with a new cluster; the clock runs from the first recording to the last,
after every worker has fused another one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamfuse.batch import cluster
from streamfuse.batch.options import BatchOptions, check
from streamfuse.batch.recordings import Recording
from streamfuse.batch.run import Run, Status, plan
from streamfuse.bench.measure import machine
from streamfuse.bench.recording import record_scene
from streamfuse.options import EngineChoice, FusionOptions


def throughput(workers: int, recordings: list[Recording], fusing: BatchOptions) -> float:
    """Frames a second of so many workers over all recordings; their outputs are removed afterwards."""
    warm_up = [replace(one, output=one.output.with_name(f"warm-{one.output.name}")) for one in recordings[:workers]]
    with cluster.local(workers, []) as client:
        client.wait_for_workers(workers)
        for listed in (warm_up, recordings):
            entries = plan(listed, fusing, force=False)
            run = Run(client, entries, fusing, force=False)
            run()
            state = run.state()
            assert all(entry.status is Status.DONE for entry in entries), [entry.error for entry in entries]
            for entry in entries:
                entry.recording.output.unlink()
    return state.frames / state.elapsed_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--recordings", type=int, default=16)
    parser.add_argument("--frames", type=int, default=75, help="of a recording")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    fusing = check(BatchOptions(FusionOptions(EngineChoice(options.engine, preset=options.preset, device="cpu"))), [])
    with tempfile.TemporaryDirectory() as scratch:
        ir, vis = record_scene(Path(scratch), (height, width), options.frames)
        recordings = [
            Recording(Path(scratch) / f"out/{k:03d}.mp4", str(ir), str(vis)) for k in range(options.recordings)
        ]
        fps: dict[int, list[float]] = {1: [], options.workers: []}
        for _ in range(options.rounds):
            for workers, figures in fps.items():
                figures.append(throughput(workers, recordings, fusing))
    ratios = [many / one for one, many in zip(fps[1], fps[options.workers], strict=True)]
    result: dict[str, Any] = {
        "machine": f"{cluster.cores()} cores, {machine()}",
        "what": f"{options.recordings} recordings of {options.frames} frames, {options.size}, {options.engine}, "
        f"preset {options.preset}, one thread an engine",
        "fps": {str(workers): statistics.median(figures) for workers, figures in fps.items()},
        "ratios": ratios,
        "ratio": statistics.median(ratios),
    }
    print(f"{result['machine']}\n{result['what']}, medians of {options.rounds} interleaved rounds")
    for workers, value in result["fps"].items():
        print(f"{workers} workers  {value:8.2f} fps")
    print(f"ratio      {result['ratio']:8.3f}  ({', '.join(f'{ratio:.3f}' for ratio in ratios)})")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
