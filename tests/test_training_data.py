"""Training pairs on disk, and the samples that are cut from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from small import RECIPE, picture

from streamfuse.errors import InputError
from streamfuse.training.pairs import Pair, find_pairs
from streamfuse.training.samples import Positions, Samples


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["ir/a.png", "vis/a.png", "ir/b.png"], [("ir/a.png", "vis/a.png")]),
        (["ir/IR1.png", "vis/VIS1.jpg"], [("ir/IR1.png", "vis/VIS1.jpg")]),
        (["IR1.png", "VIS1.png", "IR02.png", "VIS2.png"], [("IR1.png", "VIS1.png"), ("IR02.png", "VIS2.png")]),
        (
            [f"{m}/{s}/010001.jpg" for m in ("infrared", "visible") for s in ("train", "test")],
            [("infrared/train/010001.jpg", "visible/train/010001.jpg")],
        ),
        (
            [f"{s}/{m}/1N.png" for s in ("train", "test") for m in ("ir", "vi")],
            [("train/ir/1N.png", "train/vi/1N.png")],
        ),
        (["Ir/00000.png", "Vis/00000.png"], [("Ir/00000.png", "Vis/00000.png")]),
        (
            [f"{s}/V000/{m}/I00001.jpg" for s in ("set00", "set06") for m in ("lwir", "visible")],
            [("set00/V000/lwir/I00001.jpg", "set00/V000/visible/I00001.jpg")],
        ),
    ],
    ids=["names", "numbers", "one-directory", "llvip", "msrs", "m3fd", "kaist"],
)
def test_layouts(tmp_path: Path, files: list[str], expected: list[tuple[str, str]]) -> None:
    for name in files:
        touch(tmp_path / name)
    assert [(pair.ir, pair.vis) for pair in find_pairs([tmp_path])] == [
        (tmp_path / a, tmp_path / b) for a, b in expected
    ]


def test_videos_pair_by_time(tmp_path: Path) -> None:
    from media import every, number_of, write_video

    for side in ("ir", "vis"):
        (tmp_path / side).mkdir()
    write_video(tmp_path / "ir" / "a.mp4", every(40, 9))
    write_video(tmp_path / "vis" / "a.mp4", every(40, 9))
    pairs = find_pairs([tmp_path], every=4)
    assert [[number_of(plane) for plane in pair.load()] for pair in pairs] == [[0, 0], [4, 4], [8, 8]]


def test_a_directory_without_pairs_says_what_is_expected(tmp_path: Path) -> None:
    touch(tmp_path / "images" / "a.png")
    with pytest.raises(InputError, match="infrared"):
        find_pairs([tmp_path])


def test_pairs_of_two_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="registered"):
        Pair(picture(1), picture(2, (80, 80))).load()


def test_crops_and_flips_keep_the_pair_aligned() -> None:
    plane = picture(1, (200, 300))
    recipe = dataclasses.replace(RECIPE, noise=0.0, light=0.0, zoom=1.5)
    samples = Samples([Pair(plane, 255 - plane)], recipe, seed=0)
    seen = [samples[i] for i in range(12)]
    for planes in seen:
        assert planes.shape == (1, 4, 64, 64)
        assert (planes[:, 0] + planes[:, 1] - 255).abs().max() <= 1
        assert torch.equal(planes[:, :2], planes[:, 2:])  # no noise
    assert not torch.equal(seen[0], seen[1])


def test_every_pair_is_drawn_once_before_any_is_drawn_again() -> None:
    pairs = [Pair(np.full((64, 64), v, np.uint8), np.full((64, 64), v, np.uint8)) for v in (10, 20, 30, 40, 50)]
    samples = Samples(pairs, dataclasses.replace(RECIPE, noise=0.0, light=0.0), seed=1)
    drawn = [int(samples[i][0, 0, 0, 0]) for i in range(10)]
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == [10, 20, 30, 40, 50]


def test_noise_is_seen_only_by_the_network_and_grows_as_the_light_falls() -> None:
    flat = Pair(np.full((96, 96), 120, np.uint8), np.full((96, 96), 120, np.uint8))
    recipe = dataclasses.replace(RECIPE, noise=4.0, light=0.0)

    def noise(night: float) -> float:
        samples = Samples([flat], dataclasses.replace(recipe, night=night), seed=2)
        drawn = torch.cat([samples[i] for i in range(24)])
        assert float(drawn[:, 3].std(dim=(1, 2)).max()) == 0
        level = drawn[:, 3].mean(dim=(1, 2))
        assert bool((level < 120).all()) == (night == 1)
        assert float(drawn[:, 2].sub(120).abs().max()) == 0  # infrared does not darken
        return float((drawn[:, 1] - drawn[:, 3]).std())

    assert noise(1) > 1.5 * noise(0) > 1


def test_night_does_not_darken_lamps() -> None:
    vis = np.full((64, 64), 90, np.uint8)
    vis[:32] = 240
    samples = Samples([Pair(vis, vis)], dataclasses.replace(RECIPE, night=1.0, noise=0.0, light=0.0, zoom=1.0), seed=0)
    for i in range(6):
        lamp, ground = samples[i][0, 3].amax(), samples[i][0, 3].amin()
        assert lamp in (240, ground)  # a crop may contain no lamp
        assert float(ground) < 90 or float(ground) == 240


@pytest.mark.parametrize("change", [{"glare": 1.0}, {"smoke": 1.0}, {"faint": 1.0}, {"inverted": 1.0}, {"shift": 3.0}])
def test_changes_of_the_scene_affect_one_modality_and_the_losses(change: dict[str, Any]) -> None:
    pair = Pair(picture(1), picture(2))
    recipe = dataclasses.replace(RECIPE, noise=0.0, light=0.0, zoom=1.0)
    plain, changed = (
        torch.cat([Samples([pair], r, seed=4)[i] for i in range(8)])
        for r in (recipe, dataclasses.replace(recipe, **change))
    )
    ir, vis = ((plain[:, 2 + c] - changed[:, 2 + c]).abs().mean(dim=(1, 2)) for c in (0, 1))
    touched, other = (vis, ir) if "glare" in change or "smoke" in change else (ir, vis)
    assert float(other.max()) == 0
    assert float(touched.mean()) > 2
    assert torch.equal(changed[:, :2], changed[:, 2:])
    if "inverted" in change:
        assert torch.equal(changed[:, 2], 255 - plain[:, 2])


def test_second_frame_is_the_next_of_the_video_or_nearly_the_same_picture(tmp_path: Path) -> None:
    from media import every, number_of, write_video

    for side in ("ir", "vis"):
        (tmp_path / side).mkdir()
        write_video(tmp_path / side / "a.mp4", every(40, 6))
    pairs = find_pairs([tmp_path], every=4)
    assert [[number_of(pair.load()[0]), number_of(pair.later.load()[0])] for pair in pairs if pair.later] == [
        [0, 1],
        [4, 5],
    ]
    recipe = dataclasses.replace(RECIPE, frames=2, noise=0.0, light=0.0, zoom=1.0)
    assert Samples(pairs, recipe, seed=0)[0].shape == (2, 4, 64, 64)
    still = torch.stack([Samples([Pair(picture(1), picture(2))], recipe, seed=0)[i] for i in range(8)])
    change = (still[:, 1] - still[:, 0]).abs()
    assert 0 < float(change.mean()) < 12
    assert float((still[:, 1] - still[:, 0]).mean(dim=(2, 3)).abs().max()) < 4


def test_processes_share_one_batch() -> None:
    alone = list(Positions(3, 6, 4, 0, 1))
    shares = [list(Positions(3, 6, 4, rank, 2)) for rank in (0, 1)]
    assert alone == list(range(12, 24))
    assert [position for i in range(0, 6, 2) for share in shares for position in share[i : i + 2]] == alone
