"""Points, homographies and lenses.

Pixel centres are at whole numbers, as in OpenCV: a picture of width w extends from -0.5 to w - 0.5.
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
"""Largest round-trip error of a lens model; a larger one means that the point is beyond the polynomial's turning
point, so the lens does not see it."""


@dataclass(frozen=True, eq=False)
class Lens:
    """A camera matrix and its distortion, as in OpenCV (Brown's model)."""

    matrix: Matrix3
    """K: focal lengths and principal point, px."""
    distortion: npt.NDArray[np.float64]
    """k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4 [tx ty]]]]: 4, 5, 8, 12 or 14 numbers."""

    def undistort(self, points: Points) -> Points:
        """Map pixels of the camera's picture to pixels of a distortion-free lens with the same K."""
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-9)
        found = cv2.undistortPoints(
            points.reshape(-1, 1, 2), self.matrix, self.distortion, None, None, self.matrix, criteria
        )
        return cast(Points, found.reshape(-1, 2))

    def distort(self, points: Points) -> Points:
        """Invert `undistort`."""
        rays = cv2.convertPointsToHomogeneous(project(inverse(self.matrix), points).reshape(-1, 1, 2))
        zero = np.zeros(3)
        found, _ = cv2.projectPoints(rays, zero, zero, self.matrix, self.distortion)
        return cast(Points, found.reshape(-1, 2))

    def scaled(self, scale: Matrix3) -> Lens:
        """The same lens for a resized picture; `scale`: result of `resize_matrix`."""
        return Lens(scale @ self.matrix, self.distortion)


def project(homography: Matrix3, points: Points) -> Points:
    """Map points through a homography with 1 at the lower right; points behind the camera become NaN."""
    mapped = np.column_stack((points, np.ones(len(points)))) @ homography.T
    flat: Points = mapped[:, :2] / np.where(mapped[:, 2:] > 1e-9, mapped[:, 2:], np.nan)
    return flat


def size_of(shape: tuple[int, ...]) -> Size:
    """(height, width) of an array shape (height, width, ...)."""
    return shape[0], shape[1]


def inverse(matrix: Matrix3) -> Matrix3:
    return cast(Matrix3, np.linalg.inv(matrix))


def corners(size: Size) -> Points:
    """The centres of the four corner pixels, clockwise from the top left."""
    height, width = size
    return np.array([(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)], np.float64)


def resize_matrix(old: Size, new: Size) -> Matrix3:
    """Return the (3, 3) map from pixels of a picture to pixels of the same picture resized."""
    sy, sx = new[0] / old[0], new[1] / old[1]
    return np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])


def same_aspect(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Return True where the two (height, width) have the same aspect ratio, to within a pixel of rounding."""
    return abs(a[1] * b[0] / a[0] - b[1]) <= 1 or abs(a[0] * b[1] / a[1] - b[0]) <= 1


def overlap_corners(homography: Matrix3, ir_size: Size, vis_size: Size) -> Points:
    """Corners of the overlap of both pictures, (n, 2) infrared px; (0, 2) where they do not overlap."""
    mapped = project(homography, corners(ir_size))
    if not np.isfinite(mapped).all() or np.abs(mapped).max() > 1e6:
        return np.zeros((0, 2))
    area, polygon = cv2.intersectConvexConvex(mapped.astype(np.float32), corners(vis_size).astype(np.float32))
    if area <= 0:
        return np.zeros((0, 2))
    return project(inverse(homography), np.asarray(polygon, np.float64).reshape(-1, 2))


def difference(first: Matrix3, second: Matrix3, at: Points) -> npt.NDArray[np.float64]:
    """Distances between the images of the points under two homographies, (n,) px; inf where one is undefined."""
    distances: npt.NDArray[np.float64] = np.linalg.norm(project(first, at) - project(second, at), axis=1)
    return np.where(np.isfinite(distances), distances, np.inf)


def residuals(homography: Matrix3, source: Points, target: Points) -> npt.NDArray[np.float64]:
    """Distances of the mapped source points from their targets, (n,) px of the target; inf where undefined."""
    distances: npt.NDArray[np.float64] = np.linalg.norm(project(homography, source) - target, axis=1)
    return np.where(np.isfinite(distances), distances, np.inf)


def rms(values: npt.NDArray[np.float64]) -> float:
    """Root mean square, 0 for no values."""
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else 0.0


def parabola_vertex(before: float, peak: float, after: float) -> float:
    """Position of the vertex of the parabola through three equidistant values, -0.5..0.5 from the middle one."""
    bend = before - 2 * peak + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most `count` indices spread evenly over 0..length - 1."""
    indices: list[int] = np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()
    return indices
