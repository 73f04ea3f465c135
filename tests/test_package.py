"""The wheel and the sdist: their contents, their equality, and a run outside the checkout."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from commands import ROOT


def call(*command: object, cwd: Path, **environment: str) -> str:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**env, **environment}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of the checkout, and the wheel built from it."""
    directory = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, ROOT, cwd=directory)
    (sdist,) = directory.glob("*.tar.gz")
    (wheel,) = directory.glob("*.whl")
    return sdist, wheel


def record(wheel: Path) -> dict[str, str]:
    """Return names and digests of a wheel's files, without those of the list itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/RECORD")]
        rows = csv.reader(io.StringIO(archive.read(name).decode()))
        return {file: digest for file, digest, _ in rows if file != name}


def tracked() -> set[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: the contents of the sdist are unknown")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


def test_wheel_contains_program_network_and_licence(built: tuple[Path, Path]) -> None:
    files = set(record(built[1]))
    own = {name for name in tracked() if name.startswith("streamfuse/")}
    described = {name for name in files if ".dist-info/" in name}
    assert files - described == own | {f"streamfuse/data/crossfuse{which}.safetensors" for which in ("", "-lite")}
    assert "streamfuse/py.typed" in own
    assert {name.partition("/")[2] for name in described} >= {"METADATA", "entry_points.txt", "licenses/LICENSE"}


def test_sdist_contains_the_tracked_files(built: tuple[Path, Path]) -> None:
    """No untracked files, and all tracked ones except those that only the repository needs."""
    with tarfile.open(built[0]) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert files - {"PKG-INFO"} == tracked() - {".ci/run"}


def test_wheel_of_the_sdist_equals_that_of_the_checkout(built: tuple[Path, Path], tmp_path: Path) -> None:
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert record(wheel) == record(built[1])


def test_twine_accepts_both(built: tuple[Path, Path], tmp_path: Path) -> None:
    said = call(sys.executable, "-m", "twine", "check", "--strict", *built, cwd=tmp_path)
    assert len(re.findall("PASSED", said)) == 2


def test_demo_runs_from_the_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Outside the checkout, in an environment with the dependencies but without streamfuse."""
    site = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, built[1])
    call(*pip, cwd=tmp_path)
    program = (site / "bin" / "streamfuse").read_text()
    assert "from streamfuse.cli import main" in program
    here = {"PYTHONPATH": str(site)}
    where = call(sys.executable, "-c", "import streamfuse; print(streamfuse.__file__)", cwd=tmp_path, **here)
    assert Path(where.strip()).is_relative_to(site)
    said = call(sys.executable, "-m", "streamfuse", "weights", "info", cwd=tmp_path, **here)
    assert str(site / "streamfuse/data/crossfuse.safetensors") in said
    demo = ("demo", "--seconds", "0.2", "--size", "64x48")
    said = call(sys.executable, site / "bin" / "streamfuse", *demo, cwd=tmp_path, **here)
    assert "dropped  none" in said
    made = {file.name: file.stat().st_size for file in (tmp_path / "streamfuse-demo").iterdir()}
    assert set(made) == {"ir.mp4", "vis.mp4", "fused.mp4", "sheet.png"}
    assert min(made.values()) > 500
