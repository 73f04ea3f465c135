"""Infrared and visible pictures that thermal cameras store together: in one file, or in files named alike.

DJI's drones write `DJI_..._0001_T.JPG` beside `..._W.JPG` (wide), `_V.JPG` or `_Z.JPG` (zoom); the H20 series writes
`_THRM`, `_WIDE` and `_ZOOM`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamfuse.errors import InputError
from streamfuse.sources.base import Placement
from streamfuse.sources.limits import MAX_PIXELS
from streamfuse.sources.thermal.radiometric import Radiometric, read_radiometric

THERMAL = ("T", "THRM")
VISIBLE = ("W", "WIDE", "V", "Z", "ZOOM")
"""Endings of visible pictures beside a thermal one, the preferred first: the widest angle of view."""
_NAME = re.compile(r"(?P<before>.*_(?P<number>\d{4}))_(?P<role>[A-Z]{1,4})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StoredPair:
    """An infrared picture and its visible one."""

    ir: Path
    vis: Path | None
    """None: the visible picture is embedded in `ir`."""


def stored_pairs(text: str, files: Sequence[Path]) -> list[StoredPair]:
    """Pair files that are stored together; files without a partner by name are taken to hold both pictures.

    `text`: the name of the list, for messages.  Raises InputError where thermal pictures have no visible one.
    """
    thermal = [file for file in files if _role(file) in THERMAL]
    if not thermal:
        return [StoredPair(file, None) for file in files]
    pairs = [StoredPair(file, found) for file in thermal if (found := partner(file)) is not None]
    if not pairs:
        raise InputError(f"{text}: there is no visible picture beside {thermal[0].name}: {_expected(thermal[0])}")
    return pairs


def partner(thermal: Path) -> Path | None:
    """Return the visible picture beside a thermal one, or None.

    It has the same name but for the ending or, as the time in the name may differ by a second, the same number.
    """
    name = _NAME.fullmatch(thermal.stem)
    if name is None or name["role"].upper() not in THERMAL:
        return None
    near: dict[str, list[Path]] = {}
    for file in sorted(thermal.parent.iterdir()):
        other = _NAME.fullmatch(file.stem)
        if other is None or file.suffix.lower() != thermal.suffix.lower():
            continue
        role = other["role"].upper()
        if role in VISIBLE and other["number"] == name["number"]:
            if other["before"].upper() == name["before"].upper():
                near[role] = [file]
            else:
                near.setdefault(role, []).append(file)
    return next((near[role][0] for role in VISIBLE if len(near.get(role, ())) == 1), None)


def _role(file: Path) -> str:
    name = _NAME.fullmatch(file.stem)
    return name["role"].upper() if name is not None else ""


def _expected(thermal: Path) -> str:
    stem = thermal.stem[: thermal.stem.rindex("_")]
    return f"{stem}_W{thermal.suffix}, {stem}_V{thermal.suffix} or {stem}_Z{thermal.suffix} is needed"


def read_stored(path: Path, max_pixels: int = MAX_PIXELS) -> Radiometric:
    """Read a radiometric image with its embedded visible picture; raises InputError where either is missing."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    found = read_radiometric(data, str(path), max_pixels)
    if found is None:
        raise InputError(f"{path} holds no raw values of a thermal camera: give the visible picture as well")
    if found.visible is None:
        raise InputError(f"{path} holds no visible picture, only infrared: give the visible picture as well")
    return found


def placement(found: Radiometric) -> Placement | None:
    """Return the position of the infrared in the embedded visible picture; None where the file does not tell it."""
    if found.geometry is None or found.visible is None:
        return None
    ir, vis = found.raw.shape, (found.visible.shape[0], found.visible.shape[1])
    return Placement(found.geometry.homography(ir, vis), ir, vis)
