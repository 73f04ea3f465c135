"""Streams of thermal cameras: layouts, degrees from counts, telemetry, and temperatures through the warp."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import date
from itertools import islice
from pathlib import Path

import av
import bags
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from command_line import streamfuse
from media import PassThrough, write_images, write_video
from thermal_files import PLANCK, counts_of, infiray_frame, lepton_frame, warm_spot, write_infiray, write_y16

from streamfuse.alignment import Aligner
from streamfuse.calibration.model import Calibration
from streamfuse.errors import InputError, UsageError
from streamfuse.frames import Content
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sources import open_pair, open_source
from streamfuse.sources.address import Address
from streamfuse.sources.agc import SHUTTER
from streamfuse.sources.live import LiveSource
from streamfuse.sources.options import SourceOptions
from streamfuse.sources.pixels import PixelReader
from streamfuse.sources.thermal.address import split_thermal
from streamfuse.sources.thermal.degrees import parse_degrees
from streamfuse.sources.thermal.layouts import Layout, Telemetry, cut, guess
from streamfuse.temperature import NONE, OVER, Scale, TemperaturePlane

P2 = (192, 256)
"""(height, width) of the InfiRay P2 Pro."""


def hottest(plane: TemperaturePlane | None) -> tuple[int, int, float]:
    assert plane is not None
    extremes = plane.extremes()
    assert extremes is not None
    return extremes.hottest


# Layouts.


def test_stacked_frames_are_guessed_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_infiray(tmp_path / "p2.nut", [warm_spot(P2, 50, 90, 60.0)] * 3)
    with caplog.at_level(logging.INFO, "streamfuse"):
        frames = list(open_source(f"{path}?temperature=kelvin/64"))
    assert [frame.luma.shape for frame in frames] == [P2] * 3
    assert hottest(frames[0].temperature) == pytest.approx((48, 88, 60), abs=0.02)
    said = [record.getMessage() for record in caplog.records if "two pictures of a thermal camera" in record.message]
    assert len(said) == 1
    assert "256x384" in said[0]


def test_stacked_frames_of_a_live_source(tmp_path: Path) -> None:
    """The file stands in for the camera: LiveSource reads it as it reads V4L2."""
    path = write_infiray(tmp_path / "p2.nut", [warm_spot(P2, celsius=30.0 + k) for k in range(3)])
    _, options = split_thermal("cam0?size=256x384&temperature=kelvin/64", SourceOptions())
    source = LiveSource(Address(str(path), "cam0", "nut", clock_wait_s=0), options)
    temperatures = [hottest(frame.temperature)[2] for frame in islice(source, 3)]
    assert temperatures == pytest.approx([30, 31, 32], abs=0.02)
    source.close()


def test_a_colour_camera_of_another_size_stays_one(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.nut", [0, 40], codec="rawvideo", pixel_format="yuyv422", size=(96, 128))
    assert next(iter(open_source(str(path)))).chroma is not None
    path = write_infiray(tmp_path / "p2.nut", [warm_spot(P2)])
    whole = next(iter(open_source(f"{path}?layout=plain")))
    assert whole.luma.shape == (384, 256)
    assert whole.chroma is not None


@pytest.mark.parametrize("extra", ["", "below", "between"])
@pytest.mark.parametrize("size", [P2, (120, 160)])
def test_rows_beside_two_stacked_pictures_are_cut_off(extra: str, size: tuple[int, int]) -> None:
    celsius = warm_spot(size, 30, 40)
    frame = infiray_frame(celsius, extra)
    assert guess(*frame.shape, yuyv=True) is Layout.INFIRAY
    found = cut(frame, Layout.INFIRAY)
    assert found is not None
    assert np.array_equal(found.counts, np.rint((celsius + 273.15) * 64))


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("size", [(120, 160), (60, 80)])
@pytest.mark.parametrize("step_k", [0.01, 0.1])
def test_lepton_says_its_step_in_the_rows_that_are_cut_off(above: bool, size: tuple[int, int], step_k: float) -> None:
    celsius = warm_spot(size, celsius=55.0)
    frame = lepton_frame(celsius, above=above, step_k=step_k)
    assert guess(*frame.shape, yuyv=False) is Layout.LEPTON
    picture = PixelReader(SourceOptions(temperature="lepton")).read_image(frame, 0)
    assert picture.temperature is not None
    assert np.abs(picture.temperature.celsius() - celsius).max() <= step_k
    without = cut(frame[3:-3], Layout.LEPTON)
    assert without is not None
    assert without.telemetry == Telemetry()


def test_lepton_without_linear_counts_has_no_temperatures(caplog: pytest.LogCaptureFixture) -> None:
    reader = PixelReader(SourceOptions(temperature="lepton"), "cam0")
    with caplog.at_level(logging.INFO, "streamfuse"):
        for stamp_ns in (0, 40_000_000):
            frame = lepton_frame(warm_spot((120, 160)), step_k=None)
            assert reader.read_image(frame, stamp_ns).temperature is None
    assert sum("TLinear" in record.getMessage() for record in caplog.records) == 1


def test_ffc_of_the_telemetry_repeats_the_last_good_picture_and_its_temperatures() -> None:
    """The picture itself shows nothing of it: only the camera's word counts.  And a still scene is no FFC."""
    celsius = [warm_spot((120, 160), celsius=value) for value in (40.0, 41.0, 99.0, 42.0)]
    reader = PixelReader(SourceOptions(temperature="lepton"), "cam0", counted := Counter[str]())
    shown = [
        reader.read_image(lepton_frame(one, ffc=k == 2), k * 40_000_000).temperature for k, one in enumerate(celsius)
    ]
    assert [hottest(plane)[2] for plane in shown] == pytest.approx([40, 41, 41, 42], abs=0.01)
    assert counted == {SHUTTER: 1}
    for k in range(4, 30):
        reader.read_image(lepton_frame(celsius[3]), k * 40_000_000)
    assert counted == {SHUTTER: 1}


def test_seek_borders_are_cut_off_and_its_shutter_frames_told() -> None:
    frame = np.full((156, 208), 8000, np.uint16)
    for kind, ffc in ((3, False), (1, True)):
        frame[0, 10] = kind
        found = cut(frame, Layout.SEEK)
        assert found is not None
        assert (found.counts.shape, found.telemetry.ffc) == ((156, 206), ffc)
    found = cut(np.zeros((260, 342), np.uint16), Layout.SEEK)
    assert found is not None
    assert found.counts.shape == (240, 320)


def test_y16_takes_all_of_a_frame_that_is_called_yuyv(tmp_path: Path) -> None:
    path = write_infiray(tmp_path / "a.nut", [warm_spot(P2)])
    frame = next(iter(open_source(f"{path}?layout=y16")))
    assert (frame.luma.shape, frame.chroma) == ((384, 256), None)


def test_a_layout_that_does_not_fit_says_what_to_do(tmp_path: Path) -> None:
    write_images(tmp_path / "a", [])
    cv2.imwrite(str(tmp_path / "a/1.png"), np.zeros((100, 120), np.uint16))
    with pytest.raises(InputError, match="frames of 120x100 do not have the layout lepton: give another"):
        list(open_source(f"{tmp_path}/a?layout=lepton"))
    with pytest.raises(UsageError, match="layout=boson is not known: use auto, plain, infiray"):
        open_source(f"{tmp_path}/a?layout=boson")


# Degrees.


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_counts_of_fewer_bits_are_not_scaled(tmp_path: Path, bits: int) -> None:
    counts = np.full((48, 64), 900, np.uint16)
    counts[10:20, 10:20] = 950
    path = tmp_path / "ir.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        assert isinstance(stream, av.VideoStream)
        (stream.height, stream.width), stream.pix_fmt = counts.shape, f"gray{bits}le"
        made = av.VideoFrame(64, 48, f"gray{bits}le")
        rows = np.zeros((48, made.planes[0].line_size // 2), np.uint16)
        rows[:, :64] = counts
        made.planes[0].update(rows.tobytes())
        output.mux(stream.encode(made))
        output.mux(stream.encode(None))
    with open_source(f"{path}?temperature=celsius/10-50") as source:
        frame = next(iter(source))
    assert frame.temperature is not None
    assert frame.temperature.celsius()[0, 0] == pytest.approx(40, abs=1e-3)
    assert frame.temperature.celsius()[15, 15] == pytest.approx(45, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "count", "celsius"),
    [
        ("kelvin/64", 19_000, 19_000 / 64 - 273.15),
        ("kelvin/100", 30_000, 26.85),
        ("celsius/10-100", 1234, 23.4),
        ("celsius/40-100", 5495, 37.375),
        ("celsius/100+5.5", 1000, 15.5),
    ],
)
def test_linear_scales(text: str, count: int, celsius: float) -> None:
    plane = parse_degrees(text)(np.full((1, 1), count, np.uint16), Telemetry())
    assert plane is not None
    assert plane.celsius()[0, 0] == pytest.approx(celsius, abs=1e-3)


def test_planck_constants_in_the_address() -> None:
    p = PLANCK
    air = f"{p.emissivity},{p.distance_m},{p.reflected_k - 273.15},{p.air_k - 273.15},{p.humidity}"
    degrees = parse_degrees(f"planck:{p.r1},{p.r2},{p.b},{p.f},{p.o},{air}")
    celsius = warm_spot(celsius=80.0)
    plane = degrees(counts_of(celsius), Telemetry())
    assert plane is not None
    assert np.abs(plane.celsius() - celsius).max() < 0.1


@pytest.mark.parametrize(
    "text",
    [
        "rankine",
        "kelvin/0",
        "kelvin/x",
        "fahrenheit/10",
        "planck:1,2,3",
        "planck:1,2,3,4,nan",
        "planck:1,1,1,1,1,7",
        "",
    ],
)
def test_other_texts_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"temperature=.*(use|give|must be)"):
        parse_degrees(text)


@pytest.mark.parametrize(
    ("text", "left", "layout", "temperature"),
    [
        ("cam0?size=256x384&layout=infiray&temperature=kelvin/64", "cam0?size=256x384", "infiray", "kelvin/64"),
        ("cam0?temperature=celsius/10-100", "cam0", "auto", "celsius/10-100"),
        ("rtsp://a:b#c@host/x?temperature=1#clock=arrival&layout=lepton", None, "lepton", ""),
        ("rtsp://me:pw#layout=seek@host/x", "rtsp://me:pw#layout=seek@host/x", "auto", ""),
        ("http://host/x?layout=seek", "http://host/x?layout=seek", "auto", ""),
        ("a.sdp#layout=y16", "a.sdp", "y16", ""),
        ("ir/????.png", "ir/????.png", "auto", ""),
        ("ir/????.png?layout=plain", "ir/????.png", "plain", ""),
        ("synthetic:ir?size=64x48", "synthetic:ir?size=64x48", "auto", ""),
    ],
)
def test_options_in_the_address(text: str, left: str | None, layout: str, temperature: str) -> None:
    found, options = split_thermal(text, SourceOptions())
    assert found == (left or "rtsp://a:b#c@host/x?temperature=1#clock=arrival")
    assert (options.layout, options.temperature) == (layout, temperature)


def test_options_belong_to_one_of_two_lists_of_images(tmp_path: Path) -> None:
    for name in ("ir", "vis"):
        write_images(tmp_path / name, [])
        cv2.imwrite(str(tmp_path / name / "1.png"), np.full((48, 64), 19_000, np.uint16))
    ir, vis = open_pair(f"{tmp_path}/ir?temperature=kelvin/64", str(tmp_path / "vis"))
    assert hottest(next(iter(ir)).temperature)[2] == pytest.approx(23.725)
    assert next(iter(vis)).temperature is None


def test_temperatures_of_a_topic_in_a_bag(tmp_path: Path) -> None:
    counts = np.rint((warm_spot((60, 80), 20, 30, 50.0) + 273.15) * 100).astype(np.uint16)
    walk = bags.write_mcap()(tmp_path, [bags.image("/boson/image_raw", counts, "mono16", k) for k in range(2)])
    with open_source(f"{walk}?topic=/boson/image_raw&temperature=kelvin/100") as source:
        frames = list(source)
    assert hottest(frames[0].temperature) == pytest.approx((18, 28, 50), abs=0.02)


# The warp.

IR, VIS = (60, 80), (240, 320)


def calibration(dx: float = 30, dy: float = 20, turn: float = 0.1, scale: float = 3) -> Calibration:
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    homography = np.array([[c, -s, dx], [s, c, dy], [0, 0, 1]])
    return Calibration(IR, VIS, homography, None, None, date(2026, 1, 1), "test")


def plane_of(celsius: npt.NDArray[np.float64]) -> TemperaturePlane:
    return TemperaturePlane(np.rint((celsius + 273.15) * 64).astype(np.uint16), Scale(1 / 64))


@pytest.mark.parametrize("crop", [False, True])
def test_hot_spots_lie_where_the_warp_says(crop: bool) -> None:
    aligner = Aligner(calibration(), crop)
    for row, column in ((15, 20), (30, 50), (45, 30)):
        plane = aligner.align_temperature(plane_of(warm_spot(IR, row, column, 80.0)), VIS)
        hot = plane.celsius() > 50
        found = np.array(np.nonzero(hot)).mean(axis=1)
        x, y, w = calibration().homography @ (column + 0.5, row + 0.5, 1)
        if crop:
            whole = aligner.align(np.zeros(IR, np.uint8), np.zeros(VIS, np.uint8))[0].shape
            assert plane.values.shape == whole
            box = aligner._covered.box  # type: ignore[union-attr]
            x, y = x - box.left, y - box.top
        assert np.abs(found - (y / w, x / w)).max() < 0.5


def test_nothing_is_interpolated_with_the_ends_of_the_scale() -> None:
    celsius = warm_spot(IR)
    plane = plane_of(celsius)
    plane.values[20:30, 30:40] = OVER
    plane.values[40:50, 30:40] = NONE
    for made in (calibration(), None):
        aligner = Aligner(made)
        values = aligner.align_temperature(plane, VIS).values
        known = values[(values != OVER) & (values != NONE)]
        assert known.min() >= plane.values[plane.values != NONE].min()
        assert known.max() < plane.scale.value(50)
        assert (values == OVER).any()
        assert (values == NONE).any()
    over = np.array(np.nonzero(Aligner(calibration()).align_temperature(plane, VIS).values == OVER)).mean(axis=1)
    x, y, _ = calibration().homography @ (34.5, 24.5, 1)
    assert np.abs(over - (y, x)).max() < 0.5
    covered = Aligner(calibration()).align_temperature(plane_of(celsius), VIS)
    assert covered.values[0, 0] == NONE
    extremes = covered.extremes()
    assert extremes is not None
    assert extremes.coldest.celsius == pytest.approx(20, abs=0.1)


def test_an_infrared_picture_that_shrinks_keeps_its_degrees() -> None:
    big = plane_of(warm_spot((480, 640), 200, 300))
    small = Aligner().align_temperature(big, (120, 160))
    assert small.values.shape == (120, 160)
    row, column, celsius = hottest(small)
    assert (row, column) == (50, 75)
    assert celsius == pytest.approx(45, abs=1)


def test_temperatures_stay_with_their_picture_through_the_pipeline(tmp_path: Path) -> None:
    frames = [warm_spot(P2, 40 + 10 * k, 100, 40.0 + k) for k in range(4)]
    ir = write_infiray(tmp_path / "ir.nut", frames)
    vis = write_video(tmp_path / "vis.mp4", [0, 40, 80, 120], size=(384, 512))
    fuser = Fuser(engine=PassThrough(), tone="fixed:0,1")
    with Pipeline(*open_pair(f"{ir}?temperature=kelvin/64", str(vis)), fuser=fuser) as pipeline:
        fused = list(pipeline)
    assert len(fused) == 4
    for k, frame in enumerate(fused):
        assert frame.content is Content.FUSED
        assert frame.temperature is not None
        assert frame.temperature.values.shape == frame.luma.shape
        hot = np.array(np.nonzero(frame.temperature.celsius() > 35)).mean(axis=1)
        assert np.abs(hot - ((40 + 10 * k + 1) * 2 - 0.5, 101 * 2 - 0.5)).max() < 1
        assert hottest(frame.temperature)[2] == pytest.approx(40 + k, abs=0.05)


# A fixed span of temperatures.


def test_grey_means_the_same_whatever_else_is_in_the_picture() -> None:
    for unit in ("10C..40C", "50F..104F", "283.15K..313.15K"):
        reader = PixelReader(SourceOptions(agc=f"temperature:{unit}", temperature="kelvin/64"))
        for k, hot in enumerate((25.0, 600.0, 39.0)):
            celsius = warm_spot((60, 80), celsius=hot)
            luma = reader.read_image(np.rint((celsius + 273.15) * 64).astype(np.uint16), k * 40_000_000).luma
            assert luma[0, 0] == 85  # 20 degC, a third of the way
            assert luma[20, 30] == pytest.approx(min((hot - 10) / 30 * 255, 255), abs=0.6)


@pytest.mark.parametrize("span", ["10C", "10..40", "40C..10C", "10C..40X", "10C..10C"])
def test_impossible_spans_are_refused(span: str, tmp_path: Path) -> None:
    done = streamfuse("run", "--ir", "a.mkv", "--vis", "b.mp4", "--agc", f"temperature:{span}")
    assert done.returncode == 2
    assert "temperature:10C..40C" in done.stderr or "must rise" in done.stderr or "write it as in 30C" in done.stderr


def test_a_span_needs_temperatures(tmp_path: Path) -> None:
    path = write_y16(tmp_path / "ir.mkv", [np.full((48, 64), 19_000, np.uint16)])
    with pytest.raises(InputError, match="has no temperatures, which --agc temperature needs: add temperature="):
        list(open_source(str(path), SourceOptions(agc="temperature:10C..40C")))
