"""Calibration from points marked by hand in both pictures: a CSV file of ir_x,ir_y,vis_x,vis_y[,distance_m]."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from streamfuse.calibration import parallax
from streamfuse.calibration.fit import MIN_POINTS, fit_homography
from streamfuse.calibration.geometry import Size
from streamfuse.calibration.outcome import Outcome, make_calibration
from streamfuse.calibration.parallax import fit_parallax, largest_allowed_px, sure_to, too_alike
from streamfuse.errors import InputError
from streamfuse.frames import Role

HEADER = ["ir_x", "ir_y", "vis_x", "vis_y"]
DISTANCE = "distance_m"
"""Optional fifth column: a number, or far."""
TOLERANCE = 0.005
"""Inlier threshold as a share of the visible picture's longer side, 3.2 px of 640: the accuracy of marking by hand."""
MIN_DISTANCE_M = 0.01
MIN_TOLERANCE_PX = 2.0
"""Smallest inlier threshold."""


def calibrate_points(
    path: Path, ir_size: Size, vis_size: Size, *, distance_m: float | None = None, name: str | None = None
) -> Outcome:
    """Calibrate from a file of points; where they have distances that differ, the parallax is found too.

    `ir_size`, `vis_size`: (height, width) of the pictures, px.  `name`: the method noted in the calibration.  Raises
    InputError, which names the line, for a line that is not a point, and where the points fit no homography.
    """
    lines, table = read_points(path, ir_size, vis_size)
    source, target = table[:, :2], table[:, 2:4]
    threshold = max(MIN_TOLERANCE_PX, TOLERANCE * max(vis_size))
    if table.shape[1] == 5:
        if np.ptp(table[:, 4]) > 0:
            return _at_distances(path, lines, table, threshold, (ir_size, vis_size), distance_m, name or "points")
        distance_m = distance_m or float(table[0, 4])
    fit = fit_homography(source, target, threshold)
    if fit is None:
        raise InputError(
            f"{path}: no {MIN_POINTS} points fit a common alignment to {threshold:.1f} px; "
            "mark corners that are far apart, not on one line, and at about the same distance"
        )
    warnings = []
    used = int(fit.inliers.sum())
    if used == MIN_POINTS:
        warnings.append(f"{used} points always fit exactly, so the error is unknown: mark 8 or more to estimate it")
    elif used < 2 * MIN_POINTS:
        warnings.append(f"{used} points give only a rough estimate of the error: mark 8 or more")
    details = [f"{used} of {len(table)} points agree"]
    for index in np.flatnonzero(~fit.inliers):
        error = fit.residuals[index]
        details.append(f"line {lines[index]} is left out: it is {error:.1f} px off the alignment of the others")
    calibration = make_calibration(
        fit.homography, ir_size, vis_size, name or "points", rms_px=fit.rms_px, distance_m=distance_m
    )
    return Outcome(calibration, details, warnings)


def _at_distances(
    path: Path,
    lines: list[int],
    table: np.ndarray,
    threshold: float,
    sizes: tuple[Size, Size],
    distance_m: float | None,
    name: str,
) -> Outcome:
    ir_size, vis_size = sizes
    fit = fit_parallax(table[:, :2], table[:, 2:4], 1 / table[:, 4], threshold, sizes)
    if fit is None:
        raise InputError(
            f"{path}: no {parallax.MIN_POINTS} points fit a common alignment to {threshold:.1f} px; mark corners that "
            "are far apart, not on one line, and check their distances"
        )
    if fit.error_px > largest_allowed_px(vis_size):
        raise InputError(f"{path}: {too_alike(fit, 1 / table[fit.inliers, 4], 'points')}, or leave the distances out")
    details = [f"{int(fit.inliers.sum())} of {len(table)} points agree"]
    for index in np.flatnonzero(~fit.inliers):
        error = fit.residuals[index]
        details.append(f"line {lines[index]} is left out: it is {error:.1f} px off the alignment of the others")
    details.append(sure_to(fit))
    calibration = make_calibration(
        fit.homography,
        ir_size,
        vis_size,
        name,
        rms_px=fit.rms_px,
        distance_m=distance_m,
        parallax=fit.parallax,
        parallax_sd=fit.shift_sd,
    )
    return Outcome(calibration, details)


def read_points(path: Path, ir_size: Size, vis_size: Size) -> tuple[list[int], np.ndarray]:
    """Read line numbers and (n, 4) float64 points inside the pictures, (n, 5) with distances; raises InputError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file: expected lines of {','.join(HEADER)}") from None
    lines: list[int] = []
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = [word.strip() for word in line.partition("#")[0].split(",")]
        if words == [""] or (not rows and [word.lower() for word in words] in (HEADER, [*HEADER, DISTANCE])):
            continue
        rows.append(_parse(f"{path}, line {number}", words, ir_size, vis_size))
        if len(rows[-1]) != len(rows[0]):
            raise InputError(f"{path}, line {number}: give a distance for every point, or for none")
        lines.append(number)
    if len(rows) < MIN_POINTS:
        raise InputError(f"{path} has {len(rows)} points: give at least {MIN_POINTS}, better 8 or more")
    return lines, np.array(rows, np.float64)


def _parse(where: str, words: list[str], ir_size: Size, vis_size: Size) -> list[float]:
    expected = f"{where}: expected four numbers {','.join(HEADER)}, or five with {DISTANCE}, got {','.join(words)!r}"
    if len(words) == 5 and words[4].lower() == "far":
        words = [*words[:4], "inf"]
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise InputError(expected) from None
    if len(values) not in (4, 5) or not all(map(math.isfinite, values[:4])):
        raise InputError(expected)
    if len(values) == 5 and not values[4] >= MIN_DISTANCE_M:
        raise InputError(f"{where}: the distance must be {MIN_DISTANCE_M:g} m or more, or far, not {words[4]}")
    for role, (x, y), (height, width) in ((Role.IR, values[:2], ir_size), (Role.VIS, values[2:4], vis_size)):
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise InputError(f"{where}: ({x:g}, {y:g}) is outside the {role.label} picture of {width}x{height}")
    return values
