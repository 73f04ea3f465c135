"""A limit on memory gives one clear line and an exit code, never a crash or a partial output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fault_table import FaultTable
from media import every, write_video
from runner import TESTS

resource = pytest.importorskip("resource")

LIMITED = """
import resource, sys
limit = int(sys.argv.pop(1)) << 20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from streamfuse.cli import main
main()
"""


@pytest.mark.parametrize("megabytes", [150, 550, 800])
def test_command_under_a_memory_limit(megabytes: int, tmp_path: Path, faults: FaultTable) -> None:
    """Limits that are too small for NumPy, and limits that are too small for the network.

    In between, from 350 to 450 MB on two cores, NumPy's OpenBLAS crashes when it cannot start its threads.
    """
    video, out = write_video(tmp_path / "a.mp4", every(40, 5)), tmp_path / "out.mp4"
    arguments = ["run", "--ir", str(video), "--vis", str(video), "-o", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(megabytes), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=TESTS.parent,
        timeout=120,
    )
    said = done.stderr.splitlines()
    assert done.returncode == 4, done.stderr
    assert "out of memory" in said[-1]
    assert "Traceback" not in done.stderr
    assert not out.exists()
    faults.add(
        f"memory limit of {megabytes} MB (ulimit -v)",
        times=1,
        lost="the run; exit code 4",
        promised="one clear error; no partial output",
    )


PICTURE = """
import resource, sys
from pathlib import Path
import cv2, numpy as np
from streamfuse.cli import main
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), used + (100 << 20)))
main()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc, which Linux has")
def test_allowed_picture_that_does_not_fit_into_memory(tmp_path: Path) -> None:
    """--max-pixels does not guarantee enough memory."""
    import cv2
    import numpy as np

    path = tmp_path / "large.png"
    cv2.imwrite(str(path), np.zeros((8000, 8000), np.uint8))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PICTURE,
            "fuse",
            str(path),
            str(path),
            "-o",
            str(tmp_path / "f.png"),
            "--engine",
            "torch",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=TESTS.parent,
        timeout=120,
    )
    assert done.returncode in (3, 4), done.stderr
    assert "Traceback" not in done.stderr
    assert "(this is a bug" not in done.stderr
    assert not (tmp_path / "f.png").exists()
