"""Scenes at different distances registered together: by one rig, with the parallax."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from rig import infrared_look, structure

from streamfuse.calibration.geometry import Matrix3, corners, project
from streamfuse.calibration.scene import Ruler, calibrate_several
from streamfuse.calibration.several import SeveralScenes, register_several
from streamfuse.color import Plane
from streamfuse.errors import InputError

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
        scene = structure(seed, SIZE)
        flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        seen = cv2.warpPerspective(scene, at(shift), SIZE[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
        made.append((infrared_look(np.asarray(seen, np.uint8), seed), scene))
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
    with pytest.raises(InputError, match="give --baseline-m and --fov-deg"):
        calibrate_several(found, pairs, [], None, None)
    with pytest.raises(InputError, match="degrees from that of --baseline-m"):
        calibrate_several(found, pairs, [], Ruler(0.06, -0.08, fov), None)
    made = calibrate_several(found, pairs, [], Ruler(0.08, 0.06, fov), None).calibration
    assert made.shift_px_m == pytest.approx((24, 18), abs=2)
    for shift in (0.0, 3.0, 9.0):
        distance = 30 / shift if shift else np.inf
        off = project(made.at(distance).homography, corners(SIZE)) - project(at(shift), corners(SIZE))
        assert np.linalg.norm(off, axis=1).mean() < 1.5


def test_scenes_at_one_distance_tell_no_parallax(pairs: list[tuple[Plane, Plane]]) -> None:
    same = [pairs[0]] * 2
    result = register_several([a for a, _ in same], [b for _, b in same], at(0), np.array([1.0, 0]))
    assert result.reason_against() == "the scenes are at distances too alike to tell the parallax"
