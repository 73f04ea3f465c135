"""Checks that need a GPU, one step a function; `gpu_check.py` runs them.

A step takes a device and a plan, and returns its figures; `text` among them is for people.  It raises `NotHere` for
what this machine lacks and AssertionError for what is not as it should be.  On the CPU the same code runs with a
small plan, so that it is known to work before it meets a GPU.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F

from streamfuse import __version__
from streamfuse.bench.counting import count_work
from streamfuse.bench.peak import measure_peak
from streamfuse.bench.timing import Times, rate_in_flight, time_pairs
from streamfuse.color import Plane, Raw
from streamfuse.doctor.machine import driver_version
from streamfuse.doctor.runs import LEAST_DB, difference
from streamfuse.doctor.sample import load_sample
from streamfuse.engines.base import Engine, Precision, read_cpu
from streamfuse.engines.cuda_streams import DEPTH, DTYPES, StreamedEngine
from streamfuse.engines.device import ComputeDevice, Work
from streamfuse.engines.inductor import InductorEngine
from streamfuse.engines.torch import TorchCudaEngine, TorchEngine
from streamfuse.errors import EngineError
from streamfuse.network.config import Output, Preset
from streamfuse.tone import HostPicture, make_tone

Size: TypeAlias = tuple[int, int]
"""(height, width)"""
Figures: TypeAlias = dict[str, Any]
"""Plain values for JSON."""

PACKAGES = ("av", "openvino", "tensorrt", "tensorrt-rtx", "torch-tensorrt", "torch-tensorrt-rtx", "triton", "numpy")
GOAL = 0.95
"""End-to-end pairs a second over those of the network alone."""


class NotHere(Exception):
    """The machine lacks what the step is about."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Size of a step: pictures and runs."""

    full: Size
    """The size of all that is measured at one size."""
    accuracy: tuple[Size, ...]
    sizes: tuple[Size, ...]
    pairs: int
    """Through the ring, with delays of the host in between."""
    runs: int
    """Runs of each timing."""
    soak_s: float
    precision: str
    """Precision in which speed is measured."""


GPU_PLAN = Plan(
    (480, 640),
    ((256, 256), (480, 640), (1024, 1280)),
    ((480, 640), (720, 1280), (1080, 1920), (2160, 3840)),
    pairs=2000,
    runs=100,
    soak_s=120.0,
    precision="fp16",
)
CPU_PLAN = Plan((64, 80), ((64, 64), (64, 80)), ((64, 80), (96, 128)), pairs=20, runs=3, soak_s=1.0, precision="fp32")


def pair_of(size: Size) -> tuple[Plane, Plane]:
    """The sample of `streamfuse doctor` in another size."""
    sample = load_sample()
    planes = []
    for plane in (sample.ir, sample.vis):
        picture = torch.from_numpy(plane)[None, None].float()
        resized = F.interpolate(picture, size=size, mode="bilinear", antialias=True)
        planes.append(cast(Plane, resized.round()[0, 0].to(torch.uint8).numpy()))
    return planes[0], planes[1]


def luma(raw: Raw, output: Output) -> Plane:
    return make_tone("per-frame", str(output)).apply(raw, 0)


class WithoutGraphs:
    """A device that launches every kernel by itself, to compare with."""

    def __init__(self, device: ComputeDevice) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def graph(self, work: Work) -> Work:
        return work


def make(kind: str, device: ComputeDevice, plan: Plan, preset: Preset, depth: int = DEPTH) -> StreamedEngine:
    """An engine of the shipped weights: eager, graphs or inductor."""
    if kind == "inductor":
        engine: StreamedEngine = InductorEngine(None, plan.precision, device, depth)
    else:
        chosen = device if kind == "graphs" else cast(ComputeDevice, WithoutGraphs(device))
        engine = TorchCudaEngine(None, plan.precision, chosen, depth)
    engine.use(preset)
    return engine


def speed(engine: Engine, size: Size, runs: int) -> Figures:
    """Milliseconds of the network alone by the device's clock, and pairs a second with copies."""
    ir, vis = pair_of(size)
    alone = Times.of(engine.time_network(ir, vis, runs))
    return {"ms": alone.p50_ms, "p95_ms": alone.p95_ms, "fps": rate_in_flight(engine, ir, vis, runs)}


# The steps


def environment(device: ComputeDevice, plan: Plan) -> Figures:
    """The machine and its packages."""
    found: Figures = {
        "device": device.name,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "driver": driver_version(),
        "python": platform.python_version(),
        "cpu": read_cpu().model,
        "streamfuse": __version__,
        "packages": {},
    }
    for package in PACKAGES:
        try:
            found["packages"][package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if device.index is not None:
        properties = torch.cuda.get_device_properties(device.index)
        found |= {"capability": [properties.major, properties.minor], "memory": properties.total_memory}
        found |= {"multiprocessors": properties.multi_processor_count, "built_for": torch.cuda.get_arch_list()}
    found["text"] = f"{device.name}, torch {torch.__version__}, driver {found['driver'] or 'none'}"
    return found


def accuracy(device: ComputeDevice, plan: Plan) -> Figures:
    """FP16 and FP32 on the device against FP32 on the CPU."""
    rows: list[Figures] = []
    worst: dict[Precision, float] = {}
    for size in plan.accuracy:
        pair = pair_of(size)
        for preset in Preset:
            with TorchEngine(None, "fp32") as exact:
                exact.use(preset)
                reference = luma(exact.fuse(*pair), exact.output)
            for precision in (Precision.FP16, Precision.FP32):
                with TorchCudaEngine(None, precision, device) as engine:
                    engine.use(preset)
                    psnr_db, largest = difference(luma(engine.fuse(*pair), engine.output), reference)
                finite = min(psnr_db, 200.0)
                rows.append(
                    {"size": size, "preset": preset, "precision": precision, "psnr_db": finite, "largest": largest}
                )
                worst[precision] = min(finite, worst.get(precision, 200.0))
    text = ", ".join(f"{precision} at least {db:.1f} dB" for precision, db in worst.items())
    low = [precision for precision, db in worst.items() if db < LEAST_DB[precision]]
    assert not low, f"{text}: {', '.join(low)} is less exact than it should be; rows: {rows}"
    return {"rows": rows, "text": text}


def modes(device: ComputeDevice, plan: Plan) -> Figures:
    """Eager, CUDA graphs and Inductor at one size."""
    rows: list[Figures] = []
    best: dict[Preset, tuple[float, str]] = {}
    for preset in Preset:
        pictures: dict[str, Plane] = {}
        for kind in ("eager", "graphs", "inductor"):
            row: Figures = {"mode": kind, "preset": preset, "precision": plan.precision}
            rows.append(row)
            try:
                with make(kind, device, plan, preset) as engine:
                    begin = time.perf_counter()
                    engine.prepare(*plan.full)
                    row["prepare_s"] = time.perf_counter() - begin
                    pictures[kind] = luma(engine.fuse(*pair_of(plan.full)), engine.output)
                    row |= speed(engine, plan.full, plan.runs)
            except EngineError as error:
                row["problem"] = str(error)
                continue
            row["psnr_db"] = min(difference(pictures[kind], pictures["eager"])[0], 200.0)
            best[preset] = min((row["ms"], kind), best.get(preset, (row["ms"], kind)))
    text = ", ".join(f"{preset} {ms:.2f} ms by {kind}" for preset, (ms, kind) in best.items())
    problems = [f"{row['mode']} {row['preset']}: {row['problem']}" for row in rows if "problem" in row]
    low = [f"{row['mode']} {row['preset']}" for row in rows if row.get("psnr_db", 200.0) < 50]
    assert not low, f"not the picture of eager PyTorch: {', '.join(low)}; rows: {rows}"
    return {"rows": rows, "text": "; ".join([text, *problems])}


def ring(device: ComputeDevice, plan: Plan) -> Figures:
    """Pairs in flight give the raw output and the luma that single pairs give, in order, whatever the host's pauses."""
    rng = np.random.default_rng(0)
    pairs = [tuple(rng.integers(0, 256, (2, *plan.full), dtype=np.uint8)) for _ in range(7)]
    chance = random.Random(0)
    with make("graphs", device, plan, Preset.REALTIME) as engine:
        expected = [engine.fuse(*pair) for pair in pairs]
        submitted = collected = wrong = 0
        while collected < plan.pairs:
            if chance.random() < 0.3:
                time.sleep(chance.uniform(0, 0.004))
            if (
                submitted < plan.pairs
                and engine.pending < engine.depth
                and (not engine.pending or chance.random() < 0.7)
            ):
                engine.submit(*pairs[submitted % 7])
                submitted += 1
            else:
                raw = expected[collected % 7]
                if chance.random() < 0.5:
                    wrong += not np.array_equal(engine.collect().raw, raw)
                else:
                    stretched = engine.collect_picture().picture.stretch(0.1, 0.9)
                    wrong += not np.array_equal(stretched, HostPicture(raw).stretch(0.1, 0.9))
                collected += 1
    assert not wrong, f"{wrong} of {plan.pairs} pairs came back wrong or out of order"
    return {"pairs": plan.pairs, "text": f"{plan.pairs} pairs right and in order"}


def overlap(device: ComputeDevice, plan: Plan) -> Figures:
    """Copies cost no time: pairs a second end to end over those of the network alone, and a timeline."""
    rows = []
    for preset in Preset:
        with make("graphs", device, plan, preset) as engine:
            figures = speed(engine, plan.full, 3 * plan.runs)
            share = figures["fps"] * figures["ms"] / 1000
            copies, kernels = timeline(engine, plan)
        rows.append({"preset": preset, "share": share, "hidden": hidden_share(copies, kernels), **figures})
    text = ", ".join(
        f"{row['preset']} {row['share']:.2f}"
        + ("" if row["hidden"] is None else f" ({row['hidden']:.0%} of copy time hidden)")
        for row in rows
    )
    low = [row["preset"] for row in rows if row["share"] < GOAL]
    assert device.index is None or not low, f"{text}: below {GOAL} for {', '.join(low)}; rows: {rows}"
    return {"rows": rows, "goal": GOAL, "text": text}


Interval: TypeAlias = tuple[float, float]
"""Begin and end, in us."""


def timeline(engine: Engine, plan: Plan) -> tuple[list[Interval], list[Interval]]:
    """Copies between host and device, and kernels, of some pairs in flight; empty on a CPU."""
    from torch.autograd.profiler_util import DeviceType  # type: ignore[attr-defined]
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    ir, vis = pair_of(plan.full)
    with profile(activities=activities) as profiled:
        rate_in_flight(engine, ir, vis, min(plan.runs, 50))
    copies, kernels = [], []
    for event in profiled.events() or []:
        if event.device_type != DeviceType.CUDA:
            continue
        span = (event.time_range.start, event.time_range.end)
        if "HtoD" in event.name or "DtoH" in event.name:
            copies.append(span)
        else:
            kernels.append(span)
    return copies, kernels


def hidden_share(copies: Sequence[Interval], kernels: Sequence[Interval]) -> float | None:
    """The share of copy time during which a kernel ran; None without copies."""
    merged: list[list[float]] = []
    for begin, end in sorted(kernels):
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    total = sum(end - begin for begin, end in copies)
    hidden = sum(max(0.0, min(end, stop) - max(begin, start)) for begin, end in copies for start, stop in merged)
    return hidden / total if total else None


def memory(device: ComputeDevice, plan: Plan) -> Figures:
    """No memory is taken on the device after the start."""
    ir, vis = pair_of(plan.full)
    with make("graphs", device, plan, Preset.BALANCED) as engine:
        rate_in_flight(engine, ir, vis, plan.runs)
        before = device.allocations()
        rate_in_flight(engine, ir, vis, 2 * plan.runs)
        taken = device.allocations() - before
        held = torch.cuda.max_memory_reserved(device.index) if device.index is not None else 0
    assert not taken, f"{taken} allocations in {2 * plan.runs} pairs after the start"
    return {"allocations": taken, "reserved_bytes": held, "text": f"flat; {held / 1e6:.0f} MB reserved"}


def latency(device: ComputeDevice, plan: Plan) -> Figures:
    """One pair at a time, from pictures in memory to raw output in memory."""
    rows = []
    ir, vis = pair_of(plan.full)
    for preset in Preset:
        with make("graphs", device, plan, preset, depth=1) as engine:
            engine.fuse(ir, vis)
            times = Times.of(time_pairs(engine, ir, vis, 2 * plan.runs))
        rows.append({"preset": preset, "p50_ms": times.p50_ms, "p95_ms": times.p95_ms, "p99_ms": times.p99_ms})
    return {"rows": rows, "text": ", ".join(f"{row['preset']} {row['p50_ms']:.2f} ms" for row in rows)}


def peak(device: ComputeDevice, plan: Plan) -> Figures:
    """The share of what the device can do at best: a matrix product and a copy."""
    dtype = DTYPES[Precision(plan.precision)]
    best = measure_peak(dtype, device.index)
    rows = []
    for preset in Preset:
        with make("graphs", device, plan, preset) as engine:
            ms = speed(engine, plan.full, plan.runs)["ms"]
            work = count_work(engine.weights.config, *plan.full, dtype, preset)
        flops, moved = work.flops / ms * 1000 / best.flops_per_s, work.moved_bytes / ms * 1000 / best.bytes_per_s
        rows.append({"preset": preset, "flops_share": flops, "bytes_share": moved})
    text = f"{best.flops_per_s / 1e12:.1f} TFLOP/s, {best.bytes_per_s / 1e9:.0f} GB/s; " + ", ".join(
        f"{row['preset']} {row['flops_share']:.0%} and {row['bytes_share']:.0%}" for row in rows
    )
    return {"flops_per_s": best.flops_per_s, "bytes_per_s": best.bytes_per_s, "rows": rows, "text": text}


def sizes(device: ComputeDevice, plan: Plan) -> Figures:
    """Every preset from small pictures to large ones, with CUDA graphs."""
    rows = []
    for size in plan.sizes:
        for preset in Preset:
            row: Figures = {"size": size, "preset": preset}
            try:
                with make("graphs", device, plan, preset) as engine:
                    row |= speed(engine, size, max(plan.runs // 4, 2))
            except EngineError as error:
                row["problem"] = str(error)
            rows.append(row)
    last = [row for row in rows if row["size"] == plan.sizes[-1]]
    text = ", ".join(f"{row['preset']} {row['fps']:.1f} fps" for row in last if "fps" in row)
    return {"rows": rows, "text": f"{plan.sizes[-1][1]}x{plan.sizes[-1][0]}: {text or 'none fits'}"}


def tensorrt(device: ComputeDevice, plan: Plan) -> Figures:
    """TensorRT or TensorRT-RTX, whichever is installed."""
    from streamfuse.engines.device import CudaDevice
    from streamfuse.engines.tensorrt import TensorrtEngine, find_flavour
    from streamfuse.errors import EngineUnavailable

    try:
        flavour = find_flavour()
    except EngineUnavailable as error:
        raise NotHere(str(error)) from error
    if not isinstance(device, CudaDevice):
        raise NotHere("TensorRT runs on a GPU")
    rows = []
    ir, vis = pair_of(plan.full)
    for preset in TensorrtEngine.presets:
        with TorchEngine(None, "fp32") as exact:
            exact.use(preset)
            reference = luma(exact.fuse(ir, vis), exact.output)
        with TensorrtEngine(None, plan.precision, device, flavour) as engine:
            engine.use(preset)
            begin = time.perf_counter()
            engine.prepare(*plan.full)
            row: Figures = {"preset": preset, "prepare_s": time.perf_counter() - begin}
            row["psnr_db"] = min(difference(luma(engine.fuse(ir, vis), engine.output), reference)[0], 200.0)
            rows.append(row | speed(engine, plan.full, plan.runs))
    text = ", ".join(f"{row['preset']} {row['ms']:.2f} ms, {row['psnr_db']:.1f} dB" for row in rows)
    return {"title": flavour.title, "rows": rows, "text": f"{flavour.title}: {text}"}


def video(device: ComputeDevice, plan: Plan) -> Figures:
    """NVENC and NVDEC through PyAV."""
    try:
        encoder = importlib.import_module("streamfuse.sinks.encoder")
        codec = importlib.import_module("av.codec.hwaccel")
    except ImportError as error:
        raise NotHere(f"{error.name} is not installed") from error
    found = {name: encoder.why_not(name) or "works" for name in encoder.NVENC.values()}
    found["NVDEC"] = "offered" if "cuda" in codec.hwdevices_available() else "not in this FFmpeg"
    return {"found": found, "text": ", ".join(f"{name}: {outcome}" for name, outcome in found.items())}


def soak(device: ComputeDevice, plan: Plan) -> Figures:
    """Sizes change and engines close with pairs in flight: results stay right and memory does not grow."""
    some = [plan.full, plan.accuracy[0], (plan.full[0] + 32, plan.full[1])]
    pairs = {size: pair_of(size) for size in some}
    held: list[int] = []
    rounds = 0
    end = time.monotonic() + plan.soak_s
    with make("graphs", device, plan, Preset.BALANCED) as engine:
        expected = {size: engine.fuse(*pair) for size, pair in pairs.items()}
        while time.monotonic() < end or rounds < len(some):
            size = some[rounds % len(some)]
            for _ in range(plan.runs):
                engine.submit(*pairs[size])
                assert np.array_equal(engine.collect().raw, expected[size]), f"round {rounds}: wrong at {size}"
            engine.submit(*pairs[size])
            engine.close()
            held.append(torch.cuda.memory_allocated(device.index) if device.index is not None else 0)
            rounds += 1
    early = max(held[: 2 * len(some)])
    assert max(held) <= early, f"memory grew from {early} to {max(held)} bytes in {rounds} rounds"
    return {
        "rounds": rounds,
        "median_bytes": statistics.median(held),
        "text": f"{rounds} rounds, all right; memory flat",
    }


STEPS: dict[str, tuple[Callable[[ComputeDevice, Plan], Figures], float]] = {
    "environment": (environment, 60),
    "accuracy": (accuracy, 150),
    "modes": (modes, 300),
    "ring": (ring, 90),
    "overlap": (overlap, 90),
    "memory": (memory, 60),
    "latency": (latency, 60),
    "peak": (peak, 60),
    "sizes": (sizes, 150),
    "tensorrt": (tensorrt, 240),
    "video": (video, 60),
    "soak": (soak, 200),
}
"""By name, the most telling first; each with the seconds after which it is ended."""
