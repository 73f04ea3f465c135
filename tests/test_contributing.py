"""The source, sink and engine of CONTRIBUTING.md, added to a copy of the program as described there, and run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, blocks

PAGE = ROOT / "CONTRIBUTING.md"
FILE = re.compile(r"`(streamfuse/\w+/\w+\.py)`:\n\n```python\n(.*?)^```$", re.M | re.S)


def apply(diff: str, directory: Path) -> None:
    """Apply one hunk without line numbers; its context must occur exactly once in the file."""
    heading, _, body = diff.partition("\n")
    file = directory / heading.removeprefix("--- ")
    lines = body.splitlines()
    before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    text = file.read_text()
    assert text.count(before) == 1, f"{heading}: its context is not, or not once, in the file:\n{before}"
    file.write_text(text.replace(before, "".join(f"{line[1:]}\n" for line in lines)))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "streamfuse", tmp_path / "streamfuse", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    files = FILE.findall(PAGE.read_text())
    assert [name for name, _ in files] == [
        "streamfuse/sources/checker.py",
        "streamfuse/sinks/levels.py",
        "streamfuse/engines/mean.py",
    ]
    for name, text in files:
        (tmp_path / name).write_text(text)
    diffs = [block for block in blocks(PAGE) if block.language == "diff"]
    assert len(diffs) == 3
    for block in diffs:
        apply(block.text, tmp_path)
    return tmp_path


def test_the_three_files_work(copy: Path) -> None:
    (command,) = [block.text for block in blocks(PAGE) if block.language == "text"]
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(",") for line in (copy / "levels.csv").read_text().splitlines()]
    assert [int(time_ns) for time_ns, _ in rows] == [40_000_000 * k for k in range(30)]
    # The tone holds the level and rounds; half of the squares are 20, half 220.
    assert all(float(level) == pytest.approx(120, abs=3) for _, level in rows)
    assert "30 to levels.csv" in done.stderr
