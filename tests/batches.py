"""Archives for tests of `streamfuse batch`: recordings that can be told apart, and the command as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
from media import SIZE, every, read_video, write_video

from streamfuse.color import Plane
from streamfuse.engines import create_engine
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sinks.video import VideoSink

ROOT = Path(__file__).parent.parent
FRAMES = 6


def write_archive(directory: Path, count: int, frames: int = FRAMES) -> list[str]:
    """rec/NAME/ir.mp4 and vis.mp4; recording k has the colour `colour_of(k)`.  Their names."""
    names = [f"c{k:03d}" for k in range(count)]
    for k, name in enumerate(names):
        (directory / "rec" / name).mkdir(parents=True)
        write_video(directory / "rec" / name / "ir.mp4", every(40, frames))
        write_video(directory / "rec" / name / "vis.mp4", every(40, frames), u=colour_of(k), v=128)
    return names


def colour_of(k: int) -> int:
    """Cb: chroma rides along untouched, so that it tells whose visible frames an output has."""
    return 40 + k * 176 // 200 if k >= 20 else 40 + k * 9


def patterns(directory: Path) -> list[str]:
    return ["--ir", f"{directory}/rec/*/ir.mp4", "--vis", f"{directory}/rec/*/vis.mp4"]


def colour_in(path: Path) -> float:
    """Mean Cb of a video's first frame."""
    with av.open(str(path)) as container:
        plane = next(container.decode(video=0)).planes[1]
        return float(np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width].mean())


def reference(ir: Path, vis: Path, weights: Path, out: Path) -> tuple[list[float], list[Plane]]:
    """Times and pictures of what one process without a cluster makes of a pair."""
    with create_engine("openvino", weights=weights, precision="fp32", threads=1) as engine:
        Pipeline(ir, vis, sinks=[VideoSink(out)], fuser=Fuser(engine=engine, tone="smooth")).run()
    return read_video(out)


def options(weights: Path) -> list[str]:
    """Options of an engine that is the same in every process, and compiled already."""
    with create_engine("openvino", weights=weights, precision="fp32", threads=1) as engine:
        engine.prepare(*SIZE)
    return ["--engine", "openvino", "--precision", "fp32", "--weights", str(weights)]


@contextmanager
def batch(*args: object, **env: str) -> Iterator[subprocess.Popen[str]]:
    """The command, running, in a process group of its own; all of it is gone when the block is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "streamfuse", "batch", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill_all(process)
        process.stdout.close()  # type: ignore[union-attr]


def kill_all(process: subprocess.Popen[str]) -> None:
    """kill -9 of the command and of all that it has started, at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def done(*args: object, code: int = 0, **env: str) -> str:
    """The command, run to its end with this exit code; what it said."""
    with batch(*args, **env) as process:
        said, _ = process.communicate(timeout=240)
        assert process.returncode == code, said
        assert "Traceback" not in said
        return said


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that fuse."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def until(true: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait for what another process will do."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def report_of(directory: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((directory / "batch.json").read_text())
    return made


def outputs_of(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.mp4"))
