"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fault_table import FaultTable
from hypothesis import settings

settings.register_profile("default here", deadline=None)  # of a machine that does other things, too
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


def pytest_sessionfinish(session: pytest.Session) -> None:
    page = session.config.getoption("--fault-table")
    if page is not None:
        session.config.stash[_FAULTS].write(page)


@pytest.fixture
def faults(pytestconfig: pytest.Config) -> FaultTable:
    """The table that every fault test adds its row to, when it has passed."""
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
    """Compiled networks of tests stay out of the user's cache; processes that tests start inherit this."""
    os.environ["STREAMFUSE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network that gives luma, in place of the shipped one."""
    import torch

    from streamfuse.network import checkpoint
    from streamfuse.network.config import CrossFuseConfig, Output, SkipWeights
    from streamfuse.network.crossfuse import CrossFuse

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    checkpoint.save(CrossFuse(CrossFuseConfig(1, SkipWeights.MAGNITUDE, Output.DIRECT)), path)
    return path
