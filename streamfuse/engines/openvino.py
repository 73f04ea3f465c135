"""The OpenVINO engine, the fastest on a CPU.

With presets `balanced` and `realtime` it runs the deep path, on small pictures; the shallow path, on whole ones, is one
compiled pass (`streamfuse.engines.shallow`).

Conversion takes seconds and needs torch; compiled networks are therefore cached on disk, and later starts load them
without torch.  The first build for a size also times the network: with precision auto in each precision, because that
a CPU lists BF16 instructions does not mean that it is faster with them, and with one thread, because a small network
gains little from more, and other threads of a run need the cores.  The choice is kept in the cache.  Pinning threads to
cores and several streams were measured, too, and gain nothing.  Speed: see `benchmarks/engine.py`.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane, Raw
from streamfuse.engines.base import (
    NetworkEngine,
    Precision,
    first_line,
    parse_precision,
    pick_precision,
    read_cpu,
)
from streamfuse.engines.cache import Cache, code_digest, entry_key
from streamfuse.engines.quantize import quantize
from streamfuse.engines.shallow import ShallowPass, load_functions, shallow_weights, smaller
from streamfuse.errors import EngineError, UsageError
from streamfuse.network.config import Output, Preset
from streamfuse.support.cpus import usable_cpus
from streamfuse.tone import HostPicture

# At import and at every conversion, openvino sends usage data to its vendor without asking if it finds its telemetry
# package.  Hide that package.
_hidden = "openvino_telemetry" not in sys.modules
if _hidden:
    sys.modules["openvino_telemetry"] = cast(ModuleType, None)
import openvino  # type: ignore[import-untyped]  # noqa: E402

if _hidden:
    del sys.modules["openvino_telemetry"]

log = logging.getLogger("streamfuse")

Key = TypeVar("Key")

_HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16"}
"""Values of OpenVINO's precision hint.  INT8 is part of the network itself; its other layers use the best of these.

FP16 is not among them: with AVX-512 FP16 it took 1.4 times FP32's time.
"""
ROUNDS = 5
"""Timed runs of each precision at most, in turns; the fastest counts."""
ROUNDS_S = 2.0
"""Time after which no more rounds begin, s."""
WORTH = 0.95
"""Share of FP32's time that a less exact precision may take at most."""
ENOUGH = 1.25
"""Multiple of the time with all threads that one thread may take to be preferred."""
LARGE_MS = 10.0
"""Time with all threads from which on a network is so large that one thread is not tried."""
LEAST_DB = 54.0
"""Least PSNR to FP32 with which a precision counts as equally good.

Rounding to BF16 gives 56 dB and more.  For some sizes (224x256 and 256x256, say) OpenVINO 2026.4 computes 42 to 53 dB
with AMX, and another picture each time.
"""


def create(weights: Path | None, precision: str, threads: int | None, device: str) -> OpenvinoEngine:
    """Create the engine; the parameters are those of `streamfuse.engines.create_engine`."""
    if device not in ("auto", "cpu"):
        raise EngineError("openvino runs on the CPU: leave out --device, or use engine tensorrt or torch")
    return OpenvinoEngine(weights, precision, threads)


class OpenvinoEngine(NetworkEngine):
    """The network compiled by OpenVINO, on the CPU."""

    name = package = "openvino"
    presets = tuple(Preset)
    keeps_builds = True

    def __init__(
        self,
        weights: Path | None = None,
        precision: str = "auto",
        threads: int | None = None,
        cache: Cache | None = None,
    ) -> None:
        super().__init__(weights)
        cpu = read_cpu()
        self.device = f"CPU {cpu.model}"
        best = Precision.BF16 if cpu.has_bf16 else Precision.FP32
        # Without BF16 instructions, openvino would silently compute in FP32.
        possible = (*_HINTS, Precision.INT8) if cpu.has_bf16 else (Precision.FP32, Precision.INT8)
        self.precision = pick_precision(precision, best, possible, f"openvino on {self.device}")
        self.measures_precision = parse_precision(precision) is Precision.AUTO and best is not Precision.FP32
        self._cache = cache or Cache()
        self._best = best
        self._threads = threads
        self._found_threads: int | None = None
        """Number of threads that was measured to be enough for the size; None for all."""
        self._wanted = parse_precision(precision)
        self._request: openvino.InferRequest | None = None
        self._pass: ShallowPass | None = None

    def _options(self) -> dict[str, Any]:
        """Return OpenVINO's options for the precision in use."""
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[self._best if self.precision is Precision.INT8 else self.precision],
            "PERFORMANCE_HINT": "LATENCY",
            # With pinning, all processes use the first cores: two engines with one thread each would share a core.
            "ENABLE_CPU_PINNING": False,
        }
        if (threads := self._threads or self._found_threads) is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        return options

    def _build(self, height: int, width: int) -> None:
        self._drop()
        chosen = self._load_choice(height, width)
        compiled = self._load(self._key(height, width)) if chosen else None
        if compiled is None:
            if self.precision is Precision.INT8:
                raise EngineError(
                    f"there is no int8 network for {width}x{height} and preset {self.preset}: run streamfuse build "
                    f"--precision int8 --preset {self.preset} --size {width}x{height} --calibrate PAIRS"
                )
            log.info(
                "compiling the network for %dx%d pictures, once per size: seconds, or minutes if slow",
                width,
                height,
            )
            model = self._convert(height, width)
            compiled = self._compile(model) if chosen else self._compile_fastest(model, height, width)
            self._store(compiled, height, width)
        if self._factor(height, width) > 1:
            rows, columns = compiled.output(0).shape
            self._pass = self._make_pass(height, width, (rows, columns))
        self._request = compiled.create_infer_request()

    def _factor(self, height: int, width: int) -> int:
        return self.preset.factor(height, width)

    def _make_pass(self, height: int, width: int, deep: tuple[int, int]) -> ShallowPass:
        weights, threads = self.weights, self._threads or usable_cpus()
        key = self._key(0, 0, "shallow weights")  # the same for every size
        stored = self._cache.load(key)
        if stored is None:
            from streamfuse.network.checkpoint import load

            values = shallow_weights(load(weights.path))
            self._cache.store(key, values.tobytes())
        else:
            values = np.frombuffer(stored, np.float32)
        functions = load_functions(weights.config, read_cpu(), self._cache)
        factor = self._factor(height, width)
        return ShallowPass(functions, weights.config, values, (height, width), factor, deep, threads)

    def _choice_key(self, height: int, width: int) -> str:
        # Another number of threads may make another precision the fastest.
        return self._key(height, width, f"{self._wanted} with {self._threads or 'all'} threads")

    def _load_choice(self, height: int, width: int) -> bool:
        """Load precision and number of threads that were chosen for a size; False if none were."""
        self._found_threads = None
        if self.precision is Precision.INT8:
            return True
        key = self._choice_key(height, width)
        blob = self._cache.load(key)
        if blob is None:
            return False
        try:
            precision, threads = bytes(blob).decode().split()
            self.precision, self._found_threads = Precision(precision), int(threads) or None
        except ValueError:
            self._cache.discard(key, "it names no precision and number of threads")
            return False
        return True

    def _compile_fastest(self, model: openvino.Model, height: int, width: int) -> openvino.CompiledModel:
        """Compile for every possible precision and return the fastest of those whose picture is as good as FP32's.

        `precision` and the number of threads are set to those that were found, and the choice is kept in the cache.
        """
        pair = self._inputs(*_test_pair(height, width))
        compiled, times_ms = {}, {}
        if self.measures_precision:
            requests = {}
            for precision in _HINTS:
                self.precision = precision
                compiled[precision] = self._compile(model)
                requests[precision] = _warm_request(compiled[precision], pair)
            exact = requests[Precision.FP32].get_output_tensor().data
            times_ms = _time_in_turns(requests, pair)
            self.precision = Precision.FP32
            listed = []
            for precision, request in requests.items():
                psnr_db = _psnr_db(request.get_output_tensor().data, exact)
                good = self.output is not Output.DIRECT or psnr_db >= LEAST_DB
                if good and times_ms[precision] < WORTH * times_ms[self.precision]:
                    self.precision = precision
                listed.append(
                    f"{precision} {times_ms[precision]:.3g} ms" + ("" if good else f" but only {psnr_db:.0f} dB")
                )
            log.info("precision %s for %dx%d pictures, measured: %s", self.precision, width, height, ", ".join(listed))
        best = compiled.get(self.precision) or self._compile(model)
        if self._threads is None and usable_cpus() > 1 and times_ms.get(self.precision, 0) < LARGE_MS:
            best = self._compile_thrifty(model, best, pair)
        choice = f"{self.precision} {self._found_threads or 0}"
        self._cache.store(self._choice_key(height, width), memoryview(choice.encode()))
        return best

    def _compile_thrifty(
        self, model: openvino.Model, best: openvino.CompiledModel, pair: Sequence[npt.NDArray[Any]]
    ) -> openvino.CompiledModel:
        """Return the network for one thread if that takes about as long as with all, which `best` uses; else `best`."""
        requests: dict[int | None, openvino.InferRequest] = {None: _warm_request(best, pair)}
        if _time_in_turns(requests, pair)[None] >= LARGE_MS:
            return best
        self._found_threads = 1
        thrifty = self._compile(model)
        requests[1] = _warm_request(thrifty, pair)
        times_ms = _time_in_turns(requests, pair)
        if times_ms[1] > ENOUGH * times_ms[None]:
            self._found_threads = None
            return best
        log.info("one thread is enough for the network: %.3g ms, all threads %.3g ms", times_ms[1], times_ms[None])
        return thrifty

    def calibrate(self, pairs: Sequence[tuple[Plane, Plane]]) -> None:
        """Build the INT8 network for the size of `pairs`, which should be typical of the pictures to fuse.

        `pairs`: infrared and visible luma, (H, W) uint8 each.  Takes minutes.  Raises UsageError if NNCF is not
        installed or the engine has another precision.
        """
        if self.precision is not Precision.INT8:
            raise UsageError(f"only int8 needs calibration, not {self.precision}: use --precision int8")
        height, width = pairs[0][0].shape
        self._shape = None
        with self._explained(height, width):
            inputs = [self._inputs(ir, self._seen(ir, vis)) for ir, vis in pairs]
            self._store(self._compile(quantize(self._convert(height, width), inputs)), height, width)

    def _inputs(self, ir: Plane, vis: Plane) -> list[npt.NDArray[Any]]:
        """Return what the compiled network takes for a pair: the pair itself, or the deep path's smaller pictures."""
        factor = self._factor(*ir.shape)
        if factor == 1:
            return [np.ascontiguousarray(ir), np.ascontiguousarray(vis)]
        return [smaller(plane, factor) for plane in (ir, vis)]

    def _compile(self, model: openvino.Model) -> openvino.CompiledModel:
        return _core().compile_model(model, "CPU", self._options())

    def _store(self, compiled: openvino.CompiledModel, height: int, width: int) -> None:
        self._cache.store(self._key(height, width), compiled.export_model().getbuffer())

    def _key(self, height: int, width: int, precision: str | None = None) -> str:
        cpu = read_cpu()
        return entry_key(
            engine=self.name,
            version=openvino.get_version(),
            weights=self.weights.digest,
            config=repr(self.weights.config),
            shape=f"{height}x{width}",
            preset=self.preset,
            precision=precision or self.precision,
            device=f"{cpu.model}: {' '.join(sorted(cpu.flags))}",
            limit=os.environ.get("ONEDNN_MAX_CPU_ISA", ""),  # hides instructions from openvino
            code=code_digest(Path(__file__)),
        )

    def _load(self, key: str) -> openvino.CompiledModel | None:
        """Load a compiled network from the cache; None if there is none."""
        blob = self._cache.load(key)
        if blob is None:
            return None
        try:
            return _core().import_model(openvino.Tensor(np.frombuffer(blob, np.uint8)), "CPU", self._options())
        except RuntimeError as error:
            self._cache.discard(key, first_line(error))
            return None

    def _convert(self, height: int, width: int) -> openvino.Model:
        import torch

        from streamfuse.network.checkpoint import load
        from streamfuse.network.folding import OnPictures, fold
        from streamfuse.network.scaled import DeepPicture

        factor = self._factor(height, width)
        rows, columns = -(-height // factor), -(-width // factor)
        # Two tensors: export treats one that is given twice as a single input.
        pair = tuple(torch.zeros(rows, columns, dtype=torch.uint8 if factor == 1 else None) for _ in range(2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both libraries warn about their own code
            # Exported instead of traced: export propagates shapes only, without computing a picture.
            if factor == 1:
                spectral = self.precision is not Precision.INT8
                network: torch.nn.Module = OnPictures(fold(load(self.weights.path), height, width, spectral=spectral))
            else:
                network = DeepPicture(load(self.weights.path), height, width, factor)
            program = torch.export.export(network, pair)
            model = openvino.convert_model(program)
        model.reshape({port: [rows, columns] for port in model.inputs})
        return model

    def _infer(self, ir: Plane, vis: Plane) -> HostPicture:
        if self._request is None:
            raise RuntimeError("not prepared")
        if self._pass is None:
            self._request.infer(self._inputs(ir, vis), share_inputs=True)
            return HostPicture(np.array(self._request.get_output_tensor().data))
        self._request.infer(list(self._pass.shrink(ir, vis)), share_inputs=True)
        return self._pass.finish(ir, vis, self._request.get_output_tensor().data)

    def _drop(self) -> None:
        if self._pass is not None:
            self._pass.close()
        self._request = self._pass = None

    def close(self) -> None:
        super().close()
        self._drop()


def _test_pair(height: int, width: int) -> list[Plane]:
    """Return two pictures, (H, W) uint8, with structure at all scales: noise on shades."""
    rng = np.random.default_rng(0)
    rows, columns = np.linspace(0, 160, height)[:, None], np.linspace(0, 60, width)
    noise = rng.integers(0, 36, (2, height, width))
    return [np.asarray(plane, np.uint8) for plane in (rows + columns + noise[0], 160 - rows + columns + noise[1])]


def _warm_request(compiled: openvino.CompiledModel, pair: Sequence[npt.NDArray[Any]]) -> openvino.InferRequest:
    """Return a request that has run once, because the first run is slow."""
    request = compiled.create_infer_request()
    request.infer(pair)
    return request


def _time_in_turns(requests: Mapping[Key, openvino.InferRequest], pair: Sequence[npt.NDArray[Any]]) -> dict[Key, float]:
    """Return the shortest time of each request, ms."""
    times_ms = dict.fromkeys(requests, math.inf)
    end = time.perf_counter() + ROUNDS_S
    for round_ in range(ROUNDS):
        if round_ and time.perf_counter() > end:
            break
        for key, request in requests.items():
            begin = time.perf_counter()
            request.infer(pair)
            times_ms[key] = min(times_ms[key], (time.perf_counter() - begin) * 1000)
    return times_ms


def _psnr_db(raw: Raw, exact: Raw) -> float:
    """Return the PSNR of two raw outputs of a direct network, or of the deep path's part of them."""
    error = float(np.mean(np.square(raw - exact, dtype=np.float64)))
    return math.inf if error == 0 else -10 * math.log10(error)


@functools.cache
def _core() -> openvino.Core:
    return openvino.Core()
