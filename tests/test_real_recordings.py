"""The shipped network on real recordings, end to end."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from media import read_video

from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sinks import open_sink
from streamfuse.sources.file import VideoFile
from streamfuse.sources.vot import open_vot

FRAMES = 8


def test_video_pair(data_dir: Path, tmp_path: Path) -> None:
    """Stamps and chroma are those of the visible stream; people are bright as in infrared."""
    ir, vis = (data_dir / "data/eval/videos" / channel / "0111_1716.mp4" for channel in ("ir", "vis"))
    out = tmp_path / "fused.mkv"
    with Fuser(tone="smooth") as fuser:
        summary = Pipeline(ir, vis, sinks=[open_sink(str(out))], fuser=fuser, frames=FRAMES).run()
    assert summary.fused == FRAMES
    times, fused = read_video(out)
    assert times == pytest.approx([k * 1000 / 30 for k in range(FRAMES)], abs=1)
    with VideoFile(ir) as a, VideoFile(vis) as b:
        warm, seen = next(iter(a)), next(iter(b))
    people = warm.luma > 200
    assert people.mean() > 0.01
    assert fused[0][people].mean() > seen.luma[people].mean() + 40
    assert fused[0][~people].std() > 0.8 * seen.luma[~people].std()  # the scene around them is still there
    with av.open(str(out)) as container:
        first = next(container.decode(video=0))
        u = np.frombuffer(memoryview(first.planes[1]), np.uint8).reshape(first.height // 2, -1)[:, : first.width // 2]
    assert seen.chroma is not None
    assert np.abs(u.astype(int) - seen.chroma.u).mean() < 2


def test_whole_recordings_are_paired_to_the_last_frame(data_dir: Path, tmp_path: Path) -> None:
    """All 151 pairs of one and 20 of the other, without the engine, which would take a minute."""
    from media import PassThrough

    videos = tuple(str(data_dir / "data/eval/videos" / channel / "0111_1716.mp4") for channel in ("ir", "vis"))
    for sources, count in ((videos, 151), (open_vot(data_dir / "data/eval/vot/steps"), 20)):
        out = tmp_path / f"{count}.mp4"
        fuser = Fuser(engine=PassThrough(), tone="smooth")
        summary = Pipeline(*sources, sinks=[open_sink(str(out))], fuser=fuser).run()
        times, _ = read_video(out)
        assert len(times) == summary.fused == count
        assert times == pytest.approx([k * 1000 / 30 for k in range(count)], abs=0.02)
        assert summary.drops == {}
