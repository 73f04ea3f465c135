"""A user without a home directory, and `~` with the name of an unknown user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, fails
from media import every, write_images, write_video

from streamfuse.engines.cache import NO_HOME, Cache, default_directory
from streamfuse.errors import UsageError
from streamfuse.files import expand_home

NOBODY = "~no-such-user/x"
STRANGER = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
"""Command to run as a user without an entry in the password database, with this user's files."""


def can_run_as_unknown_user() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*STRANGER, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_run_as_unknown_user(), reason="needs user namespaces (unshare --user)")
def test_a_user_without_a_home_directory_fuses_without_a_cache(tmp_path: Path, weights: Path) -> None:
    ir, vis = (write_video(tmp_path / f"{name}.mp4", every(40, 3)) for name in ("ir", "vis"))
    out = tmp_path / "out.mp4"
    without = {"HOME", "XDG_CACHE_HOME", "STREAMFUSE_CACHE"}
    environment = {key: value for key, value in os.environ.items() if key not in without}
    command: list[str | Path] = [
        *STRANGER,
        sys.executable,
        "-m",
        "streamfuse",
        "run",
        "--ir",
        ir,
        "--vis",
        vis,
        "-o",
        out,
    ]
    command += ["--weights", weights, "--engine", "openvino"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**environment, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert f"note: {NO_HOME}" in done.stderr
    assert f"3 to {out}" in done.stderr


@pytest.mark.parametrize("command", ["run", "batch", "fuse", "build", "bench"])
def test_unknown_home_in_weights_path_is_one_line(command: str, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", ["1.png"])
    choices: dict[str, list[object]] = {
        "run": ["--ir", images, "--vis", images],
        "batch": ["--ir", f"{tmp_path}/*/1.png", "--vis", f"{tmp_path}/*/1.png", "-o", tmp_path / "out"],
        "fuse": [images, images, "-o", tmp_path / "out"],
        "build": ["--size", "64x48"],
        "bench": [],
    }
    line = fails(2, "--weights ~no-such-user/x: the home directory of ~no-such-user is not known",
                 command, *choices[command], "--weights", NOBODY)  # fmt: skip
    assert "give the path without ~" in line


def test_unknown_home_in_cache_path_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFUSE_CACHE", NOBODY)
    with pytest.raises(UsageError, match="STREAMFUSE_CACHE ~no-such-user/x: the home directory"):
        default_directory()


def test_without_a_cache_directory_nothing_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("STREAMFUSE_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    cache = Cache()
    assert cache.directory is None
    cache.store("key", b"payload")
    assert cache.load("key") is None


def test_existing_file_with_a_tilde_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("~no-such-user").mkdir()
    Path(NOBODY).touch()
    assert expand_home(Path(NOBODY), "--weights") == Path(NOBODY)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_home(Path("~/x"), "--weights") == tmp_path / "x"
