"""The network compiled by TensorRT: the fast engine on an NVIDIA GPU.

Two packages do this, torch-tensorrt (data centre and other GPUs) and torch-tensorrt-rtx (GeForce and RTX cards).  They
install the same module, so only one of them can be there.  Compiling needs PyTorch's exporter and one of them;
a compiled network is kept on disk, as TensorRT's own bytes, and a later start gives these to TensorRT itself.

The engine goes from two (1, 1, H, W) pictures, 0..255, to the raw output, all in what the network computes in.  It is
strongly typed: every layer computes in the type that the network is written in, which is FP16 but for LayerNorm,
softmax and the skip weights.  The conversions from and to 8 bits, and all that looks at whole pictures, stay outside.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from streamfuse.engines.base import Precision, first_line, parse_device, pick_precision
from streamfuse.engines.cache import Cache, code_digest, entry_key
from streamfuse.engines.cuda_streams import DEPTH, DTYPES, Program, StreamedEngine
from streamfuse.engines.device import CudaDevice
from streamfuse.errors import EngineError, EngineUnavailable
from streamfuse.network.checkpoint import load
from streamfuse.network.config import Preset
from streamfuse.network.folding import FoldedDecoder
from streamfuse.network.scaled import FoldedDeepScaled

log = logging.getLogger("streamfuse")


@dataclass(frozen=True, slots=True)
class Flavour:
    """One of the two packages."""

    title: str
    package: str
    """What compiles."""
    module: str
    """What runs."""
    extra: str


FLAVOURS = (
    Flavour("TensorRT", "torch-tensorrt", "tensorrt", "tensorrt"),
    Flavour("TensorRT-RTX", "torch-tensorrt-rtx", "tensorrt_rtx", "tensorrt-rtx"),
)


def find_flavour() -> Flavour:
    """The package that is installed.  Raises EngineUnavailable for none, both, or one made for another PyTorch."""
    versions = {flavour: version for flavour in FLAVOURS if (version := _version(flavour.package))}
    if not versions:
        raise EngineUnavailable(
            "TensorRT is not installed; pip install 'streamfuse[tensorrt]', or 'streamfuse[tensorrt-rtx]' for a "
            "GeForce or RTX card"
        )
    if len(versions) > 1:
        names = " and ".join(flavour.package for flavour in FLAVOURS)
        raise EngineUnavailable(f"{names} overwrite each other's files: pip uninstall both, then install one again")
    (flavour,) = versions
    minors = {name: ".".join(str(_version(name)).split(".")[:2]) for name in (flavour.package, "torch")}
    if len(set(minors.values())) > 1:
        raise EngineUnavailable(
            f"{flavour.package} {minors[flavour.package]} is not for torch {minors['torch']}; "
            f"pip install 'streamfuse[{flavour.extra}]'"
        )
    return flavour


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def network_to_compile(
    path: Path, precision: Precision, height: int, width: int, preset: Preset = Preset.QUALITY
) -> nn.Module:
    """The network of a weights file as TensorRT gets it, for pictures of one size.

    Its decoder is folded: the chain of convolutions at full size would mostly move memory.  The encoders are not, as
    the folded form's many small products are no gain on a GPU.
    """
    network = load(path)
    factor = preset.factor(height, width)
    if factor > 1:
        return FoldedDeepScaled(network, height, width, factor, folded=False).to(DTYPES[precision])
    network.decoder = FoldedDecoder(network.decoder)
    return network.to(DTYPES[precision])


def export(network: nn.Module, height: int, width: int) -> tuple[torch.export.ExportedProgram, tuple[Tensor, Tensor]]:
    """The network's graph for one size, and the inputs that it was exported with; on the device that it is on."""
    parameter = next(network.parameters())
    ir, vis = (torch.zeros((1, 1, height, width), dtype=parameter.dtype, device=parameter.device) for _ in range(2))
    return torch.export.export(network, (ir, vis)), (ir, vis)


def compile_network(network: nn.Module, height: int, width: int, gpu: int = 0) -> bytes:
    """One engine for the whole network, as TensorRT's bytes.

    Raises EngineUnavailable where TensorRT cannot compile it, such as for an operation that it does not know.
    """
    logging.getLogger("torch_tensorrt").addHandler(logging.NullHandler())  # it logs what it raises, at length
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they warn of what they themselves do
            dynamo: Any = importlib.import_module("torch_tensorrt.dynamo")
            device: Any = importlib.import_module("torch_tensorrt").Device(gpu_id=gpu)
            program, pair = export(network, height, width)
            compiled = dynamo.convert_exported_program_to_serialized_trt_engine(
                program,
                arg_inputs=list(pair),
                device=device,
                require_full_compilation=True,
                # Whole weights in the engine, no copy of them beside it on the GPU.
                immutable_weights=True,
                offload_module_to_cpu=True,
            )
    except (ImportError, OSError) as error:
        raise EngineUnavailable(f"TensorRT does not load ({first_line(error)}); install it anew") from error
    except (RuntimeError, AssertionError, ValueError) as error:
        raise EngineUnavailable(f"TensorRT cannot compile the network: {first_line(error)}") from error
    return bytes(compiled)


def create(weights: Path | None, precision: str, threads: int | None, device: str) -> TensorrtEngine:
    """As `streamfuse.engines.create_engine`; device auto is the first GPU."""
    index = 0 if device == "auto" else parse_device(device)
    if index is None:
        raise EngineError("tensorrt runs on an NVIDIA GPU: leave out --device cpu, or use another engine")
    flavour = find_flavour()
    return TensorrtEngine(weights, precision, CudaDevice(index), flavour)


class TensorrtEngine(StreamedEngine):
    name = "tensorrt"
    presets = (Preset.QUALITY, Preset.BALANCED)
    """TensorRT-RTX makes no engine of the small network, and does not say why."""
    keeps_builds = True

    def __init__(
        self,
        weights: Path | None,
        precision: str,
        device: CudaDevice,
        flavour: Flavour,
        cache: Cache | None = None,
        depth: int = DEPTH,
    ) -> None:
        """Raises EngineUnavailable where the package does not load or is not for this GPU."""
        super().__init__(weights, device, depth)
        self._gpu = device
        self.gpu = device.index
        self.precision = pick_precision(precision, Precision.FP16, (Precision.FP16, Precision.FP32), flavour.title)
        self._flavour = flavour
        self.package = flavour.package
        self._cache = cache or Cache()
        try:
            self._trt: ModuleType = importlib.import_module(flavour.module)
        except (ImportError, OSError) as error:
            raise EngineUnavailable(f"{flavour.title} does not load ({first_line(error)}); install it anew") from error
        check_gpu(self._trt, flavour, device.capability, device.name)
        self._runtime: Any = None
        """Outlives what it reads."""

    def _make_program(self, height: int, width: int) -> Program:
        key = self._key(height, width)
        with self._gpu.active():
            blob = self._cache.load(key)
            engine = self._deserialize(blob) if blob is not None else None
            if blob is not None and engine is None:
                self._cache.discard(key, f"{self._flavour.title} does not take it")
            if engine is None:
                log.info("compiling the network for %dx%d pictures; done once for each size", width, height)
                network = network_to_compile(self.weights.path, self.precision, height, width, self.preset)
                compiled = compile_network(network.to(self._gpu.torch), height, width, self._gpu.index)
                engine = self._deserialize(compiled)
                if engine is None:
                    raise EngineUnavailable(f"{self._flavour.title} does not take what it compiled on {self.device}")
                self._cache.store(key, compiled)
            return self._bind(engine, key, height, width)

    def _key(self, height: int, width: int) -> str:
        return entry_key(
            engine=f"{self.name} {self._flavour.module}",
            version=f"{self._trt.__version__} {_version(self._flavour.package)} {torch.__version__}",
            weights=self.weights.digest,
            config=repr(self.weights.config),
            shape=f"{height}x{width}",
            preset=self.preset,
            precision=self.precision,
            device=f"{self.device} {self._gpu.capability}",
            code=code_digest(Path(__file__)),
        )

    def _deserialize(self, blob: bytes | memoryview) -> Any:
        """None for what was compiled by another version or for another GPU."""
        if self._runtime is None:
            self._runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.ERROR))
        return self._runtime.deserialize_cuda_engine(blob)

    def _bind(self, engine: Any, key: str, height: int, width: int) -> Program:
        """The engine between fixed places in memory, captured as a CUDA graph."""
        dtype = DTYPES[self.precision]
        pair = self._gpu.buffer((2, 1, 1, height, width), dtype)
        raw = self._gpu.buffer((1, 1, height, width), dtype)
        kernels = _Kernels(self._cache, f"{key}-kernels")
        context = kernels.make_context(engine)
        if context is None:
            raise EngineError(f"{self._flavour.title} ran out of memory for pictures of {width}x{height}")
        for name, place in zip(tensor_names(self._trt, engine), (pair[0], pair[1], raw), strict=True):
            context.set_tensor_address(name, place.data_ptr())

        def launch() -> None:
            if not context.execute_async_v3(self._gpu.current_stream()):
                raise RuntimeError("TensorRT could not start the network")

        try:
            launch_all = self._gpu.graph(launch)
        except RuntimeError as error:
            log.info("without a CUDA graph: %s", first_line(error))
            launch_all = launch
        kernels.keep()
        return Program(pair, raw, launch_all)


def check_gpu(trt: ModuleType, flavour: Flavour, capability: tuple[int, int], name: str) -> None:
    """Raises EngineUnavailable where the package has no kernels for this GPU."""
    targets = getattr(trt, "ComputeCapability", None)  # TensorRT-RTX names what it is for
    code = f"SM{capability[0]}{capability[1]}"
    if targets is not None and code not in targets.__members__:
        others = next(other for other in FLAVOURS if other is not flavour)
        raise EngineUnavailable(
            f"{flavour.title} has nothing for {name} ({code}); pip uninstall {flavour.package}, then "
            f"pip install 'streamfuse[{others.extra}]'"
        )


def tensor_names(trt: ModuleType, engine: Any) -> list[str]:
    """Of infrared, visible and output.  Raises EngineError for an engine with others."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    if sorted(inputs) != ["ir", "vis"] or len(names) != 3:
        raise EngineError(f"the compiled network has other inputs and outputs than this program: {', '.join(names)}")
    return ["ir", "vis", *(name for name in names if name not in inputs)]


class _Kernels:
    """TensorRT-RTX compiles for the GPU at hand when a network first runs, for seconds; kept on disk like networks."""

    def __init__(self, cache: Cache, key: str) -> None:
        self._cache = cache
        self._key = key
        self._fresh: Any = None

    def make_context(self, engine: Any) -> Any:
        """An execution context, or None where memory does not suffice."""
        if not hasattr(engine, "create_runtime_config"):
            return engine.create_execution_context()
        config = engine.create_runtime_config()
        if not hasattr(config, "create_runtime_cache"):
            return engine.create_execution_context(config)
        kernels = config.create_runtime_cache()
        blob = self._cache.load(self._key)
        if blob is None:
            self._fresh = kernels
        else:
            kernels.deserialize(bytes(blob))
        config.set_runtime_cache(kernels)
        return engine.create_execution_context(config)

    def keep(self) -> None:
        """After the first runs: store what they compiled."""
        if self._fresh is not None:
            self._cache.store(self._key, bytes(self._fresh.serialize()))
