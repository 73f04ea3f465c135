"""`streamfuse calibrate check`: a calibration that fits, one that does not, and pictures that do not tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import Done, streamfuse
from rig import VGA, calibration, infrared_look, structure

from streamfuse.calibration.checking import check_fit, displaced
from streamfuse.calibration.geometry import corners, project
from streamfuse.calibration.model import Calibration
from streamfuse.calibration.similarity import Similarity

MOVED = Similarity(0.0, 6 / 640, 0.006, -0.008)


def rig() -> Calibration:
    return replace(calibration(), parallax=np.array([38.0, 2.0, 0.0]))


def write_pairs(directory: Path, moved: Similarity, distance_m: float = 6.0, seed: int = 0) -> tuple[Path, Path]:
    """Write three scenes at a distance, by cameras that moved since the calibration."""
    homography = moved.matrix(VGA) @ rig().at(distance_m).homography
    for name in ("ir", "vis"):
        (directory / name).mkdir()
    for index in range(3):
        scene = structure(seed + index)
        seen = cv2.warpPerspective(scene, homography, VGA[::-1], flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR)
        cv2.imwrite(str(directory / "ir" / f"{index}.png"), infrared_look(np.asarray(seen, np.uint8), index))
        cv2.imwrite(str(directory / "vis" / f"{index}.png"), scene)
    return directory / "ir", directory / "vis"


def check(directory: Path, ir: Path, vis: Path) -> Done:
    rig().save(directory / "c.toml")
    return streamfuse("calibrate", "check", "--calib", directory / "c.toml", "--ir", ir, "--vis", vis)


def test_calibration_that_fits(tmp_path: Path) -> None:
    done = check(tmp_path, *write_pairs(tmp_path, Similarity()))
    assert done.returncode == 0, done.stderr
    assert "fits      to 0." in done.stdout
    assert "most of the scene is 6." in done.stdout or "most of the scene is 5." in done.stdout
    picture = cv2.imread(str(tmp_path / "c.check.png"))
    assert picture is not None
    assert picture.shape[1] > 1.5 * picture.shape[0], "two panels side by side"
    assert "--force" in check(tmp_path, tmp_path / "ir", tmp_path / "vis").stderr


def test_cameras_that_moved(tmp_path: Path) -> None:
    done = check(tmp_path, *write_pairs(tmp_path, MOVED))
    assert done.returncode == 3
    assert "does not fit any more" in done.stderr
    assert "px down, turned by +0." in done.stderr
    assert (tmp_path / "c.check.png").exists()


def test_misfit_is_found_to_a_pixel() -> None:
    pairs = []
    homography = MOVED.matrix(VGA) @ rig().at(6).homography
    for seed in range(3):
        scene = structure(seed)
        seen = cv2.warpPerspective(scene, homography, VGA[::-1], flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR)
        pairs.append((infrared_look(np.asarray(seen, np.uint8), seed), scene))
    verdict = check_fit(rig(), pairs)
    assert verdict.misfit is not None
    assert verdict.misfit.error_px == pytest.approx(MOVED.rms_px(VGA), abs=0.7)
    truth = displaced(rig(), MOVED).at(6).homography
    found = verdict.corrected.at(verdict.distance_m).homography
    assert np.linalg.norm(project(found, corners(VGA)) - project(truth, corners(VGA)), axis=1).mean() < 1.5


def test_pictures_that_do_not_tell(tmp_path: Path) -> None:
    ir, vis = write_pairs(tmp_path, Similarity())
    for index in range(3):
        cv2.imwrite(str(vis / f"{index}.png"), structure(90 + index))
    done = check(tmp_path, ir, vis)
    assert done.returncode == 3
    assert "do not tell whether the calibration fits" in done.stderr


def test_pictures_of_another_shape_are_refused(tmp_path: Path) -> None:
    ir, vis = write_pairs(tmp_path, Similarity())
    for index in range(3):
        cv2.imwrite(str(vis / f"{index}.png"), structure(index, (480, 480)))
    done = check(tmp_path, ir, vis)
    assert done.returncode == 3
    assert "another aspect ratio" in done.stderr
