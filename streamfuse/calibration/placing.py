"""Distances of calibration boards from their size in the infrared picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Lens, Points, Size
from streamfuse.calibration.target import Board

FOV_DEG = 45.0
"""Angle of view with which the estimate of the focal length begins, degrees."""
TOLD_ERROR = 0.01
"""Error of a focal length that follows from an angle of view in a data sheet, or from calibrated lenses."""
FOCAL_ONLY = (
    cv2.CALIB_USE_INTRINSIC_GUESS
    | cv2.CALIB_FIX_PRINCIPAL_POINT
    | cv2.CALIB_FIX_ASPECT_RATIO
    | cv2.CALIB_ZERO_TANGENT_DIST
    | cv2.CALIB_FIX_K1
    | cv2.CALIB_FIX_K2
    | cv2.CALIB_FIX_K3
)
"""Boards that are a tenth of the picture determine the focal length, and nothing more."""


@dataclass(frozen=True, eq=False)
class Placed:
    """Distances of all corners, and how sure they are."""

    inverse_m: list[npt.NDArray[np.float64]]
    """1 / distance before the infrared camera of every point, for each board, 1/m."""
    focal_error: float
    """Standard error of the focal length, as a share of it; all distances have it in common."""
    details: list[str]


def focal_px(fov_deg: float, width: int) -> float:
    """Return the focal length, px, of a camera that sees `width` pixels under `fov_deg` degrees."""
    return width / 2 / math.tan(math.radians(fov_deg) / 2)


def place_boards(
    boards: Sequence[Points], board: Board, size: Size, lens: Lens | None, fov_deg: float | None
) -> Placed:
    """Find the distances of boards from their undistorted points, (n, 2) infrared px for each.

    `size`: of the infrared picture.  `lens`: its lens, where it is known; else `fov_deg` gives the focal length, or it
    is estimated.  `board.square_mm` must be known.
    """
    solid = board.points()
    error, details = TOLD_ERROR, []
    height, width = size
    if lens is not None:
        matrix = lens.matrix
    else:
        focal = focal_px(fov_deg or FOV_DEG, width)
        matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    if lens is None and fov_deg is None:
        flat = [points.astype(np.float32).reshape(-1, 1, 2) for points in boards]
        found = cv2.calibrateCameraExtended(
            [solid] * len(flat), flat, size[::-1], matrix, np.zeros(4), flags=FOCAL_ONLY
        )
        matrix = np.asarray(found[1], np.float64)
        error = float(np.asarray(found[5]).ravel()[0]) / float(matrix[0, 0])
        details.append(f"infrared focal length: {matrix[0, 0]:.0f} px ± {error:.1%}, from the boards' tilt")
    inverse_m = []
    for points in boards:
        _, turn, shift = cv2.solvePnP(solid, points, matrix, None, flags=cv2.SOLVEPNP_IPPE)
        rotation = np.asarray(cv2.Rodrigues(turn)[0])
        inverse_m.append(1 / (solid @ rotation[2] + float(np.asarray(shift).ravel()[2])))
    middles = [1 / float(each.mean()) for each in inverse_m]
    details.append(f"the boards were {min(middles):.2f} to {max(middles):.2f} m away")
    return Placed(inverse_m, error, details)
