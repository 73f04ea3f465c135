"""Samples of thermal cameras: each file is fused by one command, with the temperatures of other programs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from command_line import SMALL, streamfuse

from streamfuse.sources import open_source
from streamfuse.sources.thermal.fff import read_fff
from streamfuse.sources.thermal.planck import Planck
from streamfuse.sources.thermal.radiometric import read_radiometric
from streamfuse.temperature import Counts

AT_ONE_METRE = {"DJI_XT2.jpg", "DJI_XTR.jpg", "frame_000000.fff", "frame_000000_le.fff"}
"""Files whose references were computed for a distance of 1 m, and not for the 20, 20, 50 and 0 m that they state."""


def references(data_dir: Path) -> dict[str, list[tuple[int, int, float]]]:
    """File: [row, column, degC], from the first program that could read it."""
    files = json.loads((data_dir / "data/thermal/reference.json").read_text())["files"]
    found = {}
    for name, values in files.items():
        of = values.get("celsius_flyr") or values.get("celsius_flirimageextractor")
        if name.startswith("flir/") and of:
            found[name.removeprefix("flir/")] = of["pixels_row_col_value"]
    return found


def test_real_files_agree_with_other_programs(data_dir: Path) -> None:
    checked = 0
    for name, pixels in references(data_dir).items():
        file, _, number = name.partition("#frame")
        path = data_dir / "data/thermal/flir" / file
        if number:
            with open_source(str(path)) as source:
                plane = list(source)[int(number)].temperature
        else:
            found = read_radiometric(path.read_bytes(), name)
            assert found is not None
            plane = found.temperature
            if name in AT_ONE_METRE:
                plane = replace(_planck(path), distance_m=1.0).plane(found.raw)
        assert plane is not None
        celsius = plane.celsius()
        assert max(abs(celsius[row, column] - value) for row, column, value in pixels) < 0.01, name
        checked += 1
    assert checked == 11


def _raw(path: Path) -> Counts:
    found = read_radiometric(path.read_bytes(), path.name)
    assert found is not None
    return found.raw


def _planck(path: Path) -> Planck:
    data = path.read_bytes()
    if path.suffix == ".jpg":
        parts, at = [], 2
        while data[at + 1] != 0xDA:
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            if data[at + 1] == 0xE1 and data[at + 4 : at + 9] == b"FLIR\0":
                parts.append(data[at + 12 : at + 2 + length])
            at += 2 + length
        data = b"".join(parts)
    found = read_fff(data, path.name).planck
    assert found is not None
    return found


def test_real_compressed_recording_is_read(data_dir: Path) -> None:
    """No other program at hand reads it: its degrees are those of a room, and of a neighbouring camera's constants."""
    with open_source(str(data_dir / "data/thermal/flir/SampleCSQ.csq")) as source:
        frame = next(iter(source))
    assert frame.luma.shape == (768, 1024)
    assert frame.temperature is not None
    extremes = frame.temperature.extremes()
    assert extremes is not None
    assert 15 < extremes.coldest.celsius < 20 < extremes.mean < 25 < extremes.hottest.celsius < 40


def test_real_files_without_degrees_give_their_raw_values(data_dir: Path) -> None:
    files = json.loads((data_dir / "data/thermal/reference.json").read_text())["files"]
    for name, values in files.items():
        if not name.startswith("dji/"):
            continue
        found = read_radiometric((data_dir / "data/thermal" / name).read_bytes(), name)
        assert found is not None, name
        assert (found.raw.min(), found.raw.max()) == (values["raw"]["min"], values["raw"]["max"]), name
        assert found.note
    workswell = data_dir / "data/thermal/workswell/12-33-11-151-radiometric.jpg"
    found = read_radiometric(workswell.read_bytes(), "workswell")
    frame = next(iter(open_source(str(workswell.with_suffix(".tiff")))))
    assert found is not None
    assert (found.raw.min(), found.raw.max()) == (4166, 6201)
    assert frame.luma.shape == (512, 640)


class Sample(NamedTuple):
    """A file and how it is fused."""

    file: str
    options: str = ""
    """Behind the name, for degrees."""
    visible: bool = False
    """The file holds the visible picture, too."""


SAMPLES = [
    Sample("flir/FLIR.jpg", visible=True),
    Sample("flir/FLIR_AX8.jpg", visible=True),
    Sample("flir/FLIR_B60.jpg", visible=True),
    Sample("flir/FLIR_T640.jpg", visible=True),
    Sample("flir/FLIR_SC660_IR_2412.jpg"),
    Sample("flir/DJI_XT2.jpg"),
    Sample("flir/DJI_XTR.jpg"),
    Sample("flir/frame_000000.fff"),
    Sample("flir/frame_000000_le.fff"),
    Sample("flir/SampleSEQ.seq"),
    Sample("flir/SampleCSQ.csq"),
    Sample("flir/FLIR_DuoProR_radiometric.tiff", "?temperature=kelvin/25"),
    *(
        Sample(f"dji/{name}.jpg")
        for name in (
            *("H20N_a", "H20N_b", "H20T_a", "H20T_b", "H30T_a", "M2EA_a", "M30T_a", "M3TD_a", "M3TD_b"),
            *("M3T_a", "M3T_b", "M4T_a", "XTS_a", "XTS_b"),
        )
    ),
    *(
        Sample(f"workswell/{name}-radiometric{suffix}", "?temperature=celsius/40-100")
        for name in ("12-33-11-151", "21-11-28-547")
        for suffix in (".jpg", ".tiff")
    ),
]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.file)
def test_a_sample_is_fused_by_one_command(sample: Sample, data_dir: Path, tmp_path: Path) -> None:
    """A file without a visible picture is fused with a stand-in for it, a drawn chessboard."""
    path = data_dir / "data/thermal" / sample.file
    with open_source(f"{path}{sample.options}") as source:
        frame = next(iter(source))
    files = json.loads((data_dir / "data/thermal/reference.json").read_text())["files"]
    known = files.get(sample.file) or files.get(f"{sample.file}#frame0") or {}
    if of := known.get("celsius_flyr") or known.get("celsius_flirimageextractor") or known.get("celsius"):
        plane = frame.temperature
        if path.name in AT_ONE_METRE:
            plane = replace(_planck(path), distance_m=1.0).plane(_raw(path))
        extremes = plane.extremes() if plane is not None else None
        assert extremes is not None
        found = extremes.coldest.celsius, extremes.mean, extremes.hottest.celsius
        assert found == pytest.approx((of["min"], of["mean"], of["max"]), abs=0.2)
    rows, columns = np.mgrid[:240, :320]
    board = np.asarray((columns // 20 + rows // 20) % 2 * 120 + 60, np.uint8)
    assert cv2.imwrite(str(tmp_path / "visible.png"), board)
    fused = tmp_path / "fused.png"
    inputs = [path] if sample.visible else [path, tmp_path / "visible.png"]
    if path.suffix in (".seq", ".csq"):
        done = streamfuse("run", "--ir", path, "--vis", inputs[1], "-o", tmp_path / "%d.png", *SMALL)
        fused = tmp_path / "1.png"
        assert done.returncode == (3 if path.suffix == ".csq" else 0), done.stderr  # whose last picture is cut off
    else:
        done = streamfuse("fuse", *inputs, "-o", fused, *SMALL)
        assert done.returncode == 0, done.stderr
    picture = cast("npt.NDArray[np.uint8]", cv2.imread(str(fused), cv2.IMREAD_GRAYSCALE))
    if sample.visible:
        assert picture.std() > 20
        return
    small = cast("npt.NDArray[np.uint8]", cv2.resize(frame.luma, (320, 240), interpolation=cv2.INTER_AREA))
    for shown in (board, small):  # both can be seen
        assert abs(np.corrcoef(_detail(shown), _detail(picture))[0, 1]) > 0.05


def _detail(plane: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Differences of a plane to its mean around each pixel, (H * W)."""
    values = plane.astype(np.float64)
    return np.asarray(values - cv2.GaussianBlur(values, (0, 0), 12)).ravel()
