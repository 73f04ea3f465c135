"""Calibration from points marked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rig import TILTED, VGA, corner_error

from streamfuse.calibration.geometry import project
from streamfuse.calibration.points import calibrate_points
from streamfuse.errors import InputError


def write(path: Path, ir: np.ndarray, vis: np.ndarray, header: str = "ir_x,ir_y,vis_x,vis_y\n") -> Path:
    lines = [",".join(f"{value:.3f}" for value in row) for row in np.hstack((ir, vis))]
    path.write_text(header + "\n".join(lines) + "\n")
    return path


def marked(seed: int, count: int, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Random points all over the picture, with a marking error in both pictures."""
    random = np.random.default_rng(seed)
    ir = random.uniform((40, 40), (600, 440), (count, 2))
    return ir + random.normal(0, noise, ir.shape), project(TILTED, ir) + random.normal(0, noise, ir.shape)


def test_mean_error_is_below_a_pixel(tmp_path: Path) -> None:
    errors = []
    for seed in range(20):
        found = calibrate_points(write(tmp_path / "p.csv", *marked(seed, 20)), VGA, VGA)
        errors.append(corner_error(found.calibration.homography, TILTED))
        assert found.calibration.rms_px is not None
        assert 0.2 < found.calibration.rms_px < 1.5
    assert np.mean(errors) < 1


def test_outliers_are_left_out_and_listed_by_line(tmp_path: Path) -> None:
    ir, vis = marked(1, 14, noise=0.2)
    vis[3] += (30, -12)
    vis[9] -= (0, 45)
    found = calibrate_points(write(tmp_path / "p.csv", ir, vis), VGA, VGA)
    assert corner_error(found.calibration.homography, TILTED) < 1
    left_out = [line for line in found.details if "left out" in line]
    assert [line.split()[1] for line in left_out] == ["5", "11"]  # the header is line 1
    assert "32." in left_out[0] or "33." in left_out[0]


def test_four_points_fit_exactly_with_a_warning(tmp_path: Path) -> None:
    ir, vis = marked(2, 4, noise=0)
    text = "# marked by hand\n\n"
    found = calibrate_points(write(tmp_path / "p.csv", ir, vis, text), VGA, VGA, distance_m=7)
    assert corner_error(found.calibration.homography, TILTED) < 0.1
    assert "the error is unknown" in found.warnings[0]
    assert found.calibration.distance_m == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3,4\n5,6,7,8\n9,1,2,3", "has 3 points: give at least 4"),
        ("ir_x,ir_y,vis_x,vis_y\n1,2,3,4\n5,6,x,8", r"line 3: expected four numbers .* got '5,6,x,8'"),
        ("1,2,3,4\n5,6,7", "line 2: expected four numbers"),
        ("1,2,3,4\n5,6,7,nan", "line 2: expected four numbers"),
        ("1,2,3,4\n5,6,7,8  # fine\n700,6,7,8", r"line 3: \(700, 6\) is outside the infrared picture of 640x480"),
        ("1,2,3,4\n5,6,7,-8", r"line 2: \(7, -8\) is outside the visible picture"),
        ("10,10,12,10\n20,20,22,20\n30,30,32,30\n40,40,42,40\n50,50,52,50", "not on one line|fit no pair of cameras"),
        ("", "has 0 points"),
    ],
)
def test_bad_points_name_the_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        calibrate_points(tmp_path / "p.csv", VGA, VGA)
    assert "\n" not in str(error.value)


def test_binary_file_and_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="is not a text file"):
        calibrate_points(tmp_path / "p.csv", VGA, VGA)
    with pytest.raises(InputError, match="cannot be read"):
        calibrate_points(tmp_path, VGA, VGA)


def test_points_that_mirror_the_picture_are_refused(tmp_path: Path) -> None:
    ir, vis = marked(3, 8, noise=0)
    vis[:, 0] = 639 - vis[:, 0]
    with pytest.raises(InputError, match=r"no 4 points fit a common alignment|homography mirrors"):
        calibrate_points(write(tmp_path / "p.csv", ir, vis), VGA, VGA)
