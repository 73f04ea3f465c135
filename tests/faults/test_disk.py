"""A disk that is full, and one that is slow."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from fault_table import FaultTable
from media import PassThrough, every, read_video, write_video
from runner import LIVE, TESTS

from streamfuse.errors import OutputError
from streamfuse.frames import FusedFrame
from streamfuse.fuser import Fuser
from streamfuse.pipeline import SINK_SLOW, Pipeline
from streamfuse.sinks import open_sinks
from streamfuse.sinks.base import Sink
from streamfuse.sinks.video import VideoSink
from streamfuse.sinks.video_format import VideoFormat
from streamfuse.sources.file import VideoFile
from streamfuse.sources.sequence import match_pattern

ROOT = TESTS.parent


def _fuser() -> Fuser:
    return Fuser(engine=PassThrough(), tone="per-frame")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(place)]
        mounted = subprocess.run(command, check=False, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def noisy_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with frames that hardly compress."""
    return write_video(tmp_path_factory.mktemp("grain") / "g.mkv", every(40, 200), size=(96, 128), grain=True)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "%03d.png"])
def test_full_disk_ends_the_run_and_the_written_part_is_readable(
    name: str, small_disk: Path, noisy_recording: Path, tmp_path: Path, faults: FaultTable
) -> None:
    """Another output, on another disk, is finished normally."""
    other = tmp_path / "other.mp4"
    sinks = open_sinks([str(small_disk / name), str(other)], video=VideoFormat(crf=0))
    begin = time.monotonic()
    with pytest.raises(OutputError, match="the disk is full"):
        Pipeline(noisy_recording, noisy_recording, sinks=sinks, fuser=_fuser()).run()
    assert time.monotonic() - begin < 20
    finished = len(read_video(other)[0])
    if name.endswith("png"):
        whole = [cv2.imread(str(path)) for path, _ in match_pattern(small_disk / name)]
        readable = len(whole)
        assert all(picture is not None for picture in whole)
        assert not list(small_disk.glob(".*"))
    else:
        with VideoFile(small_disk / name) as source:
            readable = len(list(source))
    assert readable >= 3
    assert finished >= readable
    faults.add(
        f"disk full while writing {name.replace('%03d', 'images')}".replace(".png", ""),
        times=1,
        lost="frames after the disk was full; exit code 5",
        promised="one clear error; the part that fitted is readable; other outputs are finished",
    )


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
from streamfuse.cli import main
sys.argv = ["streamfuse", *sys.argv[1:]]
main()
"""


def test_limit_on_file_size(noisy_recording: Path, tmp_path: Path, faults: FaultTable) -> None:
    """A limit for the whole command, which applies to its outputs and to the compiled network."""
    out = tmp_path / "out.mp4"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            LIMITED,
            "run",
            "--ir",
            str(noisy_recording),
            "--vis",
            str(noisy_recording),
            "-o",
            str(out),
            "--crf",
            "0",
            "--engine",
            "torch",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 5, done.stderr
    assert "largest size allowed" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    with VideoFile(out) as source:
        assert len(list(source)) >= 3
    faults.add(
        "file size limit (ulimit -f) on the whole command",
        times=1,
        lost="frames after the limit; exit code 5",
        promised="one clear error; the part that fitted plays",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["doctor", "--quick"], ["weights", "info"], ["run", "--help"]])
def test_stdout_on_a_full_disk(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "streamfuse", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=ROOT,
        )
    assert (done.returncode, done.stderr) == (5, "error: cannot write to stdout or stderr: the disk is full\n")


class SlowDisk(Sink):
    """A simulated slow disk: a real file whose every write takes `pause_s` longer."""

    def __init__(self, path: Path, pause_s: float) -> None:
        self._file = VideoSink(path)
        self.name = self._file.name
        self._pause_s = pause_s

    def write(self, frame: FusedFrame) -> None:
        time.sleep(self._pause_s)
        self._file.write(frame)

    def close(self, *, failed: bool = False) -> None:
        self._file.close(failed=failed)


@pytest.mark.timed
def test_slow_disk_delays_a_recording_and_loses_nothing(tmp_path: Path, faults: FaultTable) -> None:
    ir = write_video(tmp_path / "ir.mp4", every(40, 60))
    sinks = [SlowDisk(tmp_path / "slow.mp4", 0.02), VideoSink(tmp_path / "fast.mp4")]
    summary = Pipeline(ir, ir, sinks=sinks, fuser=_fuser()).run()
    assert summary.dropped == 0
    assert [len(read_video(tmp_path / name)[0]) for name in ("slow.mp4", "fast.mp4")] == [60, 60]
    faults.add(
        "slow disk (simulated), recordings", times=60, lost="nothing", promised="reading waits; nothing is dropped"
    )


@pytest.mark.timed
def test_slow_disk_drops_live_frames_of_its_own_output_only(tmp_path: Path, faults: FaultTable) -> None:
    slow, fast = SlowDisk(tmp_path / "slow.mp4", 0.15), VideoSink(tmp_path / "fast.mp4")
    pipeline = Pipeline(f"synthetic:ir{LIVE}", f"synthetic:vis{LIVE}", sinks=[slow, fast], fuser=_fuser(), frames=60)
    summary = pipeline.run()
    dropped = summary.drops[slow.name][SINK_SLOW]
    times, _ = read_video(tmp_path / "slow.mp4")
    assert dropped > 10
    assert len(times) == 60 - dropped
    assert np.all(np.diff(times) > 0)
    assert fast.name not in summary.drops
    assert len(read_video(tmp_path / "fast.mp4")[0]) == 60
    faults.add(
        "slow disk (simulated), live input",
        times=60,
        lost=f"{dropped} of 60 frames of the slow output, all counted; 0 of the other output",
        promised="the newest frames are kept; other outputs are not slowed",
    )
