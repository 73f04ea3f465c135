"""Training pairs on disk, and the samples that are cut from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

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
    for ir, vis in seen:
        assert (ir + vis - 255).abs().max() <= 1
    assert not torch.equal(seen[0], seen[1])


def test_every_pair_is_drawn_once_before_any_is_drawn_again() -> None:
    pairs = [Pair(np.full((64, 64), v, np.uint8), np.full((64, 64), v, np.uint8)) for v in (10, 20, 30, 40, 50)]
    samples = Samples(pairs, dataclasses.replace(RECIPE, noise=0.0, light=0.0), seed=1)
    drawn = [int(samples[i][0, 0, 0]) for i in range(10)]
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == [10, 20, 30, 40, 50]


def test_processes_share_one_batch() -> None:
    alone = list(Positions(3, 6, 4, 0, 1))
    shares = [list(Positions(3, 6, 4, rank, 2)) for rank in (0, 1)]
    assert alone == list(range(12, 24))
    assert [position for i in range(0, 6, 2) for share in shares for position in share[i : i + 2]] == alone
