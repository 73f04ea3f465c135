"""The loss functions of training."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from small import images, picture

from streamfuse.training import losses

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")


def test_equation_7() -> None:
    image = images(0)
    assert float(losses.reconstruction(image, image)) == pytest.approx(0, abs=1e-2)
    assert float(losses.reconstruction(image, image + 4)) == pytest.approx(
        16 + 1e4 * (1 - float(losses.ssim(image, image + 4))), rel=1e-5
    )


def test_intensity_wants_the_source_whose_neighbourhood_is_brighter() -> None:
    dark, bright = torch.full((1, 1, 32, 32), 50.0), torch.full((1, 1, 32, 32), 90.0)
    assert float(losses.intensity(bright, dark, bright)) == float(losses.intensity(bright, bright, dark)) == 0
    assert float(losses.intensity(dark, dark, bright)) == 1600


def test_gradient_counts_what_is_brighter_than_its_neighbours() -> None:
    flat = torch.full((1, 1, 5, 5), 10.0)
    dot = flat.clone()
    dot[0, 0, 2, 2] = 20  # Laplacian 40 here, -10 at four neighbours: clipped
    assert float(losses.gradient(flat, flat, dot)) == pytest.approx(40**2 / 25)
    assert float(losses.gradient(dot, flat, dot)) == 0


def test_ssim_and_vif_are_those_of_scikit_image_and_of_the_evaluation() -> None:
    from skimage.metrics import structural_similarity

    from streamfuse.evaluation import reference_metrics

    a, b = picture(1), picture(2)
    x, y = (torch.from_numpy(p).double()[None, None] for p in (a, b))
    _, full = structural_similarity(  # type: ignore[no-untyped-call]
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert float(losses.ssim(x, y)) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-6)
    near = np.clip(a.astype(int) + np.random.default_rng(0).integers(-9, 10, a.shape), 0, 255).astype(np.uint8)
    ours = float(losses.vif(x, torch.from_numpy(near).double()[None, None]))
    assert 0.05 < ours < 0.9
    assert ours == pytest.approx(reference_metrics.visual_information(a, near), abs=1e-6)


def test_mutual_information_of_an_image_with_itself_is_its_entropy() -> None:
    image = images(0)
    assert float(losses.information(image, image, image)) == pytest.approx(0, abs=1e-6)
    noise = torch.rand(2, 1, 96, 112, generator=torch.Generator().manual_seed(0)) * 255
    assert float(losses.information(noise, image, image)) > 0.9


def test_differences_of_a_sum_are_perfectly_correlated() -> None:
    ir, vis = images(0), images(10)
    assert float(losses.differences(ir + vis - 128, ir, vis)) == pytest.approx(0, abs=0.01)
    assert float(losses.differences(vis, ir, vis)) > 0.9


@pytest.mark.parametrize("name", losses.FUSION_LOSSES)
def test_every_loss_has_a_gradient_that_leads_down(name: str) -> None:
    ir, vis = images(0), images(10)
    if name == "warmth":
        vis = 0.02 * vis + 235  # it is 0 where the visible image hides nothing
    level = -200 if name == "range" else 20  # the loss is 0 within the range
    fused = (0.4 * ir + 0.3 * vis + level).requires_grad_()
    loss = losses.FUSION_LOSSES[name]
    before = loss(fused, ir, vis)
    before.backward()  # type: ignore[no-untyped-call]
    assert fused.grad is not None
    with torch.no_grad():
        moved = fused - fused.grad * (0.5 / fused.grad.abs().max())
        assert float(loss(moved, ir, vis)) < float(before)


def test_the_selected_picture_has_the_detail_of_the_busier_source_and_the_warmth_of_the_brighter() -> None:
    stripes = (20 * torch.sin(torch.arange(160.0) * 0.8)).expand(1, 1, 160, 160)
    ir, vis = torch.full((1, 1, 160, 160), 60.0), 60 + stripes
    ir[:, :, 60:100, 60:100] = 220  # a warm body in front of stripes
    fused = losses.selected(ir, vis)
    away = (slice(None), slice(None), slice(0, 30), slice(30, 130))
    centred = fused[away] - fused[away].mean()
    assert float((centred * stripes[away]).mean() / stripes[away].square().mean()) > 1.1  # kept, and raised
    assert float(fused[:, :, 70:90, 70:90].mean()) > float(fused[away].mean()) + 100
    assert float(losses.selection(fused, ir, vis)) == 0
    assert float(losses.contrast(fused, ir, vis)) == pytest.approx(0, abs=1e-6)
    assert float(losses.contrast(fused / 2, ir, vis)) > 0.5


def test_leaning_takes_the_visible_detail_and_leaves_what_is_warm_or_behind_smoke() -> None:
    stripes = (20 * torch.sin(torch.arange(160.0) * 0.8)).expand(1, 1, 160, 160)
    vis = (100 + stripes).clone()
    vis[:, :, :, 80:] = 180  # smoke
    ir = torch.full_like(vis, 60) + stripes.flip(3) * (torch.arange(160) >= 80)  # detail behind the smoke
    ir[:, :, 60:100, 20:60] = 220  # a warm body
    taught = (ir + vis) / 2
    lent = losses.leaning(taught, ir, vis, 0.8)
    moved = (lent - taught) / (vis - taught)
    assert float(moved[:, :, 10:40, 20:60].median()) == pytest.approx(0.8, abs=0.05)
    assert torch.equal(lent[:, :, 72:88, 32:48], taught[:, :, 72:88, 32:48])
    assert float(moved[:, :, :, 120:].abs().max()) < 0.05


def test_quality_equals_the_metric_where_edges_keep_their_direction() -> None:
    from streamfuse.evaluation.reference_metrics import edge_preservation

    # With a black border, which the metric assumes
    source = np.pad(cv2.GaussianBlur(picture(1), (0, 0), 2)[3:-3, 3:-3], 3).astype(np.uint8)
    a = torch.from_numpy(source).float()[None, None]
    for gain in (1.0, 0.9, 0.7, 0.55, 0.4):
        fused = np.rint(gain * source).astype(np.uint8)
        ours = 1 - float(losses.quality(torch.from_numpy(fused).float()[None, None], a, a))
        assert ours == pytest.approx(edge_preservation(source, source, fused), abs=0.02)
    assert float(losses.quality(255 - a, a, a)) > 0.99


def test_range_allowed_by_the_brighter_source() -> None:
    def loss(fused: float, ir: float, vis: float) -> float:
        return 255 * float(losses.out_of_range(*(torch.full((1, 1, 8, 8), v) for v in (fused, ir, vis))))

    assert loss(3, 10, 0) == pytest.approx(2)
    assert loss(5, 10, 0) == loss(6, 200, 3) == loss(0, 0, 0) == loss(255, 255, 0) == loss(249, 100, 100) == 0
    assert loss(252, 100, 100) == pytest.approx(3)
    assert loss(-5, 0, 0) == loss(260, 255, 0) == pytest.approx(5)


def test_warmth_is_the_contrast_that_a_warm_thing_lacks_in_front_of_smoke() -> None:
    ir = torch.full((1, 1, 160, 160), 60.0)
    ir[:, :, 70:90, 70:90] = 220  # a warm body
    smoke, dark = torch.full_like(ir, 250), torch.full_like(ir, 90)
    assert float(losses.warmth(ir, ir, smoke)) == 0
    assert float(losses.warmth(60 + 0.45 * (ir - 60), ir, smoke)) == pytest.approx(0, abs=1e-6)
    hidden = float(losses.warmth(smoke, ir, smoke))
    body = (ir - losses._spread(ir, 16))[:, :, 70:90, 70:90]
    assert hidden == pytest.approx(float(0.45 * body.mean()) / 255 * (20 / 160) ** 2, rel=0.1)
    assert float(losses.warmth(smoke, 255 - ir, smoke)) < hidden / 4  # cold things are not warm
    stripes = 230 + 20 * torch.cos(torch.arange(160.0)).expand_as(ir)
    assert float(losses.warmth(smoke, ir, stripes)) == 0  # texture shows what is there
    assert float(losses.warmth(dark, ir, dark)) == 0  # others see to it there


def test_steadiness_is_the_change_beyond_those_of_the_sources() -> None:
    ir, vis = images(0), images(1)  # two frames of one scene each
    assert float(losses.steadiness(ir + 30, ir, vis)) == pytest.approx(0, abs=1e-4)
    assert float(losses.steadiness(0.3 * ir + 0.7 * vis, ir, vis)) == pytest.approx(0, abs=1e-4)
    still, lit, dim = (torch.full((2, 1, 64, 64), 90.0) for _ in range(3))
    lit[1] += 2
    dim[1] -= 3
    assert float(losses.steadiness(lit, still, still)) == pytest.approx(2 * (1 + 1 / 4 + 1 / 4), abs=1e-3)
    assert float(losses.steadiness(lit, lit, dim)) == pytest.approx(0, abs=1e-3)
    assert float(losses.steadiness(dim, lit, still)) == pytest.approx(3 * 1.5, abs=1e-3)
    assert float(losses.steadiness(torch.cat((still, dim)), torch.cat((still, still)), torch.cat((still, still)))) == (
        pytest.approx(3 * 1.5 / 2, abs=1e-3)  # pairs of frames, not neighbours of two scenes
    )


def test_texture_is_the_difference_of_gradients() -> None:
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    assert float(losses.texture(ramp + 9, ramp)) == pytest.approx(0, abs=1e-6)
    assert float(losses.texture(2 * ramp, ramp)) == pytest.approx(0.5 / 255, rel=0.05)  # of two components
