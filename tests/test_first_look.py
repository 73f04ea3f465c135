"""Two streams without a calibration: pixel-aligned ones, others, and those that do not tell."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import SMALL, streamfuse
from media import PassThrough
from rig import infrared_look, seen, structure

from streamfuse import first_look
from streamfuse.calibration.geometry import Matrix3, inverse, project
from streamfuse.calibration.model import Calibration
from streamfuse.color import Plane
from streamfuse.errors import UsageError
from streamfuse.first_look import INTERVAL_NS, FirstLook, look
from streamfuse.fuser import Fuser

SIZE = (240, 320)
DARK = np.full(SIZE, 20, np.uint8)
OTHER = np.array([[0.87, 0.01, 26.0], [-0.01, 0.88, 12.0], [0, 0, 1.0]])
"""Infrared with a narrower angle of view."""


def scenes(count: int, homography: Matrix3) -> list[tuple[Plane, Plane]]:
    pictures = [structure(seed, SIZE) for seed in range(count)]
    return [(infrared_look(seen(p, inverse(homography), SIZE), k), p) for k, p in enumerate(pictures)]


@pytest.fixture(scope="module")
def apart() -> list[tuple[Plane, Plane]]:
    return scenes(6, OTHER)


@pytest.fixture(scope="module")
def found(apart: list[tuple[Plane, Plane]]) -> tuple[Calibration, str]:
    result = look(apart)
    assert result is not None
    return result


@pytest.fixture
def known(found: tuple[Calibration, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the registration, which takes seconds: what it found before."""
    monkeypatch.setattr(first_look, "look", lambda pairs: found)


def offered(first: FirstLook, pairs: list[tuple[Plane, Plane]]) -> object:
    for index, (ir, vis) in enumerate(pairs):
        assert first.offer(ir, vis, index * INTERVAL_NS) is None
    for thread in threading.enumerate():
        if thread.name == "streamfuse first look":
            thread.join()
    return first.offer(*pairs[0], len(pairs) * INTERVAL_NS)


def test_pixel_aligned_streams_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with FirstLook(calibrates=True) as first:
        assert offered(first, scenes(6, np.eye(3))) is None
    assert caplog.text == ""


@pytest.mark.usefixtures("known")
def test_streams_that_do_not_fit_are_reported(
    apart: list[tuple[Plane, Plane]], caplog: pytest.LogCaptureFixture
) -> None:
    with FirstLook(calibrates=False) as first:
        assert offered(first, apart) is None
    assert "do not fit each other" in caplog.text
    assert "`streamfuse calibrate scene`" in caplog.text


def test_calibration_of_the_first_seconds(found: tuple[Calibration, str]) -> None:
    at = np.array([[0.0, 0], [319, 0], [319, 239], [0, 239]])
    assert np.linalg.norm(project(found[0].homography, at) - project(OTHER, at), axis=1).mean() < 1.5
    assert found[1].endswith("-13% in size") or found[1].endswith("-12% in size")


def test_unrelated_streams_do_not_tell(caplog: pytest.LogCaptureFixture) -> None:
    pairs = scenes(7, np.eye(3))
    with FirstLook(calibrates=True) as first:
        assert offered(first, [(pairs[k][0], pairs[k + 1][1]) for k in range(6)]) is None
    assert "it stays as it is" in caplog.text


@pytest.mark.usefixtures("known")
def test_fuser_goes_on_with_the_calibration(apart: list[tuple[Plane, Plane]]) -> None:
    with Fuser(engine=PassThrough(), align="auto") as fuser:
        for index, (ir, vis) in enumerate(apart):
            fuser.fuse_luma(ir, vis, index * INTERVAL_NS)
        for thread in threading.enumerate():
            if thread.name == "streamfuse first look":
                thread.join()
        ir, vis = apart[0]
        before = np.abs(ir.astype(float) - infrared_look(vis))
        aligned = fuser.fuse_luma(ir, vis, 6 * INTERVAL_NS).infrared
        after = np.abs(aligned.astype(float) - infrared_look(vis))
        inside = (slice(60, 180), slice(80, 240))
        assert after[inside].mean() < 0.5 * before[inside].mean()


def test_auto_with_a_calibration_is_refused(tmp_path: Path) -> None:
    done = streamfuse("run", "--ir", "a", "--vis", "b", "--calib", "c", "--align", "auto", "-o", tmp_path / "x.mp4")
    assert (done.returncode, "leave --calib out" in done.stderr) == (2, True)
    done = streamfuse("run", "--ir", "a", "--vis", "b", "--align", "follow", "-o", tmp_path / "x.mp4")
    assert (done.returncode, "needs a calibration" in done.stderr) == (2, True)
    with pytest.raises(UsageError, match="use auto, fixed or follow"):
        Fuser(engine=PassThrough(), align="often")


@pytest.mark.usefixtures("known")
def test_run_calibrates_recordings_before_the_first_frame(
    tmp_path: Path, apart: list[tuple[Plane, Plane]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, planes in zip(("ir", "vis", "dark"), (*zip(*apart, strict=True), [DARK] * 6), strict=True):
        (tmp_path / name).mkdir()
        for index, plane in enumerate(planes):
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), plane)
    sources = ["--ir", tmp_path / "ir", "--vis", tmp_path / "vis"]
    done = streamfuse("run", *sources, "--align", "auto", "-o", tmp_path / "out.mp4", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "calibrated from these recordings" in done.stderr
    monkeypatch.setattr(first_look, "look", lambda pairs: None)
    sources[1] = tmp_path / "dark"
    done = streamfuse("run", *sources, "--align", "auto", "-o", tmp_path / "none.mp4", *SMALL)
    assert (done.returncode, "do not tell how infrared lies" in done.stderr) == (3, True)
    assert not (tmp_path / "none.mp4").exists()
