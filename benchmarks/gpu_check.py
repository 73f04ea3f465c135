"""All that only a GPU can show, in at most eight minutes: what a GPU owner runs, and the table that comes of it.

    scripts/gpu-check                              # on the first GPU, into gpu-check.json
    scripts/gpu-check --device cpu --json cpu.json # the same code at small sizes, without a GPU

Every step (`gpu_steps.py`) is a process of its own with a time limit, and its result is written at once: a run that
was cut off, or crashed, goes on after the last step that is finished.  Python 3.11, PyTorch 2.11 or newer with CUDA,
NumPy, click and safetensors are needed; av, openvino and a TensorRT package are used where they are installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import click
import torch
from gpu_steps import CPU_PLAN, GPU_PLAN, STEPS, NotHere

from streamfuse.engines.base import parse_device
from streamfuse.engines.device import ComputeDevice, CudaDevice, HostDevice
from streamfuse.errors import StreamfuseError, UsageError
from streamfuse.network.checkpoint import default_weights, read_info
from streamfuse.support.files import write_whole

FINISHED = ("done", "skipped")
SLOWER = 4
"""Times a step's limit: what a CPU may take."""
NOT_RUN = "not yet run on hardware"


class Results:
    """The file of results: what it was measured on, and one entry for each step."""

    def __init__(self, path: Path, device: str) -> None:
        """Reads the file if it exists.

        Raises UsageError for results of something else and for a directory that does not exist.
        """
        if not path.parent.is_dir():
            raise UsageError(f"there is no directory {path.parent}: make it, or name another file with --json")
        self.path = path
        self.of = {"device": device, "torch": torch.__version__, "weights": read_info(default_weights()).digest}
        self.steps: dict[str, dict[str, Any]] = {}
        if path.exists():
            try:
                read = json.loads(path.read_text())
                of, self.steps = read["of"], read["steps"]
            except (OSError, ValueError, KeyError, TypeError):
                raise UsageError(f"{path} holds no results of this script: name another file with --json") from None
            if of != self.of:
                raise UsageError(f"{path} is of another device, PyTorch or weights: name another file with --json")

    def put(self, name: str, state: str, **values: Any) -> None:
        """`state`: running, done, skipped or failed."""
        self.steps[name] = {"state": state, **values}
        text = json.dumps({"of": self.of, "steps": self.steps}, indent=2, default=str)
        write_whole(self.path, (text + "\n").encode(), durable=True)

    def finished(self, name: str) -> bool:
        return self.steps.get(name, {}).get("state") in FINISHED


def open_device(text: str) -> ComputeDevice:
    """Raises UsageError, and EngineUnavailable where there is no such GPU."""
    index = parse_device(text)
    return HostDevice() if index is None else CudaDevice(index)


def run_step(name: str, device: ComputeDevice, results: Results) -> bool:
    """Run one step here and write its result; False if it failed."""
    step, _ = STEPS[name]
    begin = time.monotonic()
    results.put(name, "running")
    try:
        with device.active():
            figures = step(device, CPU_PLAN if device.index is None else GPU_PLAN)
    except NotHere as error:
        results.put(name, "skipped", text=str(error))
        return True
    except Exception as error:  # of a machine that nobody has seen: all that it says is wanted
        results.put(
            name,
            "failed",
            seconds=time.monotonic() - begin,
            text=f"{type(error).__name__}: {error}",
            traceback=traceback.format_exc().splitlines(),
        )
        return False
    results.put(name, "done", seconds=time.monotonic() - begin, **figures)
    return True


def run_in_process(name: str, device: str, results: Results, limit_s: float) -> None:
    """Run one step in a process of its own, which may hang or die; the result is in the file then."""
    command = [sys.executable, str(Path(__file__)), "--device", device, "--json", str(results.path), "--only", name]
    begin = time.monotonic()
    try:
        code = subprocess.run(command, timeout=limit_s, check=False, stdout=subprocess.DEVNULL).returncode
        ended = f"its process ended with {code}"
    except subprocess.TimeoutExpired:
        ended = f"it took longer than {limit_s:.0f} s and was ended"
    if results.path.exists():
        results.steps = json.loads(results.path.read_text())["steps"]
    if results.steps.get(name, {}).get("state") in (None, "running"):
        results.put(name, "failed", seconds=time.monotonic() - begin, text=ended)


@click.command()
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:N, or cpu for small sizes.")
@click.option(
    "--json",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("gpu-check.json"),
    show_default=True,
    help="The results; steps that it holds are not run again.",
)
@click.option("--minutes", type=float, default=8.0, show_default=True, help="Begin no step after this time.")
@click.option("--steps", default=",".join(STEPS), show_default=True, help="The steps to run.")
@click.option("--only", hidden=True, help="Run this step in this process.")
@click.option("--table", is_flag=True, help="Print the table of the results, and run nothing.")
def main(device: str, path: Path, minutes: float, steps: str, only: str | None, table: bool) -> None:
    """Check and measure everything that needs a GPU.  Exits with 1 if a step failed or is left."""
    if table:
        click.echo(render(json.loads(path.read_text())["steps"] if path.exists() else {}))
        return
    names = steps.split(",")
    if unknown := [name for name in names if name not in STEPS]:
        raise click.UsageError(f"unknown step {', '.join(unknown)}: use {', '.join(STEPS)}")
    try:
        opened = open_device(device)
        results = Results(path, opened.name)
        if only is not None:
            sys.exit(0 if run_step(only, opened, results) else 1)
    except StreamfuseError as error:
        raise click.ClickException(str(error)) from None
    end = time.monotonic() + 60 * minutes
    for name in names:
        left = end - time.monotonic()
        if not results.finished(name) and left > 0:
            run_in_process(
                name, device, results, min(STEPS[name][1] * (SLOWER if opened.index is None else 1), left + 30)
            )
        entry = results.steps.get(name, {"state": "left", "text": "no time left: run this again to go on"})
        click.echo(f"{entry['state']:<8} {name:<12} {str(entry.get('text', ''))[:400]}")
    click.echo(f"\n{render(results.steps)}\n\nPlease send back {path}.")
    sys.exit(0 if all(map(results.finished, names)) else 1)


def render(steps: dict[str, dict[str, Any]]) -> str:
    """The table of docs/engines.md."""
    lines = ["| | quality | balanced | realtime |", "|---|---|---|---|"]
    measured = {(row["mode"], row["preset"]): row for row in steps.get("modes", {}).get("rows", [])}
    measured |= {("tensorrt", row["preset"]): row for row in steps.get("tensorrt", {}).get("rows", [])}
    titles = {
        "tensorrt": "TensorRT",
        "inductor": "Inductor, CUDA graph",
        "graphs": "PyTorch, CUDA graph",
        "eager": "PyTorch, eager",
    }
    for mode, title in titles.items():
        rows = [measured.get((mode, preset), {}) for preset in ("quality", "balanced", "realtime")]
        cells = [f"{row['ms']:.2f} ms, {row['fps']:.0f} fps" if "ms" in row else NOT_RUN for row in rows]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    shares = {row["preset"]: row for row in steps.get("overlap", {}).get("rows", [])}
    exact: dict[str, float] = {}
    for row in steps.get("accuracy", {}).get("rows", []):
        if row["precision"] == "fp16":
            exact[row["preset"]] = min(row["psnr_db"], exact.get(row["preset"], 200.0))
    late = {row["preset"]: row for row in steps.get("latency", {}).get("rows", [])}
    presets = ("quality", "balanced", "realtime")
    cells = [f"{shares[preset]['share']:.2f}" if preset in shares else NOT_RUN for preset in presets]
    lines.append(f"| end to end over the network alone | {' | '.join(cells)} |")
    cells = [f"{late[preset]['p50_ms']:.2f} ms" if preset in late else NOT_RUN for preset in presets]
    lines.append(f"| latency of a single pair | {' | '.join(cells)} |")
    cells = [f"{exact[preset]:.1f} dB" if preset in exact else NOT_RUN for preset in presets]
    lines.append(f"| FP16 to FP32, least | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
