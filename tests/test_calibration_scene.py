"""Calibration from natural scenes: accurate, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rig import TILTED, VGA, infrared_look, seen, structure

from streamfuse.calibration.geometry import Matrix3, Size, difference, inverse, overlap_corners
from streamfuse.calibration.registration import Registration, estimate, register, rejection_reason
from streamfuse.calibration.scene import calibrate_scene
from streamfuse.calibration.structure import features
from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.sources.file import VideoFile
from streamfuse.sources.pixels import read_image_file


def similarity(zoom: float, degrees: float, x: float, y: float, size: Size = VGA) -> Matrix3:
    """Similarity about the middle of the picture; `x`, `y`: shift, px."""
    cos, sin = zoom * np.cos(np.radians(degrees)), zoom * np.sin(np.radians(degrees))
    middle = np.array([[1, 0, -size[1] / 2], [0, 1, -size[0] / 2], [0, 0, 1.0]])
    centred: Matrix3 = inverse(middle) @ np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1.0]]) @ middle
    return centred


def error(found: Matrix3, truth: Matrix3, size: Size = VGA) -> float:
    """Mean error at the corners of the overlap, px."""
    return float(difference(found, truth, overlap_corners(truth, size, size)).mean())


@pytest.mark.parametrize(
    "truth",
    [np.eye(3), TILTED, similarity(0.62, -5, 20, -14), similarity(1.35, 7, -30, 40)],
    ids=["identity", "tilted", "small", "large"],
)
def test_same_structure_in_both_modalities(truth: Matrix3) -> None:
    """Infrared is inverted, with another gamma, blurred and noisy."""
    scene = structure(1)
    found = register([infrared_look(seen(scene, inverse(truth)))], [scene])
    assert error(found.homography, truth) < 1.5
    assert found.halves_px < 3


def test_infrared_of_another_size() -> None:
    scene = structure(2)
    ir = infrared_look(seen(scene, inverse(TILTED)))
    small = np.asarray(cv2.resize(ir, (320, 240), interpolation=cv2.INTER_AREA), np.uint8)
    found = register([small], [scene])
    grown = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1.0]])
    assert error(found.homography @ inverse(grown), TILTED) < 2


def test_several_pairs_succeed_where_a_single_one_fails() -> None:
    """Structure in a twelfth of the picture is refused for a single pair, and sufficient for eight pairs."""
    ir, vis = [], []
    for k in range(8):
        scene = np.full(VGA, 128, np.uint8)
        top, left = 220 * (k % 2) + 60, 150 * (k // 2) + 30
        patch = np.s_[top : top + 150, left : left + 150]
        scene[patch] = structure(10 + k)[patch]
        vis.append(scene)
        ir.append(infrared_look(seen(scene, inverse(TILTED)), k))
    single = estimate(ir[:1], vis[:1])
    assert single is None or rejection_reason(single) is not None
    assert error(register(ir, vis).homography, TILTED) < 2


def test_pictures_of_different_scenes_are_refused() -> None:
    for seed in range(6):
        with pytest.raises(InputError, match="calibrate board"):
            register([infrared_look(structure(100 + seed))], [structure(200 + seed)])


@pytest.mark.parametrize("noise", [0, 12])
def test_flat_pictures_are_refused(noise: int) -> None:
    random = np.random.default_rng(1)
    flat = [np.clip(random.normal(110, noise, VGA), 0, 255).astype(np.uint8) for _ in range(2)]
    for ir, vis in ((flat[0], flat[1]), (flat[0], structure(1)), (structure(1), flat[1])):
        with pytest.raises(InputError, match=r"no structure|agree"):
            register([ir], [vis])


def test_repeating_pattern_is_refused() -> None:
    """Planks or windows a few pixels apart fit at every period, so the alignment is ambiguous."""
    x = np.arange(VGA[1])
    planks = np.broadcast_to((127 + 100 * np.sign(np.sin(x * 2 * np.pi / 24))).astype(np.uint8), VGA).copy()
    with pytest.raises(InputError):
        register([infrared_look(planks)], [planks])


def test_two_planes_apart_are_refused() -> None:
    """Strong parallax: the left half of the picture is shifted by 14 px against the right."""
    scene = structure(5)
    ir = scene.copy()
    ir[:, :320] = np.roll(scene, 14, axis=1)[:, :320]
    found = estimate([infrared_look(ir)], [scene])
    assert found is None or rejection_reason(found) is not None


def test_each_test_alone_can_reject() -> None:
    sure = Registration(np.eye(3), 0.8, 1.0, 200, 180, 0.9, 1.0, 1.0, 0.5)
    assert rejection_reason(sure) is None
    assert rejection_reason(replace(sure, pixel=2.0, halves_px=4.0)) is None  # a picture of twice as many pixels
    for change, words in (
        ({"agreeing": 25, "blocks": 26}, "only 25 of 26 blocks"),
        ({"agreeing": 100}, "only 100 of 200 blocks"),
        ({"coverage": 0.4}, "cover 40%"),
        ({"rms_px": 1.3}, "only to 1.30 px"),
        ({"halves_px": 2.6}, "two halves of the blocks differ by 2.6 px"),
        ({"coarse_px": np.inf}, "fine and coarse structure differ"),
        ({"rival_px": 9.0}, "two equally strong solutions differ by 9.0 px"),
    ):
        assert words in str(rejection_reason(replace(sure, **change)))


def test_features_are_invariant_to_polarity_and_level() -> None:
    scene = structure(3)
    same = features(scene)
    inverted = features(np.asarray(255 - scene, np.uint8))
    assert np.abs(same - inverted).max() < 1e-3
    assert np.abs(features(np.full(VGA, 77, np.uint8))).max() == 0


def write(directory: Path, planes: list[Plane]) -> str:
    directory.mkdir()
    for index, plane in enumerate(planes):
        assert cv2.imwrite(str(directory / f"{index}.png"), plane)
    return str(directory)


def test_directories(tmp_path: Path) -> None:
    scenes = [structure(20), structure(21)]
    one_ir, one_vis = write(tmp_path / "a", [infrared_look(scenes[0])]), write(tmp_path / "b", scenes[:1])
    with pytest.raises(InputError, match=r"too few pairs of pictures .* 1 \(needed: 3\); give more scenes"):
        calibrate_scene(one_ir, one_vis)
    ir = write(tmp_path / "ir", [infrared_look(seen(scene, inverse(TILTED))) for scene in scenes])
    vis = write(tmp_path / "vis", scenes)
    found = calibrate_scene(ir, vis, distance_m=80, min_pairs=2)
    assert error(found.calibration.homography, TILTED) < 1.5
    assert found.calibration.distance_m == 80
    assert "2 pairs" in found.calibration.method
    assert found.pictures is not None
    cv2.imwrite(str(tmp_path / "ir" / "1.png"), np.zeros((240, 320), np.uint8))
    with pytest.raises(InputError, match="infrared pictures are of different sizes"):
        calibrate_scene(ir, vis, min_pairs=2)


# Real pictures


def random_warp(random: np.random.Generator, size: Size) -> Matrix3:
    tilt = np.eye(3)
    tilt[2, :2] = random.uniform(-6e-5, 6e-5, 2)
    zoom, degrees = np.exp(random.uniform(-0.25, 0.25)), random.uniform(-7, 7)
    warp: Matrix3 = tilt @ similarity(zoom, degrees, random.uniform(-40, 40), random.uniform(-40, 40), size)
    return warp


def moved(plane: Plane, warp: Matrix3) -> Plane:
    warped = cv2.warpPerspective(plane, warp, plane.shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def test_real_street_within_three_pixels_or_refused(data_dir: Path) -> None:
    """A registered recording, warped; its own registration is accurate to a pixel or two."""
    planes = []
    for channel in ("ir", "vis"):
        with VideoFile(data_dir / "data/eval/videos" / channel / "0111_1716.mp4") as source:
            planes.append([frame.luma.copy() for frame in source][::100])
    random = np.random.default_rng(7)
    errors = []
    for _ in range(3):
        warp = random_warp(random, VGA)
        found = estimate([moved(plane, warp) for plane in planes[0]], planes[1])
        if found is not None and rejection_reason(found) is None:
            errors.append(error(found.homography, inverse(warp)))
    assert len(errors) >= 2
    assert max(errors) < 3


def test_real_scenes_give_the_same_result_for_any_warp(data_dir: Path) -> None:
    """The set's own registration is some pixels off, so the result for the unwarped pair is the reference."""
    random = np.random.default_rng(3)
    accepted = 0
    for name in ("9", "10", "13"):
        ir, vis = (read_image_file(data_dir / "data/eval/tno21" / role / f"{name}.png")[0] for role in ("ir", "vis"))
        size: Size = (ir.shape[0], ir.shape[1])
        still = register([ir], [vis]).homography
        for _ in range(2):
            warp = random_warp(random, size)
            found = estimate([moved(ir, warp)], [vis])
            if found is not None and rejection_reason(found) is None:
                accepted += 1
                assert error(found.homography, still @ inverse(warp), size) < 3
    assert accepted >= 4


def test_real_pictures_of_different_scenes_are_refused(data_dir: Path) -> None:
    for number in range(1, 9):
        ir = read_image_file(data_dir / "data/eval/tno21/ir" / f"{number}.png")[0]
        vis = read_image_file(data_dir / "data/eval/tno21/vis" / f"{number + 9}.png")[0]
        with pytest.raises(InputError):
            register([ir], [vis])
