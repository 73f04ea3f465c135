"""Scenes at different distances registered together: by one rig, with the parallax."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import streamfuse
from media import every, write_video
from rig import infrared_look, structure

from streamfuse.calibration import scene
from streamfuse.calibration.geometry import Matrix3, corners, inverse, project
from streamfuse.calibration.model import load
from streamfuse.calibration.scene import Ruler, Scenes, calibrate_scene, calibrate_several, load_pairs
from streamfuse.calibration.several import SeveralScenes, register_several
from streamfuse.color import Plane
from streamfuse.errors import InputError, UsageError
from streamfuse.sources.options import DEFAULT

SIZE = (240, 320)
FAR = np.array([[0.94, 0.02, 14.0], [-0.018, 0.95, 9.0], [1e-5, -2e-5, 1.0]])
SHIFTS = np.array([0.0, 9.0, 3.0, 6.0, 1.0, 8.0])
"""Parallax of each scene along (0.8, 0.6), px."""


def at(shift: float) -> Matrix3:
    found = FAR.copy()
    found[:2, 2] += shift * np.array([0.8, 0.6])
    return found


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Plane, Plane]]:
    made = []
    for seed, shift in enumerate(SHIFTS):
        drawn = structure(seed, SIZE)
        flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        seen = cv2.warpPerspective(drawn, at(shift), SIZE[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
        made.append((infrared_look(np.asarray(seen, np.uint8), seed), drawn))
    return made


@pytest.fixture(scope="module")
def found(pairs: list[tuple[Plane, Plane]]) -> SeveralScenes:
    """From a homography that is right at a middle distance, and a direction that is 20 degrees off."""
    turn = np.radians(17)
    return register_several(
        [a for a, _ in pairs], [b for _, b in pairs], at(4.5), np.array([np.cos(turn), np.sin(turn)])
    )


def test_direction_and_shifts_are_found(found: SeveralScenes) -> None:
    assert found.reason_against() is None
    assert found.direction == pytest.approx((0.8, 0.6), abs=0.08)
    assert found.shifts_px - found.shifts_px.mean() == pytest.approx(SHIFTS - SHIFTS.mean(), abs=0.7)


def test_calibration_with_a_ruler_is_right_at_every_distance(
    found: SeveralScenes, pairs: list[tuple[Plane, Plane]]
) -> None:
    """The infrared camera is 8 cm to the left and 6 cm above, so the pictures' direction is turned around."""
    fov = np.degrees(2 * np.arctan(160 / 300))  # 300 px
    scenes = Scenes(pairs, [f"street {k}" for k in range(len(pairs))])
    with pytest.raises(InputError, match="give --baseline-m and --fov-deg"):
        calibrate_several(found, scenes, None, None)
    with pytest.raises(InputError, match="degrees from that of --baseline-m"):
        calibrate_several(found, scenes, Ruler(0.06, -0.08, fov), None)
    outcome = calibrate_several(found, scenes, Ruler(0.08, 0.06, fov), None)
    made = outcome.calibration
    assert made.shift_px_m == pytest.approx((24, 18), abs=2)
    assert made.parallax_sd == pytest.approx((1.16, 1.05), abs=0.1), "3 mm of 300 px, and 3 %"
    assert outcome.distances_m is not None
    assert outcome.distances_m[0] == np.inf
    assert 30 / np.array(outcome.distances_m[1:]) == pytest.approx(SHIFTS[1:], abs=0.7)
    assert f"  {outcome.distances_m[1]:.1f} m   street 1" in outcome.details
    for shift in (0.0, 3.0, 9.0):
        distance = 30 / shift if shift else np.inf
        off = project(made.at(distance).homography, corners(SIZE)) - project(at(shift), corners(SIZE))
        assert np.linalg.norm(off, axis=1).mean() < 1.5


def test_scenes_at_one_distance_tell_no_parallax(pairs: list[tuple[Plane, Plane]]) -> None:
    same = [pairs[0]] * 2
    result = register_several([a for a, _ in same], [b for _, b in same], at(0), np.array([1.0, 0]))
    assert result.reason_against() == "the scenes are at distances too alike to tell the parallax"


def test_several_sources_belong_together_in_their_order(
    pairs: list[tuple[Plane, Plane]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images, directories and recordings of one rig; never more pairs than are registered."""
    monkeypatch.setattr(scene, "MAX_PAIRS", 5)
    for k, (ir, vis) in enumerate(pairs[:3]):
        cv2.imwrite(str(tmp_path / f"{k}a.png"), ir)
        cv2.imwrite(str(tmp_path / f"{k}b.png"), vis)
    recordings = [str(write_video(tmp_path / name, every(40, 9), size=SIZE)) for name in ("ir.mp4", "vis.mp4")]
    irs = [str(tmp_path / "0a.png"), recordings[0], str(tmp_path / "2a.png")]
    viss = [str(tmp_path / "0b.png"), recordings[1], str(tmp_path / "2b.png")]
    loaded = load_pairs(irs, viss, DEFAULT)
    assert loaded.names == ["0b", "vis.mp4 at 0.0 s", "vis.mp4 at 0.3 s", "2b"]
    for index, k in ((0, 0), (3, 2)):
        assert all((a == b).all() for a, b in zip(loaded.pairs[index], pairs[k], strict=True))
    with pytest.raises(UsageError, match="2 infrared and 1 visible sources: give as many --ir as --vis"):
        calibrate_scene(irs[:2], viss[:1])


def test_real_rig_with_parallax_from_the_command_line(data_dir: Path, tmp_path: Path) -> None:
    """Three globs of METU-VisTIR, whose frames no single alignment fits: a parallax and a distance for each frame."""
    directory = data_dir / "data/align/dev/metu_vistir"
    if not directory.is_dir():
        pytest.skip(f"needs the pictures of {directory}")
    sources: list[str | Path] = []
    for number in (1, 3, 7):
        for role in ("ir", "vis"):
            sources += [f"--{role}", directory / f"sunny_scene_{number}_*_{role}.jpg"]
    made = tmp_path / "c.toml"
    done = streamfuse("calibrate", "scene", *sources, "--baseline-m", "0.1", "--fov-deg", "60", "-o", made)
    assert done.returncode == 0, done.stderr
    said = re.findall(r"^  (far|[\d.]+ m) +(\w+)_vis$", done.stdout, re.MULTILINE)
    assert len(said) == 9
    calibration = load(made)
    around = project(calibration.homography, np.array([[220.0, 256], [420, 256]]))
    assert np.linalg.norm(around[1] - around[0]) / 200 == pytest.approx(1.25, abs=0.03)
    off = []
    for away, name in said:
        reference = np.array(json.loads((directory / f"{name}.json").read_text())["H_ir_to_vis"])
        found = calibration.at(np.inf if away == "far" else float(away.removesuffix(" m"))).homography
        middle = project(inverse(reference), np.array([[640.0, 360.0]]))
        off.append(float(np.linalg.norm(project(found, middle) - (640, 360))))
    assert np.median(off) < 3
    assert max(off) < 7, "the references themselves wander by 2 to 3 px between the frames"
