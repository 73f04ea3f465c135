"""The progress display without a terminal."""

from __future__ import annotations

import json

import pytest

from streamfuse.cli import logs
from streamfuse.cli.progress import LINE_S, progress, waiting


class Time:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_lines_are_rare_and_show_the_progress(capsys: pytest.CaptureFixture[str]) -> None:
    time = Time()
    with progress("fusing", 9, unit="pairs", clock=time) as update:
        for done in range(10):
            time.now_s += LINE_S / 3
            update(done, f"{done}.0 fps")
        update(9, "validation 0.5", at_once=True)
    said = capsys.readouterr()
    assert said.out == ""
    lines = ["2 of 9 pairs, 2.0 fps", "5 of 9 pairs, 5.0 fps", "8 of 9 pairs, 8.0 fps", "9 of 9 pairs, validation 0.5"]
    assert said.err.splitlines() == [f"fusing: {line}" for line in lines]


def test_without_a_total_and_with_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading \x1b[2J") as update:
        update(3, at_once=True)
    assert capsys.readouterr().err == "reading \\x1b[2J: 3 frames\n"


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    handlers = logs.log.handlers
    try:
        logs.show_json()
        with progress("fusing", 4) as update:
            update(2, "1.0 fps", at_once=True)
            update(3, "1.0 fps", fields={"fused": 3}, at_once=True)
    finally:
        logs.log.handlers = handlers
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["progress", "progress"]
    assert (lines[0]["done"], lines[0]["total"], lines[1]["fused"]) == (2, 4, 3)


def test_short_waits_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting("compiling"):
        pass
    assert capsys.readouterr().err == ""
