"""Fit of a homography and of the parallax to points at known distances.

A point on the plane z = d in front of the infrared camera is related to the visible picture by

    x_vis ~ H x_ir + e / d,      H = K_vis R K_ir^-1,      e = K_vis t

(Hartley and Zisserman, 13.1, for planes that face the infrared camera).  With X = (x, y, 1, 1 / d) this is a camera
matrix P = [H | e], so it is found as one is: linearly, then by Levenberg-Marquardt over the distance in the picture
(7.1 and 7.2 there).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Matrix3, Points, Size, corners, project, resize_matrix, rms

Vector: TypeAlias = npt.NDArray[np.float64]
"""(3,)."""

MIN_POINTS = 8
"""6 determine the eleven numbers; the rest estimates the error."""
TRIES = 500
"""Random sets of six points: with a fifth of outliers, one in four is without."""
ROUNDS = 20
FORWARD_M = 0.03
"""How far the infrared camera may be before or behind the visible one, m (one standard deviation): the third number of
the parallax, which points at two distances do not determine."""
MARKING_PX = 0.2
"""Smallest error of a point that is believed, px at a picture width of 640: few points fit closer than they are."""
NEAREST_M = 3.0
"""Distance at which the error of a parallax is stated, m."""
MAX_ERROR_PX = 1.0
"""Largest standard error of a position in the picture, at any distance from `NEAREST_M`, px at a width of 640."""


@dataclass(frozen=True, eq=False)
class ParallaxFit:
    """A homography, a parallax and their errors."""

    homography: Matrix3
    """(3, 3) infrared to visible pixels at infinity, 1 at the lower right."""
    parallax: Vector
    """(3,) px m, px m and m."""
    shift_sd: Vector
    """(2,) standard error of `shift_of` this parallax, px m."""
    residuals: npt.NDArray[np.float64]
    """(n,) distances of all points from their predicted positions, px of the visible picture."""
    inliers: npt.NDArray[np.bool_]
    """(n,) True for the points that agree."""
    error_px: float
    """Largest standard error of the position of a corner of the infrared picture, from `NEAREST_M` to infinity, px."""

    @property
    def rms_px(self) -> float:
        """RMS residual of the inliers, px."""
        return rms(self.residuals[self.inliers])


def at_distance(homography: Matrix3, parallax: Vector, inverse_m: float) -> Matrix3:
    """Return the homography for the distance 1 / `inverse_m`, (3, 3), not scaled."""
    return np.asarray(homography + np.outer(parallax, (0, 0, inverse_m)), np.float64)


def shift_of(parallax: Vector, vis_size: Size) -> Vector:
    """Return how far the middle of the visible picture moves from far to 1 m, (2,) px m: at d metres it is this / d.

    From (m + e / d) / (1 + e_3 / d) - m for the middle m, to the first order.
    """
    shift: Vector = _shift_matrix(vis_size) @ parallax
    return shift


def _shift_matrix(vis_size: Size) -> Matrix3:
    return np.array([[1, 0, (1 - vis_size[1]) / 2], [0, 1, (1 - vis_size[0]) / 2]])


def fit_parallax(
    source: Points, target: Points, inverse_m: npt.NDArray[np.float64], threshold_px: float, sizes: tuple[Size, Size]
) -> ParallaxFit | None:
    """Fit points (n, 2) at distances 1 / `inverse_m` (n,), infrared and visible px; None where they do not agree.

    `threshold_px`: largest residual of an inlier.  `sizes`: of the infrared and the visible picture.
    """
    if len(source) < MIN_POINTS:
        return None
    ir_unit, vis_unit = (resize_matrix(size, (2, 2)) for size in sizes)  # to about -0.5..1.5, so that it is well posed
    flat = project(ir_unit, source)
    design = np.column_stack((flat, np.ones(len(flat)), inverse_m))
    goal = project(vis_unit, target)
    scale = np.array([vis_unit[0, 0], vis_unit[1, 1]])

    def errors(camera: Matrix3) -> npt.NDArray[np.float64]:
        lengths: Vector = np.linalg.norm(_offsets(camera, design, goal) / scale, axis=1)
        return lengths

    camera = _consensus(design, goal, errors, threshold_px)
    inliers = np.zeros(len(source), bool)
    for _ in range(5):
        if camera is None:
            return None
        chosen = errors(camera) <= threshold_px
        if chosen.sum() < MIN_POINTS:
            return None
        if (chosen == inliers).all():
            break
        inliers = chosen
        camera = _refine(camera, design[inliers], goal[inliers], scale)
    if camera is None:
        return None
    found = errors(camera)
    sigma = max(
        rms(found[inliers]) * np.sqrt(inliers.sum() / max(inliers.sum() - 5.5, 1)), MARKING_PX * _unit(sizes[1])
    )
    jacobian, _ = _linearised(camera, design[inliers], goal[inliers], scale)
    covariance = np.linalg.pinv(jacobian.T @ jacobian / sigma**2 + _prior())
    back = np.linalg.inv(vis_unit)
    parallax, homography = back @ camera[:, 3], back @ camera[:, :3] @ ir_unit
    last = homography[2, 2]
    displaced = np.zeros((2, 11))
    displaced[:, [3, 7, 10]] = _shift_matrix(sizes[1]) @ back
    sd = np.sqrt(np.maximum(np.diag(displaced @ covariance @ displaced.T), 0)) / abs(last)
    largest = _largest_error(camera, covariance, project(ir_unit, corners(sizes[0])), scale)
    return ParallaxFit(homography / last, parallax / last, sd, found, inliers, largest)


def _unit(vis_size: Size) -> float:
    """Pixels per pixel of a picture 640 wide."""
    return max(vis_size[1] / 640, 1.0)


def largest_allowed_px(vis_size: Size) -> float:
    """Return the largest `error_px` of a fit that may be used."""
    return MAX_ERROR_PX * _unit(vis_size)


def too_alike(fit: ParallaxFit, inverse_m: Vector, things: str) -> str:
    """Say why a fit must not be used and what to do; `inverse_m`: 1 / distance of its points, `things`: their name."""
    near, far = (1 / value if value else np.inf for value in (inverse_m.max(), inverse_m.min()))
    return (
        f"the distances ({near:.3g} to {far:.3g} m) are too alike to tell the parallax: places would be known to "
        f"{fit.error_px:.1f} px only; give {things} near and far, such as 3 m and 15 m, in all parts of the picture"
    )


def sure_to(fit: ParallaxFit) -> str:
    """Say how sure a fit is, in one line."""
    return f"places are sure to {fit.error_px:.2f} px (one standard error) from {NEAREST_M:g} m to far"


def _offsets(camera: Matrix3, design: Points, goal: Points) -> Points:
    mapped = design @ camera.T
    return mapped[:, :2] / np.where(mapped[:, 2:] > 1e-9, mapped[:, 2:], np.nan) - goal


def _linear(design: Points, goal: Points) -> Matrix3 | None:
    """Solve for P, (3, 4), with 1 at the end of H, by the linear equations."""
    zero = np.zeros_like(design)
    rows = np.vstack(
        (
            np.hstack((design, zero, -goal[:, :1] * design)),
            np.hstack((zero, design, -goal[:, 1:] * design)),
        )
    )
    # The third number of the parallax: kept near 0 where the points say nothing of it.
    rows = np.vstack((rows, np.eye(12)[11] * 1e-3))
    left, right = np.delete(rows, 10, axis=1), -rows[:, 10]
    found, _, rank, _ = np.linalg.lstsq(left, right, rcond=1e-9)
    if rank < 11 or not np.isfinite(found).all():
        return None
    return np.insert(found, 10, 1.0).reshape(3, 4)


def _consensus(design: Points, goal: Points, errors: object, threshold_px: float) -> Matrix3 | None:
    """Return the camera of the largest set of points that agree, of six points or of all (RANSAC)."""
    assert callable(errors)
    random = np.random.default_rng(0)
    best, most = None, MIN_POINTS - 1
    for turn in range(TRIES):
        chosen = np.arange(len(design)) if turn == 0 else random.choice(len(design), 6, replace=False)
        camera = _linear(design[chosen], goal[chosen])
        if camera is None:
            continue
        agreeing = int((errors(camera) <= threshold_px).sum())
        if agreeing > most:
            best, most = camera, agreeing
        if most == len(design):
            break
    return best


def _prior() -> npt.NDArray[np.float64]:
    weight = np.zeros((11, 11))
    weight[10, 10] = 1 / FORWARD_M**2
    return weight


def _linearised(camera: Matrix3, design: Points, goal: Points, scale: Vector) -> tuple[Matrix3, Vector]:
    """Jacobian (2 n, 11) and residuals (2 n,) in visible px, by the elements of P without the 1."""
    mapped = design @ camera.T
    depth = mapped[:, 2:]
    at = mapped[:, :2] / depth
    zero = np.zeros_like(design)
    rows = [np.hstack((design, zero, -at[:, :1] * design)), np.hstack((zero, design, -at[:, 1:] * design))]
    jacobian = np.vstack([row / depth / scale[axis] for axis, row in enumerate(rows)])
    residual = ((at - goal) / scale).T.ravel()
    return np.delete(jacobian, 10, axis=1), residual


def _refine(camera: Matrix3, design: Points, goal: Points, scale: Vector) -> Matrix3 | None:
    """Minimise the distances in the picture, with `FORWARD_M` as a prior."""
    damping = 1e-3
    prior = _prior() * 0.25  # the errors of points are taken as half a pixel
    free = np.delete(np.arange(12), 10)

    def cost(candidate: Matrix3) -> float:
        offsets = _offsets(candidate, design, goal) / scale
        behind = 1e9 * float(np.isnan(offsets).any())
        return float(np.nansum(np.square(offsets))) + behind + float(prior[10, 10] * candidate[2, 3] ** 2)

    now = cost(camera)
    for _ in range(ROUNDS):
        jacobian, residual = _linearised(camera, design, goal, scale)
        normal = jacobian.T @ jacobian + prior
        gradient = jacobian.T @ residual
        gradient[10] += prior[10, 10] * camera[2, 3]
        step = np.linalg.lstsq(normal + damping * np.diag(np.diag(normal)), -gradient, rcond=None)[0]
        moved = camera.ravel().copy()
        moved[free] += step
        candidate = moved.reshape(3, 4)
        then = cost(candidate)
        if then < now:
            done = now - then < 1e-9 * now
            camera, now, damping = candidate, then, damping / 10
            if done:
                break
        else:
            damping *= 10
    return camera if np.isfinite(camera).all() else None


def _largest_error(camera: Matrix3, covariance: Matrix3, at: Points, scale: Vector) -> float:
    worst = 0.0
    for inverse_m in (0.0, 0.5 / NEAREST_M, 1 / NEAREST_M):
        design = np.column_stack((at, np.ones(len(at)), np.full(len(at), inverse_m)))
        jacobian, _ = _linearised(camera, design, np.zeros((len(at), 2)), scale)
        for corner in range(len(at)):
            rows = jacobian[[corner, corner + len(at)]]
            worst = max(worst, float(np.sqrt(max(np.trace(rows @ covariance @ rows.T), 0))))
    return worst
