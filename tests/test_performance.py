"""benchmarks/performance.py writes its section of docs/performance.md; the simple methods beside the network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from small import picture

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import peers  # noqa: E402
import performance  # noqa: E402


def test_writing_changes_the_section_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = json.loads(performance.FIGURES.read_text())
    before = performance.PAGE.read_text()
    page = tmp_path / "performance.md"
    page.write_text(before.replace(performance.render(figures), "old\n"))
    assert "old" in page.read_text()
    monkeypatch.setattr(performance, "PAGE", page)
    performance.write(figures)
    assert page.read_text() == before


def test_peers_fuse() -> None:
    ir, vis = picture(1), picture(2)
    mean = (ir.astype(np.float64) + vis) / 2 / 255
    for fuse in (peers.opencv_blend, peers.ffmpeg_blend(*ir.shape)):
        assert np.abs(fuse(ir, vis) - mean).max() < 1.01 / 255
    assert np.abs(peers.laplacian_pyramid(ir, ir) - ir / 255).max() < 1e-5
    both = peers.laplacian_pyramid(ir, vis)
    assert both.std() > mean.std()
