"""Environment for the commands in the documentation: the files, cameras and servers that they name."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import bags
import cv2
import numpy as np
from batches import write_archive
from commands import ROOT
from media import every, write_images, write_video
from published_weights import write_published
from rig import TILTED, board_pose, draw_board, infrared_look, seen, structure
from streams import camera_server, free_port
from test_bag_topics import rig
from test_calibration_import import STEREO, opencv_file
from test_calibration_points import marked, write
from test_push import server
from test_rtsp import HAS_PEER, Peer
from test_time_offset import picture, waving
from thermal_files import Container, counts_of, dji_jpeg, warm_spot, write_recording, write_y16

from streamfuse.calibration.geometry import inverse
from streamfuse.color import Plane

LINKED = (
    *("LICENSE", "README.md", "calib", "docker", "docs", "examples", "pipelines", "pyproject.toml", "scripts"),
    *("streamfuse", "weights"),
)
"""Entries of the checkout, which the commands expect as their working directory."""


@dataclass(frozen=True)
class Stage:
    directory: Path
    environment: dict[str, str]
    fused_port: int
    """Port of a media server that accepts pushed streams."""


def _video(path: Path, pictures: list[Plane]) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, pictures[0].shape[::-1], isColor=False)
    for one in pictures:
        writer.write(one)
    writer.release()


def _pairs(stage: Path) -> None:
    """Write pairs under the names in the documentation; calibration can align them: infrared is tilted."""
    scenes = [structure(seed) for seed in range(3)]
    views = [infrared_look(seen(scene, inverse(TILTED)), k) for k, scene in enumerate(scenes)]
    for name in ("ir.mp4", "a.mkv"):
        _video(stage / name, views)
    for name in ("vis.mp4", "b.mkv"):
        _video(stage / name, scenes)
    for name, shown in (("ir", views), ("vis", scenes), ("fused", scenes), ("a", views), ("b", scenes)):
        (stage / name).mkdir()
        for k, one in enumerate(shown, 1):
            suffix = "tif" if name == "a" else "png"
            assert cv2.imwrite(str(stage / name / f"{k:06d}.{suffix}"), one)
    assert cv2.imwrite(str(stage / "ir.png"), views[0])
    assert cv2.imwrite(str(stage / "vis.png"), scenes[0])


def _bags(stage: Path) -> None:
    """Write the same pairs into bags, infrared with 16 bits."""
    sent = []
    for k in range(3):
        ir, vis = (cv2.imread(str(stage / name / f"{k + 1:06d}.png")) for name in ("ir", "vis"))
        assert ir is not None
        assert vis is not None
        sent.append(bags.image("/boson/image_raw", ir[..., 0].astype(np.uint16) * 16, "mono16", k))
        sent.append(bags.compressed("/eo/image/compressed", vis, "jpeg", k))
    for kind in ("mcap", "ros1", "sqlite"):
        bags.CONTAINERS[kind](stage, sent)
    (stage / "bags").mkdir()
    bags.CONTAINERS["mcap"](stage / "bags", rig()).rename(stage / "bags/rig.mcap")


def _thermal(stage: Path) -> None:
    """Write files of thermal cameras."""
    visible = np.full((96, 128, 3), 90, np.uint8)
    for k in range(1, 4):
        container = Container(counts_of(warm_spot((48, 64))), visible=visible, geometry=(1.5, 4, -2))
        for directory in ("flir", "flights/1"):
            container.write(stage / directory / f"FLIR{k:04}.jpg")
        name = f"DJI_20240101120000_{k:04}"
        (stage / "dji").mkdir(exist_ok=True)
        (stage / "dji" / f"{name}_T.JPG").write_bytes(dji_jpeg(np.full((120, 160), 18_500, np.uint16)))
        assert cv2.imwrite(str(stage / "dji" / f"{name}_W.JPG"), visible)
    write_recording(stage / "walk.seq")
    values = [np.full((96, 112), 19_000 + k, np.uint16) for k in range(12)]
    write_y16(stage / "ir.mkv", values)


def _boards(stage: Path) -> None:
    random = np.random.default_rng(0)
    board, _ = draw_board("checkerboard", 9, 6)
    for name in ("lwir", "rgb"):
        (stage / name).mkdir()
    for k in range(1, 7):
        vis = seen(board, board_pose(random, board))
        assert cv2.imwrite(str(stage / "rgb" / f"{k}.png"), vis)
        assert cv2.imwrite(str(stage / "lwir" / f"{k}.png"), infrared_look(seen(vis, inverse(TILTED)), k))


def _hand(stage: Path) -> None:
    rng, position = np.random.default_rng(0), waving()
    for name, look, late_s in (("wave-ir.mp4", "infrared", 0.12), ("wave-vis.mp4", "visible", 0.0)):
        _video(stage / name, [picture(position(k / 25 + late_s), look, rng) for k in range(250)])


def _rest(stage: Path) -> None:
    names = [f"{k:08d}.png" for k in range(1, 4)]
    write_images(stage / "sequences/street/ir", names)
    write_images(stage / "sequences/street/color", names, colour=True)
    write_published(stage / "checkpoints")
    write(stage / "points.csv", *marked(0, 12))
    opencv_file(stage / "stereo.yaml", {**STEREO, "image_width": 640, "image_height": 480})
    for name in ("ir", "vis"):
        write_video(stage / "PAIRS" / name / "street.mp4", every(40, 18), size=(96, 112))
    write_archive(stage, 2)
    (stage / "archive.csv").write_text("ir,vis\nrec/c000/ir.mp4,rec/c000/vis.mp4\n")
    (stage / "small.toml").write_text('base = "default"\ncrop = 64\n')
    (stage / "out").mkdir()
    (stage / "tests").mkdir()
    (stage / "tests/test_one.py").write_text(
        "import pytest\ndef test_one() -> None:\n    pass\n@pytest.mark.timed\ndef test_timed() -> None:\n    pass\n"
    )


def _programs(stage: Path) -> Path:
    """Imitate the result of `scripts/env` with the current environment, without installing anything."""
    programs = stage / ".venv/bin"
    programs.mkdir(parents=True)
    for name, call in (("python", ""), ("streamfuse", " -m streamfuse"), ("pip", " -m pip"), ("pytest", " -m pytest")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{call} "$@"\n')
        (programs / name).chmod(0o755)
    for stamp in ("installed", "installed-test", "installed-check", "installed-docs"):
        (stage / ".venv" / stamp).touch()
    return programs


@contextmanager
def _media_server() -> Iterator[int]:
    """Port of a media server that accepts pushed streams, one after the other."""
    port, ended = free_port(), threading.Event()
    source = server(port)

    def take() -> None:
        for _ in source:
            if ended.is_set():
                return

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        ended.set()
        source.interrupt()
        thread.join(20)


@contextmanager
def _cameras() -> Iterator[dict[str, str]]:
    """Addresses of sources by their names in the documentation: MJPEG cameras, and an RTSP server if installed."""
    with ExitStack() as stack:
        port = stack.enter_context(camera_server())
        found = {f"cam{k}": f"http://127.0.0.1:{port}/cam{k}" for k in range(4)}
        if HAS_PEER:
            peer = Peer()
            stack.callback(peer.kill)
            found |= {f"rtsp://camera/{name}": f"rtsp://127.0.0.1:{peer.port}/{name}" for name in ("ir", "rgb")}
        else:
            found |= {f"rtsp://camera/{name}": f"http://127.0.0.1:{port}/cam-{name}" for name in ("ir", "rgb")}
        yield found


@contextmanager
def staged(directory: Path) -> Iterator[Stage]:
    """Directory with all of this; a --config file maps the camera names to addresses, as a user would."""
    for name in LINKED:
        if (ROOT / name).exists():
            (directory / name).symlink_to(ROOT / name)
    for make in (_pairs, _bags, _boards, _hand, _thermal):
        make(directory)
    for name in ("ir", "vis"):
        (directory / "PAIRS" / name).mkdir(parents=True)
    _rest(directory)
    programs = _programs(directory)
    with _cameras() as cameras, _media_server() as fused_port:
        table = "".join(f'"{name}" = "{address}"\n' for name, address in cameras.items())
        (directory / "stand-ins.toml").write_text(f"[sources]\n{table}")
        paths = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {
            **os.environ,
            "PATH": paths,
            "PYTHONPATH": str(ROOT),
            "STREAMFUSE_RUN_CONFIG": str(directory / "stand-ins.toml"),
        }
        yield Stage(directory, environment, fused_port)
