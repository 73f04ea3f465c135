"""The shallow path as one compiled pass: the same picture as the network's graph."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamfuse.color import Plane
from streamfuse.engines import native, shallow
from streamfuse.engines.base import read_cpu
from streamfuse.engines.cache import Cache
from streamfuse.engines.shallow import ShallowPass, load_functions, shallow_weights, smaller
from streamfuse.network.config import CrossFuseConfig, Ends, Output, SkipArea, SkipBorder, SkipWeights, Window
from streamfuse.network.crossfuse import CrossFuse
from streamfuse.network.scaled import DeepScaled
from streamfuse.tone import HostPicture

FORMS: dict[str, dict[str, Any]] = {
    "published": {"shallow": 8},
    "blocks": {"skip_area": SkipArea.BLOCK, "skip_power": 8, "skip_infrared": 1.0, "shallow": 8},
    "wide": {"skip_area": SkipArea.BLOCK, "skip_power": 8, "skip_border": SkipBorder.REFLECT, "shallow": 32},
    "power": {"skip_power": 2, "skip_border": SkipBorder.REFLECT, "ends": Ends.BENT, "shallow": 9},
}


def random_network(form: str) -> CrossFuse:
    """A random network whose norms are not the identity, for which pixels beyond the range are common."""
    torch.manual_seed(5)
    config = CrossFuseConfig(
        skip_weights=SkipWeights.MAGNITUDE,
        output=Output.DIRECT,
        window=Window.FITTED,
        deep=32,
        growth=16,
        **FORMS[form],
    )
    made = CrossFuse(config).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) / 10
            module.running_var = torch.rand(module.num_features) + 0.5
    return made


def textures(height: int, width: int) -> tuple[Plane, Plane]:
    """A pair with flat parts, where the strengths of both sources are 0, and noise."""
    rng = np.random.default_rng(height)
    ir, vis = rng.integers(0, 256, (2, height, width), dtype=np.uint8)
    ir[: height // 3], vis[:, : width // 3] = 90, 200
    return ir, vis


@pytest.mark.parametrize("size", [(96, 130), (97, 131), (64, 65), (131, 64)])
@pytest.mark.parametrize("form", FORMS)
def test_equals_the_graph(tmp_path: Path, form: str, size: tuple[int, int]) -> None:
    network, (ir, vis), factor = random_network(form), textures(*size), 4
    pair = [torch.from_numpy(plane).double()[None, None] / 255 for plane in (ir, vis)]
    graph = DeepScaled(network.double(), *size, factor)
    with torch.inference_mode():
        small = [graph._smaller(plane)[0, 0].numpy() for plane in pair]
        deep = graph.deep_picture(*pair)
        expected = graph.finish(deep, *pair)[0, 0].numpy()
    rows, columns = deep.shape[2:]
    functions = load_functions(network.config, read_cpu(), Cache(tmp_path))
    for threads in (1, 3):
        made = ShallowPass(
            functions, network.config, shallow_weights(network.float()), size, factor, (rows, columns), threads
        )
        assert np.abs(made.shrink(ir, vis) - small).max() < 1e-6
        got = made.finish(ir, vis, deep[0, 0].float().numpy())
        assert np.abs(got.numpy() - expected).max() < 1e-5
        assert got.finite()
        assert got.level() == pytest.approx(np.clip(expected, 0, 1).mean(), abs=1e-6)
        assert np.array_equal(got.stretch(-0.1, 0.9), HostPicture(got.numpy()).stretch(-0.1, 0.9))
        made.close()
    assert np.abs(smaller(ir, factor) - small[0]).max() < 1e-6


def test_nan_is_found_and_views_are_accepted(tmp_path: Path) -> None:
    network, size = random_network("blocks"), (64, 80)
    functions = load_functions(network.config, read_cpu(), Cache(tmp_path))
    made = ShallowPass(functions, network.config, shallow_weights(network), size, 4, (16, 20), 2)
    ir, vis = np.tile(textures(*size), 2)
    deep = np.zeros((16, 20), np.float32)
    here = made.finish(ir[:, :80], vis[:, 80:], deep).numpy()
    assert np.array_equal(here, made.finish(ir[:, :80].copy(), vis[:, :80].copy(), deep).numpy())
    for bad in (np.nan, np.inf):
        deep[7, 3] = bad
        assert not made.finish(ir[:, :80], vis[:, :80], deep).finite()
    made.close()


def test_code_is_loaded_from_the_cache_and_made_again_where_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shallow, "_loaded", {})
    config, cache, made = random_network("blocks").config, Cache(tmp_path), []
    compile_numba = native.compile_numba

    def counting(make: Callable[[], Sequence[Any]]) -> bytes:
        made.append(make)
        return compile_numba(make)

    monkeypatch.setattr(native, "compile_numba", counting)
    caplog.set_level("INFO", logger="streamfuse")
    load_functions(config, read_cpu(), cache)
    assert len(made) == 1
    assert "compiling the shallow path for this CPU, once" in caplog.text
    monkeypatch.setattr(shallow, "_loaded", {})
    load_functions(config, read_cpu(), cache)
    assert len(made) == 1
    (entry,) = tmp_path.iterdir()
    cache.store(entry.stem, b"name\nmissing\nnot an object file")
    monkeypatch.setattr(shallow, "_loaded", {})
    load_functions(config, read_cpu(), cache)
    assert len(made) == 2
    assert "is unusable" in caplog.text


def test_another_directory_gets_the_code_of_this_process(tmp_path: Path) -> None:
    config = random_network("blocks").config
    for name in "ab":
        load_functions(config, read_cpu(), Cache(tmp_path / name))
    (first,), (second,) = ((tmp_path / name).iterdir() for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_later_starts_need_neither_numba_nor_torch(tmp_path: Path) -> None:
    code = """
import sys, numpy as np
from streamfuse.engines.openvino import OpenvinoEngine
with OpenvinoEngine(precision="fp32") as engine:
    engine.fuse(*np.zeros((2, 64, 64), np.uint8))
print("torch" in sys.modules, "numba" in sys.modules)
"""
    env = {**os.environ, "STREAMFUSE_CACHE": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent)}
    for needed in ("True True", "False False"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        assert done.stdout.strip() == needed
