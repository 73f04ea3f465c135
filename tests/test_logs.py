"""Messages contain no control characters, whatever untrusted names and texts they quote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamfuse.cli import logs
from streamfuse.cli.summary import show_summary
from streamfuse.cli.weights import command as weights_command
from streamfuse.frames import Role
from streamfuse.notes import log
from streamfuse.sources.base import State
from streamfuse.telemetry import SourceSummary, StageSummary, Summary

EVIL = "a\x1b[2J\x9b1A\x7f\u202e\r\nb\udcff\U000e0001.mp4"
"""Clear screen, cursor up, right-to-left override, newline; undecodable bytes; an invisible tag character."""
PLAIN = r"a\x1b[2J\x9b1A\x7f\u202e\r\nb\udcff\U000e0001.mp4"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = log.handlers, log.propagate, log.level
    yield
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])


def test_notes_are_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.show_notes()
    log.warning("%s is left out", EVIL)
    assert capsys.readouterr().err == f"note: {PLAIN} is left out\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), max_size=20))
def test_json_is_plain_and_carries_the_message(capsys: pytest.CaptureFixture[str], text: str) -> None:
    capsys.readouterr()
    logs.show_json()
    for said in (text, EVIL):
        log.info("%s", said, extra={logs.FIELDS: {"file": said}})
        line = capsys.readouterr().err.removesuffix("\n")
        assert line.isprintable()
        found = json.loads(line)
        assert (found["message"], found["file"]) == (said, said)


def test_a_summary_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    show_summary(
        Summary(
            read={}, pairs=0, fused=0, written={EVIL: 3}, drops={EVIL: {EVIL: 2}}, elapsed_s=1.0, fps=0.0, stages={}
        )
    )
    said = capsys.readouterr().err
    assert f"written  3 to {PLAIN}\n" in said
    assert all(line.isprintable() for line in said.split("\n"))


@pytest.mark.parametrize(
    ("skew_ms", "line"),
    [(0.0, "skew     +0.0 ms, infrared after visible"), (-3.0, "skew     -3.0 ms,"), (None, "skew     unknown")],
)
def test_skew_of_zero_is_shown(capsys: pytest.CaptureFixture[str], skew_ms: float | None, line: str) -> None:
    sources = {role: SourceSummary(State.LIVE, 0) for role in Role}
    counts = {"read": {}, "pairs": 1, "fused": 1, "written": {}, "drops": {}, "stages": {}}
    show_summary(Summary(**counts, elapsed_s=1.0, fps=1.0, skew_ms=skew_ms, sources=sources))  # type: ignore[arg-type]
    assert line in capsys.readouterr().err


def test_a_summary_in_json_has_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    logs.show_json()
    stages = {"fuse": StageSummary(1, 1.0, 1.0, 1.0, within=(1,))}
    named = {"written": {"within": 3}, "drops": {"within": {"within": 1}}, "read": {Role.IR: 1}, "stages": stages}
    sources = {Role.IR: SourceSummary(State.LIVE, 2)}
    show_summary(Summary(**named, pairs=1, fused=1, elapsed_s=1.0, fps=1.0, sources=sources))  # type: ignore[arg-type]
    found = json.loads(capsys.readouterr().err)
    assert (found["written"], found["drops"], found["dropped"]) == ({"within": 3}, {"within": {"within": 1}}, 1)
    assert (found["read"], found["sources"]["infrared"]["reconnects"]) == ({"ir": 1}, 2)
    assert "within" not in found["stages"]["fuse"]


def test_the_metadata_of_weights_are_plain(weights: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    path = tmp_path / "w.safetensors"
    save_file(load_file(weights), path, {**metadata, "author": "\x1b]0;owned\x07", "\x1b[31m": "red"})
    done = CliRunner().invoke(weights_command, ["info", str(path)])
    assert done.exit_code == 0, done.output
    assert r"\x1b]0;owned\x07" in done.output
    assert all(line.isprintable() for line in done.output.split("\n"))
