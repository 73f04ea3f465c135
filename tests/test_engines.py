"""Engines behind one interface, with a random network instead of the shipped one, and their cache."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from streamfuse.color import Plane
from streamfuse.engines import create_engine
from streamfuse.engines.base import Precision, read_cpu
from streamfuse.engines.cache import Cache, entry_key
from streamfuse.engines.openvino import OpenvinoEngine
from streamfuse.errors import EngineError, WeightsError
from streamfuse.network import checkpoint
from streamfuse.network.config import CrossFuseConfig, Output, Preset, SkipWeights
from streamfuse.network.crossfuse import CrossFuse

needs_bf16 = pytest.mark.skipif(not read_cpu().has_bf16, reason="this CPU does not multiply BF16")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
SIZE = (64, 80)
CPU_ENGINES = ("openvino", "torch")
TASKS = Path("/proc/self/task")


def pair(size: tuple[int, int] = SIZE) -> tuple[Plane, Plane]:
    rng = np.random.default_rng(size[0])
    ir, vis = (rng.integers(0, 256, size, dtype=np.uint8) for _ in range(2))
    return ir, vis


def range_of(weights: Path) -> float:
    with create_engine("torch", weights=weights, precision="fp32") as engine:
        raw = engine.fuse(*pair())
    return float(raw.max() - raw.min())


@pytest.mark.parametrize(
    ("name", "precision", "share"),
    [
        ("openvino", "fp32", 1e-4),
        pytest.param("openvino", "bf16", 0.05, marks=needs_bf16),
        ("torch", "bf16", 0.08),
        ("torch", "fp16", 0.02),
        pytest.param("torch", "fp16", 0.02, marks=[pytest.mark.gpu, needs_gpu], id="cuda"),
    ],
)
def test_all_engines_agree(weights: Path, name: str, precision: str, share: float) -> None:
    """The largest difference is below a share of the output's range."""
    network = checkpoint.load(weights)
    with torch.inference_mode():
        expected = network(*(torch.from_numpy(plane)[None, None].float() for plane in pair()))[0, 0].numpy()
    with create_engine(name, weights=weights, precision=precision) as engine:
        raw = engine.fuse(*pair())
        assert engine.output is Output.DIRECT
        assert engine.precision == precision
    assert raw.shape == SIZE
    assert raw.dtype == np.float32
    assert np.abs(raw - expected).max() <= share * (expected.max() - expected.min())


@needs_bf16
def test_openvino_computes_in_bf16(weights: Path) -> None:
    """The precision is only a hint, and OpenVINO may compute in FP32 instead."""
    with OpenvinoEngine(weights, "bf16") as engine:
        engine.prepare(*SIZE)
        assert engine._request is not None
        nodes = engine._request.get_compiled_model().get_runtime_model().get_ordered_ops()
    layers = [
        (node.get_rt_info()["layerType"].astype(str), node.get_rt_info()["runtimePrecision"].astype(str))
        for node in nodes
    ]
    heavy = [precision for layer, precision in layers if layer in {"Convolution", "GroupConvolution", "FullyConnected"}]
    assert len(heavy) > 30
    assert set(heavy) == {"bf16"}


@pytest.mark.skipif(not TASKS.exists(), reason="the system has no /proc")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_openvino_does_not_pin_its_threads(weights: Path) -> None:
    """With pinning, the engines of several processes would share the first cores and leave the others idle."""
    asked = "Cpus_allowed_list"
    whole = [line for line in Path("/proc/self/status").read_text().splitlines() if asked in line]
    seen: set[str] = set()
    with OpenvinoEngine(weights, threads=1) as engine, ThreadPoolExecutor(1) as pool:
        engine.prepare(240, 320)  # while openvino compiles, it pins the calling thread to each core in turn
        running = pool.submit(lambda: [engine.fuse(*pair((240, 320))) for _ in range(10)])
        while not running.done():
            for status in TASKS.glob("*/status"):
                with suppress(OSError):  # the thread may have ended
                    seen.update(line for line in status.read_text().splitlines() if asked in line)
    assert len(running.result()) == 10
    assert seen == set(whole)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_size_changes_strided_views_and_independent_results(weights: Path, name: str) -> None:
    with create_engine(name, weights=weights, precision="fp32") as engine:
        first = engine.fuse(*pair())
        kept = first.copy()
        engine.fuse(*reversed(pair()))
        assert engine.fuse(*pair((33, 47))).shape == (33, 47)
        wide = [np.ascontiguousarray(np.tile(plane, 2)) for plane in pair()]
        views = [plane[:, : SIZE[1]] for plane in wide]
        for view in views:
            view.flags.writeable = False
        again = engine.fuse(*views)
    assert np.array_equal(first, kept)
    assert np.abs(again - first).max() < 1e-5


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_invalid_pictures_are_refused(weights: Path, name: str) -> None:
    with create_engine(name, weights=weights, precision="fp32") as engine:
        with pytest.raises(EngineError, match=r"15x40 are too small.*16 pixels"):
            engine.prepare(40, 15)
        with pytest.raises(EngineError, match=r"differ in size: infrared 80x64, visible 16x16.*align"):
            engine.fuse(pair()[0], np.zeros((16, 16), np.uint8))
        with pytest.raises(EngineError, match=r"must be \(H, W\) uint8"):
            engine.fuse(pair()[0], np.zeros(SIZE, np.float32))


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_submitted_pairs_come_back_in_order(weights: Path, name: str) -> None:
    pairs = [pair(), pair()[::-1]]
    with create_engine(name, weights=weights, precision="fp32", device="cpu") as engine:
        expected = [engine.fuse(*planes) for planes in pairs]
        for planes, raw in zip(pairs, expected, strict=True):
            tag = object()
            engine.submit(*planes, tag)
            if engine.pending == engine.depth:
                with pytest.raises(EngineError, match="in flight: collect one"):
                    engine.submit(*planes)
            fused = engine.collect()
            assert fused.tag is tag
            assert np.array_equal(fused.raw, raw)
        with pytest.raises(EngineError, match="no pair is in flight"):
            engine.collect()
        assert engine.time_network(*pair(), runs=3).shape == (3,)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_result_is_independent_of_earlier_sizes_and_presets(weights: Path, name: str) -> None:
    """A preset's weights are derived from the exact ones, not from those rounded for the previous preset."""
    size = (96, 128)
    with create_engine(name, weights=weights, precision="bf16" if name == "torch" else "fp32", device="cpu") as engine:
        engine.use(Preset.BALANCED)
        before = engine.fuse(*pair(size))
        for preset in engine.presets:
            engine.use(preset)
            engine.fuse(*pair((64, 64)))
        engine.use(Preset.BALANCED)
        assert np.array_equal(engine.fuse(*pair(size)), before)


def test_errors_for_unknown_names_list_the_known_ones(weights: Path) -> None:
    with pytest.raises(EngineError, match="unknown engine 'warp': use auto, openvino, tensorrt, inductor, torch"):
        create_engine("warp", weights=weights)
    for name in ("auto", *CPU_ENGINES, "tensorrt"):
        with pytest.raises(EngineError, match="unknown precision 'fp8': use auto, fp32, bf16, fp16, int8"):
            create_engine(name, weights=weights, precision="fp8")
    with pytest.raises(EngineError, match="does not support precision fp16"):
        create_engine("openvino", weights=weights, precision="fp16")
    with pytest.raises(WeightsError, match="there is no weights file"):
        create_engine("openvino", weights=Path("gone"))


def test_auto(weights: Path) -> None:
    with create_engine(weights=weights) as engine:
        assert (engine.name in {"tensorrt", "torch"}) == torch.cuda.is_available()
        if engine.name == "openvino":
            assert engine.precision == ("bf16" if read_cpu().has_bf16 else "fp32")


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_output_that_is_not_finite_is_an_error(weights: Path, tmp_path: Path, name: str) -> None:
    """With finite weights whose products overflow."""
    tensors = load_file(weights)
    tensors = {key: value.float() for key, value in tensors.items()}
    for key in ("decoder.last.conv.weight", "decoder.last.norm.weight"):
        tensors[key] = torch.full_like(tensors[key], 3e38)
    path = tmp_path / "huge.safetensors"
    save_file(tensors, path, dict(checkpoint.read_info(weights).metadata))
    with create_engine(name, weights=path, precision="fp32") as engine, pytest.raises(EngineError, match="not finite"):
        engine.fuse(*pair())


# The cache of compiled networks


SECOND_START = """
import sys
import numpy as np
from pathlib import Path
from streamfuse.engines import create_engine
with create_engine("openvino", weights=Path(sys.argv[1]), precision="fp32") as engine:
    engine.fuse(np.zeros((64, 80), np.uint8), np.zeros((64, 80), np.uint8))
print("torch" in sys.modules)
"""


def start(weights: Path, cache: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "STREAMFUSE_CACHE": str(cache), "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-c", SECOND_START, str(weights)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
    )


def test_second_start_needs_no_torch(weights: Path, tmp_path: Path) -> None:
    for loads_torch in ("True", "False"):
        with start(weights, tmp_path) as process:
            said, _ = process.communicate()
        assert said.strip() == loads_torch
    assert len(list(tmp_path.glob("*.engine"))) == 2  # the network, and the threads that were chosen for it


def test_two_processes_at_once(weights: Path, tmp_path: Path) -> None:
    both = [start(weights, tmp_path) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [path.suffix for path in tmp_path.iterdir()] == [".engine"] * 2


def fuse_with(cache: Cache, weights: Path) -> None:
    with OpenvinoEngine(weights, "fp32", cache=cache) as engine:
        engine.fuse(*pair())


@pytest.fixture(scope="module")
def filled(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a cache with one network."""
    directory = tmp_path_factory.mktemp("filled")
    fuse_with(Cache(directory), weights)
    return directory


@pytest.mark.parametrize("damage", ["flipped bit", "refused by openvino"])
def test_damaged_entry_is_rebuilt_with_one_warning(
    weights: Path, filled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    cache = Cache(shutil.copytree(filled, tmp_path / "cache"))
    entry = max((tmp_path / "cache").iterdir(), key=lambda path: path.stat().st_size)
    whole = entry.read_bytes()
    if damage == "flipped bit":
        entry.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    else:  # its digest is correct
        cache.store(entry.stem, b"no compiled network")
    with caplog.at_level(logging.WARNING, "streamfuse"):
        fuse_with(cache, weights)
        assert caplog.text.count("building it again") == 1
        fuse_with(cache, weights)
    assert len(caplog.records) == 1
    assert entry.stat().st_size > 1_000_000


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_damaged_payload_is_not_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    cache = Cache(tmp_path)
    cache.store("key", bytes(range(256)) * 40)
    loaded = cache.load("key")
    assert loaded is not None
    assert bytes(loaded) == bytes(range(256)) * 40
    entry = tmp_path / "key.engine"
    whole = entry.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    entry.write_bytes({"cut": whole[:-100], "flipped": bytes(flipped), "empty": b"", "foreign": b"x" * 500}[damage])
    with caplog.at_level(logging.WARNING, "streamfuse"):
        assert cache.load("key") is None
        assert cache.load("key") is None
    assert len(caplog.records) == 1
    assert not entry.exists()


def test_unwritable_cache_logs_a_warning(weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING, "streamfuse"):
        fuse_with(Cache(tmp_path / "file" / "cache"), weights)
    assert caplog.text.count("cannot store compiled networks") == 1


def test_key_depends_on_everything() -> None:
    parts = {"shape": "64x80", "precision": "fp32", "weights": "a", "version": "1", "device": "x", "code": "y"}
    keys = {entry_key(**{**parts, name: "other"}) for name in parts} | {entry_key(**parts)}
    assert len(keys) == len(parts) + 1
    assert entry_key(a="1;", b="2") != entry_key(a="1", b=";2")


def test_key_of_an_engine_depends_on_shape_precision_and_weights(weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    checkpoint.save(CrossFuse(CrossFuseConfig(1, SkipWeights.MAGNITUDE, Output.DIRECT)), other)
    keys = {OpenvinoEngine(path, "fp32")._key(*size) for path in (weights, other) for size in (SIZE, SIZE[::-1])}
    assert len(keys) == 4
    engine = OpenvinoEngine(weights, "fp32")
    engine.precision = Precision.BF16  # set directly, as not every CPU supports it
    assert engine._key(*SIZE) not in keys


def test_least_recently_used_entries_are_deleted_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=3000)
    for number, key in enumerate(("old", "older", "new")):
        cache.store(key, bytes(900))
        os.utime(tmp_path / f"{key}.engine", (1000 + number, 1000 + number))
    assert cache.load("old") is not None  # marks it as used
    cache.store("newest", bytes(900))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["new", "newest", "old"]
