"""The calibration that a thermal camera stores in its own files."""

from __future__ import annotations

from datetime import UTC, datetime

from streamfuse.calibration.model import Calibration, check_solution
from streamfuse.errors import InputError
from streamfuse.sources.base import Placement


def stored_calibration(placement: Placement, name: str) -> Calibration:
    """Return the calibration for the pictures of a file; raises InputError, with `name`, for an impossible geometry."""
    try:
        check_solution(placement.homography, placement.ir_size, placement.vis_size)
        return Calibration(
            placement.ir_size,
            placement.vis_size,
            placement.homography,
            None,
            None,
            datetime.now(UTC).date(),
            "geometry stored by the camera",
        )
    except (InputError, ValueError) as error:
        raise InputError(f"{name}: the geometry in the file is impossible ({error}): give --calib") from None
