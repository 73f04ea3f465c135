"""benchmarks/performance.py replaces its section of docs/performance.md; the methods in benchmarks/peers.py fuse."""

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


def test_writing_replaces_one_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = json.loads(performance.SECTIONS["plain"].read_text())
    begin, end = performance.BEGIN.format("plain"), performance.END.format("plain")
    page = tmp_path / "performance.md"
    page.write_text(f"above\n{begin}old\n{end}below\n")
    monkeypatch.setattr(performance, "PAGE", page)
    performance.write("plain", figures)
    text = page.read_text()
    assert text.startswith(f"above\n{begin}\n{performance.render(figures)}")
    assert text.endswith(f"{end}below\n")
    assert "old" not in text


def test_peers_fuse() -> None:
    ir, vis = picture(1), picture(2)
    mean = (ir.astype(np.float64) + vis) / 2 / 255
    for fuse in (peers.opencv_blend, peers.ffmpeg_blend(*ir.shape)):
        assert np.abs(fuse(ir, vis) - mean).max() < 1.01 / 255
    assert np.abs(peers.laplacian_pyramid(ir, ir) - ir / 255).max() < 1e-5
    assert peers.two_convs(*ir.shape)(ir, vis).shape == ir.shape
    both = peers.laplacian_pyramid(ir, vis)
    assert both.std() > mean.std()
