"""`streamfuse evaluate` as a user has it: what it prints, writes and refuses."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from media import every, write_images, write_video

from streamfuse.cli.evaluate import command
from streamfuse.errors import DamagedInput, InputError, OutputError, StreamfuseError, UsageError
from streamfuse.evaluation.report import render
from streamfuse.evaluation.result import Case, Evaluation
from streamfuse.evaluation.score import METRICS, score
from streamfuse.evaluation.tables import markdown

ROOT = Path(__file__).parent.parent
SMALL = ["--engine", "torch", "--precision", "fp32", "--preset", "realtime"]
"""The small network that is shipped; nothing is compiled, and a small picture takes it some milliseconds."""


def evaluate(*args: object) -> str:
    """Output of the command, or the error that it ends with."""
    result = CliRunner().invoke(command, list(map(str, args)), env={"COLUMNS": "80"})
    if result.exception is not None:
        raise result.exception
    return result.output


def write_scenes(directory: Path, names: list[str], seed: int = 0) -> Path:
    directory.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in names:
        rough = rng.integers(0, 256, (40, 48)).astype(np.uint8)
        assert cv2.imwrite(str(directory / name), cv2.GaussianBlur(rough, (0, 0), 1))
    return directory


Scenes = tuple[Path, Path, Path]


@pytest.fixture
def scenes(tmp_path: Path) -> Scenes:
    """Infrared, visible and fused images of three scenes, the fused ones of two contrasts."""
    names = ["1.png", "2.png", "3.png"]
    ir, vis = write_scenes(tmp_path / "ir", names, 1), write_scenes(tmp_path / "vis", names, 2)
    (tmp_path / "fused").mkdir()
    for name in names:
        a, b = (cv2.imread(str(d / name), cv2.IMREAD_GRAYSCALE) for d in (ir, vis))
        assert a is not None
        assert b is not None
        cv2.imwrite(str(tmp_path / "fused" / name), cv2.addWeighted(a, 0.5, b, 0.5, 0))
    return ir, vis, tmp_path / "fused"


def test_evaluate_end_to_end(tmp_path: Path, scenes: Scenes) -> None:
    """In a process of its own: tables on stdout, notes on stderr, no escape codes in a pipe."""
    ir, vis, fused = scenes
    (ir / "9.png").write_bytes((ir / "1.png").read_bytes())
    out = tmp_path / "made" / "out"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "streamfuse", "evaluate", "--ir", ir, "--vis", vis, "--fused", fused,
         "--json", out / "o.json", "--markdown", out / "o.md", "--report", out / "report"],
        capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 of 4 images have no partner" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "Warning" not in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    content = json.loads((out / "o.json").read_text())
    assert content["count"] == 3
    assert [image["name"] for image in content["images"]] == ["1", "2", "3"]
    assert set(content["mean"]) == set(METRICS)
    for words in ("EN", "paper", "authors", "6.8389", f"{content['mean']['EN']:.4f}"):
        assert words in done.stdout
    planes = [cv2.imread(str(d / "2.png"), cv2.IMREAD_GRAYSCALE) for d in (ir, vis, fused)]
    expected = score(*planes)  # type: ignore[arg-type]
    values = {k: None if math.isnan(v) else pytest.approx(v, abs=1e-6) for k, v in expected.items()}
    assert content["images"][1] == {"name": "2", **values}
    assert f"{content['mean']['Q_ABF']:.3f}" in (out / "o.md").read_text()
    assert (out / "report" / "index.html").stat().st_size > 10_000


def test_a_copy_of_the_visible_picture_has_no_scd(tmp_path: Path, scenes: Scenes) -> None:
    ir, vis, _ = scenes
    output = evaluate("--ir", ir, "--vis", vis, "--fused", vis, "--json", tmp_path / "o.json")
    content = json.loads((tmp_path / "o.json").read_text())
    assert content["mean"]["SCD"] is None
    assert content["images"][0]["SCD"] is None
    assert "3 of 3" in content["undefined"]["SCD"]
    assert "undefined" in output


def test_pairs_are_fused_first_without_fused(tmp_path: Path, scenes: Scenes) -> None:
    ir, vis, _ = scenes
    output = evaluate("--ir", ir, "--vis", vis, *SMALL, "--json", tmp_path / "o.json")
    assert "the shipped weights (torch fp32, preset realtime, tone per-frame)" in output
    content = json.loads((tmp_path / "o.json").read_text())
    assert content["count"] == 3
    assert content["mean"]["SSIM"] > 0.2


def test_streams_are_fused_and_scored(tmp_path: Path) -> None:
    ir = write_video(tmp_path / "ir.mp4", every(40, 7), grain=True)
    vis = write_video(tmp_path / "vis.mp4", every(40, 7), u=100)
    output = evaluate(
        "--ir", ir, "--vis", vis, *SMALL, "--every", 2, "--frames", 5, "--json", tmp_path / "o.json",
        "--report", tmp_path / "report",
    )  # fmt: skip
    assert "one of 2 frames is scored" in output
    assert "own flicker" in output
    content = json.loads((tmp_path / "o.json").read_text())
    assert [image["name"] for image in content["images"]] == ["frame 0", "frame 2", "frame 4"]
    assert content["video"]["frames"] == 5
    assert content["video"]["flicker"]["vis"] == pytest.approx(3 * 15 / 16, abs=0.2)  # all but the bright corner rises
    assert len(content["video"]["levels"]["fused"]) == 5
    assert "<polyline" in (tmp_path / "report" / "index.html").read_text()


def test_a_fused_recording_is_compared_by_time(tmp_path: Path) -> None:
    ir = write_video(tmp_path / "ir.mp4", every(40, 6))
    vis = write_video(tmp_path / "vis.mp4", every(40, 6))
    fused = write_video(tmp_path / "fused.mp4", every(40, 6))
    evaluate("--ir", ir, "--vis", vis, "--fused", fused, "--json", tmp_path / "o.json")
    content = json.loads((tmp_path / "o.json").read_text())
    assert content["video"]["frames"] == content["count"] == 6
    assert content["video"]["own_flicker"] == pytest.approx(0, abs=1e-6)
    assert content["mean"]["SSIM"] > 0.99


@pytest.mark.parametrize("fused", [False, True])
def test_a_recording_that_was_cut_off_still_has_figures(tmp_path: Path, fused: bool) -> None:
    whole = write_video(tmp_path / "whole.mp4", every(40, 20), container={"movflags": "faststart"}, grain=True)
    short = tmp_path / "short.mp4"
    short.write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])
    how = ["--fused", whole] if fused else SMALL
    with pytest.raises(DamagedInput, match="of 20 frames could be read"):
        evaluate("--ir", short, "--vis", whole, *how, "--json", tmp_path / "o.json")
    content = json.loads((tmp_path / "o.json").read_text())
    assert 5 < content["video"]["frames"] < 20
    assert "of 20 frames could be read" in content["notes"][-1]


def test_a_vot_sequence_and_directories_as_streams(tmp_path: Path) -> None:
    """An infrared image is missing: numbers, not places, say what belongs together."""
    names = [f"{k:08d}.png" for k in range(1, 5)]
    ir = write_images(tmp_path / "s" / "ir", names)
    vis = write_images(tmp_path / "s" / "color", names, colour=True)
    fused = write_images(tmp_path / "fused", names)
    (ir / names[1]).unlink()
    evaluate("--vot", tmp_path / "s", "--fused", fused, "--json", tmp_path / "vot.json")
    evaluate("--ir", ir, "--vis", vis, "--fused", fused, "--video", "--json", tmp_path / "dirs.json")
    for name in ("vot.json", "dirs.json"):
        video = json.loads((tmp_path / name).read_text())["video"]
        assert video["frames"] == 3
        assert video["largest_step"]["fused"] == pytest.approx(2 * 45 / 16)
        assert video["levels"]["fused"] == pytest.approx(video["levels"]["vis"], abs=0.5)


def _spoil(path: Path) -> None:
    path.write_bytes(b"no image")


def _shrink(path: Path) -> None:
    cv2.imwrite(str(path), np.zeros((20, 20), np.uint8))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: _spoil(s[0] / "2.png"), "2.png is not an image that can be read"),
        (lambda s: _spoil(s[2] / "2.png"), "2.png is not an image that can be read"),
        (lambda s: _shrink(s[2] / "2.png"), "2.png is 20x20, but .*2.png is 48x40"),
        (lambda s: (s[2] / "2.png").unlink(), "has no fused image for 1 of 3 pairs: 2.png"),
        (lambda s: [path.unlink() for path in s[1].iterdir()], "there are no images"),
    ],
)
def test_bad_images_end_it_with_a_reason(scenes: Scenes, change: Callable[[Scenes], object], words: str) -> None:
    change(scenes)
    ir, vis, fused = scenes
    with pytest.raises(InputError, match=words):
        evaluate("--ir", ir, "--vis", vis, "--fused", fused)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--ir", "a"], "--vis missing"),
        (["--vot", "s", "--vis", "b"], "--vot names both channels"),
        (["--ir", "a.png", "--vis", "b.png", "--fused", "c.png", "--weights", "w"], "--fused needs no engine"),
        (["--ir", "a.png", "--vis", "b.png", "--fused", "c.png", "--tone", "smooth"], "--fused needs no engine"),
        (["--ir", "a.png", "--vis", "b.png", "--tone", "smooth"], "tone smooth needs a stream"),
        (["--ir", "a.png", "--vis", "b.png", "--frames", "3"], "--frames is for streams"),
        (["--ir", "a.png", "--vis", "b.png", "--every", "3"], "--every is for streams"),
    ],
)
def test_invalid_options(args: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        evaluate(*args)


def test_an_output_that_exists_is_kept(tmp_path: Path, scenes: Scenes) -> None:
    ir, vis, fused = scenes
    kept = tmp_path / "o.json"
    kept.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        evaluate("--ir", ir, "--vis", vis, "--fused", fused, "--json", kept)
    assert kept.read_text() == "mine"
    evaluate("--ir", ir, "--vis", vis, "--fused", fused, "--json", kept, "--force")
    assert kept.read_text() != "mine"


@pytest.mark.parametrize("missing", ["scipy", "skimage"])
def test_a_missing_package_is_named_before_the_work(
    scenes: Scenes, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    ir, vis, fused = scenes
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(StreamfuseError, match=r"streamfuse\[research\]"):
        evaluate("--ir", ir, "--vis", vis, "--fused", fused)


def test_importing_metrics_does_not_load_what_fusing_does_without() -> None:
    code = (
        "import sys, streamfuse.evaluation.score, streamfuse.cli.evaluate; "
        "print(sorted({'scipy', 'skimage', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "[]"


# The page.


class _Page(HTMLParser):
    """Which elements are open at the end, and everything that is loaded."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "xlink:href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _case(name: str, seed: int) -> Case:
    planes = np.random.default_rng(seed).integers(0, 256, (3, 24, 24)).astype(np.uint8)
    return Case(name, score(*planes), (b"ir", b"vis", b"fused"), b"lost")


def test_the_page_is_whole_and_loads_nothing() -> None:
    evaluation = Evaluation("a <b> & c", "in", [_case(f"<script>{k}", k) for k in range(4)], notes=["x < y"])
    text = render(evaluation)
    page = _Page(text)
    assert page.open == []
    assert len(page.loaded) == 4 * 4 * 2  # every scene in the sheet, and as one of the best or worst
    assert all(url.startswith("data:image/jpeg;base64,") for url in page.loaded)
    assert "url(" not in text
    assert "@import" not in text
    assert text.count("<script") == 1  # the page's own
    assert "<script>2" in page.text  # as text
    assert "a <b> & c" in page.text
    assert "x < y" in page.text
    assert "13.6779" in page.text


def test_the_page_of_a_single_picture_without_values() -> None:
    flat = np.full((20, 20), 9, np.uint8)
    evaluation = Evaluation("m", "i", [Case("flat", score(flat, flat, flat))])
    page = _Page(render(evaluation))
    assert "SCD: no value is defined" in page.text
    assert page.loaded == []


def test_best_and_worst_are_told_by_mean_rank() -> None:
    def case(name: str, *values: float) -> Case:
        return Case(name, dict(zip(("true_MI", "Q_ABF", "SSIM", "VIF"), values, strict=True)))

    cases = [case("low", 1, 1, 1, 1), case("high", 3, 3, 2, 3), case("one", 2, 2, 9, 2), case("none", *[math.nan] * 4)]
    assert [c.name for c in Evaluation("m", "i", cases).ranked()] == ["high", "one", "low", "none"]


def test_markdown_has_a_row_for_every_picture() -> None:
    text = markdown(Evaluation("m", "i", [_case("a|b", 1), _case("c", 2)]))
    assert "| a\\|b |" in text
    assert "| c |" in text
    assert "CrossFuse, as printed in the paper" in text
    widths = {
        line.replace("\\|", "").count("|") for line in text.split("## Pictures")[1].splitlines() if line.startswith("|")
    }
    assert widths == {len(METRICS) + 2}
