"""The report of a batch, as data and as a page in a real browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_web_browser import browser  # noqa: F401

from streamfuse.batch import report
from streamfuse.batch.recordings import Recording, Unpaired
from streamfuse.batch.report import Report
from streamfuse.batch.run import Entry, Status, idle
from streamfuse.errors import OutputError

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def entry(root: Path, name: str, status: Status, **figures: object) -> Entry:
    recording = Recording(root / f"{name}.mp4", f"/rec/{name}/ir.mp4", f"/rec/{name}/vis.mp4")
    plain = {
        "frames": 50,
        "seconds": 2.0,
        "segments": 1,
        "drops": {},
        "damage": None,
        "worker": "host:1",
        "engine": "e",
    }
    made = {**plain, **figures} if status in (Status.DONE, Status.SKIPPED) else None
    return Entry(recording, status=status, figures=made)


@pytest.fixture
def made(tmp_path: Path) -> Report:
    entries = [
        entry(tmp_path, "good", Status.DONE),
        entry(tmp_path, "old", Status.SKIPPED),
        entry(tmp_path, "cut", Status.DONE, damage="vis.mp4: cut off at 1 s", drops={"infrared": {"corrupt frame": 2}}),
        entry(tmp_path, "late", Status.LEFT),
        entry(tmp_path, "bad <b>", Status.FAILED),
    ]
    entries[-1].fail("vis.mp4 is not a video <script>alert(1)</script>", 3, "Traceback ...")
    return Report(entries, [Unpaired("/rec/x/ir.mp4", "no partner")], idle(entries), "this machine", datetime.now(UTC))


def test_the_json_counts_every_recording_once(tmp_path: Path, made: Report) -> None:
    page = report.write(made, tmp_path / "new/report")
    data = json.loads((page.parent / "batch.json").read_text())
    assert data["counts"] == {"left": 1, "done": 2, "skipped": 1, "failed": 1, "damaged": 1, "unpaired": 1}
    by_name = {Path(recording["output"]).stem: recording for recording in data["recordings"]}
    assert len(data["recordings"]) == len(by_name) == 5
    assert (by_name["good"]["frames"], by_name["good"]["fps"]) == (50, 25.0)
    assert "earlier run" in by_name["old"]["reason"]
    assert by_name["bad <b>"]["traceback"] == "Traceback ..."
    assert by_name["late"]["reason"] == "the batch was stopped before it"
    assert [path.name for path in sorted(page.parent.iterdir())] == ["batch.html", "batch.json"]


def test_a_name_of_bytes_that_are_no_text_can_be_reported(tmp_path: Path) -> None:
    entries = [entry(tmp_path, "\udcff", Status.DONE)]
    page = report.write(Report(entries, [], idle(entries), "this machine", datetime.now(UTC)), tmp_path)
    assert r"\udcff.mp4" in page.read_text()
    assert json.loads((tmp_path / "batch.json").read_text())["recordings"][0]["output"].endswith("\udcff.mp4")


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path, made: Report) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make"):
        report.write(made, tmp_path / "file/report")


def test_what_went_wrong_is_always_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Report) -> None:
    monkeypatch.setattr(report, "ROWS", 1)
    page = report.render(made.as_dict())
    assert "and 1 more successful recordings" in page
    assert page.index("is not a video") < page.index("the batch was stopped") < page.index("cut off at 1 s")


def test_a_row_says_what_became_of_a_clip(tmp_path: Path) -> None:
    entries = [
        entry(tmp_path / "a/x", "good", Status.DONE, seconds=0.0, notes=["infrared was scaled"], segments=3),
        entry(tmp_path / "a/y", "cut", Status.DONE, damage="cut off at 1 s & <more>", drops={"visible": {"bad": 2}}),
        entry(tmp_path / "a/y", "old", Status.SKIPPED),
        entry(tmp_path / "a/y", "bad & <b>", Status.FAILED),
        Entry(Recording(tmp_path / "a/y/s.mp4", vot="/seq/<s>"), status=Status.LEFT),
    ]
    entries[3].fail("not <i>", 3)
    state = replace(idle(entries), frames=7300, elapsed_s=3730.4)
    made = Report(entries, [], state, "here", datetime.now(UTC)).as_dict()
    assert (made["fps"], made["ended"][-1]) == (round(7300 / 3730.4, 3), "Z")
    good, cut, *_, left = made["recordings"]
    assert (good["fps"], good["segments"], good["notes"]) == (None, 3, ["infrared was scaled"])
    assert (cut["drops"], cut["worker"], cut["engine"]) == ({"visible": {"bad": 2}}, "host:1", "e")
    assert (left["vot"], "ir" in left) == ("/seq/<s>", False)
    page = report.render(made)
    rows = re.findall("<tr class.*?</tr>", page, re.DOTALL)
    assert [re.findall('<tr class="([a-z]+)"', row)[0] for row in rows] == [
        "failed",
        "left",
        "damaged",
        "done",
        "skipped",
    ]
    failed, left, cut, good, old = rows
    assert ">y/bad &amp; &lt;b&gt;.mp4<small>not &lt;i&gt;</small>" in failed
    assert 'title="/seq/&lt;s&gt;"' in left
    assert "<small>cut off at 1 s &amp; &lt;more&gt;; 2 visible: bad</small>" in cut
    assert ">x/good.mp4<small>infrared was scaled</small>" in good
    assert "<small>" not in old
    assert f"outputs in {tmp_path / 'a'}<" in page
    assert "1:02:10" in page
    for absent in ("more successful recordings", "Without a partner", 'tile unpaired"'):
        assert absent not in page


def test_the_page(tmp_path: Path, made: Report, browser: Browser) -> None:  # noqa: F811
    page_file = report.write(made, tmp_path / "report")
    wrong: list[str] = []
    asked: list[str] = []
    with browser.new_context(viewport={"width": 390, "height": 800}) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.goto(page_file.as_uri())
        rows = page.locator("tbody tr")
        assert rows.count() == 5
        assert rows.first.locator("th").inner_text().splitlines()[0] == "bad <b>.mp4"
        assert page.locator(".tile.failed b").inner_text() == "1"
        page.get_by_role("searchbox").fill("corrupt")
        assert page.locator("tbody tr:visible").count() == 1
        # Wide tables scroll by themselves: the page does not.
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert wrong == []
    assert asked == [page_file.as_uri()]
