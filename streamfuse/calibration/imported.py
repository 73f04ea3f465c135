"""Import of other programs' calibrations: two cameras and the pose between them, or a homography.

For points on the plane z = d in front of the infrared camera, X_vis = R X_ir + T equals X_vis = (R + T n^T / d) X_ir
with n = (0, 0, 1), so the pictures are related by H = K_vis (R + T n^T / d) K_ir^-1 (Hartley and Zisserman, 13.1), the
homography of far things plus the parallax K_vis T times n^T / d.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Lens, Matrix3, Size, inverse
from streamfuse.calibration.interchange import Values, matrix, read_values, size
from streamfuse.calibration.model import DISTORTION_LENGTHS
from streamfuse.calibration.outcome import Outcome, make_calibration
from streamfuse.errors import InputError, UsageError
from streamfuse.frames import Role

MAX_BASELINE_M = 3.0
"""Largest plausible distance between the cameras; a larger one means that the file's unit is not the metre."""

KALIBR_CAMERA = re.compile(r"^cam\d$")

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera's lens and its pose in a common frame."""

    name: str
    size: Size | None
    lens: Lens
    rotation: Matrix3
    """(3, 3) from the common frame to the camera's: X_camera = rotation X + shift."""
    shift: Vector
    """(3,), m."""


@dataclass(frozen=True, eq=False)
class Request:
    """The user's options for an import."""

    ir_camera: str | None = None
    vis_camera: str | None = None
    ir_size: Size | None = None
    vis_size: Size | None = None
    distance_m: float | None = None
    millimetres: bool = False


def calibrate_import(paths: Sequence[Path], request: Request) -> Outcome:
    """Convert one or two calibration files.

    Raises InputError for files in an unknown format, UsageError for cameras that the files do not have and for sizes
    that are missing.
    """
    values = [read_values(path) for path in paths]
    first, file = values[0], paths[0]
    if len(paths) == 1:
        for key in ("H", "homography"):
            if key in first:
                return _from_homography(file, matrix(file, key, first[key], (3, 3)), first, request)
        if any(KALIBR_CAMERA.match(key) for key in first):
            return from_cameras(f"Kalibr {file.name}", _read_kalibr(file, first), request)
        if "R" in first and "T" in first:
            return from_cameras(f"OpenCV {file.name}", _read_stereo(file, first), request)
        if "camera_matrix" in first:
            raise InputError(f"{file} has only one camera: give the files of both, infrared first")
        raise InputError(
            f"{file} has no known calibration format: expected a homography H, OpenCV's K1 D1 K2 D2 R T, "
            "a Kalibr camchain, or two ROS camera_info files"
        )
    if len(paths) > 2:
        raise UsageError("give one file, or two ROS camera_info files")
    return from_cameras("ROS camera_info", [_read_ros(*item) for item in zip(paths, values, strict=True)], request)


def _from_homography(path: Path, homography: Matrix3, values: Values, request: Request) -> Outcome:
    if homography[2, 2] < 0:
        homography = -homography
    ir, vis = request.ir_size or _stereo_size(path, values, 1), request.vis_size or _stereo_size(path, values, 2)
    calibration = make_calibration(
        homography,
        _known(Role.IR, ir),
        _known(Role.VIS, vis),
        f"imported homography {path.name}",
        rms_px=None,
        distance_m=request.distance_m,
    )
    return Outcome(calibration, ["read as a homography from infrared to visible pixels"])


def _known(role: Role, found: Size | None) -> Size:
    if found is None:
        raise UsageError(f"the file does not give the size of {role.label} pictures: give --{role}-size WIDTHxHEIGHT")
    return found


def from_cameras(method: str, cameras: Sequence[Camera], request: Request) -> Outcome:
    """Make the calibration of two of these cameras; raises InputError and UsageError."""
    ir, vis = _choose(cameras, request.ir_camera, request.vis_camera)
    rotation = vis.rotation @ ir.rotation.T
    shift = (vis.shift - rotation @ ir.shift) / (1000 if request.millimetres else 1)
    baseline = float(np.linalg.norm(shift))
    if baseline > MAX_BASELINE_M:
        raise InputError(
            f"the cameras are {baseline:.1f} m apart in this file: if it is in millimetres, give --millimetres"
        )
    homography = vis.lens.matrix @ rotation @ inverse(ir.lens.matrix)
    if homography[2, 2] <= 0:
        raise InputError(
            "the cameras face opposite directions: check that R and T map infrared to visible, not the inverse"
        )
    calibration = make_calibration(
        homography,
        _known(Role.IR, request.ir_size or ir.size),
        _known(Role.VIS, request.vis_size or vis.size),
        f"imported {method}",
        rms_px=None,
        distance_m=request.distance_m,
        lenses=(ir.lens, vis.lens),
        parallax=vis.lens.matrix @ shift,
    )
    details = [f"infrared is {ir.name}, visible {vis.name}; they are {baseline * 1000:.0f} mm apart"]
    return Outcome(calibration, details)


def _choose(cameras: Sequence[Camera], ir_name: str | None, vis_name: str | None) -> tuple[Camera, Camera]:
    """Choose the infrared and the visible camera by name; the first one left is infrared where no name is given."""
    by_name = {camera.name: camera for camera in cameras}
    names = ", ".join(by_name)
    if len(by_name) < 2:
        raise InputError(f"two cameras are needed, the file has {names or 'none'}: give a calibration of both")
    for flag, name in (("--ir-camera", ir_name), ("--vis-camera", vis_name)):
        if name is not None and name not in by_name:
            raise UsageError(f"{flag} {name}: no such camera; choose one of {names}")
    if len(by_name) > 2 and (ir_name is None or vis_name is None):
        raise UsageError(f"the file has the cameras {names}: choose with --ir-camera and --vis-camera")
    if ir_name is None:
        ir_name = next(name for name in by_name if name != vis_name)
    if vis_name is None:
        vis_name = next(name for name in by_name if name != ir_name)
    if ir_name == vis_name:
        raise UsageError(f"--ir-camera and --vis-camera are both {ir_name}: choose two different cameras")
    return by_name[ir_name], by_name[vis_name]


def make_lens(path: Path, key: str, k: Matrix3, distortion: Vector) -> Lens:
    """Make a lens; the distortion is padded or trimmed with zeros to a number of terms that OpenCV supports."""
    terms = np.trim_zeros(distortion, "b")
    length = next((n for n in DISTORTION_LENGTHS if n >= len(terms)), None)
    if length is None:
        raise InputError(f"{path}: {key} has {len(distortion)} terms, and at most 14 are supported")
    if k[0, 0] <= 0 or k[1, 1] <= 0 or k[2, 2] == 0:
        raise InputError(f"{path}: the camera matrix for {key} has no focal length: calibrate the camera first")
    return Lens(k / k[2, 2], np.pad(terms, (0, length - len(terms))))


def _first(path: Path, values: Values, *keys: str) -> tuple[str, Any]:
    """Return the first of these keys that exists, with its value; raises InputError."""
    for key in keys:
        if key in values:
            return key, values[key]
    raise InputError(f"{path}: {keys[0]} is missing")


def _stereo_size(path: Path, values: Values, number: int) -> Size | None:
    for key in (f"size{number}", f"imageSize{number}", f"image_size{number}", "size", "imageSize", "image_size"):
        if key in values:
            width, height = matrix(path, key, values[key], (1, 2))[0].tolist()
            return size(path, key, width, height)
    if "image_width" in values and "image_height" in values:
        return size(path, "image_width", values["image_width"], values["image_height"])
    return None


def _read_stereo(path: Path, values: Values) -> list[Camera]:
    """Read the result of OpenCV's stereoCalibrate: X_2 = R X_1 + T."""
    cameras = []
    for number in (1, 2):
        key, k = _first(path, values, f"K{number}", f"M{number}", f"cameraMatrix{number}", f"camera_matrix_{number}")
        names = (f"D{number}", f"distCoeffs{number}", f"dist_coeffs_{number}")
        terms, distortion = _first(path, values, *names)
        lens = make_lens(path, terms, matrix(path, key, k, (3, 3)), matrix(path, terms, distortion, (0, 0)))
        rotation, shift = np.eye(3), np.zeros(3)
        if number == 2:
            rotation = _rotation(path, "R", matrix(path, "R", values["R"], (3, 3)))
            shift = matrix(path, "T", values["T"], (3, 1)).ravel()
        cameras.append(Camera(str(number), _stereo_size(path, values, number), lens, rotation, shift))
    return cameras


def _rotation(path: Path, key: str, found: Matrix3) -> Matrix3:
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # huge numbers overflow to inf or NaN, which is no rotation either
        error = np.abs(found @ found.T - np.eye(3)).max()
    if not error <= 1e-2 or np.linalg.det(found) < 0:
        raise InputError(f"{path}: {key} is not a rotation matrix")
    return found


def _read_ros(path: Path, values: Values) -> Camera:
    """Read one camera of a rectified pair: X_rectified = R X_camera, and P's fourth column is -f times its position."""
    _, k = _first(path, values, "camera_matrix", "K", "k")
    terms, distortion = _first(path, values, "distortion_coefficients", "D", "d")
    model = values.get("distortion_model", "plumb_bob")
    if model not in ("plumb_bob", "rational_polynomial"):
        raise InputError(f"{path}: the distortion model {model} is not supported: use plumb_bob or rational_polynomial")
    if "projection_matrix" not in values and "P" not in values and "p" not in values:
        raise InputError(f"{path} has no projection_matrix, so the other camera's pose is unknown: calibrate as stereo")
    _, rectification = _first(path, values, "rectification_matrix", "R", "r")
    key, projection = _first(path, values, "projection_matrix", "P", "p")
    rectify = _rotation(path, "rectification_matrix", matrix(path, "rectification_matrix", rectification, (3, 3)))
    projected = matrix(path, key, projection, (3, 4))
    if abs(np.linalg.det(projected[:, :3])) < 1e-9:
        raise InputError(f"{path}: {key} has no inverse")
    position = -inverse(projected[:, :3]) @ projected[:, 3]  # of the camera, in the rectified frame
    lens = make_lens(path, terms, matrix(path, "camera_matrix", k, (3, 3)), matrix(path, terms, distortion, (0, 0)))
    found = size(path, "image_width", values.get("image_width"), values.get("image_height"))
    name = values.get("camera_name")
    back = rectify.T
    return Camera(str(name) if name else path.stem, found, lens, back, -back @ position)


def _read_kalibr(path: Path, values: Values) -> list[Camera]:
    """Read a camera chain: T_cn_cnm1 maps points from the previous camera's frame."""
    cameras: list[Camera] = []
    for name in sorted(key for key in values if KALIBR_CAMERA.match(key)):
        entry = values[name]
        if not isinstance(entry, dict):
            raise InputError(f"{path}: {name} must be a table")
        if entry.get("camera_model") != "pinhole" or entry.get("distortion_model") not in ("radtan", "none", None):
            kind = f"{entry.get('camera_model')}-{entry.get('distortion_model')}"
            raise InputError(
                f"{path}: {name} is {kind}, and only pinhole-radtan is supported: calibrate with that model"
            )
        fx, fy, cx, cy = matrix(path, f"{name}.intrinsics", entry.get("intrinsics"), (1, 4))[0]
        k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        terms = entry.get("distortion_coeffs") or [0, 0, 0, 0]
        lens = make_lens(path, f"{name}.distortion_coeffs", k, matrix(path, f"{name}.distortion_coeffs", terms, (0, 0)))
        width, height = matrix(path, f"{name}.resolution", entry.get("resolution"), (1, 2))[0].tolist()
        rotation, shift = np.eye(3), np.zeros(3)
        if cameras:
            step = matrix(path, f"{name}.T_cn_cnm1", entry.get("T_cn_cnm1"), (4, 4))
            turned = _rotation(path, f"{name}.T_cn_cnm1", step[:3, :3])
            rotation = turned @ cameras[-1].rotation
            shift = turned @ cameras[-1].shift + step[:3, 3]
        cameras.append(Camera(name, size(path, f"{name}.resolution", width, height), lens, rotation, shift))
    return cameras
