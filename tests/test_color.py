"""Colour ranges and conversions."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from streamfuse.color import Chroma, Matrix
from streamfuse.color_conversion import (
    narrow_chroma,
    narrow_luma,
    resize_chroma,
    split_bgr,
    to_bgr,
    to_bt601,
    widen_luma,
)

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_limited_range_survives_widening_and_narrowing() -> None:
    assert np.array_equal(narrow_luma(widen_luma(LEVELS)), np.clip(LEVELS, 16, 235))
    assert widen_luma(np.array([[16, 235]], np.uint8)).tolist() == [[0, 255]]


def test_chroma_stays_grey_when_narrowed() -> None:
    full = Chroma(LEVELS, LEVELS, full_range=True)
    narrow = narrow_chroma(full)
    assert not narrow.full_range
    assert (narrow.u.min(), narrow.u[8, 0], narrow.u.max()) == (16, 128, 240)
    assert narrow_chroma(narrow) is narrow


def test_bgr_round_trip() -> None:
    bgr = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    luma, chroma = split_bgr(bgr)
    assert np.abs(to_bgr(luma, chroma).astype(int) - bgr).max() <= 2
    assert np.abs(luma.astype(int) - cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)).max() <= 1


@pytest.mark.parametrize(("matrix", "tag"), [(Matrix.BT601, 5), (Matrix.BT709, 1), (Matrix.BT2020, 9)])
def test_limited_chroma_to_bgr_as_ffmpeg_does(matrix: Matrix, tag: int) -> None:
    """The result agrees with libswscale for a smooth picture with the same planes and tags."""
    y, x = np.mgrid[0:64, 0:96]
    planes = [(60 + y * 2 + x * 0).astype(np.uint8), (90 + x * 0.7).astype(np.uint8), (180 - y * 0.9).astype(np.uint8)]
    frame = av.VideoFrame(96, 64, "yuv444p")
    for plane, values in zip(frame.planes, planes, strict=True):
        np.frombuffer(memoryview(plane), np.uint8).reshape(64, plane.line_size)[:, :96] = values
    frame.colorspace, frame.color_range = tag, 1
    expected = frame.to_ndarray(format="bgr24").astype(int)
    chroma = Chroma(planes[1], planes[2], full_range=False, matrix=matrix)
    assert np.abs(to_bgr(widen_luma(planes[0]), chroma) - expected).max() <= 3


@pytest.mark.parametrize("full_range", [True, False])
@pytest.mark.parametrize("matrix", list(Matrix))
def test_bt601_shows_the_same_colours(matrix: Matrix, full_range: bool) -> None:
    """A smooth picture in 4:2:0, with colours that BGR has in both forms."""
    y, x = np.mgrid[0:48, 0:66]
    luma = (90 + y + x * 0.5).astype(np.uint8)
    u, v = (100 + x[::2, ::2] * 0.7).astype(np.uint8), (150 - y[::2, ::2] * 0.8).astype(np.uint8)
    chroma = Chroma(u, v, full_range=full_range, matrix=matrix)
    moved, changed = to_bt601(luma, chroma)
    assert changed.matrix is Matrix.BT601
    assert changed.full_range
    assert changed.u.shape == u.shape
    assert np.abs(to_bgr(moved, changed).astype(int) - to_bgr(luma, chroma)).max() <= 3


def test_grey_to_bgr() -> None:
    assert np.array_equal(to_bgr(LEVELS, None), np.dstack([LEVELS] * 3))


def test_chroma_is_resized_to_odd_luma() -> None:
    chroma = Chroma(np.full((24, 33), 90, np.uint8), np.full((24, 33), 200, np.uint8))
    assert resize_chroma(chroma, 47, 65).v.shape == (47, 65)
    assert to_bgr(np.zeros((47, 65), np.uint8), chroma).shape == (47, 65, 3)
