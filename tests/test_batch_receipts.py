"""Receipts: a later run skips what an earlier one finished."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streamfuse.batch import receipts
from streamfuse.errors import OutputError

MADE: dict[str, Any] = {
    "inputs": "a",
    "options": {"crf": 20, "tone": "smooth"},
    "weights": "w",
    "calibration": None,
    "version": "1",
}
FIGURES = {"frames": 3, "seconds": 1.0}


def made(output: Path, text: str = "video", made_of: dict[str, Any] = MADE, force: bool = False) -> None:
    with receipts.aside(output) as aside:
        aside.write_text(text)
        receipts.deliver(aside, output, made_of, FIGURES, force)


def test_an_output_is_done_only_for_what_it_was_made_of(tmp_path: Path) -> None:
    out = tmp_path / "new/dir/a.mp4"
    assert receipts.standing(out, MADE) == receipts.Standing()
    made(out)
    assert receipts.standing(out, MADE) == receipts.Standing(True, figures=FIGURES)
    assert [path.name for path in out.parent.iterdir() if path.suffix != ".json"] == ["a.mp4"]
    for change, words in (
        ({"inputs": "b"}, "was made of inputs that have changed since"),
        ({"options": {"crf": 30, "tone": "smooth"}}, "was made with crf 20 instead of 30"),
        ({"weights": "x"}, "was made with other weights"),
        ({"calibration": "c"}, "was made with another calibration"),
        ({"version": "2"}, "was made by streamfuse 1"),
    ):
        assert receipts.standing(out, {**MADE, **change}).exists == words


def test_a_part_without_frames_is_done_without_a_file(tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    figures = {"frames": 0, "seconds": 1.0}
    with receipts.aside(out) as aside:
        receipts.deliver(aside, out, MADE, figures, False)
    assert receipts.standing(out, MADE) == receipts.Standing(True, figures=figures)
    assert receipts.standing(out, {**MADE, "window": [0, 5]}) == receipts.Standing()
    assert list(tmp_path.iterdir()) == [receipts.receipt_of(out)]


def test_an_option_that_came_or_went_is_told(tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    made(out)
    now = {**MADE, "options": {"crf": 20, "ir_offset_ms": 5.0}}
    assert receipts.standing(out, now).exists == (
        "was made with ir-offset-ms None instead of 5.0, tone smooth instead of None"
    )


def test_a_file_that_changed_or_is_somebody_elses(tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    out.write_text("mine")
    assert receipts.standing(out, MADE).exists == "was not made by a batch, or has changed since"
    with pytest.raises(OutputError, match="was created during the run"):
        made(out)
    assert out.read_text() == "mine"
    made(out, force=True)
    assert receipts.standing(out, MADE).done
    out.write_text("cut")
    assert receipts.standing(out, MADE).exists
    out.unlink()
    assert receipts.standing(out, MADE) == receipts.Standing()  # a receipt alone says nothing


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"made_of": 3}', '{"made_of": {}, "figures": 1}', "\xff", "[" * 100_000),
        *('{"made_of": {}, "figures": {}}', '{"made_of": {}, "figures": {"frames": 1, "seconds": 1, "drops": 1}}'),
    ],
)
def test_a_broken_receipt_is_none(tmp_path: Path, text: str) -> None:
    out = tmp_path / "a.mp4"
    made(out)
    receipts.receipt_of(out).write_text(text, encoding="latin-1")
    assert receipts.standing(out, MADE).exists == "was not made by a batch, or has changed since"


def test_killed_at_any_moment_nothing_half_counts(tmp_path: Path) -> None:
    """Between the receipt and the new name, with an older output in its place."""
    out = tmp_path / "a.mp4"
    made(out, "old")
    new = {**MADE, "version": "2"}
    with receipts.aside(out) as aside:
        aside.write_text("new")
        stat = aside.stat()
        receipt = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "made_of": new, "figures": FIGURES}
        receipts.receipt_of(out).write_text(json.dumps(receipt))
    assert not receipts.standing(out, new).done
    assert not receipts.standing(out, MADE).done


KILLED = """
import json, os, signal, sys
from pathlib import Path
from streamfuse.batch import receipts

renames = int(sys.argv[2])
def replace(self, target, rename=Path.replace):
    global renames
    renames -= 1
    if renames < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(self, target)
Path.replace = replace
out = Path(sys.argv[1])
with receipts.aside(out) as aside:
    aside.write_text("video")
    receipts.deliver(aside, out, json.loads(sys.argv[3]), {"frames": 3}, False)
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_killed_while_it_delivers_it_leaves_at_most_a_receipt(tmp_path: Path, renames: int) -> None:
    out = tmp_path / "a.mp4"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(out), str(renames), json.dumps(MADE)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(list(receipts.work_of(out).iterdir())) == 2 - renames
    receipts.sweep(out)
    assert list(tmp_path.iterdir()) == [receipts.receipt_of(out)] * renames
    assert receipts.standing(out, MADE) == receipts.Standing()


def test_two_that_deliver_the_same_leave_one(tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    with receipts.aside(out) as one, receipts.aside(out) as other:
        one.write_text("video")
        other.write_text("video")
        receipts.deliver(one, out, MADE, FIGURES, False)
        first = out.stat().st_mtime_ns
        receipts.deliver(other, out, MADE, FIGURES, False)
    assert out.stat().st_mtime_ns == first
    assert receipts.standing(out, MADE).done
    assert not receipts.work_of(out).exists()


def test_only_what_nobody_writes_any_more_is_cleared(tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    work = receipts.work_of(out)
    work.mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname()
    dead, own = work / f"{host}.{gone.pid}.0a1b2c3d.mp4", work / f"{host}.{os.getpid()}.0a1b2c3d.mp4"
    far, old = work / "other.host.example.17.0a1b2c3d.mp4", work / "other.host.example.18.0a1b2c3d.mp4"
    segment = receipts.segment_file(out, MADE, 0)
    for path in (dead, own, far, old, segment):
        path.touch()
    os.utime(old, (0, 0))
    receipts.sweep(out)
    assert set(work.iterdir()) == {own, far, segment}
    dead.touch()
    made(out)
    assert set(work.iterdir()) == {own, far, segment}
    dead.touch()
    receipts.tidy(out)
    assert set(work.iterdir()) == {own, far}  # still being written
    for path in (own, far):
        path.unlink()
    dead.touch()
    receipts.tidy(out)
    assert not work.exists()


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="no os.waitid")
def test_a_dead_process_that_nobody_has_waited_for_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    work = receipts.work_of(out)
    work.mkdir()
    left = work / f"{socket.gethostname()}.{process.pid}.0a1b2c3d.mp4"
    left.touch()
    receipts.sweep(out)
    assert left.exists()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    receipts.sweep(out)
    assert not work.exists()
    process.communicate()


def test_parts_of_other_options_are_other_files(tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    assert receipts.segment_file(out, MADE, 0) != receipts.segment_file(out, MADE, 1)
    assert receipts.segment_file(out, MADE, 0) != receipts.segment_file(out, {**MADE, "weights": "x"}, 0)


def test_what_cannot_be_written_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot look at .*: Not a directory"):
        receipts.standing(tmp_path / "file/a.mp4", MADE)
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*/a.mp4: Is a directory"):
        made(tmp_path / "a.mp4", force=True)
    assert not receipts.work_of(tmp_path / "a.mp4").exists()
    with pytest.raises(OutputError, match="cannot write into"), receipts.aside(tmp_path / "file/a.mp4"):
        pass


def test_options_that_are_none_are_other_options(tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    made(out, made_of={**MADE, "options": ["crf"]})
    assert receipts.standing(out, MADE).exists == "was made with other options"
