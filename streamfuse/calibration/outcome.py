"""What a way of calibrating hands back."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from streamfuse.calibration.geometry import Lens, Matrix3, Size
from streamfuse.calibration.model import Calibration, check_solution, normalized
from streamfuse.color import Plane


@dataclass(frozen=True, eq=False)
class Outcome:
    """A calibration and what the user should know about it."""

    calibration: Calibration
    details: list[str] = field(default_factory=list)
    """Lines of a report: how it was found, what fits how well."""
    warnings: list[str] = field(default_factory=list)
    pictures: tuple[Plane, Plane] | None = None
    """An infrared and a visible picture to check it on."""
    parallax_px_m: float | None = None
    """Visible px that the alignment moves by for a point at 1 m against one at infinity; at d metres it is this / d."""


def conclude(
    homography: Matrix3,
    ir_size: Size,
    vis_size: Size,
    method: str,
    *,
    rms_px: float | None,
    distance_m: float | None,
    lenses: tuple[Lens | None, Lens | None] = (None, None),
) -> Calibration:
    """A calibration of today; raises InputError where the homography cannot be one."""
    homography = normalized(homography)
    check_solution(homography, ir_size, vis_size)
    rms_px = None if rms_px is None else round(rms_px, 4)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return Calibration(ir_size, vis_size, homography, rms_px, distance_m, today, method, *lenses)
