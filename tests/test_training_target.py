"""The training target."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import images

from streamfuse.training.target import KNEE, LEVELS, SLOPE, pyramid_target


def stripes(level: float, height: float, wave: float = 0.8) -> torch.Tensor:
    return (level + height * torch.sin(torch.arange(160.0) * wave)).expand(1, 1, 160, 160).contiguous()


@pytest.mark.parametrize("size", [(160, 160), (97, 131), (16, 18)])
def test_target_of_equal_sources_is_the_source(size: tuple[int, int]) -> None:
    image = images(3, 1)[:, :, : size[0], : size[1]].clamp(20, 230)
    assert float((pyramid_target(image, image) - image).abs().max()) < 1e-2


def test_detail_comes_from_the_source_that_varies_more_even_if_the_other_is_brighter() -> None:
    flat, busy = torch.full((1, 1, 160, 160), 200.0), stripes(60, 20)
    for fused, level in ((pyramid_target(flat, busy), 200), (pyramid_target(busy, flat), KNEE + SLOPE * (200 - KNEE))):
        inner = fused[0, 0, 40:120, 40:120]
        assert float(inner.mean()) == pytest.approx(level, abs=1)
        assert float(inner.std()) == pytest.approx(float(busy[0, 0, 40:120, 40:120].std()), rel=0.05)


def test_base_is_the_brighter_source() -> None:
    ramp = torch.linspace(20, KNEE, 400).expand(1, 1, 160, 400).contiguous()
    fused = pyramid_target(ramp, ramp.flip(3))
    reach = 2 * 2**LEVELS
    away = [*range(reach, 200 - reach), *range(200 + reach, 400 - reach)]
    assert float((fused - torch.maximum(ramp, ramp.flip(3)))[..., away].abs().max()) < 2


def test_a_warm_body_stands_out_from_white_smoke() -> None:
    ir = torch.full((1, 1, 160, 160), 60.0)
    ir[:, :, 60:100, 60:100] = 220
    fused = pyramid_target(ir, torch.full_like(ir, 255))
    assert float(fused[:, :, 60:100, 60:100].mean() - fused[:, :, 40:120, 110:120].mean()) > 20


def test_target_keeps_shadows_and_highlights() -> None:
    generator = torch.Generator().manual_seed(0)
    ir, vis = (torch.randint(0, 30, (1, 1, 96, 96), generator=generator).float() for _ in range(2))
    fused = pyramid_target(ir, vis)
    shown = torch.maximum(ir, vis) >= 10
    assert float(fused[shown].min()) > 2
    fused = pyramid_target(255 - ir, 255 - vis)
    assert float(fused.max()) < 255
    assert np.isfinite(fused.numpy()).all()
