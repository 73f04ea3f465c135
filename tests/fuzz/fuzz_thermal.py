"""Targets for the files of thermal cameras."""

from __future__ import annotations

from functools import partial

import numpy as np
from fuzz_target import Target, file
from test_hostile_text import none_if_refused
from thermal_files import Container, counts_of, dji_jpeg, infiray_frame, lepton_frame, warm_spot

from streamfuse.sources.options import LAYOUTS, SourceOptions
from streamfuse.sources.pixels import PixelReader
from streamfuse.sources.thermal.address import split_thermal
from streamfuse.sources.thermal.degrees import parse_degrees
from streamfuse.sources.thermal.layouts import Telemetry
from streamfuse.sources.thermal.radiometric import read_radiometric
from streamfuse.sources.thermal.recording import FlirRecording
from streamfuse.thermometry.finish import ThermalFinish

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


def stream(data: bytes) -> object:
    """Read a frame of 16 bits a pixel; the first bytes choose its layout and its size."""
    if len(data) < 4:
        return None
    layout = LAYOUTS[data[0] % len(LAYOUTS)]
    width, body = data[1] + 1, data[2:]
    height = len(body) // 2 // width
    if height < 1:
        return None
    frame = np.frombuffer(body, "<u2", height * width).reshape(height, width).astype(np.uint16)
    reader = PixelReader(SourceOptions(layout=layout, temperature="lepton"))
    return none_if_refused(lambda: reader.read_image(frame, 0))


def degrees(data: bytes) -> object:
    text = data.decode("utf-8", "replace")
    none_if_refused(lambda: split_thermal(text, SourceOptions()))
    for options in ({"overlay": [text]}, {"palette": "iron", "palette_from": text}, {"alarms": [text]}):
        none_if_refused(partial(ThermalFinish, **options))
    found = none_if_refused(lambda: parse_degrees(text))
    return found and found(np.arange(9, dtype=np.uint16).reshape(3, 3), Telemetry(step_k=0.1))


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
    "thermal-stream": Target(
        stream,
        tuple(
            bytes((LAYOUTS.index(layout), frame.shape[1] - 1)) + frame.astype("<u2").tobytes()
            for layout, frame in (
                ("lepton", lepton_frame(warm_spot((120, 160)))),
                ("auto", lepton_frame(warm_spot((60, 80)), above=True)),
                ("infiray", infiray_frame(warm_spot((120, 160)), "between")),
                ("seek", np.full((156, 208), 3, np.uint16)),
            )
        ),
        (b"\0\0" + bytes(40),),
    ),
    "degrees": Target(
        degrees,
        (
            b"kelvin/64",
            b"celsius/10-100",
            b"lepton",
            b"area:1,2,3,4",
            b"30C..80.5F",
            b"max > 60C for 2s",
            b"planck:17000,0.01,1440,1,-2000,0.95,1,20,20,0.5",
            b"cam0?size=256x384&layout=infiray&temperature=kelvin/64",
        ),
    ),
    "flir-recording": Target(recording, (_PAIR.fff() + Container(_RAW, stamp_ms=1_600_000_000_040).fff(),)),
}
