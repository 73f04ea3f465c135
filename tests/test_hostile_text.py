"""Text from outside with any content is accepted, or refused by a StreamfuseError of one line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
from hostile import NUMBERS, TOKENS, mutated
from hypothesis import example, given
from hypothesis import strategies as st
from media import write_images
from rig import calibration, lens

from streamfuse.calibration.imported import Request, calibrate_import
from streamfuse.calibration.model import Calibration, load
from streamfuse.calibration.points import read_points
from streamfuse.cli import cli
from streamfuse.errors import InputError, StreamfuseError, UsageError
from streamfuse.sources import open_source
from streamfuse.sources.address import parse_address
from streamfuse.sources.synthetic import SyntheticSource
from streamfuse.sources.vot import open_vot
from streamfuse.support.urls import expand, mask, redact
from streamfuse.training.recipe import RECIPES, read_recipe
from streamfuse.web.address import parse as parse_place
from streamfuse.zeromq.endpoint import check_url


def none_if_refused(call: Callable[[], Any]) -> Any:
    """Return the result of `call`, or None for a StreamfuseError, which must be one line."""
    try:
        return call()
    except StreamfuseError as error:
        said = type(error), str(error)
    assert said[0] is not StreamfuseError
    assert said[1].isprintable()
    assert said[1]
    return None


def with_file(data: bytes, call: Callable[[Path], Any], name: str = "file") -> Any:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / name
        path.write_bytes(data)
        return none_if_refused(lambda: call(path))


# VOT sequences

SEQUENCE = "channels.color=color/%08d.jpg\nchannels.ir=ir/%08d.jpg\nfps=25\nlength=3\nname=street\n"


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("vot")
    for channel in ("ir", "color"):
        write_images(directory / channel, [f"{k:08d}.jpg" for k in (1, 2, 3)])
    return directory


@given(st.one_of(st.binary(max_size=200), mutated(SEQUENCE)))
@example(SEQUENCE.replace("fps=25", "fps=1e-3").encode())
@example(SEQUENCE.replace("length=3", "length=" + "9" * 5000).encode())
@example(SEQUENCE.replace("%08d", "%99999999999d").encode())
@example(SEQUENCE.replace("color/%08d.jpg", "color/\0%08d.jpg").encode())
@example(SEQUENCE.replace("color/", "color/" * 2000).encode())
def test_vot_sequence_files(sequence: Path, data: bytes) -> None:
    (sequence / "sequence").write_bytes(data)
    sources = none_if_refused(lambda: open_vot(sequence))
    for source in sources or ():
        assert all(path.is_file() for path in source.files)


@pytest.mark.parametrize("numbers", [["9" * 5000], ["9" * 400, "9" * 401]])
def test_huge_numbers_in_file_names(tmp_path: Path, numbers: list[str]) -> None:
    """File names are up to 255 bytes, so their numbers are up to 10^250: too large for a time stamp."""
    short = [number[:240] for number in numbers]
    for channel in ("ir", "color"):
        write_images(tmp_path / channel, [f"{number}{k}.png" for k, number in enumerate(short)])
    (tmp_path / "sequence").write_text(SEQUENCE.replace("%08d.jpg", "%d.png").replace("length=3\n", ""))
    none_if_refused(lambda: open_vot(tmp_path))
    none_if_refused(lambda: open_source(str(tmp_path / "ir")))


# Pipelines and other TOML

PIPELINE = """
ir = "front"
vis = "synthetic:vis?seconds=1"
output = ["out.mp4", "out.mkv"]
crf = 20
tone = "fixed:0,255"
fps = 25.0
ir-offset-ms = -3
frames = 10
force = true
hw-decode = false
policy = "latest"
preview = "127.0.0.1:0"
[sources]
front = "synthetic:ir?seconds=1"
"""


def read_config(path: Path) -> Any:
    run = cli.get_command(click.Context(cli), "run")
    assert run is not None
    try:
        return run.make_context("run", ["--config", str(path)])
    except click.ClickException:
        return None  # one option, as on the command line


@given(st.one_of(st.binary(max_size=200), mutated(PIPELINE)))
@example(b"frames = " + b"9" * 5000)
@example(b"ir = " + b"[" * 5000 + b"]" * 5000)
@example(b"a." * 3000 + b"b = 1")
@example(b"fps = nan")
@example(b"output = 1979-05-27T07:32:00Z")
def test_pipelines(data: bytes) -> None:
    with_file(data, read_config)


RECIPE = 'base = "published"\nsteps = 5000\nlr = 1e-3\nbf16 = true\n[losses]\nintensity = 1.0\n[network]\ndepth = 2\n'


@given(st.one_of(st.binary(max_size=200), mutated(RECIPE)))
@example(b"steps = " + b"9" * 5000)
@example(b"base = []")
@example(b"[network]\ndepth = 6")
@example(b"[losses]\nintensity = " + b"9" * 400)
def test_recipes(data: bytes) -> None:
    with_file(data, lambda path: read_recipe(str(path), RECIPES), "recipe.toml")


# Calibrations: this program's and other formats

OURS = calibration(lenses=(lens(500, k1=-0.2), lens(700))).to_toml()


@given(st.one_of(st.binary(max_size=200), mutated(OURS)))
@example(OURS.replace("version = 1", "version = " + "9" * 5000).encode())
@example(OURS.replace("0.93", "9" * 400).encode())
@example(OURS.replace("ir_size = [640, 480]", "ir_size = [" + "9" * 400 + ", 480]").encode())
@example(OURS.replace("distance_m", "x").replace("rms_px = 0.5", "rms_px = " + "9" * 400).encode())
@example(b"homography = " + b"[" * 3000)
def test_calibrations(data: bytes) -> None:
    found = with_file(data, load)
    assert found is None or isinstance(found, Calibration)


OPENCV = """%YAML:1.0
---
K1: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 500., 0., 320., 0., 500., 240., 0., 0., 1. ]
D1: [ 0.1, 0., 0., 0., 0. ]
K2: [ 700., 0., 320., 0., 700., 240., 0., 0., 1. ]
D2: [ 0., 0., 0., 0., 0. ]
R: [ 1., 0., 0., 0., 1., 0., 0., 0., 1. ]
T: [ -0.1, 0., 0. ]
size: [ 640, 480 ]
"""
XML = """<?xml version="1.0"?>
<opencv_storage>
<H type_id="opencv-matrix"><rows>3</rows><cols>3</cols><dt>d</dt><data>1. 0. 5. 0. 1. 5. 0. 0. 1.</data></H>
<image_size>640 480</image_size>
</opencv_storage>
"""
KALIBR = """
cam0:
  camera_model: pinhole
  distortion_model: radtan
  distortion_coeffs: [0.1, 0.0, 0.0, 0.0]
  intrinsics: [500.0, 500.0, 320.0, 240.0]
  resolution: [640, 480]
cam1:
  T_cn_cnm1: [[1.0, 0.0, 0.0, -0.1], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
  camera_model: pinhole
  distortion_model: radtan
  distortion_coeffs: [0.1, 0.0, 0.0, 0.0]
  intrinsics: [700.0, 700.0, 320.0, 240.0]
  resolution: [640, 480]
"""
ROS = """
image_width: 640
image_height: 480
camera_name: ir
camera_matrix: {rows: 3, cols: 3, data: [500, 0, 320, 0, 500, 240, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [500, 0, 320, -50, 0, 500, 240, 0, 0, 0, 1, 0]}
"""
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{c}: &{c} [*{p}, *{p}, *{p}, *{p}]\n" for p, c in pairwise("abcdefghijklmnopqrstuvwxyz")
)


@given(
    st.one_of(st.binary(max_size=200), *(mutated(text) for text in (OPENCV, XML, KALIBR, ROS))),
    st.booleans(),
)
@example(b"H: " + b"[" * 3000, False)
@example(b"H: !!python/object/apply:os.system ['touch /tmp/owned']", False)
@example(LAUGHS.encode() + b"H: *z\n", False)
@example(KALIBR.replace("resolution: [640, 480]", "resolution: [1e300, 480]").encode(), False)
@example(KALIBR.replace("[0.0, 1.0, 0.0", "[1e160, 1.0, 0.0").encode(), False)
@example(ROS.replace("image_width: 640", "image_width: " + "9" * 400).encode(), True)
@example(ROS.replace("[500, 0, 320, 0", "[5e300, 0, 320, 0").encode(), True)
@example(XML.replace("640 480", "inf nan").encode(), False)
@example(b"K1: 1\nR: {}\nT: [[[[]]]]", False)
@example(b"? [a, b]\n: 1", False)
@example(b"a: !!opencv-matrix", False)
@example(b"a: !!timestamp x", False)
@example(b"a: !!bool x", False)
@example(b"a: !!int ''", False)
@example(b"R: 2001-13-45\nT: 1", False)
@example(b"a: 0b" + b"1" * 20000, False)
def test_imported_calibrations(data: bytes, twice: bool) -> None:
    def read(path: Path) -> object:
        other = path.with_name("other")
        other.write_text(ROS.replace("camera_name: ir", "camera_name: vis"))
        return calibrate_import([path, other] if twice else [path], Request(vis_size=(480, 640), ir_size=(480, 640)))

    with_file(data, read)


POINTS = "ir_x,ir_y,vis_x,vis_y\n1,2,3,4\n50,2,60,4\n5,40,7,42\n60,45,61,46\n"


@given(st.one_of(st.binary(max_size=100), mutated(POINTS)))
def test_marked_points(data: bytes) -> None:
    with_file(data, lambda path: read_points(path, (48, 64), (48, 64)))


# Addresses

_ADDRESSES = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.one_of(
            TOKENS,
            st.sampled_from(
                [
                    *(
                        "rtsp://",
                        "http://",
                        "udp://",
                        "rtp://",
                        "file://",
                        "synthetic:",
                        "ir",
                        "vis",
                        "cam0",
                        "cam:",
                        "/dev/video",
                    ),
                    *(
                        "user:pw@",
                        "host",
                        ":554",
                        "/path",
                        "?",
                        "size=640x480",
                        "fps=30",
                        "live=1",
                        "&",
                        "#clock=arrival",
                        ".sdp",
                    ),
                    *("[::1]", "[", "]", "@", "%", "%zz", "${STREAMFUSE_X}", "tcp://", "127.0.0.1:", "ipc://", "*"),
                ]
            ),
        ),
        max_size=6,
    ).map("".join),
)


@given(_ADDRESSES, st.sampled_from(["Linux", "Darwin", "Windows"]))
@example("synthetic:ir?fps=1/0", "Linux")
@example("synthetic:ir?fps=1.5/2", "Linux")
@example("synthetic:ir?seconds=" + "9" * 5000, "Linux")
@example("http://[::1", "Linux")
@example("cam0?fps=" + "9" * 5000, "Linux")
@example("tcp://127.0.0.1:" + "9" * 5000, "Linux")
@example("[::1", "Linux")
@example("127.0.0.1:" + "9" * 5000, "Linux")
def test_addresses(text: str, system: str) -> None:
    none_if_refused(lambda: parse_address(text, system))
    none_if_refused(lambda: expand(text))
    none_if_refused(lambda: check_url(text))
    none_if_refused(lambda: parse_place("--preview", text))
    if text.startswith("synthetic:"):
        none_if_refused(lambda: SyntheticSource.from_uri(text))
    assert isinstance(mask(text), str)
    assert isinstance(redact(text), str)


@given(_ADDRESSES.filter(lambda text: parse_is_none(text)))
@example("zero\0.mp4")
@example("two\nlines.mp4")
@example("\x1b[2Jclear.mp4")
@example("a" * 5000)
@example("%9999999999d/x.png")
@example("x/%0" + "9" * 5000 + "d.png")
@example("[" * 3000)
@example("\ud800.mp4")
def test_sources_that_are_files(text: str) -> None:
    """For any path; opened sources are closed."""
    if any(text.startswith(kept) for kept in ("/", "~", "..")) or "*" in text:
        return  # files of this machine, of any size
    source = none_if_refused(lambda: open_source(text))
    if source is not None:
        source.close()


def parse_is_none(text: str) -> bool:
    try:
        return parse_address(text) is None and "STREAMFUSE" not in text
    except UsageError:
        return False


@given(NUMBERS)
def test_numbers_in_a_sequence(number: str) -> None:
    from streamfuse.sources.vot import read_description

    def read(path: Path) -> Any:
        from streamfuse.sources import vot

        return vot._number(path, read_description(path), "fps")

    found = with_file(f"fps={number}\n".encode(), read)
    assert found is None or 0.001 <= found <= 1e9


def test_only_own_errors_are_accepted() -> None:
    """`none_if_refused` catches only a StreamfuseError."""
    with pytest.raises(ValueError, match="x"):
        none_if_refused(lambda: int("x"))

    def fail() -> None:
        raise InputError("bad")

    assert none_if_refused(fail) is None
