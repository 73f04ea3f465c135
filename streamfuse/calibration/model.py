"""The calibration and its TOML file; calib/README.md describes the format."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Lens, Matrix3, Size, corners, inverse, project, resize_matrix, same_aspect
from streamfuse.calibration.parallax import NEAREST_M, Vector, at_distance, shift_of
from streamfuse.errors import InputError, UsageError
from streamfuse.frames import Role
from streamfuse.support.files import read_toml, write_whole

VERSIONS = (1, 2)
"""Version 2 has `far` and `parallax` in place of `homography`."""
SIDES = range(16, 16385)
MAX_CONDITION = 1e5
"""Largest condition number of the homography between pictures scaled to unit size; real pairs of cameras have some
hundreds."""
MAX_PARALLAX = 1e6
"""Largest element of a parallax, px m: a thousand times that of cameras a hand apart."""
DISTORTION_LENGTHS = (4, 5, 8, 12, 14)


@dataclass(frozen=True, eq=False)
class Calibration:
    """The map from infrared to visible pixels for one pair of cameras."""

    ir_size: Size
    """(height, width) of the infrared pictures it was made with, px."""
    vis_size: Size
    """(height, width) of the visible pictures it was made with, px."""
    homography: Matrix3
    """(3, 3) infrared to visible pixels, undistorted ones where `ir_lens` or `vis_lens` are given; where `parallax` is
    given, that of far things.  `at` gives it for any distance."""
    rms_px: float | None
    """RMS error of the points it was made from, px of the visible picture; None where unknown."""
    distance_m: float | None
    """Distance at which it is exact, m; infinity for far scenes, None where unknown.  With `parallax`: the distance
    that is used unless another is asked for, None for far."""
    date: date
    """Day on which it was made (UTC)."""
    method: str
    """Description of the method, for people."""
    ir_lens: Lens | None = None
    vis_lens: Lens | None = None
    parallax: Vector | None = None
    """(3,) displacement of a thing at 1 m from where `homography` maps it: px m, px m and m, as e in
    `streamfuse.calibration.parallax`; None: unknown, and the calibration is valid at one distance only."""
    parallax_sd: Vector | None = None
    """(2,) standard error of `shift_px_m`, px m; None where unknown."""

    def __post_init__(self) -> None:
        """Check all values; raises ValueError, which names the key."""
        for key, size in (("ir_size", self.ir_size), ("vis_size", self.vis_size)):
            if not all(side in SIDES for side in size):
                raise ValueError(f"{key} must be {SIDES[0]} to {SIDES[-1]} pixels a side, not {size[1]}x{size[0]}")
        if self.rms_px is not None and not 0 <= self.rms_px < math.inf:
            raise ValueError("rms_px must be a number from 0")
        if self.distance_m is not None and not self.distance_m > 0:
            raise ValueError("distance_m must be above 0")
        _check_homography(self.homography, self.ir_size, self.vis_size)
        for key, lens in (("ir_lens", self.ir_lens), ("vis_lens", self.vis_lens)):
            if lens is not None:
                _check_lens(key, lens)
        if self.parallax is not None:
            _check_parallax(self.homography, self.parallax, self.ir_size, self.vis_size)
        if self.parallax_sd is not None and not (self.parallax is not None and _is_vector(self.parallax_sd, 2)):
            raise ValueError("parallax_sd must be two finite numbers beside parallax")

    @property
    def id(self) -> str:
        """Identity: twelve hexadecimal digits of the hash of the contents."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()[:12]

    @property
    def shift_px_m(self) -> Vector:
        """How far the middle of the visible picture moves from far to 1 m, (2,) px m; at d metres it is this / d."""
        return np.zeros(2) if self.parallax is None else shift_of(self.parallax, self.vis_size)

    def at(self, distance_m: float | None = None) -> Calibration:
        """The calibration for one distance, without parallax.

        `distance_m`: above 0, infinity for far; None: `self.distance_m`.  A calibration without parallax is returned
        as it is.
        """
        if self.parallax is None:
            return self
        distance_m = distance_m or self.distance_m or math.inf
        homography = at_distance(self.homography, self.parallax, 1 / distance_m)
        found = replace(self, homography=normalized(homography), parallax=None, parallax_sd=None)
        return replace(found, distance_m=distance_m)

    def for_sizes(self, ir: Size, vis: Size) -> Calibration:
        """The same calibration for pictures of the same cameras in other sizes, (height, width) px.

        Raises InputError where the aspect ratio differs: the picture was cropped then, at an unknown position.
        """
        for role, made, now in ((Role.IR, self.ir_size, ir), (Role.VIS, self.vis_size, vis)):
            if not same_aspect(made, now):
                raise InputError(
                    f"the calibration is for {role.label} pictures of {made[1]}x{made[0]} and these are "
                    f"{now[1]}x{now[0]}, another aspect ratio: record with the calibrated one, "
                    "or calibrate again with such pictures"
                )
        if (ir, vis) == (self.ir_size, self.vis_size):
            return self
        ir_scale, vis_scale = resize_matrix(self.ir_size, ir), resize_matrix(self.vis_size, vis)
        homography = vis_scale @ self.homography @ inverse(ir_scale)
        # The last row of a resize is (0, 0, 1), so the parallax is scaled like any visible point.
        last = homography[2, 2]
        parallax = None if self.parallax is None else vis_scale @ self.parallax / last
        parallax_sd = None if self.parallax_sd is None else np.diag(vis_scale)[:2] * self.parallax_sd / last
        return Calibration(
            ir,
            vis,
            normalized(homography),
            None if self.rms_px is None else self.rms_px * vis[1] / self.vis_size[1],
            self.distance_m,
            self.date,
            self.method,
            self.ir_lens and self.ir_lens.scaled(ir_scale),
            self.vis_lens and self.vis_lens.scaled(vis_scale),
            parallax,
            parallax_sd,
        )

    def to_toml(self) -> str:
        """The text of the calibration file."""
        lines = [
            "# Map from infrared to visible pixels; calib/README.md of streamfuse describes the format.",
            f"version = {1 if self.parallax is None else 2}",
            f"method = {json.dumps(self.method)}",
            f"date = {self.date.isoformat()}",
            f"ir_size = [{self.ir_size[1]}, {self.ir_size[0]}]    # width, height",
            f"vis_size = [{self.vis_size[1]}, {self.vis_size[0]}]",
        ]
        lines += [f"rms_px = {self.rms_px!r}"] if self.rms_px is not None else []
        lines += [f"distance_m = {self.distance_m!r}"] if self.distance_m is not None else []
        lines += [("homography" if self.parallax is None else "far") + " = " + _matrix_text(self.homography)]
        lines += [f"parallax = {_vector_text(self.parallax)}    # px m, px m, m"] if self.parallax is not None else []
        lines += [f"parallax_sd = {_vector_text(self.parallax_sd)}"] if self.parallax_sd is not None else []
        for key, lens in (("ir_lens", self.ir_lens), ("vis_lens", self.vis_lens)):
            if lens is not None:
                lines += ["", f"[{key}]", "matrix = " + _matrix_text(lens.matrix)]
                lines += [f"distortion = {_vector_text(lens.distortion)}"]
        return "\n".join(lines) + "\n"

    def save(self, path: Path) -> None:
        """Write the file atomically; raises OutputError."""
        write_whole(path, self.to_toml().encode())


def load(path: Path) -> Calibration:
    """Read a calibration file; raises InputError, which names the file and the key."""
    try:
        return _parse(read_toml(path))
    except UsageError as error:
        raise InputError(str(error)) from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def check_solution(homography: Matrix3, ir: Size, vis: Size) -> None:
    """Raise InputError where a computed homography cannot relate two cameras that see the same scene."""
    try:
        _check_homography(homography, ir, vis)
    except ValueError as error:
        raise InputError(f"the data fit no pair of cameras: {error}; check the input") from None


_KNOWN = {"version", "method", "date", "ir_size", "vis_size", "rms_px", "distance_m", "homography"}
_KNOWN_2 = {"far", "parallax", "parallax_sd"}
_LENSES = ("ir_lens", "vis_lens")


def _parse(values: dict[str, Any]) -> Calibration:
    if "version" not in values:
        raise ValueError("version is missing: is this a calibration file?")
    version = values["version"]
    if type(version) is not int or version not in VERSIONS:
        raise ValueError(f"version must be 1 or 2, not {version!r}: calibrate again with this streamfuse")
    known = _KNOWN if version == 1 else _KNOWN - {"homography"} | _KNOWN_2
    if unknown := sorted(values.keys() - known - set(_LENSES)):
        raise ValueError(
            f"unknown key {unknown[0]}; known in version {version} are {', '.join(sorted(known))} and the tables "
            "ir_lens, vis_lens"
        )
    matrices = ("homography",) if version == 1 else ("far", "parallax")
    if missing := [key for key in ("ir_size", "vis_size", *matrices) if key not in values]:
        raise ValueError(f"{missing[0]} is missing: is this a calibration file?")
    homography = _read_matrix(matrices[0], values[matrices[0]])
    parallax = _read_vector("parallax", values.get("parallax"), "three")
    parallax_sd = _read_vector("parallax_sd", values.get("parallax_sd"), "two")
    if parallax is not None and abs(homography[2, 2] - 1) > 1e-6:
        raise ValueError("far must have 1 at the lower right, to which parallax refers")
    made = values.get("date", date.min)
    if not isinstance(made, date):
        raise ValueError("date must be a date such as 2026-01-31")
    method = values.get("method", "unknown")
    if not isinstance(method, str):
        raise ValueError("method must be text")
    ir_lens, vis_lens = (_read_lens(key, values[key]) if key in values else None for key in _LENSES)
    return Calibration(
        _read_size("ir_size", values["ir_size"]),
        _read_size("vis_size", values["vis_size"]),
        normalized(homography),
        _read_number("rms_px", values.get("rms_px")),
        _read_number("distance_m", values.get("distance_m")),
        date(made.year, made.month, made.day),
        method,
        ir_lens,
        vis_lens,
        parallax,
        parallax_sd,
    )


def normalized(homography: Matrix3) -> Matrix3:
    """Scale a homography to 1 at the lower right, unless that element is near 0."""
    last = homography[2, 2]
    return homography / last if abs(last) > 1e-9 * np.abs(homography).max() else homography


def _is_number(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 1 << 64
    return isinstance(value, float)


def _read_number(key: str, value: object) -> float | None:
    if value is None:
        return None
    if not _is_number(value):
        raise ValueError(f"{key} must be a number")
    return float(value)  # type: ignore[arg-type]


def _read_size(key: str, value: object) -> Size:
    if not isinstance(value, list) or len(value) != 2 or not all(type(side) is int for side in value):
        raise ValueError(f"{key} must be [width, height] in pixels")
    return value[1], value[0]


def _read_matrix(key: str, value: object) -> Matrix3:
    rows = value if isinstance(value, list) and len(value) == 3 else []
    if not rows or not all(isinstance(row, list) and len(row) == 3 and all(map(_is_number, row)) for row in rows):
        raise ValueError(f"{key} must be three rows of three numbers")
    return np.array(rows, np.float64)


def _read_vector(key: str, value: object, count: str) -> Vector | None:
    if value is None:
        return None
    length = {"two": 2, "three": 3}[count]
    if not isinstance(value, list) or len(value) != length or not all(map(_is_number, value)):
        raise ValueError(f"{key} must be {count} numbers")
    return np.array(value, np.float64)


def _read_lens(key: str, value: object) -> Lens:
    if not isinstance(value, dict) or value.keys() != {"matrix", "distortion"}:
        raise ValueError(f"{key} must be a table with matrix and distortion")
    numbers = value["distortion"]
    if not isinstance(numbers, list) or not all(map(_is_number, numbers)):
        raise ValueError(f"{key}.distortion must be a list of numbers")
    return Lens(_read_matrix(f"{key}.matrix", value["matrix"]), np.array(numbers, np.float64))


def _check_homography(homography: Matrix3, ir: Size, vis: Size) -> None:
    if homography.shape != (3, 3) or not np.isfinite(homography).all():
        raise ValueError("homography must be three rows of three finite numbers")
    unit = inverse(resize_matrix((1, 1), vis)) @ homography @ resize_matrix((1, 1), ir)
    if not np.linalg.cond(unit) < MAX_CONDITION:
        raise ValueError("homography has no inverse: it maps the whole picture onto a line or a point")
    if not np.isfinite(project(homography, corners(ir))).all():
        raise ValueError("homography maps a corner of the infrared picture to infinity")
    if np.linalg.det(homography / homography[2, 2]) < 0:
        raise ValueError("homography mirrors the picture")


def _is_vector(value: Vector, length: int) -> bool:
    return value.shape == (length,) and bool(np.isfinite(value).all())


def _check_parallax(homography: Matrix3, parallax: Vector, ir: Size, vis: Size) -> None:
    if not _is_vector(parallax, 3) or np.abs(parallax).max() > MAX_PARALLAX:
        raise ValueError(f"parallax must be three finite numbers of at most {MAX_PARALLAX:g}")
    near = at_distance(homography, parallax, 1 / NEAREST_M)
    try:
        _check_homography(near, ir, vis)
    except ValueError as error:
        raise ValueError(f"parallax is impossible: at {NEAREST_M:g} m the {error}") from None


def _check_lens(key: str, lens: Lens) -> None:
    if lens.matrix.shape != (3, 3) or not np.isfinite(lens.matrix).all():
        raise ValueError(f"{key}.matrix must be three rows of three finite numbers")
    if lens.matrix[0, 0] <= 0 or lens.matrix[1, 1] <= 0 or list(lens.matrix[2]) != [0, 0, 1]:
        raise ValueError(f"{key}.matrix must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with fx and fy above 0")
    if lens.distortion.ndim != 1 or len(lens.distortion) not in DISTORTION_LENGTHS:
        raise ValueError(f"{key}.distortion must be 4, 5, 8, 12 or 14 numbers")
    if not np.isfinite(lens.distortion).all():
        raise ValueError(f"{key}.distortion must be finite numbers")


def _vector_text(vector: npt.NDArray[np.float64]) -> str:
    return f"[{', '.join(repr(float(value)) for value in vector)}]"


def _matrix_text(matrix: Matrix3) -> str:
    rows = ("[" + ", ".join(repr(float(value)) for value in row) + "]" for row in matrix)
    return "[\n" + "".join(f"  {row},\n" for row in rows) + "]"
