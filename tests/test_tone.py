"""Conversion of raw output to luma."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from streamfuse.color import Plane, Raw
from streamfuse.errors import UsageError
from streamfuse.tone import Direct, HostPicture, PerFrame, RangeFollower, Smooth, Stabilised, make_tone

FPS = 25
FRAME_NS = 40_000_000


def scene(seed: int, low: float = -0.4, high: float = 1.6, size: tuple[int, int] = (120, 160)) -> Raw:
    """A raw output that fills low..high evenly."""
    values = np.random.default_rng(seed).uniform(low, high, size)
    return values.astype(np.float32)


def test_per_frame_is_the_published_formula() -> None:
    raw = scene(1)
    exact = (raw.astype(np.float64) - raw.min()) / (raw.max() - raw.min() + 1e-6) * 255
    assert np.abs(PerFrame().apply(raw, 0) - exact).max() <= 0.5 + 1e-3


def test_direct_is_clamped_and_rounded() -> None:
    raw = np.array([[-1.0, 0.0, 0.5, 1.0, 3.0, 100.4 / 255, 100.6 / 255]], np.float32)
    assert make_tone("per-frame", "direct").apply(raw, 0).tolist() == [[0, 0, 128, 255, 255, 100, 101]]


def test_fixed() -> None:
    raw = np.array([[-1.0, -0.5, 0.0, 0.5, 1.0]], np.float32)
    assert make_tone("fixed:-0.5,0.5", "minmax").apply(raw, 0).tolist() == [[0, 0, 128, 255, 255]]


def test_fixed_stretches_the_luma_of_a_direct_network_too() -> None:
    raw = np.array([[0.0, 0.2, 0.5, 0.8, 1.0]], np.float32)
    assert make_tone("fixed:0.2,0.8", "direct").apply(raw, 0).tolist() == [[0, 0, 128, 255, 255]]
    whole, plain = make_tone("fixed:0,1", "direct"), make_tone("per-frame", "direct")
    assert np.array_equal(whole.apply(raw, 0), plain.apply(raw, 0))


def test_flat_picture_does_not_divide_by_zero() -> None:
    flat = np.full((64, 64), 0.3, np.float32)
    for name in ("per-frame", "smooth"):
        assert np.isfinite(make_tone(name, "minmax").apply(flat, 0)).all()


@pytest.mark.parametrize("name", ["auto", "fixed:", "fixed:1", "fixed:2,1", "fixed:nan,1", "fixed:1,2,3", "fixed:a,b"])
def test_invalid_tones_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"fixed|tone"):
        make_tone(name, "minmax")


def mean_levels(tone: Smooth | PerFrame, frames: list[Raw]) -> npt.NDArray[np.float64]:
    return np.array([tone.apply(raw, k * FRAME_NS).mean() for k, raw in enumerate(frames)])


def with_spikes(seed: int) -> Raw:
    """Raw output with a few extreme pixels, as produced by signed skip weights, at other positions in each frame."""
    raw = scene(0)
    rng = np.random.default_rng(seed)
    raw.ravel()[rng.integers(0, raw.size, 8)] = rng.uniform(5, 50, 8)
    return raw


def test_smooth_ignores_outliers() -> None:
    frames = [with_spikes(seed) for seed in range(50)]
    steady = np.diff(mean_levels(Smooth(), frames))
    published = np.diff(mean_levels(PerFrame(), frames))
    assert np.abs(steady).max() < 0.5
    assert np.abs(published).max() > 3  # the picture's brightness changes with the spikes


def test_smooth_follows_a_slow_change_without_steps() -> None:
    frames = [scene(0) * np.float32(1 + k / 200) for k in range(100)]
    levels = mean_levels(Smooth(), frames)
    assert np.abs(np.diff(levels)).max() < 0.6


@pytest.mark.parametrize(("low", "high"), [(-0.4, 0.2), (3.0, 9.0), (-0.2, 1.3)])
def test_smooth_recovers_within_a_second_of_a_cut(low: float, high: float) -> None:
    frames = [scene(k) for k in range(FPS)] + [scene(k, low, high) for k in range(FPS + 1)]
    tone = Smooth()
    pictures: list[Plane] = [tone.apply(raw, k * FRAME_NS) for k, raw in enumerate(frames)]
    by_itself = PerFrame().apply(frames[-1], 0)
    assert np.abs(pictures[-1].astype(float) - by_itself).mean() < 0.05 * 255


def test_range_is_correct_from_the_first_picture_after_a_cut() -> None:
    tone = Smooth()
    tone.apply(scene(0), 0)
    raw = scene(1, 3.0, 9.0)
    assert np.abs(tone.apply(raw, FRAME_NS).astype(float) - PerFrame().apply(raw, 0)).mean() < 2


def test_range_is_followed_by_time_not_by_frames() -> None:
    """The same change at twice the frame rate gives the same range."""

    def final(fps: int) -> tuple[float, float]:
        follower = RangeFollower()
        follower.update(HostPicture(scene(0)), 0)
        for k in range(1, fps + 1):
            result = follower.update(HostPicture(scene(0) * np.float32(1.1)), round(k * 1e9 / fps))
        return result

    assert final(25) == pytest.approx(final(50), rel=1e-3)


def test_range_restarts_after_a_long_pause() -> None:
    follower = RangeFollower()
    follower.update(HostPicture(scene(0)), 0)
    low, high = follower.update(HostPicture(scene(0, 0.0, 2.4)), 10_000_000_000)
    assert (low, high) == pytest.approx((0.0, 2.4), abs=0.02)


def levels(shifts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the stabilised mean levels of a picture whose brightness is shifted by `shifts`, grey levels."""
    picture = scene(4, 0.2, 0.8)
    tone = make_tone("smooth", "direct")
    assert isinstance(tone, Stabilised)
    return np.array(
        [tone.apply((picture + s / 255).astype(np.float32), i * FRAME_NS).mean() for i, s in enumerate(shifts)]
    )


def test_brightness_of_a_direct_network_does_not_flicker() -> None:
    shifts = np.random.default_rng(5).normal(0, 0.3, 100)
    assert np.sqrt(np.mean(np.diff(levels(shifts)) ** 2)) < 0.1 * np.sqrt(np.mean(np.diff(shifts) ** 2))


def test_stabilised_level_follows_the_scene_within_its_reach() -> None:
    reach = Stabilised.REACH * 255 + 0.5  # plus rounding
    dawn = levels(np.linspace(0, 50, 200))  # 6 grey levels per second
    assert np.abs(dawn - dawn[0] - np.linspace(0, 50, 200)).max() < reach
    cut = levels(np.repeat([0.0, 30.0], [10, 60]))
    assert abs(cut[10] - cut[9] - 30) < reach
    assert abs(cut[-1] - cut[9] - 30) < 0.3


def test_first_picture_of_a_direct_network_is_unchanged() -> None:
    raw = scene(6, 0, 1)
    assert np.array_equal(Stabilised().apply(raw, 0), Direct().apply(raw, 0))
