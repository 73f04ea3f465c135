"""TensorRT-RTX compiles the network as for a GPU; the result is not run.

`scripts/trt-gate` runs these tests in their own environment, the only one with the package.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from sim_device import SimDevice
from torch import Tensor, nn

from streamfuse.engines.base import Precision
from streamfuse.engines.cache import Cache
from streamfuse.engines.tensorrt import (
    FLAVOURS,
    TensorrtEngine,
    check_gpu,
    compile_network,
    export,
    find_flavour,
    network_to_compile,
)
from streamfuse.errors import EngineUnavailable
from streamfuse.network.checkpoint import default_weights, read_info, save
from streamfuse.network.config import (
    CrossFuseConfig,
    Ends,
    Output,
    Preset,
    SkipArea,
    SkipBorder,
    SkipWeights,
    Window,
)
from streamfuse.network.crossfuse import CrossFuse

try:
    importlib.metadata.version("torch-tensorrt-rtx")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("torch-tensorrt-rtx is not installed: scripts/trt-gate does", allow_module_level=True)

import no_driver

pytestmark = pytest.mark.filterwarnings("ignore")  # torch_tensorrt warns about its own code
with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    no_driver.install()
    import tensorrt
    import torch_tensorrt
    from torch_tensorrt.dynamo.conversion import _TRTInterpreter as interpreter_module

SIZES = [(256, 256), (480, 640), (512, 640)]


class Layer(NamedTuple):
    kind: str
    name: str
    dtype: str


class Built(NamedTuple):
    engine: bytes
    layers: list[Layer]
    bindings: dict[str, tuple[str, tuple[int, ...]]]


class Compiler:
    """Replaces the last step, which would load the engine onto the GPU; here its bytes are kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._found: dict[str, Any] = {}
        found = self._found

        def run(interpreter: Any, *_: object, **__: object) -> Any:
            interpreter._construct_trt_network_def()
            network, config = interpreter.ctx.net, interpreter._populate_trt_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(tensorrt.ComputeCapability.SM86, 0)
            layers = [network.get_layer(i) for i in range(network.num_layers)]
            found["layers"] = [Layer(layer.type.name, layer.name, layer.get_output(0).dtype.name) for layer in layers]
            tensors = [network.get_input(i) for i in range(network.num_inputs)]
            tensors += [network.get_output(i) for i in range(network.num_outputs)]
            found["bindings"] = {tensor.name: (tensor.dtype.name, tuple(tensor.shape)) for tensor in tensors}
            built = interpreter.builder.build_serialized_network(network, config)
            return interpreter_module.TRTInterpreterResult(
                _Serialized(built), interpreter._input_names, interpreter._output_names, False, False
            )

        monkeypatch.setattr(interpreter_module.TRTInterpreter, "run", run)

    def __call__(self, network: nn.Module, height: int, width: int) -> Built:
        engine = compile_network(network, height, width)
        return Built(engine, self._found["layers"], self._found["bindings"])


class _Serialized:
    def __init__(self, memory: Any) -> None:
        self._memory = memory

    def serialize(self) -> Any:
        return self._memory


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    return Compiler(monkeypatch)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return network_to_compile(default_weights(), Precision.FP16, 256, 256)


def operations(program: torch.export.ExportedProgram, pair: tuple[Tensor, ...]) -> tuple[int, int, list[str]]:
    """Return the number of operations, the number that TensorRT supports, and the names of the network's partitions."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        divided = torch_tensorrt.dynamo.compile(
            program,
            arg_inputs=list(pair),
            dryrun=True,
            min_block_size=1,
            offload_module_to_cpu=True,
        )
    match = re.search(r"(\d+) Total Operators, of which (\d+)", said.getvalue())
    assert match is not None, said.getvalue()
    return int(match[1]), int(match[2]), [name for name, _ in divided.named_children()]


OF_LAYER_NORM = re.compile(r"native_layer_norm")
OF_SOFTMAX = re.compile(r"_softmax|_to_copy")
# A scaled network calls submodules of its decoder, so their names differ.
OF_SKIP_WEIGHTS = re.compile(
    r"aten_ops\.(sum|avg_pool2d|abs|sub|div)\..*\[(decoder)?/|(^|\[)(decoder)?/add_\d+_|_to_copy"
)
SKIP_SUMS = 4
"""Additions of the two skips in FP32: s_ir + s_vis, and + epsilon."""


def fp32_outside_islands(layers: list[Layer]) -> list[Layer]:
    """Return the layers in FP32 outside the islands, the operations that must be FP32."""
    wide = [layer for layer in layers if layer.dtype == "FLOAT"]
    left = [
        layer
        for layer in wide
        if layer.kind in {"CONVOLUTION", "MATRIX_MULTIPLY", "DECONVOLUTION"}
        or not any(island.search(layer.name) for island in (OF_LAYER_NORM, OF_SOFTMAX, OF_SKIP_WEIGHTS))
    ]
    sums = [
        layer for layer in left if layer.kind == "ELEMENTWISE" and re.search(r"add\.Tensor\]-\[(decoder)?/", layer.name)
    ]
    return [layer for layer in left if layer not in sums] + sums[SKIP_SUMS:]


def assert_only_shares(layers: list[Layer]) -> None:
    """Besides the islands only the shares of the shallow skip are in FP32.

    They are two sums and two strengths that reflection continues, three squarings for the eighth power, the quotient,
    and its enlargement from blocks of 2x2.  A constant, such as the 0 with which the sum of blended windows begins,
    computes nothing.
    """
    left = [layer for layer in fp32_outside_islands(layers) if layer.kind != "CONSTANT"]
    operations = {"reflection_pad2d": 4, r"/mul_\d+\]$": 4, "broadcast_to_same_shape": 3, "upsample_nearest2d": 1}
    found = {name: sum(bool(re.search(name, layer.name)) for layer in left) for name in operations}
    assert (found, len(left)) == (operations, sum(operations.values()))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_whole_network_is_one_engine(network: nn.Module, height: int, width: int) -> None:
    total, taken, parts = operations(*export(network, height, width))
    assert total == taken > 300
    assert parts == ["_run_on_acc_0"]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_engine_computes_in_fp16_except_in_the_islands(
    network: nn.Module, compiler: Compiler, height: int, width: int
) -> None:
    built = compiler(network, height, width)
    assert len(built.engine) > 40_000_000  # FP16 weights, whole
    picture = ("HALF", (1, 1, height, width))
    assert list(built.bindings) == ["ir", "vis", "output0"]
    assert set(built.bindings.values()) == {picture}
    assert_only_shares(built.layers)
    kinds = Counter((layer.kind, layer.dtype) for layer in built.layers)
    assert kinds["NORMALIZATION", "FLOAT"] == 18
    assert kinds["SOFTMAX", "FLOAT"] == 6
    assert kinds["REDUCE", "FLOAT"] == 4
    assert kinds["CONVOLUTION", "HALF"] > 15
    assert {dtype for kind, dtype in kinds if kind in {"CONVOLUTION", "MATRIX_MULTIPLY"}} == {"HALF"}
    assert {dtype for kind, dtype in kinds if kind in {"NORMALIZATION", "SOFTMAX"}} == {"FLOAT"}


def compile_to_one_engine(compiler: Compiler, network: nn.Module, height: int, width: int) -> Built:
    """Compile the network; check that TensorRT takes all of it, and that its products are in FP16."""
    total, taken, parts = operations(*export(network, height, width))
    assert total == taken > 300
    assert parts == ["_run_on_acc_0"]
    built = compiler(network, height, width)
    assert set(built.bindings.values()) == {("HALF", (1, 1, height, width))}
    assert {layer.dtype for layer in built.layers if layer.kind in {"CONVOLUTION", "MATRIX_MULTIPLY"}} == {"HALF"}
    return built


def test_reduced_deep_path_is_one_engine(compiler: Compiler) -> None:
    scaled = network_to_compile(default_weights(), Precision.FP16, 480, 640, Preset.BALANCED)
    assert_only_shares(compile_to_one_engine(compiler, scaled, 480, 640).layers)


@pytest.mark.parametrize(("height", "width"), SIZES[:2])
def test_small_network_is_one_engine(compiler: Compiler, height: int, width: int) -> None:
    weights = read_info(default_weights()).lite()
    assert weights is not None
    small = network_to_compile(weights.path, Precision.FP16, height, width, Preset.REALTIME)
    assert_only_shares(compile_to_one_engine(compiler, small, height, width).layers)


@pytest.mark.parametrize("preset", [Preset.QUALITY, Preset.BALANCED])
def test_network_with_every_option_is_one_engine(tmp_path: Path, compiler: Compiler, preset: Preset) -> None:
    config = CrossFuseConfig(
        skip_weights=SkipWeights.MAGNITUDE,
        output=Output.DIRECT,
        skip_border=SkipBorder.REFLECT,
        shallow=8,
        deep=32,
        growth=16,
        skip_power=8,
        skip_infrared=1.0,
        skip_area=SkipArea.BLOCK,
        window=Window.FITTED,
        ends=Ends.BENT,
    )
    save(CrossFuse(config), tmp_path / "random.safetensors")
    optioned = network_to_compile(tmp_path / "random.safetensors", Precision.FP16, 256, 256, preset)
    compile_to_one_engine(compiler, optioned, 256, 256)


def test_fp32_network_is_detected(compiler: Compiler) -> None:
    built = compiler(network_to_compile(default_weights(), Precision.FP32, 64, 64), 64, 64)
    assert set(built.bindings.values()) == {("FLOAT", (1, 1, 64, 64))}
    assert {"CONVOLUTION", "MATRIX_MULTIPLY"} <= {layer.kind for layer in fp32_outside_islands(built.layers)}


def test_skip_weights_in_fp16_are_detected(
    network: nn.Module, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "streamfuse.network.crossfuse.channel_sum_mean",
        lambda x, border=None: F.avg_pool2d(x.sum(dim=1, keepdim=True), 3, stride=1, padding=1),
    )
    built = compiler(network, 64, 64)
    assert ("REDUCE", "HALF") in {(layer.kind, layer.dtype) for layer in built.layers}


class WithFold(nn.Module):
    """The network and an operation that TensorRT does not support."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        raw: Tensor = self.network(ir, vis)
        return F.fold(F.unfold(raw, 4, stride=4), raw.shape[2:], 4, stride=4)


def test_operation_without_converter_is_detected(network: nn.Module, compiler: Compiler) -> None:
    with_fold = WithFold(network)
    total, taken, _ = operations(*export(with_fold, 64, 64))
    assert taken < total
    with pytest.raises(EngineUnavailable, match="TensorRT cannot compile the network: ") as caught:
        compiler(with_fold, 64, 64)
    assert "\n" not in str(caught.value)


def test_package_and_its_gpus_are_known() -> None:
    flavour = find_flavour()
    assert flavour is FLAVOURS[1]
    check_gpu(tensorrt, flavour, (8, 9), "NVIDIA GeForce RTX 4090")
    with pytest.raises(EngineUnavailable, match=r"does not support NVIDIA H100 \(SM90\).*streamfuse\[tensorrt\]"):
        check_gpu(tensorrt, flavour, (9, 0), "NVIDIA H100")


class NoGpu(SimDevice):
    """A GPU for compiling only."""

    name = "CUDA GPU that is not there"
    torch = torch.device("cpu")
    index = 0
    capability = (8, 6)

    def active(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


@pytest.mark.usefixtures("compiler")
def test_engine_that_does_not_load_is_refused_and_cached_one_is_rebuilt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """TensorRT compiles the network but cannot load it, because there is no GPU."""
    caplog.set_level(logging.INFO, "streamfuse")
    cache = Cache(tmp_path)
    engine = TensorrtEngine(None, "fp16", NoGpu(), find_flavour(), cache)  # type: ignore[arg-type]
    assert engine.precision == "fp16"
    cache.store(engine._key(64, 64), b"what another version compiled" * 100)
    with pytest.raises(
        EngineUnavailable, match="TensorRT-RTX cannot load the network that it compiled on CUDA GPU that"
    ):
        engine.prepare(64, 64)
    said = [record.getMessage() for record in caplog.records]
    assert "TensorRT-RTX cannot load it); building it again" in said[0]
    assert "compiling the network for 64x64" in said[1]
    assert list(tmp_path.iterdir()) == []  # an unusable entry is deleted


def test_key_depends_on_network_and_target(tmp_path: Path) -> None:
    class OtherGpu(NoGpu):
        capability = (8, 9)

    engines = [
        TensorrtEngine(None, precision, device, find_flavour(), Cache(tmp_path))  # type: ignore[arg-type]
        for precision in ("fp16", "fp32")
        for device in (NoGpu(), OtherGpu())
    ]
    keys = {engine._key(*size) for engine in engines for size in SIZES}
    assert len(keys) == 12


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("Runtime", ["deserialize_cuda_engine"]),
        ("ICudaEngine", ["num_io_tensors", "get_tensor_name", "get_tensor_mode", "create_execution_context"]),
        ("ICudaEngine", ["create_runtime_config"]),
        ("IExecutionContext", ["set_tensor_address", "execute_async_v3"]),
        ("IRuntimeConfig", ["create_runtime_cache", "set_runtime_cache"]),
        ("IRuntimeCache", ["serialize", "deserialize"]),
        ("TensorIOMode", ["INPUT"]),
    ],
)
def test_interfaces_used_on_a_gpu_exist(kind: str, names: list[str]) -> None:
    assert set(names) <= set(dir(getattr(tensorrt, kind)))
