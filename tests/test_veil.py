"""White smoke in front of something warm: it is found, and what is behind is drawn on it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from command_line import streamfuse

from streamfuse.bench.similarity import original, psnr
from streamfuse.color import Plane
from streamfuse.engines import create_engine
from streamfuse.engines.seen import as_seen
from streamfuse.engines.veil import ROOM, lift_veil
from streamfuse.network.checkpoint import load, save
from streamfuse.network.config import CrossFuseConfig, Ends, Output, SkipBorder, Veil, Window
from streamfuse.network.crossfuse import CrossFuse

HEIGHT, WIDTH = 240, 320
BODY = slice(120, 150), slice(140, 200)


@pytest.fixture
def ir() -> Plane:
    """Ground with a lying body."""
    plane = np.full((HEIGHT, WIDTH), 70, np.uint8)
    plane[BODY] = 200
    return plane


@pytest.fixture
def smoke() -> Plane:
    """White smoke in a grey scene, 60 pixels around the body."""
    plane = np.full((HEIGHT, WIDTH), 90, np.uint8)
    plane[60:210, 80:260] = 252
    return cv2.blur(plane, (15, 15)).astype(np.uint8)


def contrast(plane: Plane) -> float:
    """Level of the body above that of the ground above and below it."""
    around = np.concatenate((plane[100:115, BODY[1]], plane[155:170, BODY[1]])).mean()
    return float(plane[BODY].mean() - around)


def test_a_body_in_smoke_is_drawn_on_it(ir: Plane, smoke: Plane) -> None:
    lifted = lift_veil(ir, smoke)
    assert contrast(smoke) == 0
    assert contrast(lifted) > 0.8 * ROOM
    outside = np.ones(ir.shape, bool)
    outside[50:220, 70:270] = False
    assert np.array_equal(lifted[outside], smoke[outside])
    assert np.abs(np.diff(lifted.astype(int), axis=0))[70:110, 160].max() < 8  # no edge but the body's


@pytest.mark.parametrize("shift", [0, 3, 8])
def test_a_tree_before_a_white_sky_is_left_alone(shift: int) -> None:
    """The tree is dark in the visible picture and warm in infrared, which is off by `shift` pixels."""
    vis = np.full((HEIGHT, WIDTH), 250, np.uint8)
    vis[160:] = 80
    vis[40:, 150:180] = 60
    ir = np.roll(np.where(vis < 100, 180, 40).astype(np.uint8), shift, axis=1)
    assert lift_veil(ir, vis) is vis


def test_nothing_is_changed_without_white_flatness_or_warmth(ir: Plane, smoke: Plane) -> None:
    grey = (smoke * 0.8).astype(np.uint8)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    striped = np.where((rows // 6 + columns // 6) % 2, smoke, smoke * 0.84).astype(np.uint8)
    for infrared, visible in ((ir, grey), (ir, striped), (np.full_like(ir, 70), smoke)):
        assert lift_veil(infrared, visible) is visible


def test_it_begins_gradually(ir: Plane, smoke: Plane) -> None:
    """Smoke that becomes whiter from frame to frame lets the body appear, never in one step."""
    levels = [contrast(lift_veil(ir, np.minimum(smoke, level).astype(np.uint8))) for level in range(205, 245)]
    assert levels[0] == 0
    assert levels[-1] > 0.8 * ROOM
    assert max(np.diff(levels)) < 4
    assert min(np.diff(levels)) >= -0.5


def test_what_is_hardly_warm_hardly_changes_the_smoke(ir: Plane, smoke: Plane) -> None:
    """A body that becomes warmer from frame to frame darkens the smoke around it gradually."""
    around = []
    for level in range(84, 160, 2):
        ir[BODY] = level
        around.append(float(lift_veil(ir, smoke)[155:170, BODY[1]].mean()))
    assert around[0] == 252
    assert around[-1] < 252 - 0.15 * ROOM
    assert max(np.abs(np.diff(around))) < 4


@pytest.mark.parametrize("size", [(16, 16), (17, 400), (1080, 1920)])
def test_any_size(size: tuple[int, int]) -> None:
    white = np.full(size, 255, np.uint8)
    ir = np.zeros(size, np.uint8)
    ir[size[0] // 3 : size[0] // 2, size[1] // 3 : size[1] // 2] = 255
    lifted = lift_veil(ir[:, ::-1], white[:, ::-1])
    assert lifted.shape == size
    assert lifted.dtype == np.uint8


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_engines_lift_it_where_the_weights_say_so(tmp_path: Path, ir: Plane, smoke: Plane, engine: str) -> None:
    torch.manual_seed(0)
    small = CrossFuseConfig(
        output=Output.DIRECT,
        skip_border=SkipBorder.REFLECT,
        window=Window.FITTED,
        ends=Ends.BENT,
        shallow=8,
        deep=32,
        growth=16,
    )
    pictures, drawn = {}, {}
    for veil in Veil:
        path = tmp_path / f"{veil}.safetensors"
        torch.manual_seed(0)
        save(CrossFuse(dataclasses.replace(small, veil=veil)), path)
        assert load(path).config.veil is veil
        with create_engine(engine, weights=path, precision="fp32", device="cpu") as made:
            pictures[veil] = made.fuse(ir, smoke)
            drawn[veil] = made.fuse(ir, lift_veil(ir, smoke))
            assert psnr(pictures[veil], original(path, ir, smoke)[0], Output.DIRECT) > 60
    assert not np.array_equal(pictures[Veil.LIFTED], pictures[Veil.KEPT])
    assert np.array_equal(pictures[Veil.LIFTED], drawn[Veil.KEPT])


def test_without_opencv_it_is_left_out_and_said(ir: Plane, smoke: Plane) -> None:
    """A blocked import stands for a machine without the package, where `scripts/gpu-check` measures engines."""
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "import numpy as np\n"
        "from streamfuse.engines.seen import as_seen\n"
        "from streamfuse.network.config import Veil\n"
        "plane = np.zeros((32, 32), np.uint8)\n"
        "assert as_seen(Veil.LIFTED, plane, plane) is as_seen(Veil.LIFTED, plane, plane) is plane\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("opencv-python is not installed") == 1
    assert as_seen(Veil.KEPT, ir, smoke) is smoke
    assert as_seen(Veil.LIFTED, ir, smoke) is not smoke


def test_a_run_says_how_often_it_was_lifted(tmp_path: Path, ir: Plane, smoke: Plane) -> None:
    for name, planes in (("ir", (ir, ir, ir)), ("vis", (smoke, smoke, 255 - smoke))):
        (tmp_path / name).mkdir()
        for index, plane in enumerate(planes):
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), plane)
    arguments = "run", "--ir", tmp_path / "ir", "--vis", tmp_path / "vis", "-o", tmp_path / "%d.png"
    done = streamfuse(*arguments, "--engine", "torch", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    assert "lifted   2 with white smoke or glare" in done.stderr
