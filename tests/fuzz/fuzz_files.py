"""Targets for text files: pipelines, manifests, calibrations, sequences, receipts, keys."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import click
from fuzz_target import Target, directory, file, files
from media import write_images
from test_hostile_text import KALIBR, OPENCV, OURS, PIPELINE, POINTS, RECIPE, ROS, SEQUENCE, XML, none_if_refused

from streamfuse.batch import receipts
from streamfuse.batch.recordings import Recording, read_manifest
from streamfuse.batch.report import Report, write
from streamfuse.batch.run import Entry, Status, idle
from streamfuse.calibration.imported import Request, calibrate_import
from streamfuse.calibration.model import load
from streamfuse.calibration.points import read_points
from streamfuse.cli import cli
from streamfuse.sources.address import parse_address
from streamfuse.sources.synthetic import SyntheticSource
from streamfuse.sources.vot import open_vot
from streamfuse.support.urls import expand, mask, redact
from streamfuse.training.recipe import RECIPES, read_recipe
from streamfuse.web.address import parse as parse_place
from streamfuse.zeromq.curve import load_pair, load_public
from streamfuse.zeromq.endpoint import check_url


@cache
def _sequence() -> Path:
    for channel in ("ir", "color"):
        write_images(directory() / "vot" / channel, [f"{k:08d}.jpg" for k in (1, 2, 3)])
    return directory() / "vot"


def vot(data: bytes) -> object:
    sequence = _sequence()
    (sequence / "sequence").write_bytes(data)
    found = none_if_refused(lambda: open_vot(sequence))
    for source in found or ():
        assert all(path.is_file() for path in source.files)
    return found


def _manifest(data: bytes, name: str) -> object:
    found = none_if_refused(lambda: read_manifest(file(data, name), directory() / "out", ".mp4"))
    assert all(recording.output.is_absolute() for recording in found or ())
    return found


def pipeline(data: bytes) -> object:
    path = file(data, "pipeline.toml")
    run = cli.get_command(click.Context(cli), "run")
    assert run is not None
    with contextlib.suppress(click.ClickException):  # of one option, as on the command line
        return none_if_refused(lambda: run.make_context("run", ["--config", str(path)]))
    return None


def calibration(data: bytes) -> object:
    found = none_if_refused(lambda: load(file(data, "calibration.toml")))
    if found is not None:
        assert load(file(found.to_toml().encode(), "again.toml")).id == found.id
    return found


def imported(data: bytes) -> object:
    """Import a calibration; the first byte chooses between one file and a pair of ROS files."""
    request = Request(vis_size=(480, 640), ir_size=(480, 640))
    paths = [file(data[1:], "camera.yaml")]
    if data[:1] == b"2":
        paths.append(file(ROS.replace("camera_name: ir", "camera_name: vis").encode(), "other.yaml"))
    return none_if_refused(lambda: calibrate_import(paths, request))


def points(data: bytes) -> object:
    return none_if_refused(lambda: read_points(file(data, "points.csv"), (48, 64), (48, 64)))


def recipe(data: bytes) -> object:
    return none_if_refused(lambda: read_recipe(str(file(data, "recipe.toml")), RECIPES))


def keys(data: bytes) -> object:
    path = file(data, "a.key_secret")
    path.chmod(0o600)
    return none_if_refused(lambda: load_public(path)) and none_if_refused(lambda: load_pair(path))


def address(data: bytes) -> object:
    text = os.fsdecode(data)
    found = [none_if_refused(partial(parse_address, text, system)) for system in ("Darwin", "Windows", "Linux")]
    none_if_refused(lambda: expand(text))
    none_if_refused(lambda: check_url(text))
    none_if_refused(lambda: parse_place("--preview", text))
    if text.startswith("synthetic:"):
        none_if_refused(lambda: SyntheticSource.from_uri(text))
    assert isinstance(mask(text), str)
    assert isinstance(redact(text), str)
    return found[-1]


# Receipts: what they say is shown by the report of a later run.

PARALLAX = """version = 2
ir_size = [640, 480]
vis_size = [640, 480]
far = [[1.0, 0.0, 8.0], [0.0, 1.0, 4.0], [0.0, 0.0, 1.0]]
parallax = [33.0, 2.5, 0.01]
parallax_sd = [0.5, 0.4]
"""
MADE: dict[str, Any] = {"inputs": "a", "options": {}, "weights": "w", "calibration": None, "version": "1"}
FIGURES: dict[str, Any] = {
    "frames": 3,
    "seconds": 1.5,
    "segments": 2,
    "drops": {"visible": {"late": 1}},
    "damage": None,
    "empty": None,
    "notes": ["a note"],
    "worker": "host",
    "engine": "openvino",
}
RECEIPT: dict[str, Any] = {"size": 5, "mtime_ns": 10**18, "made_of": MADE, "figures": FIGURES}

WRONG: tuple[dict[str, Any], ...] = (
    *(
        {"frames": None},
        {"seconds": "1"},
        {"seconds": 10**400},
        {"drops": []},
        {"drops": {"late": 1}},
        {"drops": {"visible": {"late": {}}}},
    ),
    *({"damage": [1]}, {"notes": [1]}, {"notes": 1}, {"worker": 1}, {"notes": ["\ud800"]}, {"segments": []}),
)
"""Figures that no report can show, or not without care."""


def receipt(data: bytes) -> object:
    output = file(b"video", "out/a.mp4")
    os.utime(output, ns=(10**18, 10**18))
    receipts.receipt_of(output).write_bytes(data)
    found = none_if_refused(lambda: receipts.standing(output, MADE))
    if found is None or not found.done:
        return None
    entry = Entry(Recording(output, "ir.mp4", "vis.mp4"), status=Status.SKIPPED, figures=found.figures)
    return none_if_refused(
        lambda: write(Report([entry], [], idle([entry]), "here", datetime.now(UTC)), directory() / "report")
    )


_ADDRESSES = (
    *("cam0?size=640x480&fps=30&format=y16", "rtsp://me:pw@host:554/ch1?x=1#transport=udp&clock=arrival", "a.sdp"),
    *("synthetic:ir?seconds=1&fps=25/2&live=1&size=64x48", "127.0.0.1:8080", "[::1]:80", "tcp://127.0.0.1:5555"),
    *("http://host/live.m3u8", "${STREAMFUSE_X}/ir.mp4", "ipc:///tmp/a"),
)
_KEY = '#   ZeroMQ CURVE\nmetadata\ncurve\n    public-key = "yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"\n'
_SECRET = _KEY + '    secret-key = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"\n'

TARGETS = {
    "vot": Target(vot, (SEQUENCE.encode(),)),
    "manifest-csv": Target(
        lambda data: _manifest(data, "recordings.csv"),
        (
            b"ir,vis,output,calib,ir-offset-ms\na/ir.mp4,a/vis.mp4,a.mp4,c.toml,-3.5\nb/ir/%06d.png,b/vis/,,,\n",
            b'vot,output\n"street",s.mp4\n',
        ),
        (b"vot,output\ns,a\0b\n",),
    ),
    "manifest-toml": Target(
        lambda data: _manifest(data, "recordings.toml"),
        (
            b'[[recording]]\nir = "a.mp4"\nvis = "b.mp4"\noutput = "o.mp4"\nir-offset-ms = 2\n'
            b'[[recording]]\nvot = "s"\n',
        ),
    ),
    "pipeline": Target(pipeline, (PIPELINE.encode(), *files("pipelines/*.toml"))),
    "recipe": Target(recipe, (*files("weights/recipes/[12].toml"), RECIPE.encode()), (b"[network]\ndepth = 6\n",)),
    "calibration": Target(calibration, (OURS.encode(), PARALLAX.encode(), *files("calib/*.toml"))),
    "imported": Target(imported, tuple(n + t.encode() for n in (b"1", b"2") for t in (OPENCV, XML, KALIBR, ROS))),
    "points": Target(points, (POINTS.encode(), b"1,2,3,4,5.5\n5,6,7,8,far\n")),
    "keys": Target(keys, (_SECRET.encode(), _KEY.encode())),
    "address": Target(
        address, tuple(text.encode() for text in _ADDRESSES), (b"synthetic:ir?fps=1.5/2", b"synthetic:ir?seconds=1.5/2")
    ),
    "receipt": Target(
        receipt,
        (json.dumps(RECEIPT).encode(), json.dumps(RECEIPT | {"size": 0}).encode()),
        (
            b"[" * 100_000,
            json.dumps(RECEIPT | {"made_of": {**MADE, "options": [1]}}).encode(),
            *(json.dumps(RECEIPT | {"figures": FIGURES | change}).encode() for change in WRONG),
        ),
    ),
}
