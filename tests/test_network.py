"""The network of the paper and of the published checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from streamfuse.network import crossfuse, windows
from streamfuse.network.config import CrossFuseConfig, Ends, Output, SkipArea, SkipBorder, SkipWeights
from streamfuse.network.crossfuse import CrossFuse
from streamfuse.network.folding import fold

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning:torch")


def network(depth: int = 1, skip: SkipWeights = SkipWeights.MAGNITUDE) -> CrossFuse:
    torch.manual_seed(0)
    made = CrossFuse(CrossFuseConfig(depth, skip, Output.DIRECT)).eval()
    for name, buffer in made.named_buffers():  # BatchNorm that is not the identity
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return made


def pair(height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height * width)
    ir, vis = (torch.randint(0, 256, (1, 1, height, width), generator=generator).float() for _ in range(2))
    return ir, vis


@pytest.fixture(scope="module")
def plain() -> CrossFuse:
    return network()


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (100, 36), (270, 361)])
def test_output_has_the_size_of_the_input(plain: CrossFuse, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        raw = plain(*pair(*size))
    assert raw.shape == (1, 1, *size)
    assert torch.isfinite(raw).all()


def test_smaller_is_refused(plain: CrossFuse) -> None:
    with pytest.raises(ValueError, match="at least 16x16"):
        plain(*pair(15, 40))


@pytest.mark.parametrize("size", [(2, 2), (32, 32), (33, 60), (64, 5), (60, 80)])
def test_windows_and_back(size: tuple[int, int]) -> None:
    deep = torch.randn(2, 128, *size)
    tokens = windows.to_windows(deep)
    count = -(-size[0] // 32) * -(-size[1] // 32)
    assert tokens.shape == (2 * count, 256, 512)
    assert torch.equal(windows.from_windows(tokens, 2, *size), deep)


@pytest.mark.parametrize(
    ("size", "count", "side"),
    [
        ((2, 2), 1, 1),
        ((15, 20), 1, 80),
        ((32, 32), 1, 256),
        ((33, 60), 6, 256),
        ((15, 40), 2, 128),
        ((60, 80), 12, 256),
    ],
)
def test_fitted_windows_and_back(size: tuple[int, int], count: int, side: int) -> None:
    deep = torch.randn(2, 8, *size)
    tokens = windows.to_fitted(deep)
    assert tokens.shape == (2 * count, side, 32)
    assert torch.allclose(windows.from_fitted(tokens, 2, *size), deep, atol=1e-6)


def test_overlapping_windows_are_blended_without_a_step() -> None:
    """Windows of different levels, which show a seam if they are padded."""
    tokens = windows.to_fitted(torch.zeros(1, 8, 60, 80))
    levels = torch.arange(len(tokens)).float()[:, None, None].expand_as(tokens)
    blended = windows.from_fitted(levels, 1, 60, 80)[0, 0]
    assert float(blended[0, 0]) == 0
    assert float(blended[-1, -1]) == len(tokens) - 1
    assert float(blended.diff(dim=1).abs().max()) < 0.07
    assert float(blended.diff(dim=0).abs().max()) < 4 * 0.12  # four windows in a row


def test_a_token_is_channel_major_two_by_two() -> None:
    deep = torch.arange(128 * 32 * 32).reshape(1, 128, 32, 32).float()
    token = windows.to_windows(deep)[0, 17]  # second token of the second row
    assert torch.equal(token, deep[0, :, 2:4, 2:4].reshape(-1))


@pytest.mark.parametrize(("length", "padded"), [(2, 32), (3, 32), (20, 32), (31, 32)])
def test_reflection_repeats_as_often_as_needed(length: int, padded: int) -> None:
    expected = np.pad(np.arange(length), (0, padded - length), mode="reflect")
    assert windows.reflected_indices(length, padded) == expected.tolist()


def test_window_shift_has_no_effect(plain: CrossFuse) -> None:
    """Rolling a window by 16 deep pixels, attending and rolling back equals attending."""
    deep = torch.randn(1, 128, 32, 32)
    assert isinstance(plain.cam, crossfuse.CrossAttentionModule)
    block = plain.cam.self_ir[1]
    with torch.inference_mode():
        straight = windows.from_windows(block(windows.to_windows(deep)), 1, 32, 32)
        rolled = windows.to_windows(deep.roll((-16, -16), (2, 3)))
        back = windows.from_windows(block(rolled), 1, 32, 32).roll((16, 16), (2, 3))
    assert torch.allclose(straight, back, atol=1e-5)


def test_re_softmax_prefers_dissimilar_tokens() -> None:
    q = torch.zeros(1, 256, 512)
    q[..., 0] = 6.0
    k = torch.zeros(1, 256, 512)
    k[0, :128, 0] = 6.0  # the first half is like the query
    v = torch.zeros(1, 256, 512)
    v[0, :128] = 1.0
    alike, unlike = (crossfuse.attend(q, k, v, sign)[0, 0, 0] for sign in (1.0, -1.0))
    assert alike > 0.9
    assert unlike < 0.1


def test_filters_are_a_channel_sum_and_a_box() -> None:
    x = torch.randn(1, 32, 9, 11)
    published = F.conv2d(x, torch.full((32, 32, 3, 3), 1 / 9), padding=1)
    assert torch.allclose(crossfuse.channel_sum_mean(x).expand_as(published), published, atol=1e-5)


def test_a_mirrored_border_of_the_mean_has_no_frame() -> None:
    level = torch.ones(1, 4, 6, 7)
    frame = crossfuse.channel_sum_mean(level)
    assert float(frame[0, 0, 0, 0]) == pytest.approx(4 * 4 / 9)
    assert torch.allclose(crossfuse.channel_sum_mean(level, SkipBorder.REFLECT), torch.full_like(frame, 4.0))
    x = torch.randn(1, 3, 6, 7)
    inner = crossfuse.channel_sum_mean(F.pad(x, (1, 1, 1, 1), mode="reflect"))[:, :, 1:-1, 1:-1]
    assert torch.allclose(crossfuse.channel_sum_mean(x, SkipBorder.REFLECT), inner, atol=1e-6)


def test_magnitude_weights_stay_in_range_where_signed_ones_are_unbounded() -> None:
    """The signed weights are unbounded where the two sums cancel."""
    ir, vis = torch.ones(1, 128, 8, 8), -torch.ones(1, 128, 8, 8) * (1 + 1e-6)
    zero = torch.zeros_like(ir)
    assert crossfuse.deep_skip(zero, ir, vis, SkipWeights.SIGNED).abs().max() > 1000
    assert crossfuse.deep_skip(zero, ir, vis, SkipWeights.MAGNITUDE).abs().max() <= 1


def test_output_to_luma() -> None:
    raw = torch.tensor([[[[-1.0, 0.0, 0.5, 3.0]]]])
    assert crossfuse.to_luma(raw, Output.DIRECT).flatten().tolist() == [0, 0, 127.5, 255]
    stretched = crossfuse.to_luma(raw, Output.MINMAX).flatten()
    assert stretched.tolist() == pytest.approx([0, 63.75, 95.625, 255], abs=1e-3)


@pytest.mark.parametrize("depth", [2, 3])
def test_depth(depth: int) -> None:
    with torch.inference_mode():
        assert torch.isfinite(network(depth)(*pair(32, 40))).all()


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (64, 80), (65, 83), (100, 36), (66, 69), (131, 130), (270, 361)])
def test_folded_network_is_the_same_up_to_the_border(plain: CrossFuse, size: tuple[int, int]) -> None:
    ir, vis = pair(*size)
    with torch.inference_mode():
        difference = (fold(plain, *size)(ir, vis) - plain(ir, vis)).abs()
    assert difference.max() < 2e-5 * 5


def test_folding_does_not_change_the_original(plain: CrossFuse) -> None:
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    fold(plain, 64, 80)
    after = plain.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_skip_weights_are_powers_of_the_strengths() -> None:
    ir, vis = torch.full((1, 2, 6, 6), 3.0), torch.full((1, 2, 6, 6), 5.0)
    strengths = torch.full_like(ir, 2.0), torch.full_like(vis, 1.0)
    for power, share in ((1, 2 / 3), (2, 4 / 5), (4, 16 / 17), (8, 256 / 257)):
        for area in SkipArea:
            skip = crossfuse.ShallowSkip(SkipBorder.REFLECT, power, 0.5, area)
            mixed = skip.mix(ir, vis, *strengths)
            assert torch.allclose(mixed, torch.full_like(ir, share * 0.5 * 3 + (1 - share) * 5), atol=1e-5)
    skip = crossfuse.ShallowSkip(SkipBorder.REFLECT, 4, 1.0, SkipArea.PIXEL)
    none, huge = torch.zeros_like(ir), torch.full_like(ir, 1e12)
    assert torch.allclose(skip.mix(ir, vis, none, huge), vis, atol=1e-3)  # the power of the ratio overflows
    assert torch.allclose(skip.mix(ir, vis, none, none), ir, atol=1e-3)


@pytest.mark.parametrize("size", [(12, 16), (13, 15)])
def test_blocks_share_the_mean_strength_around_them(size: tuple[int, int]) -> None:
    g_ir, g_vis = torch.rand(2, 1, 1, *size)
    ones, noughts = torch.ones(1, 1, *size), torch.zeros(1, 1, *size)
    share = crossfuse.ShallowSkip(SkipBorder.REFLECT, 2, 1.0, SkipArea.BLOCK).mix(ones, noughts, g_ir, g_vis)
    assert torch.equal(share[..., 4:6, 6:8], share[..., 4:5, 6:7].expand(1, 1, 2, 2))
    near = (..., slice(2, 8), slice(4, 10))
    ratio = g_vis[near].mean() / g_ir[near].mean()
    assert float(share[0, 0, 4, 6]) == pytest.approx(float(1 / (1 + ratio**2)), abs=1e-4)


def test_bent_ends_keep_order_and_leave_the_middle() -> None:
    raw = torch.linspace(-3, 4, 20001).double()
    luma = 255 * crossfuse.bend(raw)
    middle = (raw >= 12 / 255) & (raw <= 243 / 255)
    assert torch.allclose(luma[middle], 255 * raw[middle], atol=1e-9)
    assert bool((luma.diff() > 0).all())
    assert float(luma.min()) > 0
    assert float(luma.max()) < 255
    assert float((luma.diff() / raw.diff()).diff().abs().max()) < 5  # no kink; the slope is 255
    at = torch.tensor([0.0, -12 / 255, 1.0])
    assert torch.allclose(255 * crossfuse.bend(at), torch.tensor([6.0, 4.0, 249.0]))


def test_bent_ends_stay_within_the_range() -> None:
    torch.manual_seed(0)
    config = CrossFuseConfig(1, SkipWeights.MAGNITUDE, Output.DIRECT, ends=Ends.BENT, shallow=4, deep=8, growth=4)
    bent = CrossFuse(config).eval()
    bent.decoder.last.norm.bias.data.fill_(-2)
    with torch.inference_mode():
        assert 0 < float(bent(*pair(40, 48)).min()) < 1 / 255
