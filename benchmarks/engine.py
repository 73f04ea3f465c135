"""Speed of every engine compared with the network as written, in one process.

There are two baselines in eager FP32 PyTorch: `plain` is `streamfuse.network.crossfuse`; `published` computes it in the
way of the published code, in adjacent windows of 256 pixels, one by one, and with the two filters as full convolutions.
Runs are interleaved (A, B, C, A, B, C ...), so that other load on the machine affects all alike.  Engines are named by
precision and preset; the methods of `peers` are measured for comparison.

    python benchmarks/engine.py [--size 640x480] [--runs N] [--engines openvino:bf16:quality,torch:bf16] [--json FILE]

The pictures are a real pair if STREAMFUSE_DATA is set, otherwise noise.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import peers
import torch
import torch.nn.functional as F
from torch import Tensor

from streamfuse.bench.measure import machine, peak_memory_mb
from streamfuse.bench.similarity import compare
from streamfuse.color import Plane, Raw
from streamfuse.engines import create_engine
from streamfuse.errors import EngineError
from streamfuse.network import checkpoint, crossfuse, windows
from streamfuse.network.config import Preset, SkipBorder

ENGINES = ",".join(
    [
        *(f"openvino:{precision}:{preset}" for precision in ("bf16", "fp32", "int8") for preset in Preset),
        *(f"torch:bf16:{preset}" for preset in Preset),
    ]
)


class _WindowByWindow(crossfuse.CrossAttentionModule):
    """The attention module, computed one window at a time."""

    def forward(self, deep_ir: Tensor, deep_vis: Tensor) -> Tensor:
        batch, _, height, width = deep_ir.shape
        ir, vis = windows.to_windows(deep_ir), windows.to_windows(deep_vis)
        fused = [self._window(a, b) for a, b in zip(torch.split(ir, 1), torch.split(vis, 1), strict=True)]
        return windows.from_windows(torch.cat(fused), batch, height, width)

    def _window(self, ir: Tensor, vis: Tensor) -> Tensor:
        for block in self.self_ir:
            ir = block(ir)
        for block in self.self_vis:
            vis = block(vis)
        out: Tensor = self.cross_ir(other=vis, own=ir) + self.cross_vis(other=ir, own=vis)
        return out


def _filter_as_convolution(x: Tensor, border: SkipBorder = SkipBorder.ZEROS) -> Tensor:
    """Compute `crossfuse.channel_sum_mean` as the published code does, with a conv from all channels to all."""
    channels = x.shape[1]
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect" if border is SkipBorder.REFLECT else "constant")
    return F.conv2d(padded, torch.full((channels, channels, 3, 3), 1 / 9))


def published_form(network: crossfuse.CrossFuse) -> Callable[[Tensor, Tensor], Tensor]:
    cam = _WindowByWindow(network.config.deep, network.config.depth)
    cam.load_state_dict(network.cam.state_dict())
    slow = crossfuse.CrossFuse(network.config)
    slow.load_state_dict(network.state_dict())
    slow.cam = cam
    slow.eval()

    def run(ir: Tensor, vis: Tensor) -> Tensor:
        quick, crossfuse.channel_sum_mean = crossfuse.channel_sum_mean, _filter_as_convolution
        try:
            out: Tensor = slow(ir, vis)
        finally:
            crossfuse.channel_sum_mean = quick
        return out

    return run


def baseline(run: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Plane, Plane], Raw]:
    def fuse(ir: Plane, vis: Plane) -> Raw:
        with torch.inference_mode():
            tensors = (torch.from_numpy(plane)[None, None].float() for plane in (ir, vis))
            raw: Raw = run(*tensors)[0, 0].numpy()
            return raw

    return fuse


def pictures(height: int, width: int) -> tuple[Plane, Plane, str]:
    data = os.environ.get("STREAMFUSE_DATA")
    if data is None:
        rng = np.random.default_rng(0)
        ir, vis = (rng.integers(0, 256, (height, width), dtype=np.uint8) for _ in range(2))
        return ir, vis, "noise"
    steps = Path(data) / "data/eval/vot/steps"
    loaded = []
    for channel in ("ir", "color"):
        picture = cv2.imread(str(steps / channel / "00000001.png"), cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        loaded.append(cv2.resize(picture, (width, height)).astype(np.uint8))
    return loaded[0], loaded[1], "a real pair"


def measure(size: tuple[int, int], runs: int, names: list[str]) -> dict[str, Any]:
    ir, vis, what = pictures(*size)
    network = checkpoint.load(checkpoint.default_weights())
    plain = baseline(network)
    candidates: dict[str, Callable[[Plane, Plane], Raw]] = {
        "published": baseline(published_form(network)),
        "plain": plain,
        "opencv blend": peers.opencv_blend,
        "ffmpeg blend": peers.ffmpeg_blend(*size),
        "laplacian pyramid": peers.laplacian_pyramid,
        "two convs": peers.two_convs(*size),
    }
    starts: dict[str, float] = {}
    for name in names:
        kind, precision, preset = [*name.split(":"), "auto"][:3]
        begin = time.perf_counter()
        try:
            engine = create_engine(kind, precision=precision, preset=preset)
            engine.prepare(*size)
        except EngineError as error:
            print(f"{name} left out: {error}")
            continue
        starts[name] = time.perf_counter() - begin
        candidates[name] = engine.fuse
    reference = plain(ir, vis)
    quality = {
        name: compare(fuse(ir, vis), reference, network.config.output, ir, vis) for name, fuse in candidates.items()
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(runs):
        for name, fuse in candidates.items():
            begin = time.perf_counter()
            fuse(ir, vis)
            times[name].append(1000 * (time.perf_counter() - begin))
    plain_ms = statistics.median(times["plain"])
    return {
        "machine": f"{machine()}, {torch.get_num_threads()} threads",
        "size": f"{size[1]}x{size[0]}",
        "pictures": what,
        "peak_memory_mb": peak_memory_mb(),
        "engines": {
            name: {
                "median_ms": statistics.median(values),
                "min_ms": min(values),
                "fps": 1000 / statistics.median(values),
                "ratio_to_plain": plain_ms / statistics.median(values),
                "ratio_to_published": statistics.median(times["published"]) / statistics.median(values),
                "psnr_db": quality[name].psnr_db if math.isfinite(quality[name].psnr_db) else None,
                "ssim": quality[name].ssim,
                "scores": quality[name].scores,
                "prepare_s": starts.get(name, 0.0),
            }
            for name, values in times.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--engines", default=ENGINES)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    result = measure((height, width), options.runs, options.engines.split(","))
    print(f"{result['machine']}; {result['size']}, {result['pictures']}, {options.runs} interleaved runs")
    print(
        f"{'':<24}{'median ms':>10}{'min ms':>9}{'fps':>7}{'x plain':>9}{'x published':>13}"
        f"{'PSNR dB':>9}{'prepare s':>11}"
    )
    for name, row in result["engines"].items():
        print(
            f"{name:<24}{row['median_ms']:10.1f}{row['min_ms']:9.1f}{row['fps']:7.2f}{row['ratio_to_plain']:9.2f}"
            f"{row['ratio_to_published']:13.2f}{row['psnr_db'] or math.inf:9.1f}{row['prepare_s']:11.2f}"
        )
    print(f"peak memory of this process, all engines loaded: {result['peak_memory_mb']:.0f} MB")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
