"""AGC: conversion of 9 to 16-bit grey to 8 bits; repetition of the last good picture during an FFC."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import click
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from media import every, write_video

from streamfuse.cli.run import command as run
from streamfuse.color import Plane
from streamfuse.errors import UsageError
from streamfuse.sources import SourceOptions, open_pair, open_source
from streamfuse.sources.agc import AGCS, FROZEN, SHUTTER, FlatFieldGuard, Grey, Percentile, Plateau, make_agc
from streamfuse.sources.pixels import PixelReader
from streamfuse.sources.vot import open_vot

SIZE = (120, 160)
PERIOD_NS = 40_000_000
SECOND = 25


def sensor(levels: npt.NDArray[np.float32], seed: int, noise: float = 4) -> Grey:
    noisy = levels + np.random.default_rng(seed).normal(0, noise, SIZE)
    return np.asarray(np.clip(np.rint(noisy), 0, 16_383), np.uint16)


def street(contrast: float = 500, level: float = 7400, seed: int = 0) -> npt.NDArray[np.float32]:
    """Walls and a warm person, in 14-bit levels."""
    coarse = np.random.default_rng(seed).uniform(0, 1, (12, 16)).astype(np.float32)
    things = np.asarray(cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_NEAREST), np.float32)
    things[40:90, 70:85] = 1.6
    return np.asarray(level + contrast * (things - 0.5), np.float32)


def shutter(seed: int) -> Grey:
    """A closed shutter: a plain field with shading towards its corners and an offset for each column."""
    rows, columns = np.mgrid[-1 : 1 : SIZE[0] * 1j, -1 : 1 : SIZE[1] * 1j]
    uneven = np.random.default_rng(99).normal(0, 3, (1, SIZE[1]))
    return sensor(np.asarray(7450 - 15 * (rows**2 + columns**2) + uneven, np.float32), seed)


class Camera:
    """A camera of 25 pictures per second with `FlatFieldGuard`."""

    def __init__(self, agc: str = "percentile") -> None:
        self.repeated: Counter[str] = Counter()
        self._hold = FlatFieldGuard(make_agc(agc), "lwir", self.repeated)
        self._index = 0

    def show(self, grey: Grey, repeats: int = 1) -> Plane:
        self._index += repeats
        return self._hold.to_luma(grey, self._index * PERIOD_NS)

    def watch(self, levels: npt.NDArray[np.float32], count: int, seed: int = 1000) -> list[Plane]:
        return [self.show(sensor(levels, seed + k)) for k in range(count)]


@pytest.mark.parametrize("agc", ["percentile", "plateau"])
@pytest.mark.parametrize("frozen", [True, False])
def test_last_good_picture_is_repeated_during_an_ffc(agc: str, frozen: bool, caplog: pytest.LogCaptureFixture) -> None:
    camera = Camera(agc)
    with caplog.at_level(logging.INFO, "streamfuse"):
        for _ in range(2):
            before = camera.watch(street(), SECOND)[-1]
            still = sensor(street(), 1000 + SECOND - 1)  # the last one again
            during = [camera.show(still if frozen else shutter(k)) for k in range(15)]
            after = camera.watch(street(level=7460), SECOND, seed=5000)  # an eighth of the range higher
            assert all(np.array_equal(luma, before) for luma in during)
            assert np.abs(np.diff([luma.mean() for luma in (before, *after)])).max() < 1
    assert camera.repeated == {FROZEN if frozen else SHUTTER: 30}
    assert [record.message for record in caplog.records] == [
        "lwir: the last good picture is repeated while the camera's shutter is closed"
    ]


@pytest.mark.parametrize("agc", ["percentile", "plateau"])
def test_object_that_appears_during_an_ffc_does_not_change_the_rest_abruptly(agc: str) -> None:
    camera = Camera(agc)
    before = camera.watch(street(), SECOND)[-1]
    for k in range(20):
        camera.show(shutter(k))
    crowd = street(level=7430)
    crowd[:, :24] = 8300  # the scene has 6900 to 7950
    after = camera.watch(crowd, 1)[0]
    assert abs(float(after[:, 30:].mean()) - float(before[:, 30:].mean())) < 8


def test_without_the_hold_an_ffc_shows_as_noise() -> None:
    """The reason for `FlatFieldGuard`."""
    agc = Percentile()
    pictures = [agc.to_luma(sensor(street(), k), k * PERIOD_NS) for k in range(SECOND)]
    flash = agc.to_luma(shutter(0), SECOND * PERIOD_NS)
    assert flash.std() > 0.8 * pictures[-1].std()


def test_fading_scene_is_not_taken_for_an_ffc() -> None:
    camera = Camera()
    for k in range(4 * SECOND):
        camera.show(sensor(street(contrast=500 * 0.95**k), k))  # until only noise is left
    assert camera.repeated == {}


def test_cuts_are_shown_immediately() -> None:
    camera = Camera()
    camera.watch(street(), SECOND)
    for scene in (street(seed=3), street(contrast=60, seed=4), street(contrast=900, level=9000)):
        cut = sensor(scene, 1)
        assert np.abs(camera.show(cut).astype(float) - Percentile().to_luma(cut, 0)).mean() < 3
        camera.watch(scene, SECOND)
    assert camera.repeated == {}


def test_plain_or_frozen_picture_longer_than_an_ffc_is_the_scene() -> None:
    for frozen in (True, False):
        camera = Camera()
        before = camera.watch(street(), SECOND)[-1]
        still = sensor(street(contrast=300), 7)
        if frozen:
            camera.show(still)
        pictures = [camera.show(still if frozen else shutter(k)) for k in range(5 * SECOND)]
        held = 3 * SECOND + 1
        assert sum(camera.repeated.values()) == held
        if frozen:  # the range is followed again
            assert not np.array_equal(pictures[-1], pictures[0])
        else:
            assert np.array_equal(pictures[held - 1], before)
            assert np.array_equal(pictures[held], Percentile().to_luma(shutter(held), 0))
        cut = camera.show(sensor(street(), 3))
        assert np.abs(cut.astype(float) - Percentile().to_luma(sensor(street(), 3), 0)).mean() < 40


def test_camera_slower_than_its_stream_is_not_taken_for_an_ffc(caplog: pytest.LogCaptureFixture) -> None:
    camera = Camera()
    with caplog.at_level(logging.INFO, "streamfuse"):
        for k in range(2 * SECOND):
            camera.show(sensor(street(), k // 3))
    assert camera.repeated == {}
    assert not caplog.records
    brighter = [camera.show(sensor(street(contrast=550), k // 3)).mean() for k in range(2 * SECOND)]
    other = Camera()
    other.watch(street(), 2 * SECOND)
    assert brighter[-1] == pytest.approx(other.watch(street(contrast=550), 2 * SECOND)[-1].mean(), abs=1)


def test_change_of_size_ends_the_repetition() -> None:
    camera = Camera()
    camera.watch(street(), 3)
    assert camera.show(np.full((60, 80), 7400, np.uint16)).shape == (60, 80)


# Plateau equalisation


def test_plateau_rises_and_uses_the_range() -> None:
    grey = sensor(street(), 0)
    luma = Plateau().to_luma(grey, 0)
    order = np.argsort(grey, axis=None, kind="stable")
    assert (np.diff(luma.ravel()[order].astype(int)) >= 0).all()
    assert luma.min() == 0
    assert luma.max() == 255
    assert (np.bincount(luma.ravel(), minlength=256) > 0).sum() > 120


def test_plateau_limits_the_range_of_a_hot_spot() -> None:
    """With a linear mapping between the extremes, the rest would have 13 of 256 levels."""
    hot = street()
    hot[20:26, 20:26] = 15_000
    luma = Plateau().to_luma(sensor(hot, 0), 0)
    cold = Plateau().to_luma(sensor(street(), 0), 0)
    rest = np.ones(SIZE, bool)
    rest[18:28, 18:28] = False
    assert luma[rest].std() > 0.9 * cold[rest].std()


def test_plateau_limits_the_range_of_a_plain_background() -> None:
    """Plain equalisation would give two thirds of the range to the sky's noise."""
    sky = np.full(SIZE, 7000, np.float32)
    sky[80:] = street(contrast=400)[80:]
    luma = Plateau().to_luma(sensor(sky, 0), 0)
    low, high = np.percentile(luma[:75], (1, 99))
    assert high - low < 60


def test_plateau_is_stable_and_follows_cuts_immediately() -> None:
    agc = Plateau()
    means = [agc.to_luma(sensor(street(), k), k * PERIOD_NS).mean() for k in range(SECOND)]
    assert np.abs(np.diff(means)).max() < 0.3
    warming = [
        agc.to_luma(sensor(street(level=7400 + 4 * k), k), (SECOND + k) * PERIOD_NS).mean() for k in range(2 * SECOND)
    ]
    assert np.abs(np.diff(warming)).max() < 2.5
    cut = sensor(street(level=9000, seed=8), 0)
    assert np.array_equal(agc.to_luma(cut, 4 * SECOND * PERIOD_NS), Plateau().to_luma(cut, 0))


@pytest.mark.parametrize("agc", [Percentile, Plateau])
def test_picture_of_one_level(agc: type[Percentile] | type[Plateau]) -> None:
    luma = agc().to_luma(np.full(SIZE, 7400, np.uint16), 0)
    assert (luma == luma[0, 0]).all()


# From files


def test_agc_is_chosen_when_sources_are_opened(tmp_path: Path) -> None:
    pictures = [sensor(street(), k) for k in range(4)] + [sensor(street(), 3)] * 8
    for name in ("ir", "color"):
        (tmp_path / name).mkdir()
        for k, grey in enumerate(pictures):
            cv2.imwrite(str(tmp_path / name / f"{k:03d}.png"), grey)
    for agc, expected in (("percentile", Percentile()), ("plateau", Plateau())):
        for source in (
            open_source(str(tmp_path / "ir"), SourceOptions(agc=agc)),
            open_pair(str(tmp_path / "ir"), str(tmp_path / "color"), SourceOptions(agc=agc))[0],
            open_vot(tmp_path, SourceOptions(agc=agc))[1],
        ):
            frames = list(source)
            assert np.array_equal(frames[0].luma, expected.to_luma(pictures[0], 0))
            assert len(frames) == 12
            assert source.repeated == {FROZEN: 8}
    with pytest.raises(UsageError, match=r"use percentile, plateau or temperature:10C\.\.40C"):
        open_source(str(tmp_path / "ir"), SourceOptions(agc="best"))
    with pytest.raises(UsageError, match=r"use percentile, plateau or temperature:10C\.\.40C"):
        PixelReader(SourceOptions(agc="best"))
    option = next(option for option in run.params if option.name == "agc")
    assert str(option.make_metavar(click.Context(run))).startswith("|".join(AGCS))


def test_agc_of_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", every(40, 3), codec="ffv1", pixel_format="gray16le")
    first = {agc: next(iter(open_source(str(path), SourceOptions(agc=agc)))).luma for agc in ("percentile", "plateau")}
    assert not np.array_equal(first["percentile"], first["plateau"])
