"""The OpenVINO engine, the fastest on a CPU.

Conversion takes seconds and needs torch; compiled networks are therefore cached on disk, and later starts load them
without torch.  Speed: see `benchmarks/engine.py`.
"""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np

from streamfuse.color import Plane, Raw
from streamfuse.engines.base import NetworkEngine, Precision, first_line, pick_precision, read_cpu
from streamfuse.engines.cache import Cache, code_digest, entry_key
from streamfuse.engines.quantize import quantize
from streamfuse.errors import EngineError, UsageError
from streamfuse.network.config import Preset

# At import and at every conversion, openvino sends usage data to its vendor without asking if it finds its telemetry
# package.  Hide that package.
_hidden = "openvino_telemetry" not in sys.modules
if _hidden:
    sys.modules["openvino_telemetry"] = cast(ModuleType, None)
import openvino  # type: ignore[import-untyped]  # noqa: E402

if _hidden:
    del sys.modules["openvino_telemetry"]

log = logging.getLogger("streamfuse")

_HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16"}
"""Values of OpenVINO's precision hint.  INT8 is part of the network itself; its other layers use the best of these."""


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
        self._cache = cache or Cache()
        self._options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[best if self.precision is Precision.INT8 else self.precision],
            "PERFORMANCE_HINT": "LATENCY",
            # With pinning, all processes use the first cores: two engines with one thread each would share a core.
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._request: openvino.InferRequest | None = None

    def _build(self, height: int, width: int) -> None:
        self._request = None
        key = self._key(height, width)
        compiled = self._load(key)
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
            compiled = self._compile(self._convert(height, width), key)
        self._request = compiled.create_infer_request()

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
            self._compile(quantize(self._convert(height, width), pairs), self._key(height, width))

    def _compile(self, model: openvino.Model, key: str) -> openvino.CompiledModel:
        compiled = _core().compile_model(model, "CPU", self._options)
        self._cache.store(key, compiled.export_model().getbuffer())
        return compiled

    def _key(self, height: int, width: int) -> str:
        cpu = read_cpu()
        return entry_key(
            engine=self.name,
            version=openvino.get_version(),
            weights=self.weights.digest,
            config=repr(self.weights.config),
            shape=f"{height}x{width}",
            preset=self.preset,
            precision=self.precision,
            device=f"{cpu.model}: {' '.join(sorted(cpu.flags))}",
            code=code_digest(Path(__file__)),
        )

    def _load(self, key: str) -> openvino.CompiledModel | None:
        """Load a compiled network from the cache; None if there is none."""
        blob = self._cache.load(key)
        if blob is None:
            return None
        try:
            return _core().import_model(openvino.Tensor(np.frombuffer(blob, np.uint8)), "CPU", self._options)
        except RuntimeError as error:
            self._cache.discard(key, first_line(error))
            return None

    def _convert(self, height: int, width: int) -> openvino.Model:
        import torch

        from streamfuse.network.checkpoint import load
        from streamfuse.network.folding import OnPictures
        from streamfuse.network.scaled import for_size

        # Two tensors: export treats one that is given twice as a single input.
        pair = tuple(torch.zeros((height, width), dtype=torch.uint8) for _ in range(2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both libraries warn about their own code
            # Exported instead of traced: export propagates shapes only, without computing a picture.
            spectral = self.precision is not Precision.INT8
            network = for_size(load(self.weights.path), height, width, self.preset, folded=True, spectral=spectral)
            program = torch.export.export(OnPictures(network), pair)
            model = openvino.convert_model(program)
        model.reshape({port: [height, width] for port in model.inputs})
        return model

    def _infer(self, ir: Plane, vis: Plane) -> Raw:
        if self._request is None:
            raise RuntimeError("not prepared")
        self._request.infer([np.ascontiguousarray(ir), np.ascontiguousarray(vis)], share_inputs=True)
        raw: Raw = np.array(self._request.get_output_tensor().data)
        return raw

    def close(self) -> None:
        super().close()
        self._request = None


@functools.cache
def _core() -> openvino.Core:
    return openvino.Core()
