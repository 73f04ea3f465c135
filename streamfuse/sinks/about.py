"""Facts about a run that some outputs keep beside its frames."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class About:
    """Facts about a run."""

    epoch_ns: int | None = None
    """Time of the frames' time 0, ns since 1970; None: not known."""
    calibration: str | None = None
    """Text of the calibration file; None: there is none."""


NOTHING = About()
