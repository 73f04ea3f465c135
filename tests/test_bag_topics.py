"""The topics of a bag: which are infrared and visible, and what calibration the bag holds."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from bags import CONTAINERS, EPOCH_NS, Sent, camera_info, compressed, image, transform
from command_line import ONE_THREAD, ROOT, SMALL, process, streamfuse
from media import luma_of
from test_bags import SIZE, colour, kelvin, thermal, walk
from test_calibration_import import D_IR, D_VIS, K_IR, K_VIS, R, T, misses

from streamfuse.calibration.bag import calibrate_bag, calibration_of
from streamfuse.calibration.imported import Request
from streamfuse.errors import InputError, UsageError
from streamfuse.sources import open_pair
from streamfuse.sources.bags.bag import Bag
from streamfuse.sources.bags.choose import addresses, find_pair

LARGE = (SIZE[0] * 2, SIZE[1] * 2)


def grey(topic: str, size: tuple[int, int] = SIZE) -> Sent:
    return image(topic, luma_of(0, size), "mono8")


def deep(topic: str) -> Sent:
    return image(topic, thermal(0), "16UC1")


def color(topic: str) -> Sent:
    return image(topic, colour(0), "bgr8")


def jpeg(topic: str) -> Sent:
    return compressed(topic, colour(0), "jpeg")


CHOICES = {
    "16 bits and colour": ([deep("/a/image"), color("/b/image")], ("/a/image", "/b/image")),
    "floating point": ([image("/a/i", kelvin(0), "32FC1"), grey("/b/i")], ("/a/i", "/b/i")),
    "grey and colour": ([grey("/a/image"), color("/b/image")], ("/a/image", "/b/image")),
    "compressed with 16 bits": ([compressed("/a/c", thermal(0), "png"), jpeg("/b/c")], ("/a/c", "/b/c")),
    "sizes": ([grey("/a/image", LARGE), grey("/b/image")], ("/b/image", "/a/image")),
    "one camera, several topics": (
        [deep("/a/image_raw"), grey("/a/image_mono8"), jpeg("/b/image/compressed"), color("/b/image")],
        ("/a/image_raw", "/b/image"),
    ),
    "thermal in false colours": ([color("/thermal/image"), color("/front/image")], ("/thermal/image", "/front/image")),
    "a depth camera too": (
        [deep("/d435/depth/image_rect_raw"), color("/d435/color/image_raw"), deep("/boson/image_raw")],
        ("/boson/image_raw", "/d435/color/image_raw"),
    ),
    "a depth camera beside one without a name": (
        [deep("/d435/depth/image_rect_raw"), color("/d435/color/image_raw"), deep("/a/image")],
        ("/a/image", "/d435/color/image_raw"),
    ),
    "several colours": (
        [deep("/ir/image"), color("/rgb/image"), color("/fisheye/image")],
        ("/ir/image", "/rgb/image"),
    ),
}
"""Topics of a bag, and which are infrared and visible."""


@pytest.mark.parametrize("name", CHOICES)
def test_topics_are_found_by_what_they_show(name: str, tmp_path: Path) -> None:
    sent, expected = CHOICES[name]
    with Bag(CONTAINERS["mcap"](tmp_path, sent)) as bag:
        ir, vis = find_pair(bag)
    assert (ir.topic.name, vis.topic.name) == expected


@pytest.mark.parametrize(
    "sent",
    [
        [grey("/a/image"), grey("/b/image")],
        [color("/a/image"), color("/b/image")],
        [deep("/a/image"), deep("/b/image"), color("/c/image")],
        [deep("/a/image"), color("/left/image"), color("/right/image")],
        [deep("/a/image")],
    ],
)
def test_topics_are_listed_where_it_is_not_certain(sent: list[Sent], tmp_path: Path) -> None:
    path = CONTAINERS["ros1"](tmp_path, sent)
    with pytest.raises(UsageError, match=r"which topic is infrared.*32x24\).*--ir '.*walk.bag\?topic=/"):
        addresses(path)


def test_topics_that_begin_apart_share_a_time_line(tmp_path: Path) -> None:
    sent = [message for message in walk() if message.topic != "/boson/image_raw" or message.log_ns > EPOCH_NS + 10**8]
    ir, vis = open_pair(*addresses(CONTAINERS["sqlite"](tmp_path, sent)))
    with ir, vis:
        assert (ir.first_stamp_ns, vis.first_stamp_ns) == (120_000_000, 0)
        assert next(iter(ir)).stamp_ns == 120_000_000


def quaternion(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """x, y, z, w of a rotation, by OpenCV's angles."""
    turn = cv2.Rodrigues(rotation)[0].ravel()
    angle = float(np.linalg.norm(turn))
    x, y, z = np.sin(angle / 2) * turn / angle
    return float(x), float(y), float(z), float(np.cos(angle / 2))


def rig(rotation: np.ndarray = R, shift: np.ndarray = T) -> list[Sent]:
    """Calibration of both cameras, with X_vis = rotation X_ir + shift by way of a common frame, and two pictures."""
    base, at = np.asarray(cv2.Rodrigues(np.array([0.3, -0.5, 0.2]))[0], np.float64), np.array([0.4, 0.1, -0.2])
    # X_base = base X_ir + at, and X_ir = rotation^T (X_vis - shift).
    seen, place = base @ rotation.T, at - base @ rotation.T @ shift
    infos = []
    for name, frame, size, k, d in (
        ("ir", "/ir_optical", (480, 640), K_IR, D_IR),
        ("eo", "eo_optical", (720, 1280), K_VIS, D_VIS),
    ):
        info = camera_info(f"/{name}/camera_info", size, frame=frame, distortion=d.tolist())
        info.fields.update(dict.fromkeys("kK", k.ravel()))
        infos.append(info)
    return [
        transform("base", "ir_optical", at.tolist(), quaternion(base)),
        transform("base", "eo_optical", place.tolist(), quaternion(seen)),
        *infos,
        image("/ir/image_raw", np.zeros((480, 640), np.uint16), "mono16"),
        compressed("/eo/image_raw/compressed", np.zeros((720, 1280, 3), np.uint8), "jpeg"),
    ]


@pytest.mark.parametrize("kind", ["ros1", "sqlite", "mcap-zstd", "mcap-without-index"])
def test_camera_info_and_transforms_are_the_calibration(kind: str, tmp_path: Path) -> None:
    path = CONTAINERS[kind](tmp_path, rig())
    near = calibrate_bag(path, Request(distance_m=5.0)).calibration
    assert misses(near, 5.0, D_VIS, 5.0) < 0.01
    with_names = calibrate_bag(path, Request("/ir/image_raw", "/eo/image_raw/compressed", distance_m=5.0)).calibration
    assert with_names.to_toml() == near.to_toml()
    ir, vis = open_pair(*addresses(path))
    with ir, vis:
        found = calibration_of(ir, vis)
    assert found is not None
    assert misses(found.calibration, 1e7, D_VIS, np.inf) < 0.01


def test_rectified_pictures_have_the_lens_of_the_projection(tmp_path: Path) -> None:
    sent = rig()
    projection = np.hstack([K_IR * [[0.9], [0.9], [1]], np.zeros((3, 1))]).ravel()
    sent[2].fields.update(dict.fromkeys("pP", projection))
    sent[4] = image("/ir/image_rect", np.zeros((480, 640), np.uint16), "mono16")
    found = calibrate_bag(CONTAINERS["mcap"](tmp_path, sent), Request()).calibration
    assert found.ir_lens is not None
    np.testing.assert_allclose(found.ir_lens.matrix[0, 0], 0.9 * 420)
    assert not found.ir_lens.distortion.any()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda sent: sent.__delitem__(2), "has no /ir/camera_info"),
        (lambda sent: sent.__delitem__(0), "does not lead from the frame 'ir_optical' to 'eo_optical'"),
        (lambda sent: sent[2].fields.update(dict.fromkeys("kK", np.zeros(9))), "never calibrated"),
        (lambda sent: sent[2].fields.update(distortion_model="equidistant"), "equidistant"),
        (lambda sent: sent[3].fields.update(frame_id="ir_optical"), "both cameras have the frame"),
    ],
)
def test_a_calibration_that_is_not_complete_is_announced(
    change: object, says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent = rig()
    change(sent)  # type: ignore[operator]
    path = CONTAINERS["mcap"](tmp_path, sent)
    with pytest.raises(InputError, match=says):
        calibrate_bag(path, Request())
    ir, vis = open_pair(*addresses(path))
    with ir, vis:
        assert calibration_of(ir, vis) is None
    assert "the calibration in the bag is not used" in caplog.text


def test_a_bag_without_calibration_is_nothing_special(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ir, vis = open_pair(*addresses(CONTAINERS["mcap"](tmp_path, walk())))
    with ir, vis:
        assert calibration_of(ir, vis) is None
    assert "calibration" not in caplog.text.replace(str(tmp_path), "")  # whose name has the word


def small_rig() -> list[Sent]:
    """The calibration of the cameras of `walk`, 60 mm apart."""
    infos = [camera_info(f"/{name}/camera_info", SIZE, frame=name) for name in ("boson", "eo")]
    return [transform("boson", "eo", (0.06, 0, 0)), *infos]


def test_run_finds_topics_and_calibration(tmp_path: Path) -> None:
    path = CONTAINERS["mcap"](tmp_path, [*small_rig(), *walk(6)])
    done = streamfuse("run", "--bag", path, "-o", tmp_path / "fused.mp4")
    assert done.returncode == 0, done.stderr
    assert "infrared is /boson/image_raw (mono16, 32x24), visible /eo/image/compressed (jpeg, 32x24)" in done.stderr
    assert "calibration: imported walk.mcap" in done.stderr
    assert "60 mm apart" in done.stderr
    assert "fused    6" in done.stderr
    done = streamfuse("run", "--bag", path, "-o", tmp_path / "other.mp4", "--ignore-camera-info")
    assert done.returncode == 0
    assert "calibration" not in done.stderr


def test_run_refuses_a_bag_beside_other_sources(tmp_path: Path) -> None:
    done = streamfuse("run", "--bag", tmp_path, "--ir", "ir.mp4", "-o", tmp_path / "fused.mp4")
    assert done.returncode == 2
    assert "--bag has both channels" in done.stderr


def test_probe_lists_topics_and_says_what_to_do(tmp_path: Path) -> None:
    sent = walk(6)
    sent.append(
        Sent("/imu\x1b", "sensor_msgs/msg/Temperature", {"stamp_ns": 0, "frame_id": "", **TEMPERATURE}, EPOCH_NS)
    )
    path = CONTAINERS["mcap-without-index"](tmp_path, sent)
    done = streamfuse("probe", path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{path}: 3 topics, 0.21 s, no index"
    assert lines[1].split() == ["/boson/image_raw", "sensor_msgs/msg/Image", "6", "24.2", "Hz", "mono16", "32x24"]
    assert lines[2].split()[-2:] == ["jpeg", "32x24"]
    assert lines[3].split() == [r"/imu\x1b", "sensor_msgs/msg/Temperature", "1", "0", "Hz"]
    assert lines[-1] == f"next     streamfuse run --bag {path} -o fused.mp4"
    done = streamfuse("probe", f"{path}?topic=/boson/image_raw")
    assert done.stdout == f"{path}?topic=/boson/image_raw, 32x24, 25 fps\n"


TEMPERATURE = {"temperature": 20.0, "variance": 0.0}


def test_probe_describes_other_recordings(tmp_path: Path) -> None:
    (tmp_path / "ir").mkdir()
    for k in range(5):
        assert cv2.imwrite(str(tmp_path / "ir" / f"{k}.png"), luma_of(k))
    done = streamfuse("probe", tmp_path / "ir")
    assert done.stdout == f"{tmp_path / 'ir'}, 25 fps, 5 frames, 0.20 s\n"


def test_calibrate_import_reads_a_bag(tmp_path: Path) -> None:
    path = CONTAINERS["ros1-lz4"](tmp_path, rig())
    done = streamfuse("calibrate", "import", path, "-o", tmp_path / "calib.toml")
    assert done.returncode == 0, done.stderr
    assert "infrared is /ir/image_raw, visible /eo/image_raw/compressed" in done.stdout
    assert (tmp_path / "calib.toml").exists()


def answer(path: Path, output: Path, *answers: str) -> tuple[int, str]:
    """Run `--bag` at a pseudo-terminal and answer its questions; return the exit code and what the terminal shows."""
    shown = b""
    inside, outside = pty.openpty()
    command = [sys.executable, "-m", "streamfuse", "run", "--bag", str(path), "-o", str(output), *SMALL]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", **ONE_THREAD}
    with subprocess.Popen(command, stdin=outside, stdout=outside, stderr=outside, env=environment) as process:
        os.close(outside)
        waiting = list(answers)
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while data := os.read(inside, 4096):
                shown += data
                if waiting and shown.rstrip().endswith(b" one:"):
                    os.write(inside, f"{waiting.pop(0)}\n".encode())
        code = process.wait(60)
    os.close(inside)
    return code, shown.decode()


def test_a_terminal_is_asked_for_the_topics(tmp_path: Path) -> None:
    path = CONTAINERS["mcap"](tmp_path, [grey("/a/image"), color("/b/image"), color("/c/image")])
    code, shown = answer(path, tmp_path / "fused.mcap", "7", "1", "3")
    assert code == 0, shown
    assert "  1  /a/image (mono8, 32x24)" in shown
    assert "7 is not in the range 1<=x<=3" in shown
    assert "infrared is /a/image (mono8, 32x24), visible /c/image" in shown
    code, shown = answer(path, tmp_path / "other.mcap", "2", "2")
    assert code == 2
    assert "/b/image cannot be both: give two topics" in shown
    done = process("run", "--bag", path, "-o", tmp_path / "third.mcap", *SMALL)
    assert done.returncode == 2
    assert f"give two of them instead of --bag: --ir '{path}?topic=/a/image'" in done.stderr
