"""Calibration from drawn boards, inverted in infrared."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from rig import PITCH, TILTED, VGA, board_pose, corner_error, draw_board, infrared_look, lens, seen

from streamfuse.calibration.boards import calibrate_boards
from streamfuse.calibration.geometry import Lens, Matrix3, Size, inverse, project
from streamfuse.calibration.overlap import infrared_coordinates
from streamfuse.calibration.target import Board, Kind, find_board
from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.sources.image_pairs import pair_images

KINDS = ["checkerboard", "circles", "asymmetric-circles"]
SHAPES = {"checkerboard": (8, 5), "circles": (6, 5), "asymmetric-circles": (4, 9)}


def scene(kind: str, random: np.random.Generator) -> tuple[Plane, np.ndarray]:
    """Draw a board on grey at a random pose, as the visible camera sees it; also return its points there."""
    board, points = draw_board(kind, *SHAPES[kind])
    pose = board_pose(random, board)
    moved = cv2.warpPerspective(
        board, pose, VGA[::-1], flags=cv2.INTER_AREA, borderMode=cv2.BORDER_CONSTANT, borderValue=130
    )
    return np.asarray(cv2.GaussianBlur(moved, (0, 0), 0.8), np.uint8), project(pose, points)


def write_pairs(directory: Path, kind: str, count: int, seed: int = 0, shifts: dict[int, float] | None = None) -> Board:
    """Write images ir/IRn.png and vis/VISn.png; `shifts`: parallax of some pairs, px."""
    random = np.random.default_rng(seed)
    for name in ("ir", "vis"):
        (directory / name).mkdir(exist_ok=True)
    for index in range(count):
        vis, _ = scene(kind, random)
        parallax = np.array([[1, 0, (shifts or {}).get(index, 0.0)], [0, 1, 0], [0, 0, 1.0]])
        ir = infrared_look(seen(vis, inverse(TILTED) @ parallax), index)
        assert cv2.imwrite(str(directory / "ir" / f"IR{index + 1}.png"), ir)
        assert cv2.imwrite(str(directory / "vis" / f"VIS{index + 1}.png"), vis)
    return Board(Kind(kind), *SHAPES[kind])


def pairs_of(directory: Path) -> list:  # type: ignore[type-arg]
    return pair_images(str(directory / "ir"), str(directory / "vis"), None)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_points_are_found_to_a_fraction_of_a_pixel_in_both_polarities(kind: str) -> None:
    random = np.random.default_rng(4)
    board = Board(Kind(kind), *SHAPES[kind])
    for _ in range(3):
        vis, truth = scene(kind, random)
        for picture in (vis, np.asarray(255 - vis, np.uint8), infrared_look(vis)):
            found = find_board(picture, board)
            assert found is not None
            apart = min(np.linalg.norm(found[order] - truth, axis=1).mean() for order in board.orders())
            assert apart < 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_error_is_below_a_pixel(tmp_path: Path, kind: str) -> None:
    board = write_pairs(tmp_path, kind, 6)
    found = calibrate_boards(pairs_of(tmp_path), board, distance_m=5)
    assert corner_error(found.calibration.homography, TILTED) < 1
    assert found.calibration.rms_px is not None
    assert found.calibration.rms_px < 0.5
    assert found.calibration.distance_m == 5
    assert not any("disagree" in warning for warning in found.warnings)


def test_small_infrared_picture(tmp_path: Path) -> None:
    """At 160x120, the resolution of cheap cameras."""
    board = write_pairs(tmp_path, "checkerboard", 6, seed=3)
    for path in (tmp_path / "ir").iterdir():
        large = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert large is not None
        cv2.imwrite(str(path), cv2.resize(large, (160, 120), interpolation=cv2.INTER_AREA))
    found = calibrate_boards(pairs_of(tmp_path), board)
    assert found.calibration.ir_size == (120, 160)
    full = found.calibration.for_sizes(VGA, VGA)
    assert corner_error(full.homography, TILTED) < 2


def test_pair_without_a_board_is_listed(tmp_path: Path) -> None:
    board = write_pairs(tmp_path, "checkerboard", 4)
    cv2.imwrite(str(tmp_path / "ir" / "IR2.png"), np.full(VGA, 90, np.uint8))
    found = calibrate_boards(pairs_of(tmp_path), board)
    assert "found in 3 of 4" in found.details[0]
    assert any("VIS2, infrared" in warning for warning in found.warnings)
    assert corner_error(found.calibration.homography, TILTED) < 1.5
    with pytest.raises(InputError, match="of 3 of 4 pairs, and 8 are needed"):
        calibrate_boards(pairs_of(tmp_path), board, lenses=True)
    with pytest.raises(InputError, match=r"found in both pictures of 0 of 4 pairs.*--pattern counts inner corners"):
        calibrate_boards(pairs_of(tmp_path), Board(Kind.CHECKERBOARD, 9, 6))


def test_board_at_another_distance_is_named(tmp_path: Path) -> None:
    board = write_pairs(tmp_path, "checkerboard", 6, seed=1, shifts={4: 8.0})
    found = calibrate_boards(pairs_of(tmp_path), board)
    warning = next(text for text in found.warnings if "disagree" in text)
    assert "VIS5 by 8." in warning or "VIS5 by 7." in warning
    assert "VIS4" not in warning
    assert corner_error(found.calibration.homography, TILTED) < 1.5


def test_poor_coverage_is_reported(tmp_path: Path) -> None:
    board = write_pairs(tmp_path, "checkerboard", 1)
    found = calibrate_boards(pairs_of(tmp_path), board)
    assert any("the alignment is extrapolated there" in warning for warning in found.warnings)


def test_lens_distortion_is_calibrated_and_removed(tmp_path: Path) -> None:
    """Two distorting cameras 60 mm apart: boards 4 m away agree to a pixel only without the distortion."""
    board = Board(Kind.CHECKERBOARD, 7, 5, square_mm=100)
    cameras = (lens(560, k1=-0.28, k2=0.08), lens(610, k1=0.12))
    turned = cv2.Rodrigues(np.array([0.01, -0.02, 0.03]))[0]
    shift = np.array([0.06, 0.0, 0.0])
    random = np.random.default_rng(2)
    for name in ("ir", "vis"):
        (tmp_path / name).mkdir()
    for index in range(12):
        tilt = cv2.Rodrigues(random.uniform(-0.45, 0.45, 3) * (1, 1, 0.3))[0]
        middle = np.array([random.uniform(-0.8, 0.8), random.uniform(-0.5, 0.5), random.uniform(3.6, 4.4)])
        origin = middle - tilt @ (0.3, 0.2, 0)
        ir = picture(board, cameras[0], np.asarray(tilt, np.float64), origin)
        vis = picture(board, cameras[1], np.asarray(turned @ tilt, np.float64), turned @ origin + shift)
        cv2.imwrite(str(tmp_path / "ir" / f"{index}.png"), infrared_look(ir))
        cv2.imwrite(str(tmp_path / "vis" / f"{index}.png"), vis)
    found = calibrate_boards(pairs_of(tmp_path), board, lenses=True)
    made = found.calibration
    assert made.ir_lens is not None
    assert made.ir_lens.matrix[0, 0] == pytest.approx(560, rel=0.02)
    assert made.ir_lens.distortion[0] == pytest.approx(-0.28, abs=0.05)
    assert made.distance_m == pytest.approx(4, abs=0.3)
    plane = cameras[1].matrix @ (turned + np.outer(shift, (0, 0, 1)) / 4) @ inverse(cameras[0].matrix)
    coordinates, mask = infrared_coordinates(made)
    truth = _truth(plane, cameras)
    inside = mask.ravel()
    assert np.linalg.norm(coordinates[inside] - truth[inside], axis=1).mean() < 1.5


def _truth(homography: Matrix3, cameras: tuple[Lens, Lens]) -> np.ndarray:
    x, y = np.meshgrid(np.arange(VGA[1], dtype=float), np.arange(VGA[0], dtype=float))
    flat = cameras[1].undistort(np.stack((x.ravel(), y.ravel()), axis=1))
    return cameras[0].distort(project(inverse(homography), flat))


def picture(board: Board, camera: Lens, rotation: Matrix3, shift: np.ndarray, size: Size = VGA) -> Plane:
    """Render a board in space through a lens, ray by ray."""
    drawn, points = draw_board("checkerboard", board.columns, board.rows)
    assert board.square_mm is not None
    metre = PITCH * 1000 / board.square_mm
    pixels = np.array([[metre, 0, points[0, 0]], [0, metre, points[0, 1]], [0, 0, 1.0]])
    onto = camera.matrix @ np.column_stack((rotation[:, :2], shift)) @ inverse(pixels)
    x, y = np.meshgrid(np.arange(size[1] * 2) / 2 - 0.25, np.arange(size[0] * 2) / 2 - 0.25)
    flat = camera.undistort(np.stack((x.ravel(), y.ravel()), axis=1))
    maps = project(inverse(onto / onto[2, 2]), flat).T.reshape(2, size[0] * 2, size[1] * 2).astype(np.float32)
    large = cv2.remap(drawn, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=130)
    return np.asarray(cv2.resize(large, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
