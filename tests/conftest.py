"""Options, markers and fixtures of all tests."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_table import FaultTable
from hypothesis import settings

WORKER = os.environ.get("PYTEST_XDIST_WORKER")
"""Name of this process among those of pytest-xdist, or None."""
if WORKER is not None:
    # Before torch is imported: two workers with a thread for each core would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
LONG = (
    "test_readme.py",
    "test_training.py",
    "test_batch.py",
    "test_calibration_scene.py",
    "test_engines.py",
    "test_gpu_check.py",
    "test_inductor.py",
    "test_int8.py",
    "test_calibration_cli.py",
    "test_evaluation_metrics.py",
    "test_batch_segments.py",
    "test_examples.py",
    "test_golden.py",
    "test_package.py",
    "test_doctor.py",
    "test_batch_cluster.py",
    "test_contributing.py",
    "test_cli.py",
    "test_evaluate.py",
)
"""The slowest files: workers start with them, so that none runs alone at the end."""

settings.register_profile("default here", deadline=None)  # the machine may be busy
settings.register_profile("thorough", deadline=None, max_examples=5000)  # --hypothesis-profile thorough
settings.load_profile("default here")

_FAULTS = pytest.StashKey[FaultTable]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fault-table",
        metavar="FILE",
        type=Path,
        help="Write what the fault tests found into FILE, such as docs/faults.md.",
    )
    parser.addoption(
        "--soak-minutes",
        metavar="N",
        type=float,
        default=60.0,
        help="How long the soak of live input takes; default 60.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FAULTS] = FaultTable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if WORKER is not None:
        items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_sessionfinish(session: pytest.Session) -> None:
    page = session.config.getoption("--fault-table")
    if page is not None:
        session.config.stash[_FAULTS].write(page)


@pytest.fixture
def faults(pytestconfig: pytest.Config) -> FaultTable:
    """The table to which every fault test adds its row after it has passed."""
    return pytestconfig.stash[_FAULTS]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real recordings and reference outputs, which are not part of the project."""
    directory = os.environ.get("STREAMFUSE_DATA")
    if not directory:
        pytest.skip("needs real recordings and reference outputs: set STREAMFUSE_DATA to their directory")
    return Path(directory)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep compiled networks of tests out of the user's cache; processes that tests start inherit this.

    The workers of pytest-xdist share one directory, so that a network is compiled once.
    """
    base = tmp_path_factory.getbasetemp()
    directory = (base if WORKER is None else base.parent) / "compiled-networks"
    directory.mkdir(exist_ok=True)
    os.environ["STREAMFUSE_CACHE"] = str(directory)


@pytest.fixture(scope="session", autouse=True)
def _converted_once() -> Iterator[None]:
    """Convert each network to OpenVINO once for each size in this process: it takes seconds, compiling does not."""
    if importlib.util.find_spec("openvino") is None:  # in the environment of scripts/trt-gate
        yield
        return
    from streamfuse.engines.base import Precision
    from streamfuse.engines.openvino import OpenvinoEngine

    convert, models = OpenvinoEngine._convert, dict[tuple[object, ...], Any]()

    def once(engine: OpenvinoEngine, height: int, width: int) -> Any:
        if engine.precision is Precision.INT8:  # its model is changed later
            return convert(engine, height, width)
        key = (engine.weights.digest, engine.weights.config, height, width, engine.preset)
        if key not in models:
            models[key] = convert(engine, height, width)
        return models[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenvinoEngine, "_convert", once)
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network in place of the shipped one: the same layers with fewer channels, and luma as output."""
    return _random_network(tmp_path_factory, shallow=8, deep=32, growth=16)


@pytest.fixture(scope="session")
def full_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`weights` with all channels, ten times as slow, for tests that interrupt a run."""
    return _random_network(tmp_path_factory)


def _random_network(
    tmp_path_factory: pytest.TempPathFactory, shallow: int = 32, deep: int = 128, growth: int = 64
) -> Path:
    import torch

    from streamfuse.network import checkpoint
    from streamfuse.network.config import CrossFuseConfig, Output, SkipWeights
    from streamfuse.network.crossfuse import CrossFuse

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    config = CrossFuseConfig(1, SkipWeights.MAGNITUDE, Output.DIRECT, shallow=shallow, deep=deep, growth=growth)
    checkpoint.save(CrossFuse(config), path)
    return path
