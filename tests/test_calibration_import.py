"""Import of other programs' calibrations, checked against points in space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from rig import TILTED

from streamfuse.calibration.geometry import Lens, project
from streamfuse.calibration.imported import Request, calibrate_import
from streamfuse.calibration.model import Calibration
from streamfuse.errors import InputError, UsageError

K_IR = np.array([[420, 0, 318.5], [0, 421, 242.0], [0, 0, 1.0]])
K_VIS = np.array([[900, 0, 641.0], [0, 899, 356.5], [0, 0, 1.0]])
D_IR = np.array([-0.21, 0.06, 0.001, -0.0005, 0.0])
D_VIS = np.array([0.05, -0.02, 0, 0, 0.001])
R = np.asarray(cv2.Rodrigues(np.array([0.02, -0.03, 0.01]))[0], np.float64)
T = np.array([0.08, -0.01, 0.005])
"""X_vis = R X_ir + T, metres."""


def misses(made: Calibration, points_at: float, d_vis: np.ndarray, distance: float | None = None) -> float:
    """Largest error, px, for points on the plane z = `points_at` in front of the infrared camera, with `made` at
    `distance`."""
    made = made.at(distance)
    random = np.random.default_rng(0)
    space = np.column_stack((random.uniform(-0.3, 0.3, (50, 2)) * points_at, np.full(50, points_at)))
    seen_ir, _ = cv2.projectPoints(space, np.zeros(3), np.zeros(3), K_IR, D_IR)
    seen_vis, _ = cv2.projectPoints(space, cv2.Rodrigues(R)[0], T, K_VIS, d_vis)
    assert made.ir_lens is not None
    assert made.vis_lens is not None
    flat = made.ir_lens.undistort(np.asarray(seen_ir, np.float64).reshape(-1, 2))
    found = made.vis_lens.distort(project(made.homography, flat))
    return float(np.linalg.norm(found - np.asarray(seen_vis).reshape(-1, 2), axis=1).max())


def check(paths: list[Path], d_vis: np.ndarray = D_VIS, **said: object) -> None:
    """Check an import at several distances; `said`: options of `Request`."""
    made = calibrate_import(paths, Request(distance_m=5.0, **said))  # type: ignore[arg-type]
    for distance in (3.0, 5.0, 10.0, 1e7):
        assert misses(made.calibration, distance, d_vis, distance) < 0.01
    assert misses(made.calibration, 5.0, d_vis) < 0.01, "the distance that was asked for is used unless told"
    assert misses(made.calibration, 10.0, d_vis) > 2
    assert made.calibration.parallax is not None
    assert np.hypot(*made.calibration.shift_px_m) == pytest.approx(900 * np.hypot(*T[:2]), rel=0.1)
    far = calibrate_import(paths, Request(**said))  # type: ignore[arg-type]
    assert misses(far.calibration, 1e7, d_vis) < 0.01
    assert (made.calibration.ir_size, made.calibration.vis_size) == ((480, 640), (720, 1280))


def opencv_file(path: Path, values: Mapping[str, np.ndarray | int]) -> Path:
    """Write a file with OpenCV itself."""
    file = cv2.FileStorage(str(path), cv2.FileStorage_WRITE)
    for key, value in values.items():
        file.write(key, value)
    file.release()
    return path


STEREO = {"K1": K_IR, "D1": D_IR, "K2": K_VIS, "D2": D_VIS, "R": R, "T": T}


@pytest.mark.parametrize("suffix", ["yaml", "yml", "xml"])
def test_opencv_stereo(tmp_path: Path, suffix: str) -> None:
    path = opencv_file(tmp_path / f"stereo.{suffix}", STEREO)
    check([path], ir_size=(480, 640), vis_size=(720, 1280))
    with pytest.raises(UsageError, match="does not give the size of infrared pictures: give --ir-size"):
        calibrate_import([path], Request())


def test_opencv_stereo_with_infrared_second(tmp_path: Path) -> None:
    """With the key M1, another common name, and in millimetres, another common unit."""
    values = {"M1": K_VIS, "D1": D_VIS, "M2": K_IR, "D2": D_IR, "R": R.T, "T": -R.T @ T * 1000}
    path = opencv_file(tmp_path / "stereo.yaml", values)
    check([path], ir_camera="2", millimetres=True, ir_size=(480, 640), vis_size=(720, 1280))
    with pytest.raises(InputError, match=r"cameras are 80\.\d m apart in this file: .* give --millimetres"):
        calibrate_import([path], Request(ir_camera="2", ir_size=(480, 640), vis_size=(720, 1280)))
    with pytest.raises(UsageError, match="--ir-camera left: no such camera; choose one of 1, 2"):
        calibrate_import([path], Request(ir_camera="left"))


@pytest.mark.parametrize("suffix", ["yaml", "xml"])
def test_homography(tmp_path: Path, suffix: str) -> None:
    path = opencv_file(tmp_path / f"h.{suffix}", {"H": TILTED * -3, "image_width": 640, "image_height": 480})
    made = calibrate_import([path], Request(distance_m=3.0)).calibration
    assert made.homography == pytest.approx(TILTED)
    assert made.ir_size == made.vis_size == (480, 640)
    assert made.distance_m == 3.0
    assert made.ir_lens is None


def ros_file(
    path: Path, name: str, size: tuple[int, int], k: np.ndarray, lens: Lens, r: np.ndarray, p: np.ndarray
) -> Path:
    def block(key: str, value: np.ndarray) -> str:
        rows, columns = value.shape
        return f"{key}:\n  rows: {rows}\n  cols: {columns}\n  data: {[float(x) for x in value.ravel()]}\n"

    path.write_text(
        f"image_width: {size[1]}\nimage_height: {size[0]}\ncamera_name: {name}\n"
        + block("camera_matrix", k)
        + "distortion_model: plumb_bob\n"
        + block("distortion_coefficients", lens.distortion[None])
        + block("rectification_matrix", r)
        + block("projection_matrix", p)
    )
    return path


def ros_pair(directory: Path) -> list[Path]:
    """Write two camera_info files, rectified by OpenCV as ROS's own calibrator does it."""
    r1, r2, p1, p2, *_ = cv2.stereoRectify(K_IR, D_IR, K_VIS, D_VIS, (1280, 720), R, T.reshape(3, 1))
    ir = ros_file(directory / "a.yaml", "lwir", (480, 640), K_IR, Lens(K_IR, D_IR), np.asarray(r1), np.asarray(p1))
    vis = ros_file(directory / "b.yaml", "rgb", (720, 1280), K_VIS, Lens(K_VIS, D_VIS), np.asarray(r2), np.asarray(p2))
    return [ir, vis]


def test_ros_camera_info(tmp_path: Path) -> None:
    ir, vis = ros_pair(tmp_path)
    check([ir, vis])
    check([vis, ir], ir_camera="lwir")
    with pytest.raises(InputError, match="has only one camera: give the files of both"):
        calibrate_import([ir], Request())
    fisheye = tmp_path / "fisheye.yaml"
    fisheye.write_text(ir.read_text().replace("plumb_bob", "equidistant"))
    with pytest.raises(InputError, match=r"fisheye\.yaml: the distortion model equidistant is not supported"):
        calibrate_import([fisheye, vis], Request())
    single = tmp_path / "single.yaml"
    single.write_text(ir.read_text().partition("projection_matrix")[0])
    with pytest.raises(InputError, match="no projection_matrix, so the other camera's pose is unknown"):
        calibrate_import([single, vis], Request())


def kalibr_file(path: Path, model: str = "radtan") -> Path:
    """Write a camchain with cam0 visible and cam1 infrared: T_cn_cnm1 maps from visible to infrared."""
    back = np.eye(4)
    back[:3, :3], back[:3, 3] = R.T, -R.T @ T
    rows = "\n".join(f"  - {row.tolist()}" for row in back)
    path.write_text(
        "cam0:\n  cam_overlaps: [1]\n  camera_model: pinhole\n"
        f"  distortion_coeffs: {[0.05, -0.02, 0.0, 0.0]}\n  distortion_model: radtan\n"
        "  intrinsics: [900, 899, 641.0, 356.5]\n  resolution: [1280, 720]\n  rostopic: /rgb\n"
        f"cam1:\n  T_cn_cnm1:\n{rows}\n  camera_model: pinhole\n  distortion_model: {model}\n"
        f"  distortion_coeffs: {D_IR[:4].tolist()}\n  intrinsics: [420, 421, 318.5, 242.0]\n  resolution: [640, 480]\n"
    )
    return path


def test_kalibr_camchain(tmp_path: Path) -> None:
    check([kalibr_file(tmp_path / "camchain.yaml")], np.array([0.05, -0.02, 0, 0, 0]), ir_camera="cam1")
    with pytest.raises(InputError, match="cam1 is pinhole-equidistant, and only pinhole-radtan is supported"):
        calibrate_import([kalibr_file(tmp_path / "fish.yaml", "equidistant")], Request())
    with pytest.raises(UsageError, match="are both cam1"):
        calibrate_import([tmp_path / "camchain.yaml"], Request(ir_camera="cam1", vis_camera="cam1"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("just words", "has no named values"),
        ("a: [1, 2", "is not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("camera: 5", "has no known calibration format"),
        ("H: [1, 2, 3]", "H must be 3x3 numbers, not 3"),
        ("H: [1, 2, x, 4, 5, 6, 7, 8, 9]", "H must be numbers"),
        ("H: [1, 2, .nan, 4, 5, 6, 7, 8, 9]", "H must be finite numbers"),
        ("H: [[1, 0, 0], [1, 0, 0], [0, 0, 1]]", "the data fit no pair of cameras: homography has no inverse"),
        ("R: [1, 0, 0, 0, 1, 0, 0, 0, 1]\nT: [1, 0, 0]", "K1 is missing"),
        ("<a/>", "is not OpenCV's XML"),
        ("<opencv_storage>", "is not valid XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><opencv_storage/>', "declares XML entities"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        calibrate_import([tmp_path / "bad.yaml"], Request(ir_size=(480, 640), vis_size=(480, 640)))
    assert "\n" not in str(error.value)


def test_invalid_matrices_are_refused(tmp_path: Path) -> None:
    path = opencv_file(tmp_path / "stereo.yaml", {**STEREO, "R": R * 2})
    with pytest.raises(InputError, match="R is not a rotation matrix"):
        calibrate_import([path], Request())
    path = opencv_file(tmp_path / "stereo.yaml", {**STEREO, "K2": K_VIS * 0})
    with pytest.raises(InputError, match="no focal length: calibrate the camera first"):
        calibrate_import([path], Request())
