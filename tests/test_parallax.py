"""Calibrations that are valid at every distance: from points, boards and a ruler, and what they refuse."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import streamfuse
from rig import VGA, calibration, draw_board, infrared_look, structure

from streamfuse.calibration.boards import calibrate_boards
from streamfuse.calibration.check import draw_check
from streamfuse.calibration.geometry import Matrix3, Points, corners, project
from streamfuse.calibration.model import Calibration, load
from streamfuse.calibration.parallax import shift_of
from streamfuse.calibration.points import calibrate_points
from streamfuse.calibration.scene import Ruler, with_ruler
from streamfuse.calibration.target import Board, Kind
from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.sources.image_pairs import pair_images

K_IR = np.array([[610.0, 0, 318], [0, 610, 243], [0, 0, 1]])
K_VIS = np.array([[655.0, 0, 322], [0, 655, 238], [0, 0, 1]])
R = np.asarray(cv2.Rodrigues(np.array([0.008, -0.012, 0.01]))[0], np.float64)
T = np.array([0.06, 0.004, 0.006])
FAR = K_VIS @ R @ np.linalg.inv(K_IR)
DISTANCES = (3.0, 5.0, 10.0, 50.0, 1e9)


def truth(distance_m: float) -> Matrix3:
    """Homography of a plane at this distance before the infrared camera (Hartley and Zisserman, 13.1)."""
    found = K_VIS @ (R + np.outer(T, (0, 0, 1)) / distance_m) @ np.linalg.inv(K_IR)
    return np.asarray(found / found[2, 2], np.float64)


def worst(made: Calibration) -> float:
    """Largest error at a corner, px, at any of the distances."""
    at = corners(VGA)
    errors = [project(made.at(d).homography, at) - project(truth(d), at) for d in DISTANCES]
    return float(np.linalg.norm(errors, axis=-1).max())


def write_points(path: Path, distances: list[float], count: int = 60, error_px: float = 0.2) -> Path:
    random = np.random.default_rng(1)
    lines = ["ir_x,ir_y,vis_x,vis_y,distance_m"]
    while len(lines) <= count:
        distance = distances[len(lines) % len(distances)]
        ir = random.uniform((20, 20), (620, 460))
        vis = project(truth(min(distance, 1e9)), ir[None])[0]
        if (vis > 0).all() and (vis < (640, 480)).all():
            x, y, u, v = np.concatenate(
                (ir + random.normal(0, error_px, 2), vis + random.normal(0, error_px, 2))
            ).tolist()
            lines.append(f"{x:.2f},{y:.2f},{u:.2f},{v:.2f},{'far' if distance == math.inf else distance}")
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("distances", [[3.0, math.inf], [3.0, 6.0, 15.0]])
def test_points_at_two_distances_place_corners_to_a_pixel_at_every_distance(
    tmp_path: Path, distances: list[float]
) -> None:
    found = calibrate_points(write_points(tmp_path / "p.csv", distances), VGA, VGA)
    assert worst(found.calibration) < 1
    assert found.calibration.parallax_sd is not None
    assert found.calibration.parallax is not None
    off = np.abs(found.calibration.shift_px_m - shift_of(K_VIS @ T / FAR[2, 2], VGA))
    assert (off < 4 * found.calibration.parallax_sd).all(), "the error is what it is said to be"


def test_wrong_points_are_left_out_and_named(tmp_path: Path) -> None:
    path = write_points(tmp_path / "p.csv", [3.0, 12.0])
    path.write_text(path.read_text() + "\n100,100,400,300,3.0\n200,300,90,20,12.0")
    found = calibrate_points(path, VGA, VGA)
    assert worst(found.calibration) < 1
    assert sum("is left out" in line for line in found.details) == 2


def test_points_at_like_distances_are_refused(tmp_path: Path) -> None:
    path = write_points(tmp_path / "p.csv", [10.0, 11.0])
    with pytest.raises(InputError, match=r"10 to 11 m.*too alike.*3 m and 15 m"):
        calibrate_points(path, VGA, VGA)


def test_points_at_one_distance_are_a_calibration_for_it(tmp_path: Path) -> None:
    made = calibrate_points(write_points(tmp_path / "p.csv", [6.0]), VGA, VGA).calibration
    assert (made.parallax, made.distance_m) == (None, 6.0)
    assert np.linalg.norm(project(made.homography, corners(VGA)) - project(truth(6), corners(VGA)), axis=1).max() < 1


@pytest.mark.parametrize("line", ["1,2,3,4", "1,2,3,4,-5", "1,2,3,4,nan", "1,2,3,4,close"])
def test_bad_distance_names_the_line(tmp_path: Path, line: str) -> None:
    path = write_points(tmp_path / "p.csv", [3.0, 12.0])
    path.write_text(path.read_text() + "\n" + line)
    with pytest.raises(InputError, match="line 62"):
        calibrate_points(path, VGA, VGA)


def write_boards(directory: Path, distances: list[float], seed: int = 0) -> Board:
    """Draw a board of 8x5 corners, 100 mm apart, tilted and in all parts of the picture."""
    random = np.random.default_rng(seed)
    picture, points = draw_board("checkerboard", 8, 5)
    plane = (points - points.mean(axis=0)) / 60 * 0.1
    for name in ("ir", "vis"):
        (directory / name).mkdir()
    for index, distance in enumerate(distances):
        tilt = np.asarray(cv2.Rodrigues(random.uniform(-0.55, 0.55, 3) * (1, 1, 0.2))[0])
        reach = np.array([0.30, 0.22]) * distance - np.array([0.35, 0.2])
        middle = np.array([*(random.uniform(-1, 1, 2) * np.maximum(reach, 0)), distance])
        for name, matrix, pose, shift in (("ir", K_IR, np.eye(3), np.zeros(3)), ("vis", K_VIS, R, T)):
            space = np.column_stack((plane, np.zeros(len(plane)))) @ tilt.T + middle
            seen = (space @ pose.T + shift) @ matrix.T
            homography, _ = cv2.findHomography(points, seen[:, :2] / seen[:, 2:])
            # Drawn at twice the size and averaged, so that edges of small squares are where they belong.
            double = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
            large = cv2.warpPerspective(
                picture, double @ homography, (1280, 960), flags=cv2.INTER_AREA, borderValue=130
            )
            drawn = np.asarray(cv2.resize(large, (640, 480), interpolation=cv2.INTER_AREA), np.uint8)
            look = infrared_look(drawn, index) if name == "ir" else drawn
            assert cv2.imwrite(str(directory / name / f"{index:02}.png"), look)
    return Board(Kind.CHECKERBOARD, 8, 5, square_mm=100)


def pairs_of(directory: Path) -> list:  # type: ignore[type-arg]
    return pair_images(str(directory / "ir"), str(directory / "vis"), None)[0]


def test_boards_near_and_far_place_corners_to_a_pixel_at_every_distance(tmp_path: Path) -> None:
    board = write_boards(tmp_path, [2.0, 2.0, 2.5, 2.5, 3.0, 3.5, 5.0, 5.0, 6.0, 6.0])
    found = calibrate_boards(pairs_of(tmp_path), board)
    assert found.calibration.parallax is not None, found.warnings
    assert worst(found.calibration) < 1


def test_boards_at_like_distances_are_a_calibration_for_one_and_say_so(tmp_path: Path) -> None:
    board = write_boards(tmp_path, [4.0, 4.1, 4.2, 4.0])
    found = calibrate_boards(pairs_of(tmp_path), board, fov_deg=math.degrees(2 * math.atan(320 / 610)))
    assert found.calibration.parallax is None
    assert any("too alike" in warning and "one distance only" in warning for warning in found.warnings)
    assert found.calibration.distance_m == pytest.approx(4.1, abs=0.2)


def test_ruler_makes_a_calibration_for_every_distance() -> None:
    """A scene at 20 m, seen by cameras that look the same way, 60 mm apart."""

    def there(distance_m: float) -> Matrix3:
        return np.array([[1, 0, 655 * 0.06 / distance_m], [0, 1, 655 * -0.02 / distance_m], [0, 0, 1.0]])

    scene = replace(calibration(there(20)), distance_m=20.0)
    fov = math.degrees(2 * math.atan(320 / 655))
    made = with_ruler(scene, Ruler(0.06, -0.02, fov))
    for distance in (3.0, 20.0, 1e9):
        assert made.at(distance).homography == pytest.approx(there(distance), abs=1e-9)
    assert made.parallax_sd is not None
    assert 0 < made.parallax_sd[0] < 4


def with_parallax() -> Calibration:
    return replace(calibration(FAR / FAR[2, 2]), parallax=K_VIS @ T / FAR[2, 2], parallax_sd=np.array([0.5, 0.4]))


def test_file_keeps_the_parallax(tmp_path: Path) -> None:
    made = with_parallax()
    made.save(tmp_path / "c.toml")
    assert "version = 2" in (tmp_path / "c.toml").read_text()
    found = load(tmp_path / "c.toml")
    assert found.id == made.id
    assert worst(found) < 1e-6


def test_other_sizes_keep_the_parallax() -> None:
    made = with_parallax().for_sizes((960, 1280), (240, 320))

    def moved(points: Points, factor: float) -> Points:
        return (points + 0.5) * factor - 0.5

    for distance in DISTANCES:
        found = project(made.at(distance).homography, moved(corners(VGA), 2))
        assert found == pytest.approx(moved(project(truth(distance), corners(VGA)), 0.5), abs=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("version = 2", "version = 1", "unknown key far"),
        ("version = 2", "version = 3", "version must be 1 or 2"),
        ("parallax = [", "parallax = [1, ", "parallax must be three numbers"),
        ("parallax = [", "parallax = [nan, 0, 0] # [", "parallax must be three finite numbers"),
        ("parallax = [", "parallax = [0, 0, -9.0] # [", "parallax is impossible: at 3 m the homography"),
        ("parallax_sd = [", "parallax_sd = [inf, 0] # [", "parallax_sd must be two finite"),
        ("\nparallax = ", "\n# ", "parallax is missing"),
    ],
)
def test_bad_file_names_the_key(tmp_path: Path, old: str, new: str, text: str) -> None:
    path = tmp_path / "c.toml"
    whole = with_parallax().to_toml()
    assert old in whole
    path.write_text(whole.replace(old, new, 1))
    with pytest.raises(InputError, match=text):
        load(path)


def test_check_picture_shows_four_distances() -> None:
    """The edges of a scene at 3 m are drawn where they belong in the panel for 3 m, and elsewhere in that for far."""
    scene = structure(5)
    ir = np.asarray(cv2.warpPerspective(scene, np.linalg.inv(truth(3)), VGA[::-1]), np.uint8)
    sheet = draw_check(with_parallax(), ir, scene)
    height, width = sheet.shape[0] - 34, sheet.shape[1]
    red = (sheet[:height] == (60, 120, 255)).all(axis=2)
    panels = {name: red[r * height // 2 :][: height // 2, c * width // 2 :][:, : width // 2]
              for name, r, c in (("far", 0, 0), ("3 m", 1, 1))}  # fmt: skip
    zoom = panels["far"].shape[1] // 640
    edges = _edges_of(scene, zoom)
    share = {name: float((panel & edges).sum() / panel.sum()) for name, panel in panels.items()}
    assert share["3 m"] > 0.8
    assert share["far"] < 0.6


def _edges_of(scene: Plane, zoom: int) -> np.ndarray:
    large = cv2.resize(scene, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    return cv2.dilate(cv2.Canny(large, 30, 60), np.ones((5, 5))) > 0


def test_command_tells_the_parallax_and_how_sure_it_is(tmp_path: Path) -> None:
    path = write_points(tmp_path / "p.csv", [3.0, 12.0])
    out = tmp_path / "c.toml"
    done = streamfuse("calibrate", "points", path, "--ir-size", "640x480", "--vis-size", "640x480", "-o", out)
    assert done.returncode == 0, done.stderr
    assert "at every distance, far unless told; parallax" in done.stdout
    assert "±" in done.stdout
    assert load(out).parallax is not None


@pytest.mark.parametrize("value", ["x", "0", "1,2,3", "nan", "9"])
def test_bad_baseline_is_refused(value: str) -> None:
    flags = ["--baseline-m", value, "--fov-deg", "60", "-o", "c.toml"]
    done = streamfuse("calibrate", "scene", "--ir", "a", "--vis", "b", *flags)
    assert done.returncode == 2
    assert "such as 0.06 or -0.06,0.02" in done.stderr


def test_baseline_needs_the_angle_of_view() -> None:
    done = streamfuse("calibrate", "scene", "--ir", "a", "--vis", "b", "--baseline-m", "0.06", "-o", "c.toml")
    assert done.returncode == 2
    assert "give both --baseline-m and --fov-deg" in done.stderr
