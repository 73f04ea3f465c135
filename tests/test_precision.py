"""Precision auto, the faster of FP32 and BF16, and the number of threads, measured once for each size.

The times are given here.  On a CPU without BF16 instructions, OpenVINO computes both in FP32.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamfuse.engines import auto, openvino
from streamfuse.engines.base import Cpu, Precision
from streamfuse.engines.cache import Cache
from streamfuse.engines.openvino import OpenvinoEngine

SIZE = (32, 40)


class Times:
    """The times that are measured, ms, and how often somebody measured."""

    def __init__(self) -> None:
        self.ms = {Precision.FP32: 10.0, Precision.BF16: 5.0}
        self.threads_ms: dict[int | None, float] = {None: 2.0, 1: 9.0}
        """By number of threads, None for all."""
        self.measured = 0

    def __call__(self, requests: Mapping[Any, Any], pair: object) -> Mapping[Any, float]:
        if None in requests:
            return {threads: self.threads_ms[threads] for threads in requests}
        self.measured += 1
        assert set(requests) == set(self.ms)
        return self.ms


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    found = Times()
    monkeypatch.setattr(openvino, "_time_in_turns", found)
    monkeypatch.setattr(openvino, "read_cpu", lambda: Cpu("a CPU with BF16", frozenset({"avx512_bf16"})))
    return found


def prepared(weights: Path, cache: Cache, size: tuple[int, int] = SIZE) -> Precision:
    with OpenvinoEngine(weights, cache=cache) as engine:
        engine.prepare(*size)
        return engine.precision


@pytest.mark.parametrize(("bf16_ms", "chosen"), [(5.0, "bf16"), (9.8, "fp32"), (14.0, "fp32")])
def test_fastest_is_chosen_once(
    weights: Path, tmp_path: Path, times: Times, caplog: pytest.LogCaptureFixture, bf16_ms: float, chosen: str
) -> None:
    """The choice is kept with the network, and said; a gain under 5 % is none."""
    caplog.set_level(logging.INFO, "streamfuse")
    times.ms[Precision.BF16] = bf16_ms
    cache = Cache(tmp_path)
    assert prepared(weights, cache) == chosen
    assert f"precision {chosen} for 40x32 pictures, measured: fp32 10 ms, bf16 {bf16_ms:g} ms" in caplog.text
    times.ms[Precision.BF16] = 100.0
    assert prepared(weights, cache) == chosen
    assert (times.measured, caplog.text.count("compiling")) == (1, 1)
    assert prepared(weights, cache, (48, 40)) == "fp32"  # another size is measured by itself
    assert times.measured == 2


@pytest.mark.parametrize(("psnr_db", "chosen"), [(53.0, "fp32"), (55.0, "bf16")])
def test_a_worse_picture_is_not_chosen(
    weights: Path,
    tmp_path: Path,
    times: Times,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    psnr_db: float,
    chosen: str,
) -> None:
    caplog.set_level(logging.INFO, "streamfuse")
    monkeypatch.setattr(openvino, "_psnr_db", lambda raw, exact: psnr_db)
    assert prepared(weights, Cache(tmp_path)) == chosen
    assert ("but only 53 dB" in caplog.text) is (chosen == "fp32")


@pytest.mark.parametrize(("all_ms", "one_ms", "found"), [(2.0, 2.4, 1), (2.0, 2.6, None), (12.0, 12.0, None)])
@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_one_thread_where_it_is_enough(
    weights: Path,
    tmp_path: Path,
    times: Times,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    all_ms: float,
    one_ms: float,
    found: int | None,
) -> None:
    """The choice is kept for the size, and OpenVINO is told; a large network is not compiled twice."""
    monkeypatch.setattr(openvino, "usable_cpus", lambda: 2)
    times.threads_ms = {None: all_ms, 1: one_ms}
    cache = Cache(tmp_path)
    for _ in range(2):
        with OpenvinoEngine(weights, precision, cache=cache) as engine:
            engine.prepare(*SIZE)
            assert engine._options().get("INFERENCE_NUM_THREADS") == found
        times.threads_ms = {}


def test_given_threads_are_used(weights: Path, tmp_path: Path, times: Times) -> None:
    times.threads_ms = {}
    with OpenvinoEngine(weights, threads=2, cache=Cache(tmp_path)) as engine:
        engine.prepare(*SIZE)
        assert engine._options()["INFERENCE_NUM_THREADS"] == 2


def test_psnr_of_luma() -> None:
    exact = np.full((4, 4), 0.5, np.float32)
    assert openvino._psnr_db(exact, exact) == np.inf
    assert openvino._psnr_db(exact + np.float32(0.1), exact) == pytest.approx(20, abs=1e-3)


def test_damaged_choice_is_made_again(weights: Path, tmp_path: Path, times: Times) -> None:
    cache = Cache(tmp_path)
    prepared(weights, cache)
    with OpenvinoEngine(weights, cache=cache) as engine:
        cache.store(engine._choice_key(*SIZE), memoryview(b"fp17 1"))
    assert prepared(weights, cache) == "bf16"
    assert times.measured == 2


def test_given_precision_is_not_measured(weights: Path, tmp_path: Path, times: Times) -> None:
    for precision in ("fp32", "bf16"):
        with OpenvinoEngine(weights, precision, cache=Cache(tmp_path)) as engine:
            engine.prepare(*SIZE)
            assert engine.precision == precision
    assert times.measured == 0


def test_engine_auto_tells_the_choice(weights: Path, tmp_path: Path, times: Times) -> None:
    times.ms[Precision.BF16] = 20.0
    with auto.AutoEngine([("openvino", lambda: OpenvinoEngine(weights, cache=Cache(tmp_path)))]) as engine:
        engine.prepare(*SIZE)
        assert engine.precision == "fp32"


def test_every_precision_is_timed_in_turns() -> None:
    """By the real clock, with stand-ins for requests."""
    order: list[str] = []

    class Request:
        def __init__(self, name: str) -> None:
            self.name = name

        def infer(self, pair: object) -> None:
            order.append(self.name)

    found = openvino._time_in_turns({Precision.FP32: Request("a"), Precision.BF16: Request("b")}, [])
    assert order == ["a", "b"] * openvino.ROUNDS
    assert all(0 <= ms < 1000 for ms in found.values())
