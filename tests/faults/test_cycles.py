"""A pipeline that is started and stopped many times leaks nothing."""

from __future__ import annotations

import faulthandler
from pathlib import Path

import pytest
from fault_table import FaultTable
from media import PassThrough, every, read_video, write_video
from vitals import growth, needs_proc, python_threads, vitals

from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sinks.base import Sink
from streamfuse.sinks.preview import PreviewSink
from streamfuse.sinks.video import VideoSink
from streamfuse.sinks.zeromq import ZeroMQSink

pytestmark = [needs_proc, pytest.mark.timed]
FRAMES = 4
OPENCV_KB_A_CYCLE = 0.5
"""OpenCV keeps 0.9 KB for each thread that ever used its pool to convert or scale a picture; without the pool
(`cv2.setNumThreads(1)`) it keeps nothing.  Every fourth cycle has two such threads."""


def _fuser() -> Fuser:
    return Fuser(engine=PassThrough(), tone="per-frame")


def _once(number: int, directory: Path, ir: Path, vis: Path) -> None:
    """Run a pipeline in one of four ways."""
    out = directory / "out.mp4"
    live = "?live=1&size=64x48&fps=240"
    match number % 4:
        case 0:  # two recordings to their end, into a file
            Pipeline(ir, vis, sinks=[VideoSink(out, force=True)], fuser=_fuser()).run()
            assert len(read_video(out)[0]) == FRAMES
        case 1:  # the iteration is left early
            with Pipeline(ir, vis, sinks=[VideoSink(out, force=True)], fuser=_fuser()) as pipeline:
                next(iter(pipeline))
            for part in directory.glob("out.part*"):  # the unfinished output
                part.unlink()
        case 2:  # published, and shown in a browser
            sinks: list[Sink] = [ZeroMQSink("tcp://127.0.0.1:*"), PreviewSink("127.0.0.1:0")]
            Pipeline(ir, vis, sinks=sinks, fuser=_fuser()).run()
        case _:  # live, stopped from outside
            with Pipeline(f"synthetic:ir{live}", f"synthetic:vis{live}", fuser=_fuser()) as pipeline:
                for _ in pipeline:
                    pipeline.stop()


@pytest.mark.parametrize(
    "cycles", [200, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])], ids=["200", "10000"]
)
def test_start_and_stop(cycles: int, tmp_path: Path, faults: FaultTable) -> None:
    if cycles > 1000:
        faulthandler.cancel_dump_traceback_later()  # this takes long on purpose
    ir = write_video(tmp_path / "ir.mp4", every(40, FRAMES))
    vis = write_video(tmp_path / "vis.mp4", every(40, FRAMES))
    samples = []
    for number in range(cycles + 40):
        _once(number, tmp_path, ir, vis)
        if number >= 40:  # the first cycles load libraries and fill caches
            samples.append(vitals(trim=True))
    threads, descriptors = growth(samples, "threads"), growth(samples, "descriptors")
    assert threads <= 0, python_threads()
    assert descriptors <= 0
    grown = growth(samples, "rss_mb")
    most = 5 + OPENCV_KB_A_CYCLE * cycles / 2 / 1e3
    assert grown < most, [round(sample.rss_mb) for sample in samples[:: cycles // 20]]
    faults.add(
        f"a pipeline is started and stopped {cycles:,} times",
        times=cycles,
        lost=f"threads {threads:+g}, descriptors {descriptors:+g}, memory {grown:+.1f} MB",
        promised=f"no thread or descriptor stays; memory grows less than {most:.1f} MB",
    )
