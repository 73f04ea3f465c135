"""Measurement of every engine, precision, preset and size, each in its own process, as one table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamfuse.engines.base import read_cpu
from streamfuse.errors import EngineError
from streamfuse.network.config import Preset

SIZES = ((240, 320), (480, 640), (720, 1280), (1080, 1920))
"""(height, width)"""
FULL = (480, 640)
"""Size at which every precision is measured; other sizes are measured only with the default precision."""
SLOW_PIXELS = 2_000_000
"""Size above which a tenth of the pairs is measured, as also with engines that compile nothing."""

Row = dict[str, Any]
"""The result of `streamfuse.bench.measure.Result.as_dict`; or the case and `skipped`, the reason for no result."""


@dataclass(frozen=True, slots=True)
class Case:
    """A combination to measure."""

    engine: str
    precision: str
    preset: Preset
    size: tuple[int, int]
    """(height, width)"""


def cases(device: str, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Case]:
    """Return the combinations that can be measured on the CPU, or on a GPU (`device` cuda or cuda:N)."""
    if device == "cpu":
        wide = ("bf16",) if read_cpu().has_bf16 else ()
        kinds = {"openvino": ("int8", *wide, "fp32"), "torch": (*wide, "fp32")}
        best = ("openvino", (*wide, "fp32")[0])
    else:
        kinds, best = {"tensorrt": ("fp16",), "inductor": ("fp16",), "torch": ("fp16", "fp32")}, ("tensorrt", "fp16")
    pairs = [(engine, precision) for engine, precisions in kinds.items() for precision in precisions]
    others = [size for size in sizes if size != FULL]
    return [
        *(Case(*pair, preset, FULL) for pair in pairs for preset in Preset),
        *(Case(*best, preset, size) for size in others for preset in Preset),
    ]


def sweep(
    chosen: Sequence[Case], device: str, weights: Path | None, frames: int, say: Callable[[str], None]
) -> list[Row]:
    """Measure one case after the other; a case that is not available here gets a row with the reason.

    `say`: called with a text before each case.  Raises EngineError if no case could be measured.
    """
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, case in enumerate(chosen, 1):
            say(f"{number} of {len(chosen)}: {_name(case)}")
            rows.append(_measure(case, device, weights, frames, Path(scratch) / f"{number}.json"))
    if not any("skipped" not in row for row in rows):
        raise EngineError(f"nothing could be measured: {rows[0]['skipped'] if rows else 'no case was chosen'}")
    return rows


def _measure(case: Case, device: str, weights: Path | None, frames: int, out: Path) -> Row:
    height, width = case.size
    heavy = height * width > SLOW_PIXELS or case.engine == "torch"
    command = [sys.executable, "-m", "streamfuse", "bench", "--engine", case.engine, "--precision", case.precision]
    command += ["--preset", case.preset, "--size", f"{width}x{height}", "--device", device, "--json", str(out)]
    command += ["--frames", str(max(4, frames // 10) if heavy else frames)]
    command += ["--weights", str(weights)] if weights else []
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        why = said[-1].removeprefix("error: ") if said else f"exit {done.returncode}"
        return {
            "engine": case.engine,
            "precision": case.precision,
            "preset": str(case.preset),
            "size": f"{width}x{height}",
            "skipped": why,
        }
    row: Row = json.loads(out.read_text())
    return row


def _name(case: Case) -> str:
    return f"{case.engine} {case.precision}, preset {case.preset}, {case.size[1]}x{case.size[0]}"


def markdown(rows: Sequence[Row]) -> str:
    """Return one Markdown table.  Times are medians; "x eager" is relative to torch, fp32, quality at that size."""
    eager = {
        row["size"]: row["network"]["p50_ms"]
        for row in rows
        if "skipped" not in row and (row["engine"], row["precision"], row["preset"]) == ("torch", "fp32", "quality")
    }
    lines = [
        "| engine | preset | size | ms | fps | x eager | files to file, fps | prepared in, s | memory, MB | PSNR, dB "
        "| SSIM | Q_AB/F | VIF | MI | least possible, ms | times it |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    left_out: dict[str, list[str]] = {}
    for row in rows:
        name = f"{row['engine']} {row['precision']}"
        if "skipped" in row:
            left_out.setdefault(row["skipped"], []).append(f"{name} {row['preset']} {row['size']}")
            continue
        similarity, ms = row["similarity"], row["network"]["p50_ms"]
        values = [name, row["preset"], row["size"], f"{ms:.1f}", f"{1000 / ms:.1f}"]
        values.append(f"{eager[row['size']] / ms:.1f}" if row["size"] in eager else "")
        values += [f"{row['end_to_end_fps']:.1f}", f"{row['prepare_s']:.1f}", f"{row['memory_mb']:.0f}"]
        values.append("" if similarity["psnr_db"] is None else f"{similarity['psnr_db']:.1f}")
        values.append("" if similarity["ssim"] is None else f"{similarity['ssim']:.4f}")
        values += [
            f"{similarity['scores'][key]:.3f}" if similarity["scores"] else "" for key in ("Q_ABF", "VIF", "true_MI")
        ]
        values += [f"{max(row['arithmetic_ms'], row['memory_ms']):.2f}", f"{row['times_floor']:.1f}"]
        lines.append("| " + " | ".join(values) + " |")
    lines += ["", *(f"Left out: {', '.join(names)}: {why}." for why, names in left_out.items())]
    return "\n".join(lines).rstrip()
