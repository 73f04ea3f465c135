"""Points, homographies and lenses.

Pixel centres are at whole numbers, as OpenCV has them: a picture of width w reaches from -0.5 to w - 0.5.
Points are (n, 2) float64, x before y.  Equations: Hartley and Zisserman, Multiple View Geometry, 2nd edition, 2.3
(homographies) and 7.4 (radial distortion).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

Points: TypeAlias = npt.NDArray[np.float64]
"""(n, 2), x and y in pixels."""
Matrix3: TypeAlias = npt.NDArray[np.float64]
"""(3, 3)."""
Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""

LENS_TOLERANCE_PX = 0.5
"""A point that a lens brings back to another place is one that it does not see: its polynomial has turned round."""


@dataclass(frozen=True, eq=False)
class Lens:
    """A camera's matrix and distortion, as OpenCV has them (Brown's model)."""

    matrix: Matrix3
    """K: focal lengths and principal point, px."""
    distortion: npt.NDArray[np.float64]
    """k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4 [tx ty]]]]: 4, 5, 8, 12 or 14 numbers."""

    def undistort(self, points: Points) -> Points:
        """Pixels of the camera's picture to pixels of a perfect lens with the same K."""
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-9)
        found = cv2.undistortPoints(
            points.reshape(-1, 1, 2), self.matrix, self.distortion, None, None, self.matrix, criteria
        )
        return cast(Points, found.reshape(-1, 2))

    def distort(self, points: Points) -> Points:
        """Undoes `undistort`."""
        rays = cv2.convertPointsToHomogeneous(project(inverse(self.matrix), points).reshape(-1, 1, 2))
        zero = np.zeros(3)
        found, _ = cv2.projectPoints(rays, zero, zero, self.matrix, self.distortion)
        return cast(Points, found.reshape(-1, 2))

    def scaled(self, scale: Matrix3) -> Lens:
        return Lens(scale @ self.matrix, self.distortion)


def project(homography: Matrix3, points: Points) -> Points:
    """Points through a homography of positive sign (1 at the lower right); those behind it become NaN."""
    mapped = np.column_stack((points, np.ones(len(points)))) @ homography.T
    flat: Points = mapped[:, :2] / np.where(mapped[:, 2:] > 1e-9, mapped[:, 2:], np.nan)
    return flat


def inverse(matrix: Matrix3) -> Matrix3:
    return cast(Matrix3, np.linalg.inv(matrix))


def corners(size: Size) -> Points:
    """The centres of the four corner pixels, clockwise from the top left."""
    height, width = size
    return np.array([(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)], np.float64)


def resize_matrix(old: Size, new: Size) -> Matrix3:
    """Pixels of a picture to pixels of the same picture resized."""
    sy, sx = new[0] / old[0], new[1] / old[1]
    return np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])


def same_aspect(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether one (height, width) is the other resized, to within a pixel of rounding."""
    return abs(a[1] * b[0] / a[0] - b[1]) <= 1 or abs(a[0] * b[1] / a[1] - b[0]) <= 1


def overlap_corners(homography: Matrix3, ir_size: Size, vis_size: Size) -> Points:
    """(n, 2) infrared px: the corners of what both pictures see; (0, 2) where that is nothing."""
    mapped = project(homography, corners(ir_size))
    if not np.isfinite(mapped).all() or np.abs(mapped).max() > 1e6:
        return np.zeros((0, 2))
    area, polygon = cv2.intersectConvexConvex(mapped.astype(np.float32), corners(vis_size).astype(np.float32))
    if area <= 0:
        return np.zeros((0, 2))
    return project(inverse(homography), np.asarray(polygon, np.float64).reshape(-1, 2))


def difference(first: Matrix3, second: Matrix3, at: Points) -> npt.NDArray[np.float64]:
    """(n,): how far apart two homographies bring these points, px of the target; infinite where one brings nothing."""
    apart: npt.NDArray[np.float64] = np.linalg.norm(project(first, at) - project(second, at), axis=1)
    return np.where(np.isfinite(apart), apart, np.inf)


def residuals(homography: Matrix3, source: Points, target: Points) -> npt.NDArray[np.float64]:
    """(n,): how far from its target each point falls, px of the target; infinite where it falls nowhere."""
    apart: npt.NDArray[np.float64] = np.linalg.norm(project(homography, source) - target, axis=1)
    return np.where(np.isfinite(apart), apart, np.inf)


def rms(values: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else 0.0
