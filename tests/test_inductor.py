"""The engine that PyTorch compiles, on the CPU; on a GPU the same code runs with other kernels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from streamfuse.color import Plane
from streamfuse.engines import create_engine
from streamfuse.engines.device import HostDevice
from streamfuse.engines.inductor import InductorEngine
from streamfuse.errors import EngineUnavailable
from streamfuse.network.config import Preset

SIZE = (48, 64)


def pair(size: tuple[int, int] = SIZE) -> tuple[Plane, Plane]:
    rng = np.random.default_rng(1)
    ir, vis = (rng.integers(0, 256, size, dtype=np.uint8) for _ in range(2))
    return ir, vis


def test_small_network_is_what_pytorch_computes(tmp_path: Path) -> None:
    """The shipped one of preset realtime, at a size whose deep path is not a multiple of 8: its ends are repeated."""
    size = (80, 112)
    with create_engine("torch", precision="fp32", device="cpu", preset="realtime") as plain:
        expected = plain.fuse(*pair(size))
    with InductorEngine(None, "fp32", HostDevice(), cache=tmp_path) as engine:
        engine.use(Preset.REALTIME)
        first = engine.fuse(*pair(size))
        assert np.abs(first - expected).max() < 1e-5
        for tag in range(engine.depth):
            engine.submit(*pair(size), tag)
        for tag in range(engine.depth):
            raw, returned = engine.collect()
            assert returned == tag
            assert np.array_equal(raw, first)
        assert engine.time_network(*pair(size), runs=2).shape == (2,)
    assert str(tmp_path) not in os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")


def test_machine_without_a_compiler(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """PyTorch's own error, in one line; `auto` would take eager PyTorch then."""
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, str(tmp_path / "no-such-compiler")))
    with InductorEngine(weights, "fp32", HostDevice(), cache=tmp_path / "cache") as engine:
        with pytest.raises(EngineUnavailable, match="PyTorch cannot compile the network: ") as caught:
            engine.prepare(*SIZE)
        assert "compiler" in str(caught.value).lower()


def test_is_offered_by_name(weights: Path) -> None:
    with create_engine("inductor", weights=weights, device="cpu") as engine:
        assert (engine.name, engine.precision, engine.depth, engine.gpu) == ("inductor", "fp32", 1, None)
        assert set(engine.presets) == {Preset.QUALITY, Preset.BALANCED}  # there is no small network
    if not torch.cuda.is_available():
        with pytest.raises(EngineUnavailable, match="no GPU that PyTorch can use"):
            create_engine("inductor", weights=weights)


@pytest.mark.parametrize(("height", "width"), [(56, 72), (60, 80)])
def test_repeated_ends_are_those_of_pad(height: int, width: int) -> None:
    """`DeepScaled` repeats them without F.pad, which PyTorch cannot compile there."""
    from streamfuse.network.scaled import _repeat_ends

    x = torch.rand(1, 1, height, width)
    padded = F.pad(x, (1, 2, 3, 0), mode="replicate")
    assert torch.equal(_repeat_ends(_repeat_ends(x, 2, 3, 0), 3, 1, 2), padded)


def test_why_pad_is_not_used() -> None:
    """When this passes no more, PyTorch compiles it: `_repeat_ends` can go, once the oldest version does."""

    class Shuffled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.pad(F.pixel_shuffle(x, 8), (1, 2, 1, 1), mode="replicate")

    with torch.inference_mode(), pytest.raises(RuntimeError, match="vr must not be None"):
        torch.compile(Shuffled(), fullgraph=True)(torch.rand(1, 64, 5, 6))
