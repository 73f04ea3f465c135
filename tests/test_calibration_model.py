"""Calibration files, and calibrations scaled to other picture sizes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rig import TILTED, VGA, calibration, lens

from streamfuse.calibration.geometry import Lens, corners, inverse, project, resize_matrix
from streamfuse.calibration.model import load
from streamfuse.errors import InputError

EXAMPLE = Path(__file__).parent.parent / "calib/example.toml"


def test_saved_file_round_trips(tmp_path: Path) -> None:
    made = calibration(lenses=(lens(500, k1=-0.2), lens(600, k1=0.1)))
    made = replace(made, distance_m=math.inf, method='from "boards" \\ 9x6')
    made.save(tmp_path / "c.toml")
    found = load(tmp_path / "c.toml")
    assert found.to_toml() == made.to_toml()
    assert found.id == made.id
    assert found.homography.tolist() == TILTED.tolist()
    assert found.ir_lens is not None
    assert found.ir_lens.distortion.tolist() == [-0.2, 0, 0, 0, 0]
    assert found.distance_m == math.inf
    assert replace(made, rms_px=0.6).id != made.id


def test_example_file_is_valid() -> None:
    found = load(EXAMPLE)
    assert found.ir_size == (512, 640)
    assert found.vis_size == (1080, 1920)


def test_without_the_optional_keys(tmp_path: Path) -> None:
    text = (
        "version = 1\nir_size = [320, 240]\nvis_size = [640, 480]\nhomography = [[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]]"
    )
    (tmp_path / "c.toml").write_text(text)
    found = load(tmp_path / "c.toml")
    assert found.ir_size == (240, 320)
    assert found.rms_px is None
    assert found.distance_m is None
    assert found.ir_lens is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version = 1", "version = 9", "version must be 1"),
        ("version = 1", "", "version is missing: is this a calibration"),
        ("ir_size = [640, 480]", "ir_size = [640]", r"ir_size must be \[width, height\]"),
        ("ir_size = [640, 480]", "ir_size = [640, 4.5]", r"ir_size must be \[width, height\]"),
        ("vis_size = [640, 480]", "vis_size = [640, 4]", "vis_size must be 16 to 16384"),
        ("rms_px = 0.5", "rms_px = nan", "rms_px must be a number from 0"),
        ("rms_px = 0.5", 'rms_px = "small"', "rms_px must be a number"),
        ("rms_px = 0.5", "rms_px = 0.5\ndistance_m = -1.0", "distance_m must be above 0"),
        ("rms_px = 0.5", "rms_error = 0.5", "unknown key rms_error"),
        ("date = 2026-01-31", "date = 3", "date must be a date"),
        ("21.0", "nan", "homography must be three rows of three finite numbers"),
        ("21.0", "'x'", "homography must be three rows of three numbers"),
        ("0.052, 21.0", "0.052", "homography must be three rows of three numbers"),
        ("[0.93, 0.052, 21.0]", "[-0.047, 0.95, 14.0]", "homography has no inverse"),
        ("2.1e-05", "-3.2e-03", "maps a corner of the infrared picture to infinity"),
        ("0.93", "-0.93", "homography mirrors"),
        ("[500.0, 0.0", "[-5.0, 0.0", "ir_lens.matrix must be .* with fx and fy above 0"),
        ("distortion = [-0.2, 0.0, 0.0, 0.0, 0.0]", "distortion = [1, 2, 3]", "ir_lens.distortion must be 4, 5, 8"),
        ("distortion = [-0.2", "distortion = [inf", "ir_lens.distortion must be finite"),
        ("distortion = [-0.2", "twist = [-0.2", "ir_lens must be a table with matrix and distortion"),
        ("version = 1", "version 1", "not valid TOML"),
    ],
)
def test_bad_files_name_the_file_and_the_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = calibration(lenses=(lens(500, k1=-0.2), None)).to_toml()
    assert old in text
    (tmp_path / "bad.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=words) as error:
        load(tmp_path / "bad.toml")
    assert "bad.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none\.toml"):
        load(tmp_path / "none.toml")


def test_other_sizes_show_the_same_scene() -> None:
    """A point at the same relative position in infrared maps to the same relative position in visible at any size."""
    made = calibration(lenses=(lens(500, k1=-0.2), lens(600, k1=0.1)))
    half = made.for_sizes((240, 320), (960, 1280))
    small, large = resize_matrix(VGA, (240, 320)), resize_matrix(VGA, (960, 1280))
    assert made.ir_lens is not None
    assert half.ir_lens is not None
    bent = corners(VGA) * 0.9 + 20
    assert half.ir_lens.undistort(project(small, bent)) == pytest.approx(project(small, made.ir_lens.undistort(bent)))
    flat = corners(VGA)
    assert project(half.homography, project(small, flat)) == pytest.approx(project(large, project(TILTED, flat)))
    assert half.rms_px == 1.0


def test_resized_picture_keeps_its_edges() -> None:
    """The outer edges, half a pixel outside the corner pixels' centres, map to the outer edges."""
    edges = np.array([[-0.5, -0.5], [639.5, 479.5]])
    assert project(resize_matrix(VGA, (960, 1280)), edges) == pytest.approx(np.array([[-0.5, -0.5], [1279.5, 959.5]]))


def test_another_aspect_ratio_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"infrared pictures of 640x480 and these are 720x576.*calibrate again"):
        calibration().for_sizes((576, 720), VGA)
    with pytest.raises(InputError, match="visible pictures of 640x480 and these are 1920x1080"):
        calibration().for_sizes(VGA, (1080, 1920))


@pytest.mark.parametrize("k1", [-0.3, 0.25])
def test_lens_round_trip(k1: float) -> None:
    bent = lens(420, k1=k1, k2=0.05)
    inside = corners(VGA) * 0.95 + 12
    assert bent.distort(bent.undistort(inside)) == pytest.approx(inside, abs=1e-4)
    assert np.abs(bent.undistort(inside) - inside).max() > 10


def test_points_behind_the_camera_become_nan() -> None:
    horizon = np.array([[1, 0, 0], [0, 1, 0], [0, -0.01, 1.0]])
    found = project(horizon, np.array([[10, 50], [10, 150.0]]))
    assert found[0] == pytest.approx([20, 100])
    assert np.isnan(found[1]).all()
    assert project(inverse(horizon), np.array([[20, 100.0]]))[0] == pytest.approx([10, 50])


def test_lens_terms_are_those_of_opencv() -> None:
    """The formula x' = x (1 + k1 r^2 + k2 r^4), written out."""
    camera = Lens(np.array([[400, 0, 320], [0, 410, 240], [0, 0, 1.0]]), np.array([-0.2, 0.03, 0, 0]))
    x, y = 0.3, -0.2
    stretch = 1 - 0.2 * (x * x + y * y) + 0.03 * (x * x + y * y) ** 2
    flat = np.array([[320 + 400 * x, 240 + 410 * y]])
    assert camera.distort(flat)[0] == pytest.approx([320 + 400 * x * stretch, 240 + 410 * y * stretch])
