"""The TensorRT engine, the fastest on an NVIDIA GPU.

It uses one of two packages, torch-tensorrt (data centre and other GPUs) or torch-tensorrt-rtx (GeForce and RTX cards).
Both install the same module, so only one can be installed.  Compilation needs PyTorch's exporter and that package; the
compiled network is cached on disk in TensorRT's own format, and later starts load it with TensorRT only.

The compiled network maps two (1, 1, H, W) pictures, 0..255, to the raw output, all in the network's dtype.  It is
strongly typed: every layer computes in the dtype of the PyTorch network, which is FP16 except for LayerNorm, softmax
and the skip weights.  Conversions from and to 8 bits and operations on whole pictures are not part of it.
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
    """One of the two TensorRT packages."""

    title: str
    """Name for messages."""
    package: str
    """Distribution that compiles networks."""
    module: str
    """Module that runs them."""
    extra: str
    """Extra of streamfuse that installs it."""


FLAVOURS = (
    Flavour("TensorRT", "torch-tensorrt", "tensorrt", "tensorrt"),
    Flavour("TensorRT-RTX", "torch-tensorrt-rtx", "tensorrt_rtx", "tensorrt-rtx"),
)


def find_flavour() -> Flavour:
    """Find the installed package.  Raises EngineUnavailable for none, both, or one for another version of PyTorch."""
    versions = {flavour: version for flavour in FLAVOURS if (version := _version(flavour.package))}
    if not versions:
        raise EngineUnavailable(
            "TensorRT is not installed: pip install 'streamfuse[tensorrt]', or 'streamfuse[tensorrt-rtx]' for a "
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
    """Load the network of a weights file in the form that TensorRT compiles, for pictures of one size.

    Its decoder is folded, because a chain of convolutions at full resolution is limited by memory bandwidth.  The
    encoders are not: the folded form's many small products are no faster on a GPU.
    """
    network = load(path)
    factor = preset.factor(height, width)
    if factor > 1:
        return FoldedDeepScaled(network, height, width, factor).to(DTYPES[precision])
    network.decoder = FoldedDecoder(network.decoder)
    return network.to(DTYPES[precision])


def export(network: nn.Module, height: int, width: int) -> tuple[torch.export.ExportedProgram, tuple[Tensor, Tensor]]:
    """Export the network's graph for one size, on its own device; also return the inputs used."""
    parameter = next(network.parameters())
    ir, vis = (torch.zeros((1, 1, height, width), dtype=parameter.dtype, device=parameter.device) for _ in range(2))
    return torch.export.export(network, (ir, vis)), (ir, vis)


def compile_network(network: nn.Module, height: int, width: int, gpu: int = 0) -> bytes:
    """Compile the whole network to one TensorRT engine; return it serialized.

    Raises EngineUnavailable if TensorRT cannot compile it, for example because of an unsupported operation.
    """
    logging.getLogger("torch_tensorrt").addHandler(logging.NullHandler())  # it also logs the errors that it raises
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both libraries warn about their own code
            dynamo: Any = importlib.import_module("torch_tensorrt.dynamo")
            device: Any = importlib.import_module("torch_tensorrt").Device(gpu_id=gpu)
            program, pair = export(network, height, width)
            compiled = dynamo.convert_exported_program_to_serialized_trt_engine(
                program,
                arg_inputs=list(pair),
                device=device,
                require_full_compilation=True,
                # The engine contains the weights, so no second copy is kept on the GPU.
                immutable_weights=True,
                offload_module_to_cpu=True,
            )
    except (ImportError, OSError) as error:
        raise EngineUnavailable(f"TensorRT does not load ({first_line(error)}): install it again") from error
    except (RuntimeError, AssertionError, ValueError) as error:
        raise EngineUnavailable(f"TensorRT cannot compile the network: {first_line(error)}") from error
    return bytes(compiled)


def create(weights: Path | None, precision: str, threads: int | None, device: str) -> TensorrtEngine:
    """Create the engine as `streamfuse.engines.create_engine` does; device auto is the first GPU."""
    index = 0 if device == "auto" else parse_device(device)
    if index is None:
        raise EngineError("tensorrt runs on an NVIDIA GPU: leave out --device cpu, or use another engine")
    flavour = find_flavour()
    return TensorrtEngine(weights, precision, CudaDevice(index), flavour)


class TensorrtEngine(StreamedEngine):
    """The network compiled by TensorRT, on an NVIDIA GPU."""

    name = "tensorrt"
    presets = tuple(Preset)
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
        """Raises EngineUnavailable if the package does not load or does not support this GPU."""
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
            raise EngineUnavailable(f"{flavour.title} does not load ({first_line(error)}): install it again") from error
        check_gpu(self._trt, flavour, device.capability, device.name)
        self._runtime: Any = None
        """TensorRT's runtime, which must outlive the engines that it loads."""

    def _make_program(self, height: int, width: int) -> Program:
        key = self._key(height, width)
        with self._gpu.active():
            blob = self._cache.load(key)
            engine = self._deserialize(blob) if blob is not None else None
            if blob is not None and engine is None:
                self._cache.discard(key, f"{self._flavour.title} cannot load it")
            if engine is None:
                log.info("compiling the network for %dx%d pictures, once per size", width, height)
                network = network_to_compile(self.weights.path, self.precision, height, width, self.preset)
                compiled = compile_network(network.to(self._gpu.torch), height, width, self._gpu.index)
                engine = self._deserialize(compiled)
                if engine is None:
                    raise EngineUnavailable(
                        f"{self._flavour.title} cannot load the network that it compiled on {self.device}: update it"
                    )
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
        """Load a serialized engine; None if it was compiled by another version or for another GPU."""
        if self._runtime is None:
            self._runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.ERROR))
        return self._runtime.deserialize_cuda_engine(blob)

    def _bind(self, engine: Any, key: str, height: int, width: int) -> Program:
        """Bind the engine to fixed buffers and capture it as a CUDA graph."""
        dtype = DTYPES[self.precision]
        pair = self._gpu.buffer((2, 1, 1, height, width), dtype)
        raw = self._gpu.buffer((1, 1, height, width), dtype)
        kernels = _Kernels(self._cache, f"{key}-kernels")
        context = kernels.make_context(engine)
        if context is None:
            raise EngineError(
                f"{self._flavour.title} ran out of memory for pictures of {width}x{height}; use smaller ones"
            )
        for name, tensor in zip(tensor_names(self._trt, engine), (pair[0], pair[1], raw), strict=True):
            context.set_tensor_address(name, tensor.data_ptr())

        def launch() -> None:
            if not context.execute_async_v3(self._gpu.current_stream()):
                raise RuntimeError("TensorRT could not start the network")

        try:
            launch_all = self._gpu.graph(launch)
        except RuntimeError as error:
            log.info("running without a CUDA graph: %s", first_line(error))
            launch_all = launch
        kernels.keep()
        return Program(pair, raw, launch_all)


def check_gpu(trt: ModuleType, flavour: Flavour, capability: tuple[int, int], name: str) -> None:
    """Raise EngineUnavailable if the package has no kernels for this GPU."""
    targets = getattr(trt, "ComputeCapability", None)  # TensorRT-RTX lists the GPUs that it supports
    code = f"SM{capability[0]}{capability[1]}"
    if targets is not None and code not in targets.__members__:
        others = next(other for other in FLAVOURS if other is not flavour)
        raise EngineUnavailable(
            f"{flavour.title} does not support {name} ({code}): pip uninstall {flavour.package}, then "
            f"pip install 'streamfuse[{others.extra}]'"
        )


def tensor_names(trt: ModuleType, engine: Any) -> list[str]:
    """Return the names of the tensors for infrared, visible and output.  Raises EngineError for other tensors."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    if sorted(inputs) != ["ir", "vis"] or len(names) != 3:
        raise EngineError(
            f"the compiled network has unexpected inputs and outputs ({', '.join(names)}): delete it from the cache"
        )
    return ["ir", "vis", *(name for name in names if name not in inputs)]


class _Kernels:
    """Disk cache of the kernels that TensorRT-RTX compiles when a network first runs, which takes some seconds."""

    def __init__(self, cache: Cache, key: str) -> None:
        self._cache = cache
        self._key = key
        self._fresh: Any = None

    def make_context(self, engine: Any) -> Any:
        """Make an execution context that uses the cached kernels; None if memory does not suffice."""
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
        """Store new kernels; call it after the first runs."""
        if self._fresh is not None:
            self._cache.store(self._key, bytes(self._fresh.serialize()))
