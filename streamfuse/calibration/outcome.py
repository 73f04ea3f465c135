"""The result of a calibration method."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, replace

import numpy as np

from streamfuse.calibration.geometry import Lens, Matrix3, Size
from streamfuse.calibration.model import Calibration, check_solution, normalized
from streamfuse.calibration.parallax import Vector
from streamfuse.color import Plane
from streamfuse.errors import InputError


@dataclass(frozen=True, eq=False)
class Outcome:
    """A calibration, its report and its warnings."""

    calibration: Calibration
    details: list[str] = field(default_factory=list)
    """Report lines: the data used and the quality of the fit."""
    warnings: list[str] = field(default_factory=list)
    """One line each."""
    pictures: tuple[Plane, Plane] | None = None
    """An infrared and a visible picture for the check picture."""
    distances_m: list[float] | None = None
    """Distance of most of each scene, m, infinity for far; None unless they were found."""


def make_calibration(
    homography: Matrix3,
    ir_size: Size,
    vis_size: Size,
    method: str,
    *,
    rms_px: float | None,
    distance_m: float | None,
    lenses: tuple[Lens | None, Lens | None] = (None, None),
    parallax: Vector | None = None,
    parallax_sd: Vector | None = None,
) -> Calibration:
    """Make a calibration with today's date; raises InputError where the homography is invalid.

    `parallax` is in the scale of `homography`, which is then that of far things; `parallax_sd` is as in the file.
    """
    last = homography[2, 2]
    homography = normalized(homography)
    check_solution(homography, ir_size, vis_size)
    rms_px = None if rms_px is None else round(rms_px, 4)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    made = Calibration(ir_size, vis_size, homography, rms_px, distance_m, today, method, *lenses)
    if parallax is None:
        return made
    try:
        return replace(made, parallax=parallax / last, parallax_sd=parallax_sd)
    except ValueError as error:
        raise InputError(f"the data fit no pair of cameras: {error}; check the input") from None


def describe_parallax(calibration: Calibration) -> str:
    """Describe the parallax and how sure it is, in one line; empty where there is none."""
    if calibration.parallax is None:
        return ""
    length = float(np.hypot(*calibration.shift_px_m))
    sure = ""
    if calibration.parallax_sd is not None:
        sure = f" ± {float(np.hypot(*calibration.parallax_sd)):.1f}"
    return f"{length:.1f}{sure} px m: {length / 10:.1f} px at 10 m, {length / 3:.1f} at 3 m"
