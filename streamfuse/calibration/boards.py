"""Calibration from pictures of a calibration board that both cameras see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from streamfuse.calibration.fit import Fit, fit_homography, least_squares
from streamfuse.calibration.geometry import Lens, Points, Size, project, residuals, rms
from streamfuse.calibration.outcome import Outcome, make_calibration
from streamfuse.calibration.parallax import (
    NEAREST_M,
    ParallaxFit,
    fit_parallax,
    largest_allowed_px,
    shift_of,
    sure_to,
    too_alike,
)
from streamfuse.calibration.placing import Placed, place_boards
from streamfuse.calibration.target import Board, find_board
from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.frames import Role
from streamfuse.sources.image_pairs import ImagePaths
from streamfuse.sources.limits import MAX_PIXELS
from streamfuse.sources.pixels import read_image_file

TOLERANCE_PX = 2.0
"""Inlier threshold at a picture width of 640; corners are found to a few tenths of a pixel, the rest is parallax."""
DISAGREE_PX = 1.5
"""Mean offset at a picture width of 640 above which a board was at another distance than the others."""
LENS_VIEWS = 8
"""Views needed to calibrate the lenses."""
LENS_FLAGS = cv2.CALIB_FIX_K3
"""The third radial term follows noise unless the boards fill the corners of the picture."""
MAX_LENS_RMS_PX = 1.0
"""Largest RMS error of a lens calibration at a picture width of 640."""
GRID = 3
"""Rows and columns of the grid on which the boards' coverage is checked."""
CELL_NAMES = (
    ("top left", "top", "top right"),
    ("left", "middle", "right"),
    ("bottom left", "bottom", "bottom right"),
)


@dataclass(frozen=True, eq=False)
class View:
    """A board found in both pictures of a pair; the points are in the same order."""

    name: str
    ir: Points
    vis: Points


def calibrate_boards(
    scenes: Sequence[ImagePaths],
    board: Board,
    *,
    lenses: bool = False,
    distance_m: float | None = None,
    fov_deg: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Outcome:
    """Calibrate from pairs of pictures that show the board.

    Where `board.square_mm` is given, the distance of each board follows from its size, and from boards at different
    distances the parallax.  `lenses`: calibrate the lens distortion too.  `fov_deg`: horizontal angle of view of the
    infrared camera, degrees; None: estimated from tilted boards.  `distance_m`: distance of the boards, or with
    parallax the distance to use unless another is asked for.

    Raises InputError where the board is found in both pictures of too few pairs (1 is needed, 8 for `lenses`), the
    sizes differ, or the boards fit no single alignment.
    """
    views, missing, sizes, pictures = _find(scenes, board, max_pixels)
    ir_size, vis_size = sizes
    needed = LENS_VIEWS if lenses else 1
    if len(views) < needed:
        raise InputError(
            f"the board of {board.columns}x{board.rows} was found in both pictures of {len(views)} of {len(scenes)} "
            f"pairs, and {needed} are needed; {'; '.join(missing[:3]) or 'give more pairs'}"
            " (--pattern counts inner corners, or circles, in a row and in a column)"
        )
    warnings = [f"no board: {text}" for text in missing]
    details = [f"board found in {len(views)} of {len(scenes)} pairs"]
    pair: tuple[Lens | None, Lens | None] = (None, None)
    if lenses:
        pair, more = _calibrate_lenses(views, board, ir_size, vis_size)
        details += more
    flat = [_undistort_view(view, *pair) for view in views]
    method = f"{board.kind} {board.columns}x{board.rows}, {len(views)} pairs" + (", lenses" if lenses else "")
    found: ParallaxFit | None = None
    if board.square_mm is not None:
        placed = place_boards([view.ir for view in flat], board, ir_size, pair[0], fov_deg)
        details += placed.details
        found = _fit_distances(flat, placed, (ir_size, vis_size), warnings)
        if found is None and distance_m is None:
            distance_m = round(float(np.median([1 / inverse_m.mean() for inverse_m in placed.inverse_m])), 3)
    if found is not None:
        details += ["residuals of each pair, px RMS:"]
        for view, errors in zip(flat, np.split(found.residuals, len(flat)), strict=True):
            details.append(f"  {view.name:<24} {rms(errors):6.2f}")
        details.append(sure_to(found))
        warnings += _coverage_warnings(views, ir_size)
        calibration = make_calibration(
            found.homography,
            ir_size,
            vis_size,
            method,
            rms_px=found.rms_px,
            distance_m=distance_m,
            lenses=pair,
            parallax=found.parallax,
            parallax_sd=found.shift_sd,
        )
        return Outcome(calibration, details, warnings, pictures)
    fit, scale = _fit(flat, vis_size)
    details.append("residuals of each pair, px RMS:")
    for view in flat:
        error = residuals(fit.homography, view.ir, view.vis)
        details.append(f"  {view.name:<24} {rms(error):6.2f}")
    warnings += _parallax_warnings(flat, fit, scale)
    warnings += _coverage_warnings(views, ir_size)
    calibration = make_calibration(
        fit.homography,
        ir_size,
        vis_size,
        method,
        rms_px=fit.rms_px,
        distance_m=distance_m,
        lenses=pair,
    )
    return Outcome(calibration, details, warnings, pictures)


def _fit_distances(
    views: Sequence[View], placed: Placed, sizes: tuple[Size, Size], warnings: list[str]
) -> ParallaxFit | None:
    """Fit the parallax; None, with a warning, where the boards do not tell it."""
    source, target = np.vstack([view.ir for view in views]), np.vstack([view.vis for view in views])
    inverse_m = np.concatenate(placed.inverse_m)
    threshold = TOLERANCE_PX * max(sizes[1][1] / 640, 1.0)
    found = fit_parallax(source, target, inverse_m, threshold, sizes)
    if found is None:
        warnings.append("the boards' distances fit no parallax: check --square-mm; calibrated for one distance only")
        return None
    # An error of the focal length is one of all distances alike, and so of the parallax.
    shift = shift_of(found.parallax, sizes[1])
    off = float(np.hypot(*shift)) * placed.focal_error / NEAREST_M
    if np.hypot(found.error_px, off) > largest_allowed_px(sizes[1]):
        if off > found.error_px:
            advice = (
                f"the focal length is known to {placed.focal_error:.0%} only: tilt the board more, or give --fov-deg"
            )
        else:
            advice = too_alike(found, inverse_m, "boards")
        warnings.append(f"{advice}; calibrated for one distance only")
        return None
    sd = np.hypot(found.shift_sd, shift * placed.focal_error)
    return replace(found, shift_sd=sd, error_px=float(np.hypot(found.error_px, off)))


Found = tuple[list[View], list[str], tuple[Size, Size], tuple[Plane, Plane] | None]


def _find(scenes: Sequence[ImagePaths], board: Board, max_pixels: int) -> Found:
    views, missing = [], []
    sizes: tuple[Size, Size] | None = None
    pictures = None
    for scene in scenes:
        ir, vis = (read_image_file(path, max_pixels)[0] for path in (scene.ir, scene.vis))
        now: tuple[Size, Size] = ((ir.shape[0], ir.shape[1]), (vis.shape[0], vis.shape[1]))
        sizes = sizes or now
        if now != sizes:
            raise InputError(f"{scene.ir} or {scene.vis} differs in size from the earlier pictures: use a single size")
        found = [find_board(plane, board) for plane in (ir, vis)]
        if found[0] is None or found[1] is None:
            where = [role.label for role, points in zip(Role, found, strict=True) if points is None]
            missing.append(f"{scene.name}, {' and '.join(where)}")
            continue
        views.append(View(scene.name, found[0][_upright_order(found[0], found[1], board)], found[1]))
        pictures = pictures or (ir, vis)
    assert sizes is not None  # pairing gives one scene or an error
    return views, missing, sizes, pictures


def _upright_order(ir: Points, vis: Points, board: Board) -> np.ndarray:
    """Return the order of the infrared points that rotates the picture least: both cameras are mounted upright.

    On an inverted board the first corner is at the other end.  Orders that fit much worse are ignored.
    """
    fits = []
    for order in board.orders():
        homography = least_squares(ir[order], vis)
        if homography is None:
            continue
        error = rms(residuals(homography, ir[order], vis))
        fits.append((error, abs(_rotation_angle(ir[order], vis)), order))
    if not fits:
        return board.orders()[0]
    best = min(error for error, _, _ in fits)
    return min((fit for fit in fits if fit[0] <= 3 * best + 0.5), key=lambda fit: fit[1])[2]


def _rotation_angle(source: Points, target: Points) -> float:
    """Rotation of the similarity between two point sets, radians."""
    a, b = ((points - points.mean(axis=0)) @ (1, 1j) for points in (source, target))
    return float(np.angle(np.vdot(a, b)))


def _undistort_view(view: View, ir_lens: Lens | None, vis_lens: Lens | None) -> View:
    """Remove the lens distortion from a view's points."""
    return View(
        view.name,
        view.ir if ir_lens is None else ir_lens.undistort(view.ir),
        view.vis if vis_lens is None else vis_lens.undistort(view.vis),
    )


def _fit(views: Sequence[View], vis_size: Size) -> tuple[Fit, float]:
    """Fit a homography to all views; also return the pixels per pixel of a picture 640 wide."""
    scale = max(vis_size[1] / 640, 1.0)
    source, target = np.vstack([view.ir for view in views]), np.vstack([view.vis for view in views])
    fit = fit_homography(source, target, TOLERANCE_PX * scale)
    if fit is None:
        raise InputError(
            "the boards fit no single alignment: hold them at the distance of the scene, far from the cameras"
        )
    return fit, scale


def _parallax_warnings(views: Sequence[View], fit: Fit, scale: float) -> list[str]:
    off = {view.name: np.mean(view.vis - project(fit.homography, view.ir), axis=0) for view in views}
    far = {name: float(np.hypot(*shift)) for name, shift in off.items() if np.hypot(*shift) > DISAGREE_PX * scale}
    if not far:
        return []
    listed = ", ".join(f"{name} by {shift:.1f} px" for name, shift in list(far.items())[:5])
    return [
        f"boards disagree: {listed}. They were at different distances (parallax): the alignment is valid at the "
        "distance of the others; leave these out, or take all at the distance of the scene"
    ]


def _coverage_warnings(views: Sequence[View], ir_size: Size) -> list[str]:
    seen = np.zeros((GRID, GRID), bool)
    for view in views:
        cells = (view.ir / np.array(ir_size[::-1]) * GRID).astype(int).clip(0, GRID - 1)
        seen[cells[:, 1], cells[:, 0]] = True
    empty = [CELL_NAMES[row][column] for row, column in np.argwhere(~seen)]
    if not empty:
        return []
    return [f"no board was at the {', '.join(empty)} of the infrared picture: the alignment is extrapolated there"]


def _calibrate_lenses(
    views: Sequence[View], board: Board, ir_size: Size, vis_size: Size
) -> tuple[tuple[Lens, Lens], list[str]]:
    """Calibrate each camera separately (Zhang, IEEE PAMI 22, 2000); return lenses and report lines.

    The pose between the cameras is not
    estimated: boards that fill a third of the picture determine the principal points to a few pixels only, which at
    4 m is as much as the cameras are apart.
    """
    solid = [board.points()] * len(views)
    found, details = [], []
    for role, size, points in (
        (Role.IR, ir_size, [view.ir for view in views]),
        (Role.VIS, vis_size, [view.vis for view in views]),
    ):
        flat = [corner.astype(np.float32).reshape(-1, 1, 2) for corner in points]
        error, matrix, distortion, _, _ = cv2.calibrateCamera(solid, flat, size[::-1], None, None, flags=LENS_FLAGS)
        if not error < MAX_LENS_RMS_PX * max(size[1] / 640, 1):
            raise InputError(
                f"the {role.label} lens cannot be calibrated from these boards: they fit to {error:.1f} px; "
                "tilt the board more from picture to picture, or leave out --lenses"
            )
        k = np.asarray(matrix, np.float64)
        found.append(Lens(k, np.asarray(distortion, np.float64).ravel()))
        details.append(f"{role.label} lens: f = {k[0, 0]:.0f} px, {error:.2f} px RMS")
    return (found[0], found[1]), details
