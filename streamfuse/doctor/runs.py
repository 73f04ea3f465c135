"""The sample through every engine, precision and preset of this machine: how exact, and how fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from streamfuse.bench.sweep import FULL, Case, cases
from streamfuse.color import Plane
from streamfuse.doctor.machine import installed_version
from streamfuse.doctor.report import Check, failed, ok, warning
from streamfuse.doctor.sample import Sample, load_sample, make_references
from streamfuse.doctor.software import PACKAGES
from streamfuse.engines import create_engine, has_gpu
from streamfuse.engines.base import Engine, Precision
from streamfuse.errors import EngineError
from streamfuse.network.checkpoint import default_weights
from streamfuse.tone import make_tone

LEAST_DB = {Precision.FP32: 60.0, Precision.FP16: 50.0, Precision.BF16: 40.0, Precision.INT8: 18.0}
"""PSNR to the FP32 picture of the same preset that an engine must reach, in 8-bit luma."""
MOST_S = 0.4
"""For the runs of one timing; a slow engine runs once."""
MOST_RUNS = 10


def check_runs(weights: Path | None) -> Iterator[Check]:
    """Fuse the sample by everything that is installed.

    `weights`: None for the shipped file, whose pictures are stored; other weights are compared with FP32 PyTorch here.
    """
    path = weights or default_weights()
    sample = load_sample()
    references = dict(sample.references)
    if not sample.made_by(path):
        references = make_references(sample.ir, sample.vis, path)
        yield warning(
            "reference",
            f"the stored pictures are of other weights than {path.name}: compared with FP32 PyTorch here instead",
        )
    not_built: list[Case] = []
    for device, case in installed_cases():
        if case.preset not in references:
            continue  # these weights have no small network
        try:
            yield run_case(case, device, weights, sample, references[case.preset])
        except EngineError as error:
            if case.precision == Precision.INT8:
                not_built.append(case)
            else:
                yield failed(title(case, device), str(error))
    if not_built:
        height, width = sample.vis.shape
        yield ok(
            "openvino int8",
            f"not built for {width}x{height}, not run; streamfuse build --precision int8 builds it",
        )


def installed_cases() -> list[tuple[str, Case]]:
    """Every engine, precision and preset of the GPU ("cuda") and the CPU ("cpu") whose package is installed."""
    devices = ("cuda", "cpu") if has_gpu() else ("cpu",)
    found = [(device, case) for device in devices for case in cases(device, (FULL,))]
    return [(device, case) for device, case in found if any(map(installed_version, PACKAGES[case.engine]))]


def title(case: Case, device: str) -> str:
    return f"{case.engine} {case.precision} {case.preset}{' on the GPU' if device == 'cuda' else ''}"


def run_case(case: Case, device: str, weights: Path | None, sample: Sample, reference: Plane) -> Check:
    """Accuracy on the sample and speed at 640x480.  Raises EngineError for what the engine cannot do."""
    with create_engine(case.engine, weights=weights, precision=case.precision, device=device) as engine:
        if case.preset not in engine.presets:
            return ok(title(case, device), f"{engine.name} does not support preset {case.preset}")
        engine.use(case.preset)
        tone = make_tone("per-frame", str(engine.output))
        fused = tone.apply(engine.fuse(sample.ir, sample.vis), 0)
        psnr_db, largest = difference(fused, reference)
        height, width = case.size
        ms = time_ms(engine, *(_resized(plane, height, width) for plane in (sample.ir, sample.vis)))
    text = (
        f"{psnr_db:.1f} dB from FP32, at most {largest} of 255; {width}x{height}: {ms:.1f} ms, {1000 / ms:.1f} fps"
    ).replace("inf dB from", "equal to")
    values = {"psnr_db": psnr_db, "largest": largest, "ms": ms, "fps": 1000 / ms, "size": f"{width}x{height}"}
    least = LEAST_DB[Precision(case.precision)]
    if psnr_db < least:
        return failed(
            title(case, device),
            f"{text}; {least:.0f} dB are expected: do not use it here, and report it with this machine's name",
            **values,
        )
    return ok(title(case, device), text, **values)


def difference(fused: Plane, reference: Plane) -> tuple[float, int]:
    """PSNR in dB over 0..255, infinite where they are equal, and the largest difference in levels."""
    error = fused.astype(np.int16) - reference
    mean = float(np.mean(np.square(error, dtype=np.float64)))
    return (float("inf") if mean == 0 else 10 * float(np.log10(255**2 / mean))), int(np.abs(error).max())


def time_ms(engine: Engine, ir: Plane, vis: Plane) -> float:
    """The median time of a pair, in ms: one run of a slow engine, up to `MOST_RUNS` of a fast one."""
    engine.prepare(*ir.shape)
    times: Sequence[float] = []
    while len(times) < MOST_RUNS + 1 and sum(times) < MOST_S:
        begin = time.perf_counter()
        engine.fuse(ir, vis)
        times = [*times, time.perf_counter() - begin]
    return statistics.median(times[1:] or times) * 1000


def _resized(plane: Plane, height: int, width: int) -> Plane:
    """Each pixel repeated: what is in the picture makes no difference to the time."""
    rows, columns = plane.shape
    resized: Plane = plane[np.arange(height) * rows // height][:, np.arange(width) * columns // width].copy()
    return resized
