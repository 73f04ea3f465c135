"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


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
