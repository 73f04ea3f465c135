"""Counts and measurements of `streamfuse bench`; `streamfuse build`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import ROOT, fails, streamfuse
from torch import Tensor, nn

from streamfuse.bench.counting import _ByteCounter, count_work
from streamfuse.bench.peak import measure_peak
from streamfuse.bench.timing import Times, rate_in_flight
from streamfuse.color import Plane, Raw
from streamfuse.engines.base import Collected, Engine, Precision
from streamfuse.network.config import CrossFuseConfig, Output, Preset
from streamfuse.network.crossfuse import HEAD, CrossFuse


def test_operations_are_those_of_the_layers_and_of_attention() -> None:
    height, width = 256, 512  # two windows
    network, total = CrossFuse(), 0

    def count(layer: nn.Module, given: tuple[Tensor], made: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += 2 * made.numel() * layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
        elif isinstance(layer, nn.Linear):
            total += 2 * made.numel() * layer.in_features

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    network.to("meta")(*torch.empty(2, 1, 1, height, width, device="meta"))
    attentions = 6  # two blocks of self-attention for each modality, one of cross-attention
    scores = 2 * 2 * 16 * 256 * 256 * HEAD  # windows, ...; the product with the values is as large
    total += attentions * 2 * scores
    assert count_work(CrossFuseConfig(), height, width, torch.float32).flops == total


def test_bytes_are_those_read_and_written_except_by_views() -> None:
    x = torch.zeros(10, 10)
    with _ByteCounter() as counter:
        y = x + 1
    assert counter.total == 800
    with _ByteCounter() as counter:
        view = y.reshape(100)[20:].reshape(8, 10).T
    assert view.shape == (10, 8)
    assert counter.total == 0
    with _ByteCounter() as counter:
        torch.cat((x, x))
    assert counter.total == 400 + 800


def test_half_precision_halves_the_bytes() -> None:
    full, half = (count_work(CrossFuseConfig(), 64, 64, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert full.flops == half.flops
    assert full.least_bytes == 2 * half.least_bytes
    assert half.least_bytes < half.moved_bytes < full.moved_bytes


def test_reduced_deep_path_is_less_work() -> None:
    whole, scaled = (
        count_work(CrossFuseConfig(), 256, 256, torch.float32, preset).flops
        for preset in (Preset.QUALITY, Preset.BALANCED)
    )
    assert whole > 3 * scaled


def test_percentiles() -> None:
    assert Times.of(np.arange(101.0)) == Times(101, 50.0, 95.0, 99.0)


def test_peak_of_this_machine() -> None:
    threads = torch.get_num_threads()
    peak = measure_peak(torch.float32, None)
    assert 1e9 < peak.flops_per_s < 1e15
    assert 1e8 < peak.bytes_per_s < 1e13
    assert torch.get_num_threads() == threads


class Counting(Engine):
    """An engine with up to three pairs in flight."""

    name = device = "counting"
    precision = Precision.FP32
    output = Output.DIRECT
    depth = 3

    def __init__(self) -> None:
        self.most = self.collected = 0

    def prepare(self, height: int, width: int) -> None:
        pass

    def fuse(self, ir: Plane, vis: Plane) -> Raw:
        self.most = max(self.most, self.pending + 1)
        return np.zeros(ir.shape, np.float32)

    def collect_picture(self) -> Collected:
        self.collected += 1
        return super().collect_picture()


def test_pairs_in_flight_are_all_collected() -> None:
    engine, picture = Counting(), np.zeros((16, 16), np.uint8)
    assert rate_in_flight(engine, picture, picture, 10) > 0
    assert (engine.most, engine.pending, engine.collected) == (3, 0, 13)


def test_bench_prints_a_table_and_writes_all_figures(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    small = ["--engine", "torch", "--precision", "fp32", "--size", "64x48", "--frames", "4", "--device", "cpu"]
    small += ["--preset", "balanced"]
    done = streamfuse("bench", *small, "--json", out)
    assert done.returncode == 0, done.stderr
    assert "| network |" in done.stdout
    assert "torch fp32, preset balanced, on CPU" in done.stdout
    figures = json.loads(out.read_text())
    assert figures["size"] == "64x48"
    assert figures["network"]["runs"] == 4
    assert 0 < figures["network"]["p50_ms"] <= figures["network"]["p95_ms"] <= figures["network"]["p99_ms"]
    assert figures["end_to_end_fps"] > 0
    arithmetic_ms = 1000 * figures["work"]["flops"] / figures["peak"]["flops_per_s"]
    memory_ms = 1000 * figures["work"]["least_bytes"] / figures["peak"]["bytes_per_s"]
    assert (figures["arithmetic_ms"], figures["memory_ms"]) == pytest.approx((arithmetic_ms, memory_ms))
    assert figures["times_floor"] == pytest.approx(figures["network"]["p50_ms"] / max(arithmetic_ms, memory_ms))
    fails(5, "exists: choose another name", "bench", *small, "--json", out)


def test_bench_refuses_unknown_options() -> None:
    fails(2, "unknown device 'gpu'", "bench", "--device", "gpu")
    fails(4, "unknown engine 'warp'", "bench", "--engine", "warp")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA GPU")
@pytest.mark.parametrize(
    "command", [["run", "--ir", "synthetic:ir", "--vis", "synthetic:vis"], ["build", "--size", "64x64"]]
)
def test_missing_gpu(tmp_path: Path, command: list[str]) -> None:
    out = ["-o", tmp_path / "out.mp4"] if command[0] == "run" else []
    fails(4, "no GPU that PyTorch can use", *command, *out, "--engine", "torch", "--device", "cuda:1")


def test_build_stores_the_compiled_network(tmp_path: Path) -> None:
    build = ["build", "--engine", "openvino", "--precision", "fp32", "--size", "64x64", "--size", "80x64"]
    first = streamfuse(*build, STREAMFUSE_CACHE=str(tmp_path))
    stored = set(tmp_path.iterdir())
    second = streamfuse(*build, STREAMFUSE_CACHE=str(tmp_path))
    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stderr.count("compiling the network") == 2
    assert "openvino fp32, preset balanced, for 80x64 on CPU" in first.stderr
    assert "compiling" not in second.stderr
    # Two networks, and the threads that were chosen for them; the code of the shallow path, and its weights.
    assert [path.suffix for path in stored] == [".engine"] * 6
    assert set(tmp_path.iterdir()) == stored
    fails(2, "compiles nothing: it needs no build", "build", "--engine", "torch", "--device", "cpu", "--size", "64x64")
    fails(2, "WIDTHxHEIGHT", "build", "--size", "64")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_build_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    """At any depth of calls in the compiler."""
    with subprocess.Popen(
        [sys.executable, "-m", "streamfuse", "build", "--engine", "openvino", "--size", "640x480"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "STREAMFUSE_CACHE": str(tmp_path)},
    ) as process:
        assert process.stderr is not None
        assert "compiling the network" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
    assert list(tmp_path.iterdir()) == []
