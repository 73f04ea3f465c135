"""Engines on a GPU: tests that run without one, and tests that need one."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from streamfuse.color import Plane, Raw
from streamfuse.engines import create_engine
from streamfuse.engines.auto import AutoEngine
from streamfuse.engines.base import Engine, Precision
from streamfuse.engines.device import CudaDevice
from streamfuse.engines.tensorrt import find_flavour, network_to_compile
from streamfuse.engines.torch import TorchEngine
from streamfuse.errors import EngineError, EngineUnavailable, UsageError, WeightsError
from streamfuse.network.config import Output, Preset

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA GPU")
SIZE = (64, 80)


def noise(seed: int, size: tuple[int, int] = SIZE) -> Plane:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


# Fallback from an engine that cannot run here


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Function that returns the logged messages."""
    monkeypatch.setattr("streamfuse.support.notes._said", set())
    caplog.set_level(logging.WARNING, "streamfuse")
    return lambda: [record.getMessage() for record in caplog.records]


@no_gpu
def test_machine_with_an_unusable_gpu(
    weights: Path, monkeypatch: pytest.MonkeyPatch, notes: Callable[[], list[str]]
) -> None:
    """A machine whose driver was removed: its tools are found, and everything else fails."""
    monkeypatch.setattr("streamfuse.engines.has_gpu", lambda: True)
    for _ in range(2):
        with create_engine(weights=weights, precision="fp32") as engine:
            assert engine.name == "openvino"
            assert engine.device.startswith("CPU")
            assert engine.fuse(noise(0), noise(1)).shape == SIZE
    (said,) = notes()
    assert said.startswith("TensorRT is not installed: pip install")
    assert said.count("no GPU that PyTorch can use (") == 1
    assert said.endswith("; using openvino on the CPU instead")


@no_gpu
def test_requested_gpu_does_not_fall_back_to_the_cpu(weights: Path) -> None:
    for name in ("auto", "torch"):
        with pytest.raises(EngineUnavailable, match=r"no GPU that PyTorch can use .*--device cpu"):
            create_engine(name, weights=weights, device="cuda:1")
    with pytest.raises(EngineUnavailable, match=r"TensorRT is not installed: pip install 'streamfuse\[tensorrt\]'"):
        create_engine("tensorrt", weights=weights)


def test_invalid_devices_are_refused(weights: Path) -> None:
    for device in ("gpu", "cuda:x", "cuda:-1", "cuda:1111"):
        with pytest.raises(UsageError, match=r"unknown device .*: use auto, cpu, cuda or cuda:N"):
            create_engine(weights=weights, device=device)
    with pytest.raises(EngineError, match="openvino runs on the CPU"):
        create_engine("openvino", weights=weights, device="cuda")
    with pytest.raises(EngineError, match="tensorrt runs on an NVIDIA GPU"):
        create_engine("tensorrt", weights=weights, device="cpu")


@pytest.mark.parametrize(
    ("installed", "words"),
    [
        ({"torch": "2.13.0"}, "TensorRT is not installed"),
        ({"torch": "2.13.0", "torch-tensorrt": "2.13.0", "torch-tensorrt-rtx": "2.13.0"}, "overwrite each other's"),
        ({"torch": "2.14.0+cu130", "torch-tensorrt": "2.13.0"}, r"2\.13 is not for torch 2\.14.*\[tensorrt\]"),
        ({"torch": "2.14.0", "torch-tensorrt-rtx": "2.13.1"}, r"2\.13 is not for torch 2\.14.*\[tensorrt-rtx\]"),
    ],
)
def test_incompatible_packages_are_refused(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], words: str
) -> None:
    fake_packages(monkeypatch, installed)
    with pytest.raises(EngineUnavailable, match=words):
        find_flavour()


def test_compatible_packages_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_packages(monkeypatch, {"torch": "2.13.1+cu130", "torch-tensorrt": "2.13.0"})
    assert find_flavour().module == "tensorrt"
    fake_packages(monkeypatch, {"torch": "2.13.1", "torch-tensorrt-rtx": "2.13.0"})
    assert find_flavour().module == "tensorrt_rtx"


def fake_packages(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str]) -> None:
    def version(package: str) -> str:
        if package not in installed:
            raise importlib.metadata.PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(importlib.metadata, "version", version)


class Fragile(Engine):
    """An engine whose `prepare` fails for pictures wider than `most`."""

    precision = Precision.FP32
    output = Output.DIRECT
    presets = tuple(Preset)

    def __init__(self, name: str, most: int, error: Exception) -> None:
        self.name = self.device = name
        self.closed = False
        self._most = most
        self._error = error

    def prepare(self, height: int, width: int) -> None:
        if width > self._most:
            raise self._error

    def fuse(self, ir: Plane, vis: Plane) -> Raw:
        return np.zeros(ir.shape, np.float32)

    def close(self) -> None:
        self.closed = True


def test_falls_back_when_a_size_cannot_be_compiled(notes: Callable[[], list[str]]) -> None:
    first = Fragile("first", 100, EngineUnavailable("first cannot compile"))
    second = Fragile("second", 200, EngineUnavailable("second cannot compile"))
    engine = AutoEngine([("first", lambda: first), ("second", lambda: second)])
    engine.prepare(64, 80)
    assert (engine.name, notes()) == ("first", [])
    engine.submit(noise(0, (64, 150)), noise(1, (64, 150)), "the pair")
    assert engine.collect().tag == "the pair"
    assert (engine.name, engine.device, first.closed) == ("second", "second", True)
    engine.fuse(noise(0), noise(1))
    with pytest.raises(EngineUnavailable, match="second cannot compile"):
        engine.prepare(64, 300)
    assert notes() == ["first cannot compile; using second instead"]


def test_keeps_its_preset_when_it_falls_back(notes: Callable[[], list[str]]) -> None:
    first, second = Fragile("first", 10, EngineUnavailable("cannot")), Fragile("second", 200, EngineError())
    engine = AutoEngine([("first", lambda: first), ("second", lambda: second)])
    engine.use(Preset.BALANCED)
    engine.prepare(64, 80)
    assert (engine.name, engine.preset, second.preset) == ("second", "balanced", "balanced")
    assert len(notes()) == 1


def test_does_not_fall_back_for_other_errors(notes: Callable[[], list[str]]) -> None:
    small = Fragile("first", 10, EngineError("pictures are too small"))
    with pytest.raises(EngineError, match="too small"):
        AutoEngine([("first", lambda: small), ("second", lambda: small)]).prepare(15, 15)

    def broken() -> Engine:
        raise WeightsError("no such file")

    with pytest.raises(WeightsError):
        AutoEngine([("first", broken), ("second", lambda: small)])
    assert notes() == []


# Accuracy of FP16, on the CPU


def psnr(raw: Raw, reference: Raw) -> float:
    """PSNR between the luma of two outputs of a network with direct output, dB."""
    a, b = (np.clip(x.astype(np.float64), 0, 1) * 255 for x in (raw, reference))
    return float(20 * np.log10(255) - 10 * np.log10(np.mean((a - b) ** 2)))


def real_pairs(data_dir: Path, count: int) -> list[tuple[Plane, Plane]]:
    import cv2

    steps = data_dir / "data/eval/vot/steps"
    pairs = []
    for name in sorted(path.name for path in (steps / "ir").glob("*.png"))[:: max(1, 8 // count)][:count]:
        planes = [cv2.imread(str(steps / channel / name), cv2.IMREAD_GRAYSCALE) for channel in ("ir", "color")]
        halves = [cv2.resize(plane, (320, 240)).astype(np.uint8) for plane in planes if plane is not None]
        pairs.append((halves[0], halves[1]))
    return pairs


@pytest.mark.parametrize("preset", Preset)
def test_fp16_is_close_to_fp32_on_real_pairs(data_dir: Path, preset: Preset) -> None:
    """The network that TensorRT compiles, with the shipped weights; 73.7 dB were measured."""
    with create_engine("torch", precision="fp32", device="cpu") as exact:
        assert isinstance(exact, TorchEngine)
        exact.use(preset)
        path = exact.weights.path
        for ir, vis in real_pairs(data_dir, 2):
            half = network_to_compile(path, Precision.FP16, ir.shape[0], ir.shape[1], preset)
            with torch.inference_mode():
                raw = half(*(torch.from_numpy(plane)[None, None].half() for plane in (ir, vis)))
            assert raw.dtype == torch.float16
            assert psnr(raw[0, 0].float().numpy(), exact.fuse(ir, vis)) >= 50


# Tests that need a GPU


@pytest.fixture(params=["torch", "tensorrt"])
def gpu_engine(request: pytest.FixtureRequest) -> Engine:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    try:
        return create_engine(request.param, precision="fp16", device="cuda")
    except EngineUnavailable as error:
        pytest.skip(str(error))


GPU_SIZE = (480, 640)


def test_falls_back_where_a_preset_is_missing(notes: Callable[[], list[str]]) -> None:
    first, second = (Fragile(name, 200, EngineUnavailable("too large")) for name in ("first", "second"))
    first.presets = (Preset.QUALITY, Preset.BALANCED)
    engine = AutoEngine([("first", lambda: first), ("second", lambda: second)])
    engine.use(Preset.BALANCED)
    assert (engine.name, first.preset, notes()) == ("first", Preset.BALANCED, [])
    engine.use(Preset.REALTIME)
    assert (engine.name, engine.preset, second.preset, first.closed) == ("second", "realtime", "realtime", True)
    assert notes() == [
        "engine first on first has no preset realtime: use quality, balanced; using second instead",
    ]
    second.presets = (Preset.QUALITY,)
    with pytest.raises(EngineUnavailable, match="second has no preset balanced"):
        engine.use(Preset.BALANCED)


@pytest.mark.gpu
def test_gpu_agrees_with_fp32(gpu_engine: Engine) -> None:
    ir, vis = noise(0, GPU_SIZE), noise(1, GPU_SIZE)
    with gpu_engine, create_engine("torch", precision="fp32", device="cpu") as exact:
        assert psnr(gpu_engine.fuse(ir, vis), exact.fuse(ir, vis)) >= 50


@pytest.mark.gpu
def test_gpu_result_does_not_depend_on_pairs_in_flight(gpu_engine: Engine) -> None:
    """Over enough pairs that every order of copies and computation occurs."""
    pairs = [(noise(k, GPU_SIZE), noise(k + 50, GPU_SIZE)) for k in range(7)]
    with gpu_engine:
        expected = [gpu_engine.fuse(*pair) for pair in pairs]
        for k in range(500):
            gpu_engine.submit(*pairs[k % 7], k)
            if gpu_engine.pending == gpu_engine.depth:
                raw, tag = gpu_engine.collect()
                assert tag == k - gpu_engine.depth + 1
                assert np.array_equal(raw, expected[tag % 7]), tag


@pytest.mark.gpu
def test_gpu_computes_without_a_pause(gpu_engine: Engine) -> None:
    """The throughput with copies is at least 0.95 of that of the network without them."""
    import time

    ir, vis = noise(0, GPU_SIZE), noise(1, GPU_SIZE)
    with gpu_engine:
        alone_ms = float(np.median(gpu_engine.time_network(ir, vis, 200)))
        begin = time.perf_counter()
        for _ in range(300):
            gpu_engine.submit(ir, vis)
            if gpu_engine.pending == gpu_engine.depth:
                gpu_engine.collect()
        while gpu_engine.pending:
            gpu_engine.collect()
        pair_ms = (time.perf_counter() - begin) * 1000 / 300
    assert alone_ms / pair_ms >= 0.95


@pytest.mark.gpu
def test_gpu_allocates_no_memory_after_warm_up(gpu_engine: Engine) -> None:
    ir, vis = noise(0, GPU_SIZE), noise(1, GPU_SIZE)
    with gpu_engine:
        gpu_engine.fuse(ir, vis)
        before = CudaDevice().allocations()
        for _ in range(100):
            gpu_engine.submit(ir, vis)
            gpu_engine.collect()
        assert CudaDevice().allocations() == before


@pytest.mark.gpu
def test_gpu_graph_replay() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    device = CudaDevice()
    source, target = device.buffer((4,), torch.float32), device.buffer((4,), torch.float32)
    replay = device.graph(lambda: (target.copy_(source * 2 + 1), None)[1])
    stream = device.stream()
    for level in (1.0, 5.0):
        source.fill_(level)
        device.synchronize()
        device.run(stream, replay)
        stream.synchronize()
        assert target.tolist() == [2 * level + 1] * 4


@pytest.mark.gpu
@pytest.mark.timeout(900)
def test_gpu_soak(gpu_engine: Engine) -> None:
    """Sizes change and engines close with pairs in flight: results stay correct and memory does not grow."""
    sizes = [(480, 640), (256, 256), (512, 640)]
    with gpu_engine:
        expected = {size: gpu_engine.fuse(noise(0, size), noise(1, size)) for size in sizes}
        held = []
        for k in range(30):
            size = sizes[k % 3]
            for _ in range(100):
                gpu_engine.submit(noise(0, size), noise(1, size))
                assert np.array_equal(gpu_engine.collect().raw, expected[size])
            gpu_engine.submit(noise(0, size), noise(1, size))
            gpu_engine.close()
            held.append(torch.cuda.memory_allocated())
        assert max(held[6:]) <= max(held[:6])


@pytest.mark.gpu
def test_tensorrt_engine_is_loaded_from_the_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An invalid cache entry is built again."""
    from streamfuse.engines.cache import Cache
    from streamfuse.engines.tensorrt import TensorrtEngine

    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    try:
        flavour, device = find_flavour(), CudaDevice()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    caplog.set_level(logging.INFO, "streamfuse")
    ir, vis = noise(0, (256, 256)), noise(1, (256, 256))
    results = []
    for _ in range(2):
        with TensorrtEngine(None, "fp16", device, flavour, Cache(tmp_path)) as engine:
            results.append(engine.fuse(ir, vis))
    assert caplog.text.count("compiling the network") == 1
    assert np.array_equal(results[0], results[1])
    for entry in tmp_path.glob("*.engine"):
        Cache(tmp_path).store(entry.stem, b"no compiled network")
    with TensorrtEngine(None, "fp16", device, flavour, Cache(tmp_path)) as engine:
        assert psnr(engine.fuse(ir, vis), results[0]) >= 50
    assert "building it again" in caplog.text
