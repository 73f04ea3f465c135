"""Targets for the files of thermal cameras."""

from __future__ import annotations

import numpy as np
from fuzz_target import Target, file
from test_hostile_text import none_if_refused
from thermal_files import Container, counts_of, dji_jpeg, warm_spot

from streamfuse.sources.thermal.radiometric import read_radiometric
from streamfuse.sources.thermal.recording import FlirRecording

MOST = 1 << 20


def radiometric(data: bytes) -> object:
    found = none_if_refused(lambda: read_radiometric(data, "a", MOST))
    if found is not None:
        assert found.describe()
        assert found.raw.size <= MOST
        assert found.temperature is None or found.temperature.values.shape == found.raw.shape
    return found


def recording(data: bytes) -> object:
    source = none_if_refused(lambda: FlirRecording(file(data, "a.seq")))
    if source is None:
        return None
    with source:
        return none_if_refused(lambda: list(source))


_RAW = counts_of(warm_spot((20, 24), 8, 8))
_VISIBLE = np.full((24, 32, 3), 90, np.uint8)
_PAIR = Container(_RAW, visible=_VISIBLE, geometry=(1.5, 2, -3), form="png")

TARGETS = {
    "radiometric": Target(
        radiometric,
        (
            _PAIR.jpeg(),
            _PAIR.fff(),
            Container(_RAW, order=">").fff(),
            dji_jpeg(np.zeros((120, 160), np.uint16)),
        ),
    ),
    "flir-recording": Target(recording, (_PAIR.fff() + Container(_RAW, stamp_ms=1_600_000_000_040).fff(),)),
}
