"""The network with a reduced deep path: the same picture with factor 1, nearly the same with 2 and 4."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from skimage.metrics import structural_similarity

from streamfuse.network.checkpoint import default_weights, load
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
from streamfuse.network.scaled import DeepPicture, DeepScaled, FoldedDeepScaled
from streamfuse.sources.scene.scene import Scene

Picture = npt.NDArray[np.float32]


@functools.cache
def network() -> CrossFuse:
    """The shipped network."""
    return load(default_weights()).eval()


def scene(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = Scene(height, width)
    ir = torch.from_numpy(drawn.infrared(2.0, 0).astype(np.float32))
    vis = torch.from_numpy(drawn.visible(2.0, 0).mean(axis=2, dtype=np.float32))
    return ir[None, None], vis[None, None]


def luma(module: torch.nn.Module, pair: tuple[torch.Tensor, torch.Tensor]) -> Picture:
    with torch.inference_mode():
        result: Picture = (module(*pair)[0, 0] * 255).clamp(0, 255).numpy()
    return result


def psnr(a: Picture, b: Picture) -> float:
    return float(10 * np.log10(255**2 / max(float(np.mean((a - b) ** 2)), 1e-9)))


@pytest.mark.parametrize("size", [(96, 128), (113, 159), (64, 70)])
def test_factor_1_is_the_network(size: tuple[int, int]) -> None:
    pair = scene(*size)
    assert np.abs(luma(DeepScaled(network(), *size, 1), pair) - luma(network(), pair)).max() < 0.01


@pytest.mark.parametrize(("factor", "least"), [(2, 0.98), (4, 0.92)])
@pytest.mark.parametrize("size", [(240, 320), (243, 317)])
def test_picture_is_nearly_the_same_and_not_shifted(size: tuple[int, int], factor: int, least: float) -> None:
    pair = scene(*size)
    full, scaled = luma(network(), pair), luma(DeepScaled(network(), *size, factor), pair)
    assert scaled.shape == size
    assert structural_similarity(full, scaled, data_range=255) > least  # type: ignore[no-untyped-call]
    here = psnr(full, scaled)
    assert all(here > psnr(full, np.roll(scaled, step, axis)) for axis in (0, 1) for step in (-1, 1))


def test_large_areas_are_not_shifted() -> None:
    """The contribution of the deep features is not shifted, for example by half a pixel of the reduced size."""
    size = (256, 256)
    column = torch.arange(256.0)
    ramp = (60 + 80 / (1 + torch.exp(-(column - 128) / 12))).expand(1, 1, 256, 256).contiguous()
    full = luma(network(), (ramp, ramp)).mean(axis=0)
    for factor in (2, 4):
        scaled = luma(DeepScaled(network(), *size, factor), (ramp, ramp)).mean(axis=0)
        slope = np.gradient(full)[100:156]
        shift = float(np.sum((scaled - full)[100:156] * -slope) / np.sum(slope**2))
        assert abs(shift) < 0.25 * factor


def test_small_pictures_are_not_reduced_and_other_factors_are_refused() -> None:
    assert DeepScaled(network(), 48, 64, 4).factor == 1
    assert DeepScaled(network(), 64, 64, 4).factor == 4
    with pytest.raises(ValueError, match="1, 2, 4, 8, 16, 32, not 3"):
        DeepScaled(network(), 64, 64, 3)


@pytest.mark.parametrize(
    ("size", "factor"),
    [
        ((480, 640), 8),
        ((240, 320), 4),
        ((1080, 1920), 16),
        ((2160, 3840), 32),
        ((64, 64), 4),
        ((63, 1000), 2),
        ((16, 16), 1),
    ],
)
def test_deep_path_sees_pictures_of_bounded_size(size: tuple[int, int], factor: int) -> None:
    """So one attention window holds them, no edges between windows appear, and the cost is bounded."""
    assert Preset.REALTIME.factor(*size) == Preset.BALANCED.factor(*size) == factor
    assert factor < 4 or max(size) / factor <= 128


FORMS: dict[str, dict[str, Any]] = {
    "zeros": {},
    "reflect": {"skip_border": SkipBorder.REFLECT},
    "power": {"skip_border": SkipBorder.REFLECT, "skip_power": 2, "skip_infrared": 1.0},
    "blocks": {"skip_area": SkipArea.BLOCK, "skip_power": 4, "window": Window.FITTED, "ends": Ends.BENT},
}
"""Differences of the shipped networks, old and new, from the published one."""


@functools.cache
def narrow(form: str = "zeros") -> CrossFuse:
    """A narrow random network with norms that are not the identity."""
    torch.manual_seed(3)
    config = CrossFuseConfig(
        skip_weights=SkipWeights.MAGNITUDE,
        output=Output.DIRECT,
        shallow=8,
        deep=32,
        growth=16,
        **FORMS[form],
    )
    small = CrossFuse(config).eval()
    for module in small.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) / 10
            module.running_var = torch.rand(module.num_features) + 0.5
    return small


@pytest.mark.parametrize("size", [(96, 128), (98, 142), (97, 141)])
@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("form", FORMS)
def test_composed_network_equals_the_trainable_one(size: tuple[int, int], factor: int, form: str) -> None:
    pair, small = scene(*size), narrow(form)
    whole, composed = DeepScaled(small, *size, factor), FoldedDeepScaled(small, *size, factor)
    with torch.inference_mode():
        a, b = whole(*pair), composed(*pair)
    # 0.1 levels: rounding errors where both shallow features have nearly equal weights
    assert float((a - b).abs().max()) < 0.1 / 255 * max(1.0, float(a.abs().max()))
    assert float((a - b).abs().mean()) < 1e-5


@pytest.mark.parametrize("size", [(96, 128), (97, 141)])
@pytest.mark.parametrize("form", FORMS)
def test_deep_path_alone_equals_that_of_the_network(size: tuple[int, int], form: str) -> None:
    pair, small = [picture / 255 for picture in scene(*size)], narrow(form)
    whole = DeepScaled(small, *size, 4)
    with torch.inference_mode():
        expected = whole.deep_picture(*pair)[0, 0]
        got = DeepPicture(small, *size, 4)(*(whole._smaller(picture)[0, 0] for picture in pair))
    assert float((got - expected).abs().max()) < 1e-5


def test_a_scaled_network_can_be_trained() -> None:
    network = CrossFuse(narrow().config).eval()
    DeepScaled(network, 96, 96, 4)(*scene(96, 96)).sum().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not [name for name in without if "cross" not in name and "norm" not in name and "self" not in name]
