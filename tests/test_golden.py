"""Agreement with reference outputs of the published code, for seeded random checkpoints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from streamfuse.engines import create_engine
from streamfuse.engines.base import read_cpu
from streamfuse.network import checkpoint
from streamfuse.network.config import CrossFuseConfig, Output
from streamfuse.network.crossfuse import to_luma
from streamfuse.network.published import import_published

NAMES = ("crossfuse_noise_256x256", "crossfuse_steps_480x640", "crossfuse_tno1_270x360")
needs_bf16 = pytest.mark.skipif(not read_cpu().has_bf16, reason="this CPU does not multiply BF16")


@pytest.fixture(scope="module")
def weights(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Weights files by seed."""
    directory = tmp_path_factory.mktemp("golden")
    found: dict[int, Path] = {}
    for name in NAMES:
        seed = int(np.load(data_dir / "golden" / f"{name}.npz")["seed"])
        if seed not in found:
            make = data_dir / "golden" / "make_checkpoint.py"
            subprocess.run([sys.executable, str(make), str(directory / str(seed)), "--seed", str(seed)], check=True)
            found[seed] = directory / f"{seed}.safetensors"
            network = import_published(directory / str(seed), CrossFuseConfig())
            checkpoint.save(network, found[seed], storage=checkpoint.Storage.FP32)
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("engine", "precision", "most", "least_db"),
    [
        ("torch", "fp32", 0.05, 0.0),
        ("openvino", "fp32", 0.1, 0.0),
        pytest.param("openvino", "bf16", 255.0, 45.0, marks=needs_bf16),
    ],
)
def test_published_numbers(
    data_dir: Path, weights: dict[int, Path], name: str, engine: str, precision: str, most: float, least_db: float
) -> None:
    """Bounds on the largest error in grey levels before rounding, and on PSNR."""
    golden = np.load(data_dir / "golden" / f"{name}.npz")
    with create_engine(engine, weights=weights[int(golden["seed"])], precision=precision) as fuse:
        raw = fuse.fuse(golden["ir"], golden["vis"])
    fused: npt.NDArray[np.float32] = to_luma(torch.from_numpy(raw)[None, None], Output.MINMAX)[0, 0].numpy()
    error = np.abs(fused.astype(np.float64) - golden["fused"])
    assert error.max() <= most
    assert 10 * np.log10(255**2 / np.mean(error**2)) >= least_db
