"""The API reference builds without a warning, and its pages are linked."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

pytest.importorskip("pdoc", reason="the extra docs is not installed")


def test_pages_build_and_link_to_each_other(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "docs/build.py", tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    start = (tmp_path / "streamfuse.html").read_text()
    for page in ("sources", "sinks", "engines", "errors", "pipeline"):
        assert f'href="streamfuse/{page}.html"' in start
        assert (tmp_path / "streamfuse" / f"{page}.html").exists()
    assert "(H, W) uint8, full range 0..255" in start
    assert not re.search(r"Common base class for all non-exit exceptions", start)
