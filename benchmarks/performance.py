"""Measure the speed figures of docs/performance.md and write them into that page.

    python benchmarks/performance.py [--section amx]    measure for a quarter of an hour; write JSON and the page
    python benchmarks/performance.py --render           write the page from docs/performance*.json

Section `plain` is for a CPU without AMX.  On a CPU with AMX, ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 hides it.

The machine should be otherwise idle.  If STREAMFUSE_DATA is set, engines are compared on a real pair, and INT8 networks
are calibrated on its training pairs; otherwise INT8 is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streamfuse.bench.recording import record_scene

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = {"plain": ROOT / "docs/performance.json", "amx": ROOT / "docs/performance-amx.json"}
"""Parts of the page, and their figures."""
PAGE = ROOT / "docs/performance.md"
FILES = {
    "quality": ("640x480",),
    "balanced": ("320x240", "640x480", "1280x720"),
    "realtime": ("320x240", "640x480", "1280x720", "1920x1080", "3840x2160"),
}
"""Sizes of the recordings to fuse, by preset."""
BLENDS = (
    ("balanced", "640x480", "veryfast"),
    ("realtime", "640x480", "veryfast"),
    ("realtime", "1280x720", "veryfast"),
    ("realtime", "1920x1080", "ultrafast"),
)
"""Preset, size and x264's preset of the runs that are compared with a blend of the same files."""
BEGIN, END = "<!-- performance {}: python benchmarks/performance.py -->\n", "<!-- end of performance {} -->\n"
"""Marks around a section of the page, with its name."""


def measure() -> dict[str, Any]:
    data = os.environ.get("STREAMFUSE_DATA")
    if data is not None:
        for preset in ("balanced", "realtime"):  # quality takes too long to be of use
            _streamfuse(
                *("build", "--size", "640x480", "--precision", "int8", "--preset", preset),
                *("--calibrate", str(Path(data) / "data/train/m3svd")),
            )
    with tempfile.TemporaryDirectory() as scratch:
        engines = Path(scratch) / "engines.json"
        _python("benchmarks/engine.py", "--json", str(engines))
        return {
            "date": datetime.now(UTC).date().isoformat(),
            "engines": json.loads(engines.read_text()),
            "files": [_bench(preset, size, Path(scratch)) for preset, sizes in FILES.items() for size in sizes],
            "blends": [_blend(*case, Path(scratch)) for case in BLENDS],
            "start": {preset: _start_s(preset, Path(scratch)) for preset in ("balanced", "realtime")},
        }


def _bench(preset: str, size: str, scratch: Path) -> dict[str, Any]:
    out = scratch / f"{preset}-{size}.json"
    _streamfuse("bench", "--preset", preset, "--size", size, "--frames", "30", "--json", str(out))
    row: dict[str, Any] = json.loads(out.read_text())
    return row


def _blend(preset: str, size: str, encoder_preset: str, scratch: Path) -> dict[str, Any]:
    out = scratch / f"blend-{preset}-{size}.json"
    _python(
        *("benchmarks/files.py", "--preset", preset, "--size", size, "--encoder-preset", encoder_preset),
        *("--frames", "100", "--json", str(out)),
    )
    row: dict[str, Any] = json.loads(out.read_text())
    return row


def _start_s(preset: str, scratch: Path) -> float:
    """Time from the command to one fused 640x480 frame in a file, with a compiled network; minimum of three, s."""
    ir, vis = (
        record_scene(scratch, (480, 640), 2)
        if not (scratch / "ir.mp4").exists()
        else (
            scratch / "ir.mp4",
            scratch / "vis.mp4",
        )
    )
    times = []
    for _ in range(4):  # the first may compile
        begin = time.perf_counter()
        _streamfuse(
            *("run", "--ir", str(ir), "--vis", str(vis), "--frames", "1", "--preset", preset),
            *("-o", str(scratch / "one.mp4"), "--force"),
        )
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def _streamfuse(*arguments: str) -> None:
    _run("-m", "streamfuse", *arguments)


def _python(*arguments: str) -> None:
    _run(*arguments)


def _run(*arguments: str) -> None:
    print("+", *arguments, file=sys.stderr, flush=True)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def render(figures: Mapping[str, Any]) -> str:
    """Return the section between the markers of the page."""
    engines = figures["engines"]
    lines = [
        f"Measured {figures['date']} on {engines['machine']}. All engines in one process, interleaved, on "
        f"{engines['pictures']} of {engines['size']}; `eager` is the network in plain FP32 PyTorch:",
        "",
        "| | ms | x eager | PSNR to FP32, dB | SSIM to FP32 |",
        "|---|---|---|---|---|",
        *_engine_rows(engines["engines"]),
        "",
        "Files to file: two H.264 files are decoded and fused, and one is encoded, all on the same cores. Each row is "
        "a separate process on the demo scene; memory is its peak:",
        "",
        f"| {figures['files'][0]['engine']} | size | network, ms | x least | files to file, fps | memory, MB |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['precision']} {row['preset']} | {row['size']} | {row['network']['p50_ms']:.1f} "
            f"| {row['times_floor']:.1f} | {row['end_to_end_fps']:.1f} | {row['memory_mb']:.0f} |"
            for row in figures["files"]
        ),
        "",
        "The same beside a blend of the same files by FFmpeg's filter, with x264's preset; medians of five interleaved "
        "runs (`benchmarks/files.py`):",
        "",
        f"| {figures['files'][0]['engine']} | size | x264 | files to file, fps | blend, fps | share of it |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['precision']} {row['preset']} | {row['size']} | {row['encoder_preset']} "
            f"| {row['fps']['streamfuse']:.1f} | {row['fps']['blend']:.1f} | {row['share']:.2f} |"
            for row in figures["blends"]
        ),
        "",
        "From the start of the command to the first fused frame, with the compiled network in the cache: "
        + ", ".join(f"{seconds:.1f} s ({preset})" for preset, seconds in figures["start"].items())
        + ".",
        "",
        "To measure another machine, run `python benchmarks/performance.py`, or `streamfuse bench --sweep` for every "
        "combination with memory, metrics and the least possible time.",
    ]
    return "\n".join(lines) + "\n"


def _engine_rows(rows: Mapping[str, Any]) -> list[str]:
    out = []
    for name, row in rows.items():
        said = {"published": "as published, eager", "plain": "eager"}.get(name, name.replace(":", " "))
        psnr, ssim = row["psnr_db"], row["ssim"]
        out.append(
            f"| {said} | {row['median_ms']:.1f} | {row['ratio_to_plain']:.1f} "
            f"| {'' if psnr is None or psnr > 100 else f'{psnr:.1f}'} | {'' if ssim is None else f'{ssim:.4f}'} |"
        )
    return out


def write(section: str, figures: Mapping[str, Any]) -> None:
    begin, end = BEGIN.format(section), END.format(section)
    before, _, rest = PAGE.read_text().partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n{render(figures)}\n{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", choices=list(SECTIONS), default="plain")
    parser.add_argument("--render", action="store_true")
    args = parser.parse_args()
    if not args.render:
        SECTIONS[args.section].write_text(json.dumps(measure(), indent=1, allow_nan=False) + "\n")
    for section, figures in SECTIONS.items():
        if figures.exists():
            write(section, json.loads(figures.read_text()))


if __name__ == "__main__":
    main()
