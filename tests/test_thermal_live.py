"""A thermal camera from its bytes to the subscriber, the browser and the picture: degrees, and where they lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from media import PassThrough, every, write_video
from test_publish import sink
from test_web_browser import browser, opened
from thermal_files import write_infiray
from web import serving

from streamfuse import Subscriber
from streamfuse.calibration.geometry import project
from streamfuse.calibration.model import Calibration
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sources.address import Address
from streamfuse.sources.live import LiveSource
from streamfuse.sources.options import SourceOptions
from streamfuse.sources.thermal.address import split_thermal
from streamfuse.thermometry.finish import ThermalFinish

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser"]

P2, VIS = (192, 256), (480, 640)
PLACE = np.array([90.0, 70.0])
"""(column, row) of the hot spot in the infrared picture."""
HOT = 60.0


def scene() -> np.ndarray:
    """A room of 22 degC with a spot of 60 degC that falls off to all sides."""
    rows, columns = np.mgrid[: P2[0], : P2[1]]
    away = np.hypot(columns - PLACE[0], rows - PLACE[1])
    return np.asarray(22 + (HOT - 22) * np.clip(1 - away / 8, 0, 1))


def turned(**changes: object) -> Calibration:
    """Infrared 2.2 times as large in the visible picture, turned and moved."""
    c, s = 2.2 * np.cos(0.08), 2.2 * np.sin(0.08)
    homography = np.array([[c, -s, 60.3], [s, c, 20.7], [1e-5, -2e-5, 1]])
    return replace(Calibration(P2, VIS, homography, None, None, date(2026, 1, 1), "test"), **changes)  # type: ignore[arg-type]


WARPS = {
    "without a calibration": (None, np.array([[2.5, 0, 0.75], [0, 2.5, 0.75], [0, 0, 1]])),  # resized
    "homography": (turned(), turned().homography),
    "a distance": (
        turned(parallax=np.array([36.0, 3.0, 0.004]), distance_m=4.0),
        turned(parallax=np.array([36.0, 3.0, 0.004]), distance_m=4.0).at(4.0).homography,
    ),
}
"""A calibration, and the homography that it says at its distance."""


@contextmanager
def camera(path: Path, options: str = "") -> Iterator[LiveSource]:
    """A live source whose camera is a stand-in: a file of what its driver delivers, byte by byte."""
    _, chosen = split_thermal(f"cam0{options}", SourceOptions())
    source = LiveSource(Address(str(path), path.stem, "nut", clock_wait_s=0), chosen)
    try:
        yield source
    finally:
        source.close()


@pytest.mark.parametrize("warp", WARPS)
def test_degrees_and_places_are_those_of_the_camera(warp: str, tmp_path: Path, browser: Browser) -> None:
    calibration, homography = WARPS[warp]
    expected = project(homography, PLACE[None])[0]  # column, row
    write_infiray(tmp_path / "p2.nut", [scene()] * 60)
    write_video(tmp_path / "eo.nut", every(40, 60), size=VIS, codec="rawvideo")
    fuser = Fuser(engine=PassThrough(), tone="fixed:0,1", calibration=calibration)
    with (
        fuser,
        camera(tmp_path / "p2.nut", "?temperature=kelvin/64") as ir,
        camera(tmp_path / "eo.nut") as vis,
        serving() as preview,
        sink(temperature=True) as published,
        Subscriber(published.address) as subscriber,
    ):
        finish = ThermalFinish(overlay=["spots"])
        with Pipeline(ir, vis, fuser=fuser, finish=finish, frames=3) as pipeline:
            frames = list(pipeline)
        assert {frame.infrared.shape for frame in frames if frame.infrared is not None} == {VIS}
        published.write(frames[-1])
        preview.write(frames[-1])
        received = subscriber.latest(timeout_s=20)
        with opened(browser, preview.port) as page:
            at, under, beside = in_browser(page, expected)
    celsius = received.temperature
    assert celsius is not None
    warm = np.nan_to_num(celsius - 25).clip(0)
    rows, columns = np.mgrid[: VIS[0], : VIS[1]]
    centre = np.array([(columns * warm).sum(), (rows * warm).sum()]) / warm.sum()
    assert np.abs(centre - expected).max() < 0.5
    assert np.nanmax(celsius) == pytest.approx(HOT, abs=3.5)  # between its pixels a peak is lower
    hottest = received.header.temperature
    assert hottest is not None
    assert np.abs(at - expected).max() <= 0.51  # the nearest pixel
    assert under == pytest.approx(np.nanmax(celsius), abs=0.06)
    assert beside == pytest.approx(22, abs=0.1)
    row, column = np.rint(expected[::-1]).astype(int)
    drawn = received.to_fused().luma != frames[-1].infrared
    assert drawn[row - 8 : row + 9, column - 8 : column + 9].mean() > 0.3
    hole = np.argwhere(~drawn[row - 4 : row + 5, column - 4 : column + 5])  # within the ring
    assert 4 < len(hole) < 60
    assert np.abs(hole.mean(axis=0) + np.array([row - 4, column - 4]) - expected[::-1]).max() < 0.51


def in_browser(page: Page, place: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return where the page marks the hottest spot, (column, row), and the degrees under the pointer and beside it."""
    mark = page.locator("#hot")
    mark.get_by_text("°C").wait_for()
    hot, box = mark.bounding_box(), page.locator("#pictures").bounding_box()
    assert hot is not None
    assert box is not None
    scale = VIS[1] / box["width"]
    at = np.array([hot["x"] + hot["width"] / 2 - box["x"], hot["y"] + hot["height"] / 2 - box["y"]]) * scale - 0.5

    def under(column: float, row: float) -> float:
        before = page.locator("#probe").text_content() or ""
        page.mouse.move(box["x"] + (column + 0.5) / scale, box["y"] + (row + 0.5) / scale)
        page.wait_for_timeout(0)
        shown = page.locator("#probe").filter(has_text=re.compile(r"\d"))
        shown.wait_for()
        for _ in range(200):
            text = page.locator("#probe").text_content() or ""
            if text != before and "°C" in text:
                return float(text.split("\u00a0")[0])
            page.wait_for_timeout(20)
        raise AssertionError(f"the page still shows {before}")

    return at, under(*np.rint(at)), under(place[0] + 60, place[1])
