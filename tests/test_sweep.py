"""The table of all engines, precisions, presets and sizes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from command_line import fails
from test_lite import SMALL, random_weights

from streamfuse.bench import sweep
from streamfuse.bench.similarity import as_luma, compare, psnr
from streamfuse.engines.base import Cpu
from streamfuse.errors import EngineError
from streamfuse.network.config import Output, Preset


def test_cases_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, best in (({"amx_bf16"}, "bf16"), ({"avx2"}, "fp32")):
        monkeypatch.setattr(sweep, "read_cpu", lambda flags=flags: Cpu("a CPU", frozenset(flags)))
        found = sweep.cases("cpu")
        assert len(found) == len(set(found))
        full = {(case.engine, case.precision) for case in found if case.size == sweep.FULL}
        assert {("openvino", "int8"), ("openvino", "fp32"), ("torch", "fp32")} <= full
        assert (("openvino", "bf16") in full) == (best == "bf16")
        other = [case for case in found if case.size != sweep.FULL]
        assert {(case.engine, case.precision) for case in other} == {("openvino", best)}
        assert {case.preset for case in other} == set(Preset)


def test_each_case_is_a_row_or_has_a_reason(tmp_path: Path) -> None:
    weights = random_weights(tmp_path / "w.safetensors", preset="balanced")
    size = (48, 64)
    said: list[str] = []
    chosen = [sweep.Case("torch", "fp32", preset, size) for preset in Preset]
    rows = sweep.sweep(chosen, "cpu", weights, 4, said.append)
    assert said[0] == "1 of 3: torch fp32, preset quality, 64x48"
    assert [row["preset"] for row in rows] == ["quality", "balanced", "realtime"]
    assert rows[0]["similarity"]["psnr_db"] is None or rows[0]["similarity"]["psnr_db"] > 100
    assert 50 < rows[0]["memory_mb"] < 8000
    assert "no w-lite.safetensors beside" in rows[2]["skipped"]
    table = sweep.markdown(json.loads(json.dumps(rows, allow_nan=False)))
    assert "| torch fp32 | quality | 64x48 |" in table
    assert "| torch fp32 | realtime" not in table
    assert "Left out: torch fp32 realtime 64x48: there is no w-lite" in table
    with pytest.raises(EngineError, match="nothing could be measured: there is no w-lite"):
        sweep.sweep(chosen[2:], "cpu", weights, 4, said.append)
    fails(2, "leave those options out", "bench", "--sweep", "--engine", "torch")


def test_pictures_are_compared_as_luma() -> None:
    rng = np.random.default_rng(0)
    raw = rng.random((48, 64), dtype=np.float32)
    assert psnr(raw, raw, Output.DIRECT) == math.inf
    assert psnr(raw + np.float32(1 / 255), raw, Output.DIRECT) == pytest.approx(48.1, abs=0.2)
    assert as_luma(raw * 3 + 1, raw * 3 + 1, Output.MINMAX).max() == pytest.approx(255)
    plane = np.rint(raw * 255).astype(np.uint8)
    like = compare(raw, raw, Output.DIRECT, plane, plane)
    assert like.ssim == pytest.approx(1)
    assert set(like.scores) == {"Q_ABF", "VIF", "SSIM", "true_MI"}
    assert SMALL.output is Output.DIRECT
