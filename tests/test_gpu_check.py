"""`scripts/gpu-check`: its steps on the CPU at small sizes, and how it goes on after it was cut off."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu_check  # noqa: E402
import gpu_steps  # noqa: E402

from streamfuse.engines.base import Collected  # noqa: E402
from streamfuse.engines.device import HostDevice  # noqa: E402
from streamfuse.errors import UsageError  # noqa: E402
from streamfuse.tone import HostPicture  # noqa: E402

QUICK = gpu_steps.Plan((48, 64), ((48, 64),), ((48, 64),), pairs=6, runs=2, soak_s=0.1, precision="fp32")
HEAVY = {"modes", "peak"}
"""Steps that compile, or measure with large matrices: `.ci/run` runs them with the rest, by the script itself."""


@pytest.mark.parametrize("name", [name for name in gpu_steps.STEPS if name not in HEAVY])
def test_steps_run_on_the_cpu(name: str) -> None:
    step, _ = gpu_steps.STEPS[name]
    try:
        figures = step(HostDevice(), QUICK)
    except gpu_steps.NotHere:
        assert name in {"tensorrt", "video"}
    else:
        assert figures["text"]
        json.dumps(figures)


def test_ring_that_returns_other_bytes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(gpu_steps.TorchCudaEngine):  # type: ignore[name-defined,misc]
        def collect(self) -> Any:
            fused = super().collect()
            fused.raw[0] += 1
            return fused

        def collect_picture(self) -> Collected:
            raw, tag = self.collect()
            return Collected(HostPicture(raw), tag)

    monkeypatch.setattr(gpu_steps, "TorchCudaEngine", Wrong)
    with pytest.raises(AssertionError, match="6 of 6 pairs came back wrong"):
        gpu_steps.ring(HostDevice(), QUICK)


def test_share_of_copies_that_is_hidden() -> None:
    kernels = [(0.0, 10.0), (8.0, 20.0), (30.0, 40.0)]
    assert gpu_steps.hidden_share([(2.0, 4.0)], kernels) == 1
    assert gpu_steps.hidden_share([(15.0, 35.0)], kernels) == 0.5
    assert gpu_steps.hidden_share([(22.0, 24.0), (9.0, 11.0)], kernels) == 0.5
    assert gpu_steps.hidden_share([], kernels) is None


def results(path: Path) -> Any:
    return gpu_check.Results(path, HostDevice().name)


def test_every_outcome_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"

    def seen(device: object, plan: object) -> dict[str, Any]:
        assert json.loads(path.read_text())["steps"]["ok"]["state"] == "running"
        return {"text": "fine"}

    def lacking(device: object, plan: object) -> dict[str, Any]:
        raise gpu_steps.NotHere("no such package")

    def broken(device: object, plan: object) -> dict[str, Any]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    for name, step in (("ok", seen), ("lacking", lacking), ("broken", broken)):
        monkeypatch.setitem(gpu_steps.STEPS, name, (step, 1))
        assert gpu_check.run_step(name, HostDevice(), results(path)) is (name != "broken")
    written = json.loads(path.read_text())["steps"]
    assert [written[name]["state"] for name in ("ok", "lacking", "broken")] == ["done", "skipped", "failed"]
    assert "illegal memory access" in written["broken"]["text"]
    assert any("in broken" in line for line in written["broken"]["traceback"])


def test_step_that_hangs_or_dies(tmp_path: Path) -> None:
    """Its process is ended; the file says so, and the next run tries it again."""
    held = results(tmp_path / "r.json")
    begin = time.monotonic()
    gpu_check.run_in_process("environment", "cpu", held, limit_s=0.1)
    assert time.monotonic() - begin < 60
    assert held.steps["environment"]["state"] == "failed"
    assert "took longer than 0 s and was ended" in held.steps["environment"]["text"]
    assert not results(tmp_path / "r.json").finished("environment")


def test_finished_steps_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    results(path).put("memory", "done", text="flat")
    ran: list[str] = []

    def run(name: str, device: str, held: Any, limit_s: float) -> None:
        ran.append(name)
        held.put(name, "done", text="now")

    monkeypatch.setattr(gpu_check, "run_in_process", run)
    command = ["--device", "cpu", "--json", str(path), "--steps", "memory,latency"]
    done = CliRunner().invoke(gpu_check.main, command)
    assert done.exit_code == 0, done.output
    assert ran == ["latency"]
    assert "done     memory       flat" in done.output
    late = CliRunner().invoke(gpu_check.main, [*command[:-1], "peak", "--minutes", "0"])
    assert late.exit_code == 1
    assert "left     peak         no time left: run this again to go on" in late.output


def test_results_of_something_else_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results(path).put("memory", "done", text="flat")
    with pytest.raises(UsageError, match="is of another device, PyTorch or weights"):
        gpu_check.Results(path, "NVIDIA H100")
    path.write_text("[]")
    with pytest.raises(UsageError, match="holds no results of this script"):
        results(path)
    lost = CliRunner().invoke(gpu_check.main, ["--device", "cpu", "--json", str(tmp_path / "none" / "r.json")])
    assert (lost.exit_code, "there is no directory" in lost.output) == (1, True)


def test_table_of_the_page() -> None:
    """The page has its lines, filled or not."""
    lines = gpu_check.render({}).splitlines()
    page = (ROOT / "docs/engines.md").read_text()
    assert all(re.escape(line.split("|")[1]) in re.escape(page) for line in lines[2:])
    steps = {
        "modes": {"rows": [{"mode": "graphs", "preset": "realtime", "ms": 0.5, "fps": 1900.0}]},
        "accuracy": {"rows": [{"preset": "quality", "precision": "fp16", "psnr_db": 61.25}]},
    }
    filled = gpu_check.render(steps)
    assert "| PyTorch, CUDA graph | not yet run on hardware | not yet run on hardware | 0.50 ms, 1900 fps |" in filled
    assert "| FP16 to FP32, least | 61.2 dB |" in filled


BLOCKED = """
import sys
from importlib.abc import MetaPathFinder
class OnlyThese(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in {"av", "cv2", "openvino", "zmq", "aiohttp", "packaging", "scipy", "skimage", "rich", "yaml"}:
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)
        return None
sys.meta_path.insert(0, OnlyThese())
sys.path.insert(0, "benchmarks")
import gpu_check
gpu_check.main(["--device", "cpu", "--json", sys.argv[1], "--only", sys.argv[2]])
"""


@pytest.mark.parametrize("step", ["environment", "latency", "video"])
def test_needs_only_numpy_click_and_safetensors(tmp_path: Path, step: str) -> None:
    """An import hook stands for a Python without the other packages."""
    out = tmp_path / "r.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(out), step],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    entry = json.loads(out.read_text())["steps"][step]
    assert entry["state"] == ("skipped" if step == "video" else "done"), entry


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts/gpu-check", "--json", tmp_path / "r.json"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no GPU that PyTorch can use" in done.stderr
