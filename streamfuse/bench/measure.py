"""Speed of an engine on pictures in memory, and of a whole run between files."""

from __future__ import annotations

import math
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from streamfuse import __version__
from streamfuse.bench.counting import Work, count_work
from streamfuse.bench.peak import Peak, measure_peak
from streamfuse.bench.recording import record_scene
from streamfuse.bench.similarity import Similarity, compare, original
from streamfuse.bench.timing import Times, rate_in_flight, time_pairs
from streamfuse.engines.base import Engine, read_cpu
from streamfuse.engines.cuda_streams import DTYPES
from streamfuse.fuser import Fuser
from streamfuse.network.config import CrossFuseConfig
from streamfuse.pipeline import Pipeline
from streamfuse.sinks.video import VideoSink
from streamfuse.sinks.video_format import VideoFormat
from streamfuse.sources.file import VideoFile

WARM_UP = 3
"""Pairs fused before the measurement starts."""


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of one engine, precision, preset and size."""

    engine: str
    precision: str
    preset: str
    device: str
    machine: str
    size: str
    """WIDTHxHEIGHT"""
    prepare_s: float
    """Duration of compiling the network or of loading it from the cache, s."""
    network: Times
    """The network without copies; on a GPU measured by its clock."""
    pair: Times
    """One pair at a time, from pictures in memory to raw output in memory, measured by the host's clock."""
    in_flight: int
    """Pairs that the engine works on at once."""
    in_flight_fps: float
    end_to_end_fps: float
    """Frames per second from two H.264 files to one: decoding, pairing, fusing, encoding."""
    memory_mb: float
    """Largest resident size of the process so far, MB."""
    similarity: Similarity
    work: Work
    peak: Peak

    @property
    def arithmetic_ms(self) -> float:
        """Least time for the operations of the network as written, at the machine's peak."""
        return 1000 * self.work.flops / self.peak.flops_per_s

    @property
    def memory_ms(self) -> float:
        """Least time to read the weights and both pictures once and to write the result, at the machine's peak."""
        return 1000 * self.work.least_bytes / self.peak.bytes_per_s

    @property
    def times_floor(self) -> float:
        """The network's median time as a multiple of the longer of both."""
        return self.network.p50_ms / max(self.arithmetic_ms, self.memory_ms)

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, in which an infinite PSNR is None."""
        plain = asdict(self)
        if not math.isfinite(self.similarity.psnr_db):
            plain["similarity"]["psnr_db"] = None
        floors = {name: getattr(self, name) for name in ("arithmetic_ms", "memory_ms", "times_floor")}
        return {**plain, **floors}


def bench(
    engine: Engine,
    config: CrossFuseConfig,
    height: int,
    width: int,
    frames: int,
    say: Callable[[str], None] = lambda text: None,
    *,
    weights: Path | None = None,
) -> Result:
    """Measure an engine with `frames` pairs of the demo scene for each figure.

    `say`: called with the name of each measurement before it starts.  `weights`: file of the network that pictures
    are compared with, None for the shipped one.  The machine should be otherwise idle.  Raises the engine's errors.
    """
    say("rendering the scene")
    with tempfile.TemporaryDirectory() as scratch:
        ir_file, vis_file = record_scene(Path(scratch), (height, width), frames)
        with VideoFile(ir_file) as a, VideoFile(vis_file) as b:
            ir, vis = next(iter(a)).luma.copy(), next(iter(b)).luma.copy()
        say("preparing the engine")
        begin = time.perf_counter()
        engine.prepare(height, width)
        prepare_s = time.perf_counter() - begin
        for _ in range(WARM_UP):
            engine.fuse(ir, vis)
        say("the network")
        network = Times.of(engine.time_network(ir, vis, frames))
        say("single pairs")
        pair = Times.of(time_pairs(engine, ir, vis, frames))
        say("pairs in flight")
        in_flight_fps = rate_in_flight(engine, ir, vis, frames)
        say("end to end")
        end_to_end_fps = fuse_files(Fuser(engine=engine, tone="smooth"), ir_file, vis_file, frames)
    memory_mb = peak_memory_mb()
    say("the picture of the original network")
    reference, output = original(weights, ir, vis)
    similarity = compare(engine.fuse(ir, vis), reference, output, ir, vis)
    say("the machine's peak")
    # For INT8 this is the precision of the layers that are not quantized: PyTorch cannot measure the peak of INT8.
    dtype = DTYPES.get(engine.precision) or (torch.bfloat16 if read_cpu().has_bf16 else torch.float32)
    return Result(
        engine=engine.name,
        precision=str(engine.precision),
        preset=str(engine.preset),
        device=engine.device,
        machine=machine(),
        size=f"{width}x{height}",
        prepare_s=prepare_s,
        network=network,
        pair=pair,
        in_flight=engine.depth,
        in_flight_fps=in_flight_fps,
        end_to_end_fps=end_to_end_fps,
        memory_mb=memory_mb,
        similarity=similarity,
        work=count_work(config, height, width, dtype, engine.preset),
        peak=measure_peak(dtype, engine.gpu),
    )


def machine() -> str:
    """Return the processor, the system and the versions that figures depend on."""
    return (
        f"{read_cpu().model}, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"streamfuse {__version__}"
    )


def peak_memory_mb() -> float:
    """Largest resident size of this process since its start, in MB; NaN on Windows."""
    if sys.platform == "win32":
        return math.nan
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def fuse_files(
    fuser: Fuser, ir: Path, vis: Path, frames: int, out: Path | None = None, video: VideoFormat | None = None
) -> float:
    """Return frames per second from the start of the pipeline to the closed file; `out` None: a file beside `vis`."""
    closed: list[float] = []

    class Timed(VideoSink):
        def close(self, *, failed: bool = False) -> None:
            super().close(failed=failed)
            closed.append(time.perf_counter())

    sink = Timed(out or vis.with_name("fused.mp4"), video, force=True, period_ns=40_000_000)
    run = Pipeline(ir, vis, sinks=[sink], fuser=fuser, frames=frames)
    begin = time.perf_counter()
    summary = run.run()
    return summary.fused / (closed[0] - begin)
