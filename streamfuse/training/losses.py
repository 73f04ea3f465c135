"""Loss functions of training.

Images are (B, 1, H, W), FP32, 0..255; a fused image may leave that range.  Every loss is a scalar, a mean over
the batch, so that the gradients of equal parts of a batch average to those of the whole.

Equations are those of Li and Wu, Information Fusion 103 (2024) 102147.  The other terms are not in the published
recipe; each is 0 for a perfect score.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WEIGHT = 1e4
MASK_SIDE = 11
"""Side of the means of Eq. 10, which choose between infrared and visible, pixels."""
LEVELS = 32
"""Bins of the soft joint histogram for each image."""
WARM = 64.0
"""Grey levels by which infrared must be brighter to be kept completely."""


def _band(length: int, sigma: float, side: int, like: Tensor) -> Tensor:
    """Return the matrix (length - side + 1, length) of a Gaussian mean over `side` neighbours."""
    offset = torch.arange(length, dtype=like.dtype, device=like.device)
    offset = offset - torch.arange(length - side + 1, dtype=like.dtype, device=like.device)[:, None]
    weights = (-(offset - (side - 1) / 2).square() / (2 * sigma**2)).exp() * ((offset >= 0) & (offset < side))
    return weights / weights.sum(1, keepdim=True)


def _blur(x: Tensor, sigma: float, side: int) -> Tensor:
    """Gaussian mean over side x side pixels without padding: (B, C, H, W) to (B, C, H - side + 1, ...).

    Computed by two products with band matrices, which with the gradient is ten times as fast on a CPU as convs.
    """
    rows, columns = _band(x.shape[2], sigma, side, x), _band(x.shape[3], sigma, side, x)
    return rows @ (x @ columns.T)


def _moments(a: Tensor, b: Tensor, sigma: float, side: int) -> tuple[Tensor, ...]:
    """Local means, variances and covariance of (B, 1, H, W) images."""
    means = _blur(torch.cat((a, b, a * a, b * b, a * b), dim=1), sigma, side)
    a_mean, b_mean, a_square, b_square, product = means.unbind(1)
    variances = (a_square - a_mean.square()).clamp_min(0), (b_square - b_mean.square()).clamp_min(0)
    return a_mean, b_mean, *variances, product - a_mean * b_mean


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of Wang et al. 2004, Gaussian window of 1.5 pixels.  Libraries need 20 times as long with the gradient."""
    a_mean, b_mean, a_var, b_var, covariance = _moments(a, b, 1.5, 11)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    level = (2 * a_mean * b_mean + c1) / (a_mean.square() + b_mean.square() + c1)
    return (level * (2 * covariance + c2) / (a_var + b_var + c2)).mean()


def vif(reference: Tensor, image: Tensor) -> Tensor:
    """VIF of Sheikh and Bovik 2006, pixel domain, four scales; differentiable, unlike that of libraries."""
    noise, tiny = 2.0, 1e-10
    kept: Tensor | float = 0.0
    whole: Tensor | float = 0.0
    for scale in range(4):
        side = 2 ** (4 - scale) + 1
        if scale:
            both = _blur(torch.cat((reference, image), dim=1), side / 5, side)[:, :, ::2, ::2]
            reference, image = both.chunk(2, dim=1)
        _, _, source, distorted, covariance = _moments(reference, image, side / 5, side)
        gain = (covariance / (source + tiny)).clamp_min(0)
        rest = (distorted - gain * covariance).clamp_min(tiny)
        kept = kept + (1 + gain.square() * source / (rest + noise)).log().sum(dim=(1, 2))
        whole = whole + (1 + source / noise).log().sum(dim=(1, 2))
    assert isinstance(kept, Tensor)
    assert isinstance(whole, Tensor)
    return (kept / (whole + tiny)).mean()


def reconstruction(image: Tensor, rebuilt: Tensor) -> Tensor:
    """Eq. 7: mean (I - I_r)^2 + 1e4 (1 - SSIM(I, I_r)), the loss of stage 1."""
    return F.mse_loss(rebuilt, image) + SSIM_WEIGHT * (1 - ssim(rebuilt, image))


def brighter(ir: Tensor, vis: Tensor) -> Tensor:
    """M of Eq. 10: 1 where the 11x11 mean of infrared is at least that of visible."""
    means = (F.avg_pool2d(F.pad(x, (MASK_SIDE // 2,) * 4, mode="reflect"), MASK_SIDE, stride=1) for x in (ir, vis))
    return (next(means) >= next(means)).float()


def intensity(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """Eq. 9: mean (F - (M ir + (1 - M) vis))^2."""
    mask = brighter(ir, vis)
    return F.mse_loss(fused, mask * ir + (1 - mask) * vis)


def _laplacian(x: Tensor) -> Tensor:
    """4-neighbour Laplacian, clipped at 0."""
    kernel = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]], device=x.device)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel[None, None]).clamp_min(0)


def gradient(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """Eq. 11-12 as the published network was trained: the Laplacian where the paper writes a mean filter."""
    return F.mse_loss(_laplacian(fused), torch.maximum(_laplacian(ir), _laplacian(vis)))


def _sobel(x: Tensor) -> Tensor:
    """(B, 1, H, W) to (B, 2, H, W): along rows and columns, in grey levels a pixel."""
    row = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=x.device) / 8
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), torch.stack((row, row.T))[:, None])


def edges(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """Mean |grad F - grad S| / 255, S at each pixel the source whose gradient is steeper: strength and direction."""
    a, b = _sobel(ir), _sobel(vis)
    steeper = a.square().sum(1, keepdim=True) >= b.square().sum(1, keepdim=True)
    return (_sobel(fused) - torch.where(steeper, a, b)).abs().mean() / 255


def _spread(x: Tensor, sigma: int) -> Tensor:
    """Gaussian mean of the same size; the picture goes on by reflection."""
    reach = 3 * sigma
    return _blur(F.pad(x, (reach,) * 4, mode="reflect"), sigma, 2 * reach + 1)


def _variance(x: Tensor) -> Tensor:
    """Within 8 pixels, grey levels squared."""
    return (_spread(x * x, 8) - _spread(x, 8).square()).clamp_min(0)


def _busier(a: Tensor, b: Tensor) -> Tensor:
    """Return 0..1, near 1 where `a` varies more within 8 pixels; weights are var^0.7."""
    a_power, b_power = ((_variance(x) + 2) ** 0.7 for x in (a, b))
    return a_power / (a_power + b_power)


def selected(ir: Tensor, vis: Tensor) -> Tensor:
    """The target image of `selection`, composed without a network.

    Detail (the difference to a Gaussian mean of 16 pixels) comes from the source that varies more within 8 pixels, and
    is amplified by a third.  The base is 0.55 of the brighter of the two means, which keeps warm bodies bright, plus
    0.35 of their sum, which shows both scenes, minus 14 levels.  Nothing depends on the rest of the crop: with a target
    that contained the crop's mean, a network learned a different level for each attention window.
    """
    ir_base, vis_base = _spread(ir, 16), _spread(vis, 16)
    share = _busier(ir, vis)
    base = 0.55 * torch.maximum(ir_base, vis_base) + 0.35 * (ir_base + vis_base) - 14
    detail = share * (ir - ir_base) + (1 - share) * (vis - vis_base)
    return (base + 1.35 * detail).clamp(0, 255)


def selection(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """Mean |F - selected| / 255."""
    return (fused - selected(ir, vis)).abs().mean() / 255


def contrast(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """Difference of the deviations of F and `selected`, over each image and locally within 8 pixels.

    An absolute error alone is smallest if everything uncertain is grey.
    """
    wanted = selected(ir, vis)
    whole = (fused.std(dim=(1, 2, 3)) + 1).log() - (wanted.std(dim=(1, 2, 3)) + 1).log()
    local_f, local_w = ((_variance(x) + 1).sqrt() for x in (fused, wanted))
    return whole.abs().mean() + (local_f - local_w).abs().mean() / local_w.mean()


def structure(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """1 - mean SSIM to the two sources."""
    return 1 - (ssim(fused, ir) + ssim(fused, vis)) / 2


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of each image, (B)."""
    a, b = ((x - x.mean(dim=(1, 2, 3), keepdim=True)).flatten(1) for x in (a, b))
    # 1 grey level squared per pixel: images that hardly vary have no meaningful correlation
    return (a * b).mean(1) / ((a.square().mean(1) + 1) * (b.square().mean(1) + 1)).sqrt()


def differences(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """2 - SCD, the sum of the correlations of differences (Aslantas and Bendes 2015)."""
    return 2 - (_correlation(fused - vis, ir) + _correlation(fused - ir, vis)).mean()


def fidelity(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """2 - VIF to infrared - VIF to visible (Sheikh and Bovik 2006, pixel domain)."""
    return 2 - vif(ir, fused) - vif(vis, fused)


def _bins(x: Tensor) -> Tensor:
    """Assign every 2nd pixel to its two nearest of 32 levels: (B, 1, H, W) to (B, pixels, 32)."""
    position = x[:, 0, ::2, ::2].flatten(1).clamp(0, 255) * ((LEVELS - 1) / 255)
    levels = torch.arange(LEVELS, device=x.device, dtype=x.dtype)
    return (1 - (position[:, :, None] - levels).abs()).clamp_min(0)


def _mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """Mutual information from soft histograms (B, pixels, 32), bits, (B)."""
    joint = a.transpose(1, 2) @ b / a.shape[1]  # (B, 32, 32)
    apart = joint.sum(2, keepdim=True) * joint.sum(1, keepdim=True)
    return (joint * ((joint + 1e-9) / (apart + 1e-9)).log2()).sum(dim=(1, 2))


def information(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """1 - (I(ir; F) + I(vis; F)) / (H(ir) + H(vis)), mutual information (Qu et al. 2002) over soft histograms."""
    a, b, f = _bins(ir), _bins(vis), _bins(fused)
    entropy = _mutual_information(a, a) + _mutual_information(b, b)
    return 1 - ((_mutual_information(a, f) + _mutual_information(b, f)) / entropy.clamp_min(0.1)).mean()


def quality(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """1 - Q_AB/F (Xydeas and Petrovic 2000), without the border, with angles over the full circle.

    An edge of the wrong sign counts as lost; the metric itself ignores the sign.
    """
    edge = 8 * _sobel(fused)
    kept: Tensor | float = 0.0
    whole: Tensor | float = 0.0
    for source in (ir, vis):
        wanted = 8 * _sobel(source)
        strength, strength_f = (_length(x) for x in (wanted, edge))
        ratio = torch.minimum(strength, strength_f) / torch.maximum(strength, strength_f)
        along = (wanted * edge).sum(1, keepdim=True)
        across = wanted[:, :1] * edge[:, 1:] - wanted[:, 1:] * edge[:, :1]
        turned = torch.atan2(across.abs(), along + 1e-3) / (math.pi / 2)
        kept_here = 0.9994 * torch.sigmoid(15 * (ratio - 0.5)) * 0.9879 * torch.sigmoid(22 * (0.2 - turned))
        kept = kept + (kept_here * strength).sum(dim=(1, 2, 3))
        whole = whole + strength.sum(dim=(1, 2, 3))
    assert isinstance(kept, Tensor)
    return 1 - (kept / whole).mean()


def _length(x: Tensor) -> Tensor:
    """Length of vectors (B, 2, H, W) as (B, 1, H, W), never 0, where the root has no gradient."""
    return (x.square().sum(1, keepdim=True) + 0.01).sqrt()


KEPT = 12.0
"""Grey levels at either end of the range, half of which must be kept."""


def out_of_range(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """Mean distance / 255 to the range that the brighter source allows.

    The fused level must be at least half of the brighter source's, up to 6 levels, and at least half as far from white,
    up to 6 levels.
    """
    brighter_one = torch.maximum(ir, vis)
    floor = brighter_one.clamp(0, KEPT) / 2
    ceiling = 255 - (255 - brighter_one).clamp(0, KEPT) / 2
    return ((floor - fused).clamp_min(0) + (fused - ceiling).clamp_min(0)).mean() / 255


STANDING_OUT = 0.45
"""Share of a warm thing's contrast in infrared that the fused image must keep where the visible one hides it."""
HIDING, HIDDEN = 190.0, 240.0
"""Visible levels from which smoke, glare or sky begins to hide what is warm, and hides it completely."""
TEXTURED, FLAT = 12.0, 4.0
"""Local deviation with which a bright visible image shows a thing's surface, and with which it shows nothing."""


def warmth(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """Mean contrast / 255 that warm things lack in front of what is bright and flat in the visible image.

    A warm thing is brighter in infrared than the mean within 16 pixels.  Where the visible image is dark or has
    texture, the other losses keep it.
    """
    stands_out = (ir - _spread(ir, 16)).clamp_min(0)
    level = _spread(vis, 16)
    deviation = (_spread(vis.square(), 16) - level.square()).clamp_min(0).sqrt()
    hidden = ((level - HIDING) / (HIDDEN - HIDING)).clamp(0, 1) * ((TEXTURED - deviation) / (TEXTURED - FLAT)).clamp(
        0, 1
    )
    lacking = (STANDING_OUT * stands_out - (fused - _spread(fused, 16))).clamp_min(0)
    return ((stands_out / WARM).clamp(0, 1) * hidden * lacking).mean() / 255


def texture(fused: Tensor, target: Tensor) -> Tensor:
    """Mean |grad F - grad T| / 255, T the target, whose details are those of the source that varies more."""
    return (_sobel(fused) - _sobel(target)).abs().mean() / 255


def steadiness(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """Change of F from one frame to the next that is beyond those of both sources, grey levels.

    Images 0 and 1, 2 and 3, and so on are consecutive frames.  The sum of that of the mean level and a quarter of
    those of the means within 16 pixels and within 2.  The brighter of two sources has none at any pixel, so a network
    can select and have hardly any.
    """
    changes = [x[1::2] - x[::2] for x in (fused, ir, vis)]
    levels = [change.mean(dim=(1, 2, 3)) for change in changes]
    nearby = [_beyond(*(_spread(change, sigma) for change in changes)).mean() for sigma in (16, 2)]
    return _beyond(*levels).mean() + torch.stack(nearby).sum() / 4


def _beyond(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Distance of x from the interval between a and b."""
    return (x - torch.maximum(a, b)).clamp_min(0) + (torch.minimum(a, b) - x).clamp_min(0)


def leaning(taught: Tensor, ir: Tensor, vis: Tensor, share: float) -> Tensor:
    """The teacher's picture, biased to the visible one by up to `share` where the visible one varies more.

    There is no bias where infrared is brighter by WARM levels over 3 pixels, and little where the visible picture is
    flat, so that smoke stays as transparent as in the teacher's picture.
    """
    warm = (_spread(ir - vis, 3) / WARM).clamp(0, 1)
    return taught + share * (1 - warm) * _busier(vis, ir) * (vis - taught)


def imitation(fused: Tensor, taught: Tensor) -> Tensor:
    """Mean |F - T| / 255, T the teacher's picture or the target."""
    return (fused - taught).abs().mean() / 255


def likeness(fused: Tensor, taught: Tensor) -> Tensor:
    """1 - SSIM to the teacher's picture or the target."""
    return 1 - ssim(fused, taught)


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
FUSION_LOSSES: dict[str, Loss] = {
    "intensity": intensity,
    "gradient": gradient,
    "selection": selection,
    "contrast": contrast,
    "edges": edges,
    "structure": structure,
    "differences": differences,
    "fidelity": fidelity,
    "information": information,
    "quality": quality,
    "range": out_of_range,
    "warmth": warmth,
}
"""Losses by their names in recipes; each maps (fused, ir, vis) to a scalar."""
TARGET_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pyramid": imitation,
    "texture": texture,
    "similarity": likeness,
}
"""Losses against `streamfuse.training.target` by their names in recipes; each maps (fused, target) to a scalar."""
IMITATION_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"imitation": imitation, "likeness": likeness}
"""Losses of distillation by their names in recipes; each maps (fused, taught) to a scalar."""
