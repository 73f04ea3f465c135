"""Facts about a run that some outputs keep beside its frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class About:
    """Facts about a run."""

    epoch_ns: int | None = None
    """Time of the frames' time 0, ns since 1970; None: not known."""
    calibration: str | None = None
    """Text of the calibration file; None: there is none."""
    sequence: Path | None = None
    """The VOT sequence that is fused, whose annotations hold for the frames; None: another source."""


NOTHING = About()
