"""From points that a person has marked in both pictures: a CSV file of ir_x,ir_y,vis_x,vis_y."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from streamfuse.calibration.fit import LEAST_POINTS, fit_homography
from streamfuse.calibration.geometry import Size
from streamfuse.calibration.outcome import Outcome, conclude
from streamfuse.errors import InputError

HEADER = ["ir_x", "ir_y", "vis_x", "vis_y"]
TOLERANCE = 0.005
"""Of the visible picture's longer side, 3.2 px of 640: as exact as a person marks the same thing in both pictures."""
LEAST_TOLERANCE_PX = 2.0


def calibrate_points(
    path: Path, ir_size: Size, vis_size: Size, *, distance_m: float | None = None, name: str | None = None
) -> Outcome:
    """Raises InputError, which names the line, for what is no point, and where the points fit no homography."""
    lines, table = read_points(path, ir_size, vis_size)
    source, target = table[:, :2], table[:, 2:]
    threshold = max(LEAST_TOLERANCE_PX, TOLERANCE * max(vis_size))
    fit = fit_homography(source, target, threshold)
    if fit is None:
        raise InputError(
            f"{path}: no {LEAST_POINTS} points fit one alignment to {threshold:.1f} px; "
            "mark corners that are far apart, not on one line, and at about the same distance"
        )
    warnings = []
    used = int(fit.inliers.sum())
    if used == LEAST_POINTS:
        warnings.append(
            f"{used} points determine the alignment exactly and prove nothing: mark 8 or more to know its error"
        )
    elif used < 2 * LEAST_POINTS:
        warnings.append(f"with {used} points the error is known roughly: 8 or more tell it better")
    details = [f"{used} of {len(table)} points agree"]
    for index in np.flatnonzero(~fit.inliers):
        apart = fit.residuals[index]
        details.append(f"line {lines[index]} is left out: it is {apart:.1f} px from where the others say")
    calibration = conclude(
        fit.homography, ir_size, vis_size, name or "points", rms_px=fit.rms_px, distance_m=distance_m
    )
    return Outcome(calibration, details, warnings)


def read_points(path: Path, ir_size: Size, vis_size: Size) -> tuple[list[int], np.ndarray]:
    """Line numbers and (n, 4) float64 points inside of the pictures."""
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
        if words == [""] or (not rows and [word.lower() for word in words] == HEADER):
            continue
        rows.append(_parse(f"{path}, line {number}", words, ir_size, vis_size))
        lines.append(number)
    if len(rows) < LEAST_POINTS:
        raise InputError(f"{path} has {len(rows)} points: at least {LEAST_POINTS} are needed, 8 or more are better")
    return lines, np.array(rows, np.float64)


def _parse(place: str, words: list[str], ir_size: Size, vis_size: Size) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise InputError(f"{place}: expected four numbers {','.join(HEADER)}, got {','.join(words)!r}") from None
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise InputError(f"{place}: expected four numbers {','.join(HEADER)}, got {','.join(words)!r}")
    for role, (x, y), (height, width) in (("infrared", values[:2], ir_size), ("visible", values[2:], vis_size)):
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise InputError(f"{place}: ({x:g}, {y:g}) is outside of the {role} picture of {width}x{height}")
    return values
