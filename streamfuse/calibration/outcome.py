"""The result of a calibration method."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from streamfuse.calibration.geometry import Lens, Matrix3, Size
from streamfuse.calibration.model import Calibration, check_solution, normalized
from streamfuse.color import Plane


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
    parallax_px_m: float | None = None
    """Parallax between a point at 1 m and one at infinity, px of the visible picture; at d metres it is this / d."""


def make_calibration(
    homography: Matrix3,
    ir_size: Size,
    vis_size: Size,
    method: str,
    *,
    rms_px: float | None,
    distance_m: float | None,
    lenses: tuple[Lens | None, Lens | None] = (None, None),
) -> Calibration:
    """Make a calibration with today's date; raises InputError where the homography is invalid."""
    homography = normalized(homography)
    check_solution(homography, ir_size, vis_size)
    rms_px = None if rms_px is None else round(rms_px, 4)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return Calibration(ir_size, vis_size, homography, rms_px, distance_m, today, method, *lenses)
