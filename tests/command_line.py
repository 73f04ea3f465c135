"""The command line for tests: in this process, which has loaded torch already, or in a new process."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamfuse import cli, notes

ROOT = Path(__file__).parent.parent
SMALL = ["--engine", "torch", "--precision", "fp32", "--preset", "realtime"]
"""The small network that is shipped; nothing is compiled, and a small picture takes it some milliseconds."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Environment of a process with SMALL: on a busy machine the threads of torch wait seconds for each other per frame."""

Done = subprocess.CompletedProcess[str]


def process(*args: object, **env: str) -> Done:
    """Run `streamfuse` as a user does, with `env` added to the environment: for tests of the process itself."""
    return subprocess.run(
        [sys.executable, "-m", "streamfuse", *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **ONE_THREAD, **env},
        timeout=200,
    )


def streamfuse(*args: object, **env: str) -> Done:
    """Run `streamfuse.cli.main` in this process, with `env` added to the environment.

    Output is captured as of a process without a terminal.  Logging and the notes that are shown once are as in a new
    process.
    """
    log = logging.getLogger("streamfuse")
    before = log.handlers, log.propagate, log.level
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code: object = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["streamfuse", *map(str, args)])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(notes, "_said", set())
        for name, value in env.items():
            patch.setenv(name, value)
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        finally:
            log.handlers, log.propagate = before[:2]
            log.setLevel(before[2])
    assert isinstance(code, int)
    return subprocess.CompletedProcess(sys.argv, code, *(_text(stream) for stream in (out, err)))


def _text(stream: io.TextIOWrapper) -> str:
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


def fails(code: int, words: str, *args: object, **env: str) -> str:
    """Assert that `streamfuse` fails with this code, these words and no traceback; return the line of the error."""
    done = streamfuse(*args, **env)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    error = [line for line in done.stderr.splitlines() if line.lower().startswith("error:")]
    assert len(error) == 1
    return error[0]
