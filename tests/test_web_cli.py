"""Preview, metrics and `top` on the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from command_line import ONE_THREAD, ROOT, SMALL, fails, streamfuse
from media import every, write_video
from web import TOKEN, picture, serving, until

from streamfuse.cli import cli, logs

LIVE = ("--ir", "synthetic:ir?live=1&size=64x48", "--vis", "synthetic:vis?live=1&size=64x48")


@contextmanager
def running(*args: object, **env: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[str], str]]]:
    """Start `streamfuse run`; yields it and a function that reads its stderr up to a line with the given words."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **ONE_THREAD, **env}
    command = [sys.executable, "-m", "streamfuse", "run", *map(str, args), *SMALL]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None

        def read(words: str) -> str:
            assert process.stderr is not None
            seen = []
            for line in process.stderr:
                seen.append(line)
                if words in line:
                    return line
            raise AssertionError(f"{words!r} was not printed, but: {''.join(seen)}")

        try:
            yield process, read
        finally:
            process.kill()


def status(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}status", timeout=20) as answer:
        state: dict[str, Any] = json.load(answer)
    return state


def test_run_with_only_a_preview_and_top() -> None:
    with running(*LIVE, "--preview", "127.0.0.1:0") as (process, read):
        url = read("preview: ").split()[-1]
        until(lambda: bool(status(url)["ready"] and status(url)["fused"] > 2), 60)
        done = streamfuse("top", url, "--once")
        assert done.returncode == 0, done.stderr
        for words in (r"ready", r"fps", r"infrared +live +\d+", r"visible +live", r"fuse +\d", r"shows fused"):
            assert re.search(words, done.stdout), done.stdout
        process.send_signal(signal.SIGINT)
        read("dropped")
        assert process.wait(30) == 0


def test_run_with_output_and_metrics(tmp_path: Path) -> None:
    ir = write_video(tmp_path / "ir.mp4", every(40, 6))
    vis = write_video(tmp_path / "vis.mp4", every(40, 6))
    out = tmp_path / "out.mp4"
    done = streamfuse("run", "--ir", ir, "--vis", vis, "-o", out, "--metrics", "127.0.0.1:0", *SMALL)
    assert done.returncode == 0, done.stderr
    assert re.search(r"note: metrics: http://127\.0\.0\.1:\d+/metrics\n", done.stderr)
    assert f"6 to {out}" in done.stderr
    assert done.stderr.count("written") == 2  # the file, and "arrival to written"
    assert out.stat().st_size > 1000


def test_log_as_json(tmp_path: Path) -> None:
    ir = write_video(tmp_path / "ir.mp4", every(40, 6))
    vis = write_video(tmp_path / "vis.mp4", every(40, 6))
    args = ("run", "--ir", ir, "--vis", vis, "-o", tmp_path / "out.mp4", "--log-json", *SMALL)
    done = streamfuse(*args, "--preview", "127.0.0.1:0")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in ("info", "warning")
    assert lines[0]["message"].startswith("preview: http://127.0.0.1:")
    assert (lines[-1]["message"], lines[-1]["fused"], lines[-1]["dropped"]) == ("summary", 6, 0)
    assert lines[-1]["stages"]["fuse"]["p50_ms"] > 0
    failed = streamfuse(*args)
    assert failed.returncode == 5
    line = json.loads(failed.stderr)
    assert (line["level"], "exists" in line["message"]) == ("error", True)
    wrong = streamfuse("run", "--log-json", "--nonsense")
    assert (wrong.returncode, json.loads(wrong.stderr)["level"]) == (2, "error")


def test_generated_token_is_printed_once_and_a_given_one_never() -> None:
    with running(*LIVE, "--preview", "0.0.0.0:0") as (process, read):
        line = read("preview: ")
        made = line.partition("?token=")[2].strip()
        assert len(made) >= 32
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert made not in process.stderr.read()
    with running(*LIVE, "--preview", "0.0.0.0:0", "--debug", STREAMFUSE_PREVIEW_TOKEN=TOKEN) as (process, read):
        line = read("preview: ")
        assert "token" not in line
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert TOKEN not in process.stderr.read()


def test_signal_as_soon_as_the_address_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def say(*lines: str, **how: object) -> None:
        said.extend(lines)
        if lines[0].startswith("note: preview: "):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(logs, "say", say)
    done = CliRunner().invoke(cli, ["run", *LIVE, "--preview", "127.0.0.1:0", "--frames", "100"])
    assert (done.exit_code, done.exception) == (0, None)
    assert re.search(r"fused +0", "\n".join(said)), said


def test_errors_are_one_line() -> None:
    with serving() as sink:
        taken = f"127.0.0.1:{sink.port}"
        line = fails(5, "the port is in use: choose another", "run", *LIVE, "--preview", taken)
        assert taken in line
    fails(2, "give HOST:PORT", "run", *LIVE, "--preview", "nonsense")
    fails(2, "at least 16 printable", "run", *LIVE, "--preview", "127.0.0.1:0", "--preview-token", "short")
    done = streamfuse("run", *LIVE, "--preview", "0.0.0.0:0", "--log-json")
    assert done.returncode == 2
    assert "give --preview-token" in json.loads(done.stderr)["message"]


def test_configuration_in_effect_hides_the_token(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('preview = "127.0.0.1:8080"\nlog-json = false\n')
    done = streamfuse("run", "--config", file, "--print-config", "--preview-token", TOKEN)
    assert done.returncode == 0, done.stderr
    assert 'preview = "127.0.0.1:8080"' in done.stdout
    assert "# preview-token is set, and not shown" in done.stdout
    assert TOKEN not in done.stdout


def test_errors_of_top() -> None:
    fails(3, "connection refused: check", "top", "127.0.0.1:1", "--once")
    fails(2, "give the address", "top", "ftp://x")
    with serving(token=TOKEN) as sink:
        sink.write(picture())
        address = f"127.0.0.1:{sink.port}"
        assert TOKEN not in fails(3, "a token is needed", "top", address, "--once")
        fails(3, "a token is needed", "top", address, "--once", "--token", "wrong")
        assert streamfuse("top", address, "--once", "--token", TOKEN).returncode == 0
        done = streamfuse("top", f"http://{address}/?token={TOKEN}", "--once")
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout


@pytest.mark.parametrize("lost", [False, True])
def test_top_continues(lost: bool) -> None:
    """It shows rates from the second update on, and keeps running when the run ends."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    with ExitStack() as served:
        sink = served.enter_context(serving())
        command = [sys.executable, "-m", "streamfuse", "top", f"127.0.0.1:{sink.port}", "--interval", "0.1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            try:
                words = "connection refused" if lost else r"infrared +live +12 +0\.0"
                for line in process.stdout:
                    if "11 pairs" in line and lost:
                        served.close()
                    if re.search(words, line):
                        break
                else:
                    pytest.fail(f"{words} was not shown")
            finally:
                process.kill()
