"""Use of temperatures in a run: figures in the picture, colours of warm things, alarms."""

from __future__ import annotations

import logging
import urllib.request
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import SMALL, streamfuse
from media import every, read_video, write_video
from test_publish import sink
from thermal_files import warm_spot, write_infiray
from web import Run, picture, serving

from streamfuse import Subscriber
from streamfuse.color import Chroma
from streamfuse.errors import UsageError
from streamfuse.frames import FusedFrame
from streamfuse.temperature import NONE, OVER, Scale, TemperaturePlane
from streamfuse.thermometry.finish import ThermalFinish
from streamfuse.thermometry.palette import PALETTES

SIZE = (96, 128)


def frame(celsius: float = 60.0, *, index: int = 0, colour: str = "420", warm: bool = True) -> FusedFrame:
    """Grey 100 in a colour of its own; 20 to 22 degC, a spot at (40.5, 50.5), the upper rows without temperature."""
    values = np.rint((warm_spot(SIZE, 40, 50, celsius) + 273.15) * 64).astype(np.uint16)
    values[:8] = NONE
    rows, columns = {"420": (48, 64), "422": (96, 64), "444": (96, 128), "grey": (0, 0)}[colour]
    chroma = Chroma(np.full((rows, columns), 90, np.uint8), np.full((rows, columns), 150, np.uint8))
    return replace(
        picture(index, size=SIZE, luma=np.full(SIZE, 100, np.uint8)),
        chroma=None if colour == "grey" else chroma,
        time_ns=index * 40_000_000,
        temperature=TemperaturePlane(values, Scale(1 / 64)) if warm else None,
    )


# The overlay.


def test_spots_are_drawn_where_they_are_and_nothing_else_changes() -> None:
    before = frame()
    after = ThermalFinish(overlay=["spots"])(before)
    changed = np.array(np.nonzero(after.luma != 100))
    assert changed.size
    rows, columns = changed
    ring = (abs(rows - 38) <= 7) & (abs(columns - 48) <= 7)  # the first of the hottest pixels
    assert ring.any()
    assert after.luma.max() == 255
    assert np.all(before.luma == 100)  # frames are shared
    assert after.chroma is not None
    assert after.chroma.u[19, 21] == 128  # on the ring: no colour
    assert after.chroma.u[47, 10] == 90
    assert np.all(after.infrared == before.infrared)


def flat(celsius: float, size: tuple[int, int] = (480, 640), hot: tuple[int, int] = (240, 320)) -> FusedFrame:
    """Grey 100 and one temperature, but for one pixel that is a tenth warmer."""
    values = np.full(size, round((celsius + 273.15) * 100), np.uint16)
    values[hot] += 10
    grey = np.full(size, 100, np.uint8)
    return replace(picture(0, size=size, luma=grey), chroma=None, temperature=TemperaturePlane(values, Scale(0.01)))


def test_figures_may_be_in_fahrenheit() -> None:
    """68 degF is written as 68 degC is, but for the letter."""
    overlay = ["area:100,200,300,150"]
    shown = [ThermalFinish(overlay=overlay, unit=unit)(flat(c)).luma for unit, c in (("F", 20.0), ("C", 68.0))]
    left = np.nonzero((shown[0] != 100).any(axis=0))[0]
    differs = np.nonzero((shown[0] != shown[1]).any(axis=0))[0]
    assert left.min() < 105
    assert differs.size
    assert differs.max() - differs.min() < 60  # the mean or the hottest: 68.0 and 68.2, and the letter
    done = streamfuse("run", "--ir", "synthetic:ir", "--vis", "synthetic:vis", "--degrees", "F")
    assert done.returncode == 2
    assert "--degrees is the unit of --overlay" in done.stderr


@pytest.mark.parametrize("size", [(120, 160), (480, 640), (720, 1280)])
def test_no_label_leaves_the_picture(size: tuple[int, int]) -> None:
    """A label has as many white pixels as in the middle, wherever the spot and the area lie."""
    height, width = size

    def white(overlay: str, hot: tuple[int, int] = (height // 2, width // 2)) -> int:
        frame = flat(20, size, hot)
        assert frame.temperature is not None
        frame.temperature.values[0, 0] = NONE  # the coldest is another
        luma = ThermalFinish(overlay=[overlay])(frame).luma
        return int((luma == 255).sum())

    tall, wide = 20, 40
    middle = white(f"area:{width // 3},{height // 3},{wide},{tall}")
    for x in (0, width - wide):
        for y in (0, height - tall):
            assert abs(white(f"area:{x},{y},{wide},{tall}") - middle) < 0.15 * middle, (x, y)
    text = white("spots")
    for row in (0, height - 1):
        for column in (1, width - 1):
            assert white("spots", (row, column)) > 0.8 * text, (row, column)  # of the ring a quarter is there


def test_area_and_scale_are_drawn_at_their_places() -> None:
    after = ThermalFinish(overlay=["area:60,20,30,25"])(frame())
    assert np.all(after.luma[20, 60:90] == 255)
    assert np.all(after.luma[20:45, 89] == 255)
    assert np.all(after.luma[50:, :] == 100)
    scale = ThermalFinish(overlay=["scale"])(frame()).luma
    bar = scale[19:77, 122]
    coloured = ThermalFinish(overlay=["scale"])(frame()).chroma
    assert coloured is not None
    assert np.all(coloured.u[10:38, 61] == 128)
    assert bar[1] > 240
    assert bar[-2] < 15
    assert np.all(np.diff(bar[1:-1].astype(int)) <= 0)
    outside = ThermalFinish(overlay=["area:500,500,10,10"])(frame())
    assert outside.luma.shape == SIZE


def test_a_frame_without_temperatures_is_unchanged_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    finish = ThermalFinish(overlay=["spots"], alarms=["max > 30C"])
    for index in range(3):
        cold = frame(index=index, warm=False)
        assert finish(cold).luma is cold.luma
    assert sum("has no temperatures" in record.getMessage() for record in caplog.records) == 1


# The palette.


@pytest.mark.parametrize("colour", ["420", "422", "444", "grey"])
def test_only_warm_things_are_coloured_and_the_luma_stays(colour: str) -> None:
    before = frame(colour=colour)
    after = ThermalFinish(palette="iron", palette_from="30C..80C")(before)
    assert after.luma is before.luma
    assert after.chroma is not None
    sy, sx = (full // side for full, side in zip(SIZE, after.chroma.u.shape, strict=True))
    cold = 128 if colour == "grey" else 90
    assert after.chroma.u[70 // sy, 20 // sx] == after.chroma.u[0, 0] == cold
    assert after.chroma.v[40 // sy, 50 // sx] > 170  # orange
    assert after.chroma.u[40 // sy, 50 // sx] < 115


def test_colours_of_limited_and_full_range_are_the_same_to_the_eye() -> None:
    shown = []
    for full in (False, True):
        before = frame(colour="444")
        assert before.chroma is not None
        chroma = Chroma(before.chroma.u, before.chroma.v, full_range=full)
        after = ThermalFinish(palette="rainbow", palette_from="30C..60C")(replace(before, chroma=chroma))
        shown.append(after.to_bgr()[40, 50].astype(int))
    assert np.abs(shown[0] - shown[1]).max() <= 4
    assert shown[0][2] > shown[0][0] + 50  # the end of the rainbow is red


def test_every_palette_ends_above_its_span_and_begins_softly() -> None:
    for name in PALETTES:
        finish = ThermalFinish(palette=name, palette_from="30C")
        hot, at_limit = finish(frame(400.0)), finish(frame(29.9))
        assert at_limit.chroma is not None
        assert at_limit.chroma.u[20, 25] == 90
        over = frame()
        assert over.temperature is not None
        over.temperature.values[40, 50] = OVER
        same = finish(over)
        assert hot.chroma is not None
        assert same.chroma is not None
        assert hot.chroma.u[20, 25] == same.chroma.u[20, 25]


# Alarms.


def test_alarm_is_raised_after_its_time_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    finish = ThermalFinish(alarms=["max > 60C for 100ms", "min < 0C"])
    caplog.set_level(logging.INFO, "streamfuse")
    active = [finish(frame(celsius, index=k)).alarms for k, celsius in enumerate([61, 61, 50, 61, 61, 61, 62, 59])]
    name = "max > 60C for 100ms"
    assert active == [(), (), (), (), (), (), (name,), ()]
    assert finish.raised == {name: 1, "min < 0C": 0}
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"alarm {name}: 62.0 degC at x 48, y 38", f"alarm {name} is over: 59.0 degC"]


def test_frames_without_temperatures_neither_raise_nor_end_an_alarm() -> None:
    finish = ThermalFinish(alarms=["mean > 20C"])
    assert finish(frame()).alarms == ("mean > 20C",)
    assert finish(frame(index=1, warm=False)).alarms == ("mean > 20C",)
    assert finish.raised["mean > 20C"] == 1


def test_alarm_is_in_the_header_the_status_and_the_metrics() -> None:
    finish = ThermalFinish(alarms=["max > 50C"])
    shown = finish(frame())
    with sink() as out:
        out.write(shown)
        with Subscriber(out.address) as subscriber:
            received = subscriber.latest()
    assert received.header.alarms == received.to_fused().alarms == ("max > 50C",)
    run = Run()
    run.summary = replace(run.summary, alarms=dict(finish.raised))
    with serving(run=run) as preview:
        preview.write(shown)
        with urllib.request.urlopen(f"http://127.0.0.1:{preview.port}/metrics", timeout=20) as answer:
            assert 'streamfuse_alarms_total{alarm="max > 50C"} 1.0' in answer.read().decode()
        with urllib.request.urlopen(f"http://127.0.0.1:{preview.port}/status", timeout=20) as answer:
            assert b'"alarms": ["max > 50C"]' in answer.read()


# The command line.


@pytest.mark.parametrize(
    "options",
    [
        ["--overlay", "spot"],
        ["--overlay", "area:1,2,3"],
        ["--overlay", "area:1,2,0,4"],
        ["--palette", "blue"],
        ["--palette", "iron", "--palette-from", "warm"],
        ["--palette", "iron", "--palette-from", "50C..20C"],
        ["--palette-from", "50C"],
        ["--alarm", "hot"],
        ["--alarm", "max > 60"],
        ["--alarm", "max > 60C for long"],
    ],
)
def test_wrong_values_are_refused(options: list[str]) -> None:
    done = streamfuse("run", "--ir", "a.mp4", "--vis", "b.mp4", *options)
    assert done.returncode == 2
    assert done.stderr.count("\n") <= 3
    assert options[0] in done.stderr or options[-2] in done.stderr or "palette" in done.stderr


def test_a_span_without_temperatures_is_said(tmp_path: Path) -> None:
    pair = [write_video(tmp_path / f"{name}.mp4", every(40, 3)) for name in ("ir", "vis")]
    done = streamfuse(
        *("run", "--ir", pair[0], "--vis", pair[1], "-o", tmp_path / "a.mp4", "--agc", "temperature:10C..40C"), *SMALL
    )
    assert done.returncode == 0, done.stderr
    assert "the infrared stream has no temperatures, which --agc temperature" in done.stderr


def test_too_many_alarms_are_refused() -> None:
    with pytest.raises(UsageError, match="at most 32"):
        ThermalFinish(alarms=[f"max > {k}C" for k in range(33)])


def test_run_burns_temperatures_into_the_video(tmp_path: Path) -> None:
    """A stand-in for an InfiRay P2 Pro: a file of its frames."""
    ir = write_infiray(tmp_path / "p2.nut", [warm_spot((192, 256), 40, 100, 60.0)] * 3)
    vis = write_video(tmp_path / "vis.mp4", every(40, 3), size=(192, 256))
    lumas = {}
    for name, more in (("plain", ()), ("drawn", ("--overlay", "spots", "--palette", "iron", "--alarm", "max > 50C"))):
        output = tmp_path / f"{name}.mkv"
        command = ("run", "--ir", f"{ir}?temperature=kelvin/64", "--vis", vis, "-o", output, "--codec", "ffv1")
        done = streamfuse(*command, *more, *SMALL)
        assert done.returncode == 0, done.stderr
        lumas[name] = read_video(output)[1][0].astype(int)
    assert "alarm max > 50C: 60.0 degC at x 98, y 38" in done.stderr
    rows, columns = np.nonzero(abs(lumas["drawn"] - lumas["plain"]) > 60)
    near = (abs(rows - 38) < 12) & (abs(columns - 98) < 60)
    assert near.any()
    assert cv2.countNonZero(near.astype(np.uint8)) > 50
