"""INT8 networks: calibration, cache and accuracy."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import fails, streamfuse
from small import picture
from test_lite import random_weights

from streamfuse.bench.similarity import psnr
from streamfuse.cli.build import calibration_pairs
from streamfuse.color import Plane
from streamfuse.engines.cache import Cache
from streamfuse.engines.openvino import OpenvinoEngine
from streamfuse.errors import EngineError, InputError, UsageError
from streamfuse.network.checkpoint import default_weights, read_info
from streamfuse.network.config import Output


def smooth(seed: int, size: tuple[int, int]) -> Plane:
    """A smooth random picture."""
    height, width = size
    return cv2.resize(picture(seed), (width, height), interpolation=cv2.INTER_AREA).astype("uint8")


def test_calibrated_network_is_close_to_fp32(tmp_path: Path) -> None:
    size, cache = (96, 128), Cache(tmp_path / "cache")
    lite = read_info(default_weights()).lite()
    assert lite is not None
    pairs = [(smooth(i, size), smooth(50 + i, size)) for i in range(4)]
    body, smoke = np.full(size, 70, np.uint8), np.full(size, 255, np.uint8)
    body[40:56, 50:80] = 200
    with OpenvinoEngine(lite.path, "int8", 1, cache) as engine:
        with pytest.raises(EngineError, match=r"no int8 network for 128x96 and preset realtime: run streamfuse"):
            engine.fuse(*pairs[0])
        engine.calibrate([*pairs, (body, smoke)])
        assert engine.lifted == 1  # the network is calibrated with what it will see
        engine.prepare(*size)
    with OpenvinoEngine(lite.path, "int8", 1, cache) as again, OpenvinoEngine(lite.path, "fp32", 1, cache) as exact:
        quantized, wanted = again.fuse(*pairs[0]), exact.fuse(*pairs[0])
    # Only the deep path is quantized.
    assert 40 < psnr(quantized, wanted, Output.DIRECT) < 90


def test_build_command_and_run_share_the_cache(tmp_path: Path) -> None:
    weights = random_weights(tmp_path / "w.safetensors", preset="balanced")
    for side, offset in (("ir", 0), ("vis", 100)):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(tmp_path / "pairs" / side / f"{i}.png"), picture(offset + i))
    here = {"STREAMFUSE_CACHE": str(tmp_path / "cache")}
    common = ["--weights", weights, "--precision", "int8", "--engine", "openvino"]
    run = ["run", "--ir", "synthetic:ir?size=64x48&seconds=0.2", "--vis", "synthetic:vis?size=64x48&seconds=0.2"]
    missing = streamfuse(*run, *common, "-o", tmp_path / "a.mp4", **here)
    assert missing.returncode == 4
    assert "there is no int8 network for 64x48" in missing.stderr
    done = streamfuse("build", *common, "--size", "64x48", "--calibrate", tmp_path / "pairs", **here)
    assert done.returncode == 0, done.stderr
    assert "openvino int8, preset balanced, for 64x48" in done.stderr
    done = streamfuse(*run, *common, "-o", tmp_path / "a.mp4", **here)
    assert done.returncode == 0, done.stderr


def test_invalid_calibrations_are_refused(tmp_path: Path) -> None:
    fails(2, "needs --calibrate PAIRS", "build", "--size", "64x48", "--precision", "int8")
    fails(2, "needs --calibrate PAIRS", "build", "--size", "64x48", "--calibrate", tmp_path)
    (tmp_path / "empty").mkdir()
    fails(3, "no training pairs", "build", "--size", "64x48", "--precision", "int8", "--calibrate", tmp_path / "empty")
    with pytest.raises(UsageError, match="only int8 needs calibration, not fp32"):
        OpenvinoEngine(precision="fp32").calibrate([(picture(0), picture(1))])
    with pytest.raises(InputError, match="there is no directory"):
        calibration_pairs([tmp_path / "nowhere"], 48, 64)
