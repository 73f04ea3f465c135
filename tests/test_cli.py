"""The command line: exit codes and output, of whole processes where these matter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import ROOT, SMALL, fails, process, streamfuse
from media import every, luma_of, read_video, write_images, write_video


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    ir = write_video(tmp_path / "ir.mp4", every(40, 6))
    vis = write_video(tmp_path / "vis.mp4", every(40, 6), u=100, v=160)
    return ir, vis


def test_run_end_to_end(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    out = tmp_path / "out.mp4"
    done = process("run", "--ir", pair[0], "--vis", pair[1], "-o", out, *SMALL)
    assert done.returncode == 0, done.stderr
    times, pictures = read_video(out)
    assert times == pytest.approx(every(40, 6), abs=0.02)
    assert pictures[0].shape == (48, 64)
    for words in ("infrared 6, visible 6", "paired   6", f"6 to {out}", "dropped  none", "p50", "fuse", "write"):
        assert words in done.stderr
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr  # plain lines where there is no terminal


def test_fuse_says_that_videos_are_for_run(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    done = streamfuse("fuse", *pair, "-o", tmp_path / "out.png")
    assert done.returncode == 2
    assert f"{pair[0]} is a recording: fuse it with `streamfuse run --ir {pair[0]}" in done.stderr


def test_run_synthetic_to_images(tmp_path: Path) -> None:
    query = "?seconds=0.2&fps=10&size=64x48"
    done = streamfuse(
        "run", "--ir", f"synthetic:ir{query}", "--vis", f"synthetic:vis{query}", "-o", tmp_path / "%02d.png", *SMALL
    )
    assert done.returncode == 0, done.stderr
    picture = cv2.imread(str(tmp_path / "02.png"))
    assert picture is not None
    assert picture.shape == (48, 64, 3)


def test_run_vot(tmp_path: Path) -> None:
    names = [f"{k:08d}.png" for k in range(1, 4)]
    write_images(tmp_path / "s" / "ir", names)
    write_images(tmp_path / "s" / "color", names, colour=True)
    done = streamfuse("run", "--vot", tmp_path / "s", "-o", tmp_path / "out.mkv", "--codec", "ffv1", *SMALL)
    assert done.returncode == 0, done.stderr
    assert read_video(tmp_path / "out.mkv")[0] == pytest.approx([0, 33, 67], abs=1)


def test_fuse_images_and_directories(tmp_path: Path) -> None:
    write_images(tmp_path / "ir", ["IR1.png", "IR2.png", "IR9.png"])
    write_images(tmp_path / "vis", ["VIS1.png", "VIS2.png"], colour=True, size=(50, 70))
    done = streamfuse("fuse", tmp_path / "ir", tmp_path / "vis", "-o", tmp_path / "out", *SMALL)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["VIS1.png", "VIS2.png"]
    assert "1 images have no partner" in done.stderr
    one = tmp_path / "one.jpg"
    done = streamfuse("fuse", tmp_path / "ir/IR1.png", tmp_path / "vis/VIS1.png", "-o", one, *SMALL)
    assert done.returncode == 0, done.stderr
    picture = cv2.imread(str(one))
    assert picture is not None
    assert picture.shape == (50, 70, 3)
    fails(2, "tone smooth needs a stream", "fuse", tmp_path / "ir", tmp_path / "vis", "-o", one, "--tone", "smooth")
    for distance in ("auto", "auto-plane"):
        flags = ["-o", one, "--distance-m", distance]
        fails(2, f"--distance-m {distance} needs a stream", "fuse", tmp_path / "ir", tmp_path / "vis", *flags)
    grey = tmp_path / "grey.png"
    deep = tmp_path / "deep.tif"
    cv2.imwrite(str(deep), luma_of(0).astype(np.uint16) * 3 + 6000)
    assert streamfuse("fuse", deep, tmp_path / "ir/IR1.png", "-o", grey, *SMALL).returncode == 0
    picture = cv2.imread(str(grey), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert picture.ndim == 2


def test_fuse_continues_after_a_bad_image(tmp_path: Path) -> None:
    write_images(tmp_path / "ir", ["1.png", "2.png"])
    write_images(tmp_path / "vis", ["1.png", "2.png"])
    (tmp_path / "vis" / "1.png").write_bytes(b"broken")
    args = ("fuse", tmp_path / "ir", tmp_path / "vis", "-o", tmp_path / "out", *SMALL)
    assert "1 of 2 pairs" in fails(3, "vis/1.png is not an image", *args)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["2.png"]


def test_cut_off_input_is_fused_then_exit_3(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    whole = write_video(tmp_path / "whole.mp4", every(40, 20), container={"movflags": "faststart"}, grain=True)
    short = tmp_path / "short.mp4"
    short.write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])
    out = tmp_path / "out.mp4"
    fails(3, "of 20 frames could be read", "run", "--ir", short, "--vis", whole, "-o", out, *SMALL)
    assert len(read_video(out)[0]) > 5


def test_bad_input_is_one_line_and_the_right_code(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    ir, vis = pair
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "bad.safetensors").write_text("no weights")
    tiny = write_video(tmp_path / "tiny.mkv", [0], size=(1, 1), codec="ffv1")
    new = tmp_path / "new.mp4"
    exists = tmp_path / "exists.mp4"
    exists.write_bytes(b"precious")
    for code, words, args in (
        (2, "--vis missing: give two sources, such as --ir ir.mp4 --vis vis.mp4", ("--ir", ir)),
        (2, "--ir and --vis missing", ()),
        (2, "leave out --ir", ("--vot", tmp_path, "--ir", ir, "-o", new)),
        (2, "No such option", ("--frob",)),
        (2, "unknown tone", ("--ir", ir, "--vis", vis, "-o", new, "--tone", "loud")),
        (2, "unknown codec", ("--ir", ir, "--vis", vis, "-o", new, "--codec", "vp9")),
        (2, "ftp:// sources are not supported", ("--ir", "ftp://me:secret@127.0.0.1/x", "--vis", vis, "-o", new)),
        (3, "cannot be paired with a live", ("--ir", "rtsp://me:secret@127.0.0.1/x", "--vis", vis, "-o", new)),
        (3, "there is no file", ("--ir", tmp_path / "gone.mp4", "--vis", vis, "-o", new)),
        (3, "is not a video", ("--ir", tmp_path / "text.mp4", "--vis", vis, "-o", new)),
        (3, "no VOT-RGBT sequence", ("--vot", tmp_path, "-o", new)),
        (3, "needs 16 pixels a side", ("--ir", ir, "--vis", tiny, "-o", new, *SMALL)),
        (4, "unknown engine 'warp'", ("--ir", ir, "--vis", vis, "-o", new, "--engine", "warp")),
        (4, "unknown precision", ("--ir", ir, "--vis", vis, "-o", new, "--precision", "fp99")),
        (4, "there is no weights file", ("--ir", ir, "--vis", vis, "-o", new, "--weights", tmp_path / "gone")),
        (4, "not a safetensors file", ("--ir", ir, "--vis", vis, "-o", new, "--weights", tmp_path / "bad.safetensors")),
        (5, "--force", ("--ir", ir, "--vis", vis, "-o", exists)),
        (5, "would overwrite the input", ("--ir", ir, "--vis", vis, "-o", vis, "--force")),
        (2, "not a finite number", ("--ir", ir, "--vis", vis, "-o", new, "--tolerance-ms", "nan")),
        (2, "x<=10000", ("--ir", ir, "--vis", vis, "-o", new, "--fps", "inf")),
        (5, "cannot write", ("--ir", ir, "--vis", vis, "-o", f"{'n' * 300}.mp4")),
        (5, "there is no directory", ("--ir", ir, "--vis", vis, "-o", tmp_path / "gone" / "a.mp4")),
    ):
        line = fails(code, words, "run", *args)
        assert "secret" not in line
        assert not new.exists(), args  # nothing is left behind where nothing was fused
    assert exists.read_bytes() == b"precious"


def test_traceback_only_with_debug(tmp_path: Path) -> None:
    done = process("run", "--ir", "gone.mp4", "--vis", "gone.mp4", "-o", tmp_path / "a.mp4", "--debug")
    assert done.returncode == 3
    assert "Traceback" in done.stderr


def test_flag_then_environment_then_file(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    config = tmp_path / "run.toml"
    config.write_text(f'ir = "{pair[0]}"\nvis = "{pair[1]}"\nframes = 2\nengine = "torch"\nir-offset-ms = 0.0\n')
    for number, (flags, env) in enumerate((([], {}), ([], {"STREAMFUSE_RUN_FRAMES": "3"}), (["--frames", "4"], {}))):
        out = tmp_path / f"{number}.mp4"
        done = streamfuse("run", "--config", config, "-o", out, *flags, **env)
        assert done.returncode == 0, done.stderr
        assert len(read_video(out)[0]) == 2 + number
    for text, words in (("speed = 3", "unknown key 'speed'"), ("ir = [", "not valid TOML"), ("ir = []", "one value")):
        config.write_text(text)
        fails(2, words, "run", "--config", config)


def test_shipped_configurations_are_valid(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    configs = sorted((ROOT / "pipelines").glob("*.toml"))
    assert {config.stem for config in configs} >= {"archive", "cameras", "rtsp", "low-latency", "recording"}
    for config in configs:
        out = tmp_path / f"{config.stem}.mkv"
        done = streamfuse("run", "--config", config, "--ir", pair[0], "--vis", pair[1], "-o", out, *SMALL)
        assert done.returncode == 0, done.stderr


def interrupted(out: Path, growing: Path, number: int, *flags: str) -> tuple[int, str]:
    """Exit code and words of an endless run that gets a signal once `growing` holds some frames."""
    ir, vis = (f"synthetic:{channel}?fps=25&size=64x48" for channel in ("ir", "vis"))
    with subprocess.Popen(
        [sys.executable, "-m", "streamfuse", "run", "--ir", ir, "--vis", vis, "-o", str(out), *flags, *SMALL],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        deadline = time.monotonic() + 60
        while (not growing.exists() or growing.stat().st_size < 4000) and time.monotonic() < deadline:
            os.sched_yield()
        process.send_signal(number)
        assert process.stderr is not None
        said = process.stderr.read()
    return process.returncode, said


def test_interrupt_finishes_the_file(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    code, said = interrupted(out, out, signal.SIGINT)
    assert code == 128 + signal.SIGINT, said
    assert "stopped by a signal" in said
    times, _ = read_video(out)
    assert times == pytest.approx(every(40, len(times)), abs=0.02)
    assert f"{len(times)} to {out}" in said


def test_interrupted_run_does_not_replace_a_file(tmp_path: Path) -> None:
    out, part = tmp_path / "out.mp4", tmp_path / "out.part.mp4"
    out.write_bytes(b"precious")
    code, said = interrupted(out, part, signal.SIGTERM, "--force")
    assert code == 128 + signal.SIGTERM, said
    assert out.read_bytes() == b"precious"
    assert len(read_video(part)[0]) > 0
    assert "is unchanged" in said


def test_demo(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = process("demo", "-o", out, "--seconds", 0.4, "--fps", 10, "--size", "96x64", *SMALL)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in out.iterdir()) == ["fused.mp4", "ir.mp4", "sheet.png", "vis.mp4"]
    assert len(read_video(out / "fused.mp4")[0]) == 4
    sheet = cv2.imread(str(out / "sheet.png"))
    assert sheet is not None
    assert sheet.shape[1] > 3 * 96
    fails(5, "--force", "demo", "-o", out, *SMALL)
    fails(2, "WIDTHxHEIGHT", "demo", "-o", out, "--size", "big")


def test_weights_info_of_the_shipped_file() -> None:
    done = streamfuse("weights", "info")
    assert done.returncode == 0, done.stderr
    for words in ("crossfuse.safetensors", "21,3", "magnitude", "direct", "sha256"):
        assert words in done.stdout


def test_help_and_version() -> None:
    help_text = process("--help").stdout
    for name in ("run", "fuse", "demo", "doctor", "weights"):
        assert name in help_text
        assert process(name, "--help").returncode == 0
    assert process("--version").stdout.startswith("streamfuse 0.")


def test_importing_loads_no_large_library() -> None:
    """torch, openvino, av and OpenCV load when they are first used."""
    code = "import sys, streamfuse.cli; print([m for m in ('torch', 'openvino', 'av', 'cv2') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.strip() == "[]"
