"""`streamfuse calibrate`, and calibration files in `run` and `fuse`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from command_line import SMALL, fails, streamfuse
from media import every, read_video, write_images, write_video
from rig import TILTED, VGA, calibration, infrared_look, seen, structure
from test_calibration_boards import write_pairs
from test_calibration_import import STEREO, opencv_file
from test_calibration_points import marked, write

from streamfuse.calibration.geometry import inverse
from streamfuse.calibration.model import load

SIZES = ("--ir-size", "640x480", "--vis-size", "640x480")


def test_points(tmp_path: Path) -> None:
    points, out = write(tmp_path / "p.csv", *marked(0, 12)), tmp_path / "c.toml"
    done = streamfuse("calibrate", "points", points, *SIZES, "-o", out)
    assert done.returncode == 0, done.stderr
    assert f"streamfuse run --calib {out}" in done.stdout
    assert "px RMS" in done.stdout
    assert load(out).id in done.stdout
    assert "no picture was given" in done.stdout
    assert not (tmp_path / "c.png").exists()
    fails(5, "exists: choose another name", "calibrate", "points", points, *SIZES, "-o", out)
    assert streamfuse("calibrate", "points", points, *SIZES, "-o", out, "--force").returncode == 0
    fails(2, "sizes missing", "calibrate", "points", points, "-o", tmp_path / "d.toml")
    fails(2, "give a name that ends in .toml", "calibrate", "points", points, *SIZES, "-o", tmp_path / "d.json")
    fails(2, "give WIDTHxHEIGHT", "calibrate", "points", points, "--ir-size", "640", "-o", tmp_path / "d.toml")
    fails(5, "directory does not exist", "calibrate", "points", points, *SIZES, "-o", tmp_path / "none" / "d.toml")


def test_points_with_pictures_write_a_check_picture(tmp_path: Path) -> None:
    scene = structure(1)
    cv2.imwrite(str(tmp_path / "ir.png"), infrared_look(seen(scene, inverse(TILTED))))
    cv2.imwrite(str(tmp_path / "vis.png"), scene)
    pictures = ("--ir", tmp_path / "ir.png", "--vis", tmp_path / "vis.png")
    points = write(tmp_path / "p.csv", *marked(0, 12))
    done = streamfuse(
        "calibrate", "points", points, *pictures, "-o", tmp_path / "c.toml", "--check", tmp_path / "x.jpg"
    )
    assert done.returncode == 0, done.stderr
    check = cv2.imread(str(tmp_path / "x.jpg"))
    assert check is not None
    assert check.shape[1] >= 960
    fails(
        5,
        "x.jpg exists",
        "calibrate",
        "points",
        points,
        *pictures,
        "-o",
        tmp_path / "d.toml",
        "--check",
        tmp_path / "x.jpg",
    )


def test_board(tmp_path: Path) -> None:
    write_pairs(tmp_path, "checkerboard", 4)
    args = ("calibrate", "board", "--ir", tmp_path / "ir", "--vis", tmp_path / "vis", "-o", tmp_path / "c.toml")
    fails(2, "give COLUMNSxROWS", *args, "--pattern", "7")
    fails(3, "found in both pictures of 0 of 4", *args, "--pattern", "9x6")
    done = streamfuse(*args, "--pattern", "8x5", "--distance-m", "4")
    assert done.returncode == 0, done.stderr
    assert "VIS3" in done.stdout
    assert "at 4 m" in done.stdout
    assert (tmp_path / "c.png").exists()


def test_scene_refuses_with_exit_3_and_writes_nothing(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "ir.png"), infrared_look(structure(1)))
    cv2.imwrite(str(tmp_path / "vis.png"), structure(2))
    out = tmp_path / "c.toml"
    fails(
        3,
        "calibrate board",
        "calibrate",
        "scene",
        "--ir",
        tmp_path / "ir.png",
        "--vis",
        tmp_path / "vis.png",
        "--min-pairs",
        "1",
        "-o",
        out,
    )
    assert not out.exists()
    assert not (tmp_path / "c.png").exists()


def test_scene_then_run(tmp_path: Path) -> None:
    """From pictures to a calibration to a fused video, cropped to the overlap."""
    scene = structure(1)
    ir = infrared_look(seen(scene, inverse(TILTED)))
    for name, picture in (("ir", ir), ("vis", scene)):
        write_images(tmp_path / name, ["1.png", "2.png", "3.png"], size=VGA)
        for k in (1, 2, 3):
            cv2.imwrite(str(tmp_path / name / f"{k}.png"), picture)
    sources = ("--ir", tmp_path / "ir", "--vis", tmp_path / "vis")
    done = streamfuse("calibrate", "scene", *sources, "-o", tmp_path / "c.toml")
    assert done.returncode == 0, done.stderr
    assert "blocks agree" in done.stdout
    out = tmp_path / "fused.mkv"
    done = streamfuse("run", *sources, "--calib", tmp_path / "c.toml", "--crop", "overlap", "-o", out,
                      "--codec", "ffv1", "--engine", "torch")  # fmt: skip
    assert done.returncode == 0, done.stderr
    pictures = read_video(out)[1]
    height, width = pictures[0].shape
    assert height % 2 == width % 2 == 0
    assert 300 < height < 480
    assert 400 < width < 640


def test_import(tmp_path: Path) -> None:
    stereo = opencv_file(tmp_path / "stereo.yaml", STEREO)
    sizes = ("--ir-size", "640x480", "--vis-size", "1280x720")
    args = ("calibrate", "import", stereo, *sizes, "--force", "-o", tmp_path / "c.toml")
    done = streamfuse(*args)
    assert done.returncode == 0, done.stderr
    assert "at every distance, far unless told; parallax 7" in done.stdout
    assert "7.5 px at 10 m, 25.1 at 3 m" in done.stdout
    done = streamfuse(*args, "--distance-m", "5")
    assert "at every distance, 5 m unless told; parallax 7" in done.stdout
    assert load(tmp_path / "c.toml").vis_size == (720, 1280)
    assert load(tmp_path / "c.toml").distance_m == 5


def test_run_and_fuse_with_a_calibration(tmp_path: Path) -> None:
    shift = np.array([[1, 0, 8.0], [0, 1, 4.0], [0, 0, 1.0]])
    calibration(shift, (48, 64), (48, 64)).save(tmp_path / "c.toml")
    ir = write_video(tmp_path / "ir.mp4", every(40, 3))
    vis = write_video(tmp_path / "vis.mp4", every(40, 3), u=100, v=160)
    args = ("run", "--ir", ir, "--vis", vis, "--calib", tmp_path / "c.toml", *SMALL)
    for crop, shape in (((), (48, 64)), (("--crop", "overlap"), (44, 56))):
        done = streamfuse(*args, *crop, "-o", tmp_path / "out.mp4", "--force")
        assert done.returncode == 0, done.stderr
        assert read_video(tmp_path / "out.mp4")[1][0].shape == shape
    write_images(tmp_path / "pair", ["ir.png", "vis.png"], colour=True)
    pair = (tmp_path / "pair" / "ir.png", tmp_path / "pair" / "vis.png")
    done = streamfuse(
        "fuse", *pair, "-o", tmp_path / "f.png", "--calib", tmp_path / "c.toml", "--crop", "overlap", *SMALL
    )
    assert done.returncode == 0, done.stderr
    fused = cv2.imread(str(tmp_path / "f.png"))
    assert fused is not None
    assert fused.shape == (44, 56, 3)
    fails(
        2, "needs a calibration", "run", "--ir", ir, "--vis", vis, "--crop", "overlap", "-o", tmp_path / "x.mp4", *SMALL
    )
    (tmp_path / "bad.toml").write_text("version = 1")
    fails(3, "bad.toml: ir_size is missing", "run", "--ir", ir, "--vis", vis, "--calib", tmp_path / "bad.toml", "-o",
          tmp_path / "x.mp4", *SMALL)  # fmt: skip
    calibration().for_sizes((480, 640), (480, 640)).save(tmp_path / "large.toml")
    wide = write_video(tmp_path / "wide.mp4", every(40, 3), size=(48, 96))
    fails(3, "these are 96x48", "run", "--ir", ir, "--vis", wide, "--calib", tmp_path / "large.toml", "-o",
          tmp_path / "x.mp4", *SMALL)  # fmt: skip


def test_help_names_the_four_methods() -> None:
    done = streamfuse("calibrate", "--help")
    for word in ("scene", "board", "points", "import"):
        assert word in done.stdout
