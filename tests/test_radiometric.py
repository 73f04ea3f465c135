"""Radiometric images: degrees, the visible picture in the file, its geometry, recordings, hostile bytes."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from command_line import SMALL, streamfuse
from media import PassThrough, write_images
from thermal_files import PLANCK, Container, counts_of, dji_jpeg, warm_spot, write_recording

from streamfuse.calibration.stored import stored_calibration
from streamfuse.errors import InputError
from streamfuse.fuser import Fuser
from streamfuse.sources import open_pair, open_source
from streamfuse.sources.base import Placement
from streamfuse.sources.sequence import UNREADABLE
from streamfuse.sources.thermal.fff import DamagedPicture, read_fff
from streamfuse.sources.thermal.radiometric import read_radiometric
from streamfuse.temperature import OVER, Scale, TemperaturePlane

SIZE = (60, 80)
VISIBLE = np.full((240, 320, 3), (60, 90, 120), np.uint8)
GEOMETRY = (1.6, 12, -8)


def read(path: Path) -> npt.NDArray[np.uint8]:
    picture = cv2.imread(str(path))
    assert picture is not None
    return cast("npt.NDArray[np.uint8]", picture)


def spot_in(picture: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """(row, column) of the centre of the bright spot."""
    mask = picture > (float(picture.min()) + float(picture.max())) / 2
    rows, columns = np.nonzero(mask)
    return float(rows.mean()), float(columns.mean())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("form", ["bytes", "png"])
def test_temperatures_follow_the_law_that_the_values_were_drawn_by(order: str, form: str) -> None:
    celsius = warm_spot(celsius=90.0)
    data = Container(counts_of(celsius), order=order, form=form).jpeg()
    found = read_radiometric(data, "a.jpg")
    assert found is not None
    assert found.temperature is not None
    assert np.abs(found.temperature.celsius() - celsius).max() < 0.1
    assert found.facts.camera == "FLIR drawn"
    assert found.facts.stamp_ns == 1_600_000_000_000 * 1_000_000
    facts = "FLIR drawn, lens FOL18 of 25 deg, infrared 80x60", "20.0 to 90.0 degC"
    assert found.describe() == ", ".join([*facts, "emissivity 0.9 at 5 m", "reflected 16.9 degC"])


def test_a_camera_for_furnaces_has_a_coarser_scale() -> None:
    hot = replace(PLANCK, max_c=1500, r2=0.5)
    plane = hot.plane(counts_of(np.full((2, 2), 1400.0), hot))
    assert abs(plane.celsius()[0, 0] - 1400) < 1


def test_values_beyond_the_ends_of_a_scale_are_no_temperatures() -> None:
    table = PLANCK.table()
    assert table[0] == 0  # less than the air alone radiates
    plane = TemperaturePlane(np.array([[0, 19_000, OVER]], np.uint16), Scale(1 / 64))
    assert np.isnan(plane.celsius()[0, 0])
    assert plane.celsius()[0, 2] == np.inf
    extremes = plane.extremes()
    assert extremes is not None
    assert extremes.coldest[:2] == (0, 1)
    assert extremes.hottest[:2] == (0, 2)
    assert TemperaturePlane(np.zeros((2, 3), np.uint16), Scale(1)).extremes() is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"r1": float("nan")},
        {"b": 0.0},
        {"emissivity": 0.0},
        {"emissivity": 1.5},
        {"air_k": 0.0},
        {"humidity": -1.0},
        {"distance_m": 1e6},
        {"f": math.exp(PLANCK.b / PLANCK.air_k)},
        {"r2": 1e-300},
    ],
)
def test_impossible_constants_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        replace(PLANCK, **wrong)


def test_a_file_with_impossible_constants_still_gives_its_picture() -> None:
    data = bytearray(Container(counts_of(warm_spot())).fff())
    at = data.index(struct.pack("<f", PLANCK.r1))
    data[at : at + 4] = bytes(4)
    found = read_radiometric(bytes(data), "a.fff")
    assert found is not None
    assert found.temperature is None
    assert "no Planck constants" in found.describe()


@pytest.mark.parametrize("zoom", [1.0, 1.5])
def test_the_picture_lies_where_the_geometry_says(zoom: float) -> None:
    """A field of view of 1 / 1.6 of the visible one's width; its centre is 12 px right of and 8 px above the middle."""
    container = Container(counts_of(warm_spot()), visible=VISIBLE, geometry=GEOMETRY, zoom=zoom)
    picture = read_fff(container.fff(), "a")
    assert picture.geometry is not None
    homography = picture.geometry.homography(SIZE, VISIBLE.shape[:2])
    scale = 320 / 1.6 / 80
    fuser = Fuser(engine=PassThrough(), tone="fixed:0,1")
    fuser.use_calibration(stored_calibration(Placement(homography, SIZE, (240, 320)), "a"))
    luma = np.zeros(SIZE, np.uint8)
    luma[18:24, 28:34] = 255
    aligned = fuser.place_infrared(luma, (240, 320))
    row, column = spot_in(aligned)
    assert abs(row - (120 - 8 + (20.5 - 29.5) * scale - 0.5)) < 0.5
    assert abs(column - (160 + 12 + (30.5 - 39.5) * scale - 0.5)) < 0.5


def test_embedded_png_is_y_cb_cr() -> None:
    found = read_fff(Container(counts_of(warm_spot()), visible=VISIBLE, visible_form=".png").fff(), "a")
    assert found.visible is not None
    assert np.abs(found.visible.astype(int) - VISIBLE).max() <= 2


def test_fuse_takes_one_file_as_a_pair(tmp_path: Path) -> None:
    container = Container(counts_of(warm_spot(celsius=60)), visible=VISIBLE, geometry=GEOMETRY)
    path = container.write(tmp_path / "FLIR0001.jpg")
    done = streamfuse("fuse", path, "-o", tmp_path / "fused.png", *SMALL)
    assert done.returncode == 0, done.stderr
    assert (
        "FLIR0001.jpg: FLIR drawn, lens FOL18 of 25 deg, infrared 80x60, visible 320x240, 20.0 to 60.0 degC"
        in done.stderr
    )
    fused = read(tmp_path / "fused.png")
    assert fused.shape == (240, 320, 3)
    row, column = spot_in(fused.max(axis=2))
    assert abs(row - 89) < 4
    assert abs(column - 149) < 4


def test_fuse_takes_a_directory_of_such_files_each_with_its_own_geometry(tmp_path: Path) -> None:
    for number, x in ((1, 0), (2, 40)):
        container = Container(counts_of(warm_spot(celsius=60)), visible=VISIBLE, geometry=(1.6, x, 0))
        container.write(tmp_path / "in" / f"FLIR{number:04}.jpg")
    Container(counts_of(warm_spot())).write(tmp_path / "in" / "FLIR0003.jpg")
    done = streamfuse("fuse", tmp_path / "in", "-o", tmp_path / "out", *SMALL)
    assert done.returncode == 3
    assert "1 of 3 pairs could not be fused" in done.stderr
    assert "FLIR0003.jpg holds no visible picture" in done.stderr
    columns = [spot_in(read(tmp_path / "out" / f"FLIR000{k}.png").max(axis=2))[1] for k in (1, 2)]
    assert abs(columns[1] - columns[0] - 40) < 4


def test_run_takes_a_directory_of_such_files(tmp_path: Path) -> None:
    for number in range(1, 4):
        container = Container(counts_of(warm_spot(celsius=60)), visible=VISIBLE, geometry=GEOMETRY)
        container.write(tmp_path / "in" / f"FLIR{number:04}.jpg")
    (tmp_path / "out").mkdir()
    done = streamfuse("run", "--ir", tmp_path / "in", "-o", tmp_path / "out" / "%04d.png", "--crop", "overlap", *SMALL)
    assert done.returncode == 0, done.stderr
    fused = read(tmp_path / "out" / "0001.png")
    assert fused.shape[:2] == (148, 200)  # the part that infrared covers, in even numbers
    row, column = spot_in(fused.max(axis=2))
    assert abs(row - 20.5 * 2.5) < 4
    assert abs(column - 30.5 * 2.5) < 4


def test_run_says_that_files_have_another_geometry_than_the_first(tmp_path: Path) -> None:
    for number, x in enumerate((12, 12, 12, 20, 44)):
        container = Container(counts_of(warm_spot(celsius=60)), visible=VISIBLE, geometry=(1.6, x, -8))
        container.write(tmp_path / "in" / f"FLIR{number:04}.jpg")
    done = streamfuse("run", "--ir", tmp_path / "in", "-o", tmp_path / "f.mp4", *SMALL)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 files place infrared elsewhere than the first file") == 1
    assert "(up to 32 px): `streamfuse fuse` uses each file's own" in done.stderr
    for number in (3, 4):
        (tmp_path / "in" / f"FLIR{number:04}.jpg").unlink()
    done = streamfuse("run", "--ir", tmp_path / "in", "-o", tmp_path / "g.mp4", *SMALL)
    assert "elsewhere" not in done.stderr


def test_images_without_a_visible_picture_say_what_to_do(tmp_path: Path) -> None:
    path = Container(counts_of(warm_spot())).write(tmp_path / "FLIR0001.jpg")
    write_images(tmp_path / "plain", ["1.png"])
    for command in (("fuse", path), ("run", "--ir", path)):
        done = streamfuse(
            *command, "-o", tmp_path / "fused.png" if command[0] == "fuse" else tmp_path / "f.mp4", *SMALL
        )
        assert done.returncode == 3
        assert "holds no visible picture, only infrared: give the visible picture as well" in done.stderr
    done = streamfuse("run", "--ir", tmp_path / "plain", "-o", tmp_path / "f.mp4", *SMALL)
    assert done.returncode == 3
    assert "1.png holds no raw values of a thermal camera: give the visible picture as well" in done.stderr


def test_frames_of_a_directory_carry_their_temperatures(tmp_path: Path) -> None:
    for number in range(1, 3):
        Container(counts_of(warm_spot(celsius=50 + number)), visible=VISIBLE).write(tmp_path / f"{number}.jpg")
    ir, vis = open_pair(str(tmp_path), None)
    hottest = []
    for frame in ir:
        assert frame.temperature is not None
        extremes = frame.temperature.extremes()
        assert extremes is not None
        hottest.append(extremes.hottest.celsius)
    assert hottest == pytest.approx([51, 52], abs=0.05)
    assert [frame.luma.shape for frame in vis] == [(240, 320)] * 2


def test_dji_pictures_are_paired_by_name(tmp_path: Path) -> None:
    raw = np.linspace(18_000, 19_000, 512 * 640).reshape(512, 640).astype(np.uint16)
    raw[100:140, 200:240] = 21_000
    (tmp_path / "DJI_20240101120000_0001_T.JPG").write_bytes(dji_jpeg(raw))
    (tmp_path / "DJI_20240101120000_0002_T.JPG").write_bytes(dji_jpeg(raw))
    (tmp_path / "DJI_20240101120000_0003_T.JPG").write_bytes(dji_jpeg(raw))
    grey = cv2.imencode(".jpg", np.full((480, 600, 3), 90, np.uint8))[1].tobytes()
    wide = cv2.imencode(".jpg", np.full((512, 640, 3), 90, np.uint8))[1].tobytes()
    (tmp_path / "DJI_20240101120000_0001_Z.JPG").write_bytes(grey)
    (tmp_path / "DJI_20240101120000_0001_W.JPG").write_bytes(wide)
    (tmp_path / "DJI_20240101120001_0002_V.JPG").write_bytes(wide)  # a second later
    done = streamfuse("fuse", tmp_path, "-o", tmp_path / "out", *SMALL)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "DJI_20240101120000_0001_W.png",
        "DJI_20240101120001_0002_V.png",
    ]
    assert "DJI's temperatures need its Thermal SDK" in done.stderr
    fused = read(tmp_path / "out" / "DJI_20240101120000_0001_W.png")
    row, column = spot_in(fused.max(axis=2))
    assert abs(row - 119.5) < 3
    assert abs(column - 219.5) < 3
    single = streamfuse("fuse", tmp_path / "DJI_20240101120000_0003_T.JPG", "-o", tmp_path / "a.png", *SMALL)
    assert single.returncode == 3
    assert "DJI's temperatures" not in single.stderr
    assert "give the visible picture as well" in single.stderr


def test_dji_without_degrees_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = np.full((512, 640), 18_500, np.uint16)
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(dji_jpeg(raw))
    with caplog.at_level("INFO", "streamfuse"):
        frames = list(open_source(str(tmp_path)))
    assert [frame.temperature for frame in frames] == [None, None]
    assert sum("DJI's temperatures need its Thermal SDK" in record.getMessage() for record in caplog.records) == 1


def test_probe_and_the_report_of_an_evaluation_tell_of_the_camera(tmp_path: Path) -> None:
    dji = tmp_path / "1.jpg"
    dji.write_bytes(dji_jpeg(np.full((512, 640), 18_500, np.uint16)))
    flir = Container(counts_of(warm_spot()), visible=VISIBLE).write(tmp_path / "ir" / "1.jpg")
    walk = write_recording(tmp_path / "walk.seq")
    for path, words in ((dji, "camera  DJI M30T, infrared 640x512, DJI's"), (flir, "camera  FLIR drawn, lens FOL18"),
                        (walk, "camera  FLIR drawn, lens FOL18")):  # fmt: skip
        done = streamfuse("probe", path)
        assert words in done.stdout, done.stderr
    write_images(tmp_path / "vis", ["1.png"], size=SIZE)
    out = tmp_path / "report.json"
    inputs = "--ir", tmp_path / "ir", "--vis", tmp_path / "vis", "--fused", tmp_path / "vis"
    done = streamfuse("evaluate", *inputs, "--json", out)
    assert done.returncode == 0, done.stderr
    (note,) = json.loads(out.read_text())["notes"]
    assert note.startswith("infrared: FLIR drawn, lens FOL18 of 25 deg")


def test_dji_counts_become_degrees_where_the_user_says_how(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1.jpg").write_bytes(dji_jpeg(np.full((512, 640), 19_000, np.uint16)))
    with caplog.at_level("INFO", "streamfuse"):
        frame = next(iter(open_source(f"{tmp_path}?temperature=kelvin/64")))
    assert frame.temperature is not None
    assert frame.temperature.celsius()[0, 0] == pytest.approx(23.725)
    assert "without degrees" not in caplog.text


def test_raw_values_of_unknown_layout_are_said_and_the_picture_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "1.jpg").write_bytes(dji_jpeg(np.full((300, 500), 19_000, np.uint16)))
    frame = next(iter(open_source(str(tmp_path))))
    assert frame.luma.shape == (24, 32)
    assert "holds 300,000 bytes of raw values, whose layout is not known: its picture is used instead" in caplog.text


def test_recording_has_the_times_of_its_pictures_and_temperatures(tmp_path: Path) -> None:
    with open_source(str(write_recording(tmp_path / "a.seq"))) as source:
        assert (source.frame_count, source.period_ns, source.damage) == (3, 40_000_000, None)
        assert source.cut_before(79_000_000) == 40_000_000
        frames = list(source)
    assert [frame.stamp_ns for frame in frames] == [0, 40_000_000, 80_000_000]
    hottest = [frame.temperature.celsius().max() for frame in frames if frame.temperature is not None]
    assert hottest == pytest.approx([40, 41, 42], abs=0.05)


def test_fuse_refuses_a_recording(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a.seq")
    write_images(tmp_path, ["vis.png"])
    done = streamfuse("fuse", path, tmp_path / "vis.png", "-o", tmp_path / "fused.png", *SMALL)
    assert done.returncode == 2
    assert f"is a recording: fuse it with `streamfuse run --ir {path}" in done.stderr


@pytest.mark.parametrize(("camera", "shown"), [("*", ""), ("FLIR T420 (with SC", "FLIR T420 (with SC, ")])
def test_a_name_that_was_removed_is_not_shown(camera: str, shown: str) -> None:
    found = read_radiometric(Container(counts_of(warm_spot()), camera=camera).fff(), "a.fff")
    assert found is not None
    assert found.describe().startswith(f"{shown}lens FOL18 of 25 deg, infrared 80x60")


def test_recording_without_rising_times_has_its_rate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_source(str(write_recording(tmp_path / "a.seq", step_ms=0))) as source:
        assert [frame.stamp_ns for frame in source] == [0, 33_333_333, 66_666_666]
    assert "no rising times: taken at 30 fps" in caplog.text


def test_recording_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a.seq")
    path.write_bytes(path.read_bytes()[:-500])
    with open_source(str(path)) as source:
        assert len(list(source)) == 2
        assert source.damage is not None
    data = path.read_bytes()
    path.write_bytes(data[:24] + b"\xff" * 8 + data[32:])  # the directory of the first picture
    with open_source(str(path)) as source:
        assert len(list(source)) == 1
        assert source.drops == {UNREADABLE: 1}
    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="holds no FLIR pictures"):
        open_source(str(path))


def test_damaged_image_is_counted_and_the_others_are_read(tmp_path: Path) -> None:
    data = Container(counts_of(warm_spot())).fff()
    (tmp_path / "1.fff").write_bytes(data)
    (tmp_path / "2.fff").write_bytes(data[: len(data) // 2])
    source = open_source(str(tmp_path))
    assert len(list(source)) == 1
    assert source.drops == {UNREADABLE: 1}


def test_bytes_are_refused_with_the_name_and_the_record() -> None:
    data = Container(counts_of(warm_spot())).fff()
    with pytest.raises(DamagedPicture, match=r"a\.fff: record 0x20 of the FLIR data is cut off"):
        read_fff(data[:-1], "a.fff")
    with pytest.raises(DamagedPicture, match="the directory of the FLIR data is cut off"):
        read_fff(data[:100], "a.fff")
    huge = Container(counts_of(warm_spot()), more={0x01: struct.pack("<HHH", 2, 60_000, 60_000).ljust(64, b"\0")})
    with pytest.raises(InputError, match=r"claims 60000x60000 pixels.*--max-pixels"):
        read_fff(huge.fff(), "a.fff")
