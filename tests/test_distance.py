"""The warp for a distance: where it is, how it moves, and who may change it."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from command_line import SMALL, streamfuse
from media import PassThrough
from rig import TILTED, VGA, calibration, lens, structure

from streamfuse.alignment import FADE_FRAMES, MAX_MOVE_PX, Aligner
from streamfuse.calibration.geometry import inverse, project
from streamfuse.calibration.grid import CoordinateGrid
from streamfuse.calibration.model import Calibration
from streamfuse.calibration.overlap import infrared_coordinates
from streamfuse.color import Plane
from streamfuse.errors import UsageError
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.temperature import NONE, Scale, TemperaturePlane

E = np.array([36.0, 3.0, 0.004])


def rig(**changes: object) -> Calibration:
    return replace(calibration(), parallax=E, **changes)  # type: ignore[arg-type]


def seen_at(scene: Plane, made: Calibration, distance_m: float) -> Plane:
    """Infrared picture of a flat scene at a distance."""
    flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    return np.asarray(cv2.warpPerspective(scene, made.at(distance_m).homography, VGA[::-1], flags=flags), np.uint8)


def error(aligned: Plane, scene: Plane) -> float:
    return float(np.abs(aligned.astype(float) - scene)[60:-60, 60:-60].mean())


@pytest.mark.parametrize("distance", [3.0, 8.0, math.inf])
def test_scene_at_the_distance_coincides(distance: float) -> None:
    scene = structure(3)
    ir = seen_at(scene, rig(), distance)
    assert error(Aligner(rig(), distance_m=distance).align(ir, scene)[0], scene) < 3
    other = 3.0 if distance == math.inf else math.inf
    assert error(Aligner(rig(), distance_m=other).align(ir, scene)[0], scene) > 6


def test_distance_of_the_calibration_is_used_unless_told() -> None:
    scene = structure(3)
    ir = seen_at(scene, rig(), 5.0)
    assert error(Aligner(rig(distance_m=5.0)).align(ir, scene)[0], scene) < 3
    assert Aligner(rig()).distance_m == math.inf


@pytest.mark.parametrize("lenses", [(None, None), (lens(520, k1=-0.25, k2=0.05), lens(640, k1=0.12))])
def test_quick_maps_are_those_of_every_pixel(lenses: tuple) -> None:  # type: ignore[type-arg]
    made = rig(ir_lens=lenses[0], vis_lens=lenses[1])
    grid = CoordinateGrid(made)
    for distance in (3.0, math.inf):
        exact, mask = infrared_coordinates(made.at(distance))
        quick = np.stack(grid.coordinates(1 / distance), axis=-1).reshape(-1, 2)
        inside = mask.ravel()
        assert np.abs(quick[inside] - exact[inside]).max() < 0.06
        assert (grid.coverage(1 / distance) != mask).mean() < 2e-3


def _cubic(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """OpenCV's cubic kernel, with -0.75 for the free parameter."""
    t = np.abs(share)
    return np.where(t <= 1, (1.25 * t - 2.25) * t**2 + 1, np.where(t < 2, -0.75 * (t**3 - 5 * t**2 + 8 * t - 4), 0))


def test_warp_is_interpolated_to_half_a_grey_level() -> None:
    """Positions that are rounded to 1/32 px, as in fixed-point maps, cost up to 3 levels at an edge."""
    scene, made = structure(3), rig()
    aligned, _ = Aligner(made, distance_m=4.0).align(scene, scene)
    x, y = (axis.astype(float) for axis in CoordinateGrid(made).coordinates(1 / 4.0))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    exact = np.zeros(VGA)
    for j, i in np.ndindex(4, 4):
        taken = scene[np.clip(top + j - 1, 0, VGA[0] - 1), np.clip(left + i - 1, 0, VGA[1] - 1)]
        exact += _cubic(x - left - i + 1) * _cubic(y - top - j + 1) * taken
    assert np.abs(aligned - np.clip(exact, 0, 255))[80:-80, 80:-80].max() < 0.75


def test_warp_moves_smoothly_to_another_distance() -> None:
    made = rig()
    aligner = Aligner(made)
    scene = structure(3)
    aligner.align(scene, scene)
    aligner.set_distance(4.0)
    middle = np.array([[320.0, 240.0]])
    moves, before = [], project(made.at(math.inf).homography, middle)
    for _ in range(40):
        aligner.align(scene, scene)
        assert aligner.distance_m is not None
        now = project(made.at(aligner.distance_m).homography, middle)
        moves.append(float(np.linalg.norm(now - before)))
        before = now
    assert max(moves) < 1.1 * MAX_MOVE_PX
    assert aligner.distance_m == 4.0
    assert moves[-1] == 0


def test_border_fades_to_that_of_both_distances_and_stays_there() -> None:
    """White infrared over a black picture: the result is the weight."""
    aligner = Aligner(rig(distance_m=3.0))
    white, black = np.full(VGA, 255, np.uint8), np.zeros(VGA, np.uint8)
    before = aligner.align(white, black)[0].astype(np.int16)
    aligner.set_distance(1e6)
    pictures = [aligner.align(white, black)[0].astype(np.int16) for _ in range(FADE_FRAMES + 10)]
    steps = [np.abs(after - earlier).max() for earlier, after in pairwise([before, *pictures])]
    assert 4 < max(steps) <= 255 / FADE_FRAMES + 2, "the border changes slowly"
    assert max(steps[FADE_FRAMES:]) == 0, "and then stays while the distance moves"
    jumped = Aligner(rig(distance_m=3.0))
    jumped.align(white, black)
    jumped.set_distance(1e6, jump=True)
    assert (jumped.align(white, black)[0] == pictures[-1]).all(), "at a cut it changes at once"


def test_crop_keeps_its_size_at_every_distance() -> None:
    aligner = Aligner(rig(), crop=True)
    scene = structure(3)
    shape = aligner.output_shape(*VGA)
    for distance in (1e6, 2.0, 7.0):
        aligner.set_distance(distance, jump=True)
        assert aligner.align(scene, scene)[0].shape == aligner.output_shape(*VGA) == shape


def test_temperatures_go_through_the_same_warp() -> None:
    aligner = Aligner(rig(), distance_m=4.0)
    scene = structure(3)
    ir = seen_at(scene, rig(), 4.0)
    aligned, _ = aligner.align(ir, scene)
    counts = ir.astype(np.uint16) * np.uint16(100) + np.uint16(1000)  # off the ends of the scale
    warped = aligner.align_temperature(TemperaturePlane(counts, Scale(0.01, 0.0)), scene.shape).values
    assert (warped[60:-60, 60:-60] != NONE).all()
    assert error(((warped - np.uint16(1000)) // 100).astype(np.uint8), aligned) < 2


def test_any_thread_may_change_the_distance_while_pictures_are_fused() -> None:
    with Fuser(engine=PassThrough(), calibration=rig()) as fuser:
        scene = structure(3)
        done = threading.Event()

        def turn() -> None:
            for step in range(200):
                fuser.set_distance(3 + step % 7)
            fuser.set_distance("far")
            done.set()

        thread = threading.Thread(target=turn)
        thread.start()
        while not done.is_set():
            fuser.fuse(scene, scene)
        thread.join()
        for _ in range(60):
            fuser.fuse(scene, scene)
        assert fuser.distance_m == math.inf


def test_pipeline_takes_a_distance_while_it_runs() -> None:
    made = replace(calibration(np.eye(3), (48, 64), (48, 64)), parallax=np.array([20.0, 0, 0]))
    ir, vis = (f"synthetic:{name}?size=64x48&seconds=1" for name in ("ir", "vis"))
    with Fuser(engine=PassThrough(), calibration=made) as fuser, Pipeline(ir, vis, fuser=fuser) as pipeline:
        for frame in pipeline:
            pipeline.set_distance(5)
            if frame.index == 20:
                break
        assert fuser.distance_m == 5


@pytest.mark.parametrize("value", [0, -3.0, math.nan, "near", "inf", ""])
def test_impossible_distance_is_refused(value: float | str) -> None:
    with Fuser(engine=PassThrough(), calibration=rig()) as fuser, pytest.raises(UsageError, match="such as 8, or far"):
        fuser.set_distance(value)


def test_distance_without_parallax_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"one distance only: calibrate with .*--baseline-m"):
        Aligner(calibration(), distance_m=8)
    with pytest.raises(UsageError, match="needs a calibration"):
        Aligner(None, distance_m=8)


def test_command_line(tmp_path: Path) -> None:
    """A scene at 4 m, through the network: the picture is another one than for far."""
    scene = structure(3, (48, 64))
    small = replace(calibration(np.eye(3), (48, 64), (48, 64)), parallax=np.array([20.0, 0, 0]))
    small.save(tmp_path / "c.toml")
    for name in ("ir", "vis"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), scene)
    results = []
    for distance in ("4", "far"):
        out = tmp_path / f"{distance}.png"
        flags = ["--calib", tmp_path / "c.toml", "--distance-m", distance, "-o", out]
        done = streamfuse("fuse", tmp_path / "ir.png", tmp_path / "vis.png", *flags, *SMALL)
        assert done.returncode == 0, done.stderr
        results.append(np.asarray(cv2.imread(str(out), cv2.IMREAD_GRAYSCALE), np.int16))
    assert np.abs(results[0] - results[1]).mean() > 2
    flags = ["--distance-m", "8", "-o", tmp_path / "x.mp4"]
    done = streamfuse("run", "--ir", "synthetic:ir", "--vis", "synthetic:vis", *flags)
    assert (done.returncode, "needs a calibration" in done.stderr) == (2, True)


def test_inverse_of_the_map_is_the_homography() -> None:
    """Infrared coordinates of a visible pixel lead back to it."""
    x, y = CoordinateGrid(rig()).coordinates(1 / 6)
    back = project(rig().at(6).homography, np.array([[x[200, 300], y[200, 300]]], np.float64))
    assert back[0] == pytest.approx((300, 200), abs=1e-3)
    assert project(inverse(TILTED), np.array([[300.0, 200.0]]))[0] != pytest.approx((x[200, 300], y[200, 300]), abs=2)
