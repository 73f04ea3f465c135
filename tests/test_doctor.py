"""`streamfuse doctor`: what it finds on a machine that works, and on one where something is broken."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from streamfuse.bench.sweep import Case
from streamfuse.cli import cli
from streamfuse.doctor import checks, loopback, machine, runs, software, storage
from streamfuse.doctor.report import Check, Verdict, failed, ok, run_checks, warning, worst
from streamfuse.doctor.sample import load_sample, make_references, read_grey, write_grey, write_sample
from streamfuse.errors import InputError
from streamfuse.network.checkpoint import default_weights, read_info
from streamfuse.network.config import Preset
from streamfuse.sinks.preview import PreviewSink
from streamfuse.sinks.video_format import CODECS
from streamfuse.sinks.zeromq import ZeroMQSink

SMALL = (48, 64)
Mount = Callable[[str], Path]


def only(found: Iterator[Check]) -> Check:
    (check,) = found
    return check


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a file system in memory, with options of mount(8)."""
    place = tmp_path / "mounted"
    place.mkdir()
    mounted = False

    def call(options: str) -> Path:
        nonlocal mounted
        try:
            command = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
            done = subprocess.run(command, check=False, stderr=subprocess.DEVNULL)
        except FileNotFoundError:
            pytest.skip("there is no mount")
        if done.returncode:
            pytest.skip("mounting a file system needs root")
        mounted = True
        return place

    yield call
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


# The command


def test_machine_that_works(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything, with a small network; of the long list of engines two stand for all."""
    cases = [("cpu", Case(engine, "fp32", Preset.BALANCED, SMALL)) for engine in ("openvino", "torch")]
    monkeypatch.setattr(runs, "installed_cases", lambda: cases)
    out = tmp_path / "report.json"
    command = ["doctor", "--weights", str(weights), "--json", str(out)]
    done = CliRunner().invoke(cli, command, standalone_mode=False)
    assert done.return_value == 0, done.output
    report = json.loads(out.read_text())
    assert report["verdict"] in {"ok", "warning"}
    found = {check["name"]: check for check in report["checks"]}
    assert {"Python", "packages", "GPU", "cache", "disk", "weights", "engine auto", "ZeroMQ", "preview"} <= set(found)
    for engine in ("openvino", "torch"):
        assert found[f"{engine} fp32 balanced"]["values"]["fps"] > 0
    assert found["files"]["values"]["frames"] == 50
    lines = done.output.splitlines()
    assert len(lines) == len(found) + 1
    assert lines[-1].endswith(" 0 failed")
    again = CliRunner().invoke(cli, ["doctor", "--quick", "--json", str(out)])
    assert isinstance(again.exception, Exception)
    assert "exists" in str(again.exception)


def test_quick_fuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "machine_checks", lambda weights: {"a": lambda: [ok("a", "is")]})
    done = CliRunner().invoke(cli, ["doctor", "--quick"], standalone_mode=False)
    assert done.return_value == 0
    assert done.output.split() == ["ok", "a", "is", "1", "ok,", "0", "warning,", "0", "failed"]


def test_a_failed_check_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"a": lambda: [ok("a", "is"), failed("b", "is not: mend it")]}
    monkeypatch.setattr(checks, "machine_checks", lambda weights: broken)
    done = CliRunner().invoke(cli, ["doctor", "--quick"], standalone_mode=False)
    assert done.return_value == 1
    assert "failed   b" in done.output


def test_an_error_ends_its_topic_only() -> None:
    def unreadable() -> Iterator[Check]:
        yield ok("first", "fine")
        raise InputError("cannot be read")

    def broken() -> Iterator[Check]:
        raise KeyError("x")

    found = list(run_checks({"a": unreadable, "b": broken, "c": lambda: [warning("c", "slow")]}))
    assert [(check.name, str(check.verdict)) for check in found] == [
        ("first", "ok"),
        ("a", "failed"),
        ("b", "failed"),
        ("c", "warning"),
    ]
    assert "unexpected KeyError" in found[2].text
    assert worst(found) is Verdict.FAILED
    assert worst(found[:1] + found[3:]) is Verdict.WARNING


# The pictures that it compares with


def test_references_are_of_the_shipped_weights() -> None:
    """`python -m streamfuse.doctor.sample` makes them again."""
    sample = load_sample()
    assert sample.made_by(default_weights())
    made = make_references(sample.ir, sample.vis, default_weights())
    assert set(made) == set(sample.references) == set(Preset)
    for preset, picture in made.items():
        assert runs.difference(picture, sample.references[preset])[1] <= 1, preset


def test_pictures_are_what_any_program_reads(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (33, 47), dtype=np.uint8)
    write_grey(tmp_path / "a.png", picture)
    seen = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert seen is not None
    assert np.array_equal(seen, picture)
    assert np.array_equal(read_grey(tmp_path / "a.png"), picture)
    cv2.imwrite(str(tmp_path / "b.png"), picture)
    with pytest.raises(ValueError, match="another program"):
        read_grey(tmp_path / "b.png")


def test_other_weights_are_compared_with_pytorch(weights: Path, tmp_path: Path) -> None:
    sample = load_sample()
    write_sample(sample.ir[:48, :64], sample.vis[:48, :64], weights, tmp_path / "own")
    own = load_sample_of(tmp_path / "own")
    assert own == {weights.name: read_info(weights).digest}
    assert not sample.made_by(weights)


def load_sample_of(directory: Path) -> dict[str, str]:
    return dict(json.loads((directory / "sample.json").read_text())["weights"])


def test_runs_of_other_weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [("cpu", Case("torch", "fp32", preset, SMALL)) for preset in (Preset.BALANCED, Preset.REALTIME)]
    monkeypatch.setattr(runs, "installed_cases", lambda: cases)
    said, balanced = runs.check_runs(weights)  # there is no small network
    assert said.verdict is Verdict.WARNING
    assert "of other weights than random.safetensors" in said.text
    assert (balanced.name, balanced.verdict) == ("torch fp32 balanced", Verdict.OK)
    assert "equal to" in balanced.text


def test_a_picture_that_is_not_as_it_should_be() -> None:
    sample = load_sample()
    wrong = np.clip(sample.references[Preset.REALTIME].astype(np.int16) + 3, 0, 255).astype(np.uint8)
    case = Case("torch", "fp32", Preset.REALTIME, SMALL)
    check = runs.run_case(case, "cpu", None, sample, wrong)
    assert check.verdict is Verdict.FAILED
    assert "38.6 dB from FP32" in check.text
    assert "60 dB are expected" in check.text


def test_difference() -> None:
    black, grey = np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)
    assert runs.difference(black, black) == (float("inf"), 0)
    assert runs.difference(black, grey) == (0.0, 255)


def test_every_installed_engine_is_run() -> None:
    found = {case.engine for _, case in runs.installed_cases()}
    assert {"openvino", "torch"} <= found
    assert {case.preset for _, case in runs.installed_cases()} == set(Preset)
    assert ("tensorrt" in found) is torch.cuda.is_available()


# What is broken, really


def test_corrupt_weights(tmp_path: Path) -> None:
    """One that is cut off, one that holds NaN: of the whole command."""
    whole = default_weights().read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: len(whole) // 2])
    tensors = load_file(default_weights())
    tensors["decoder.last.conv.weight"] = torch.full_like(tensors["decoder.last.conv.weight"], torch.nan)
    nan = tmp_path / "nan.safetensors"
    save_file(tensors, nan, dict(read_info(default_weights()).metadata))
    for path, words in ((cut, "is damaged"), (nan, "not finite")):
        check = only(software.check_weights(path))
        assert check.verdict is Verdict.FAILED
        assert words in check.text
        assert check.text.endswith("fetch or make the file again")
    command = [sys.executable, "-m", "streamfuse", "doctor", "--quick", "--weights", str(cut)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert f"failed   weights                    {cut} is damaged" in done.stdout


def test_corrupt_shipped_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit, which no other check notices."""
    copy = tmp_path / "crossfuse.safetensors"
    data = bytearray(default_weights().read_bytes())
    data[-1000] ^= 1
    copy.write_bytes(data)
    monkeypatch.setattr(software, "default_weights", lambda: copy)
    check = only(software.check_weights(None))
    assert check.verdict is Verdict.FAILED
    assert "not the file that was shipped, or is damaged: install streamfuse again" in check.text


def test_read_only_cache(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFUSE_CACHE", str(mount("ro,size=1m")))
    check = only(storage.check_cache())
    assert check.verdict is Verdict.FAILED
    assert "the file system is read-only: every start compiles again; set STREAMFUSE_CACHE to" in check.text


def test_full_disk(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    place = mount("size=300k")
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.chdir(place)
    monkeypatch.setenv("STREAMFUSE_CACHE", str(place / "cache"))
    for check in (*storage.check_disks(), *storage.check_cache()):
        assert check.verdict is Verdict.FAILED
        assert "the disk is full: " in check.text
    assert [path.name for path in place.rglob("*")] == ["cache"]


def test_disk_that_is_nearly_full(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mount("size=9m"))
    (check,) = (check for check in storage.check_disks() if check.name == "disk")
    assert check.verdict is Verdict.WARNING
    assert check.text.endswith("0.0 GB free: make room")


def install(directory: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    """A package of that version, as far as pip and importlib can tell."""
    described = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(directory))


def test_engine_package_of_a_wrong_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(machine.check_packages()).verdict is Verdict.OK
    install(tmp_path / "a", monkeypatch, "openvino", "2024.1")
    check = only(machine.check_packages())
    assert check.verdict is Verdict.FAILED
    assert check.text == "openvino 2024.1 is installed: pip install 'openvino>=2026.1'"


def test_tensorrt_for_another_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "b", monkeypatch, "torch-tensorrt", "2.9.0")
    found = {check.name: check for check in software.check_engines(None)}
    check = found["engine tensorrt"]
    assert check.verdict is Verdict.FAILED
    assert "torch-tensorrt 2.9 is not for torch 2." in check.text
    assert "pip install 'streamfuse[tensorrt]'" in check.text
    assert found["engine torch"].verdict is Verdict.OK


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "installed_version", lambda name: None if name == "av" else "9999")
    check = only(machine.check_packages())
    assert check.verdict is Verdict.FAILED
    assert "av is not installed: pip install 'av>=" in check.text


def test_missing_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg is asked for an encoder that it was built without."""
    monkeypatch.setitem(CODECS, "h264", "libx264-of-another-build")
    first, *_ = software.check_codecs()
    assert (first.name, first.verdict) == ("codec h264", Verdict.FAILED)
    assert "libx264-of-another-build does not encode (" in first.text
    assert "pip install --force-reinstall av" in first.text


def test_decoder_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "DECODERS", ("h264", "warp"))
    *_, last = (check for check in software.check_codecs() if check.name == "decoders")
    assert last.verdict is Verdict.FAILED
    assert last.text.startswith("warp cannot be read: ")


def test_nothing_comes_over_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback, "WAIT_S", 0.2)
    monkeypatch.setattr(ZeroMQSink, "write", lambda sink, frame: None)
    check = only(loopback.check_zeromq())
    assert check.verdict is Verdict.FAILED
    assert "nothing arrived within" in check.text
    monkeypatch.setattr(PreviewSink, "write", lambda sink, frame: None)
    check = only(loopback.check_preview())
    assert check.verdict is Verdict.FAILED
    assert "503" in check.text


# GPUs and clocks, which this machine may not have


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA GPU")
@pytest.mark.parametrize(
    ("built_for", "verdict", "words"),
    [(None, Verdict.WARNING, "this torch is built for CPUs"), ("13.0", Verdict.FAILED, "check the driver")],
)
def test_gpu_that_pytorch_cannot_use(
    monkeypatch: pytest.MonkeyPatch, built_for: str | None, verdict: Verdict, words: str
) -> None:
    """PyTorch's refusal is real; the GPU is not."""
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    check = only(machine.check_gpu())
    assert check.verdict is verdict
    assert words in check.text


@pytest.mark.parametrize(
    ("capability", "built", "fits"),
    [
        ((8, 9), ["sm_80", "sm_90"], True),
        ((7, 0), ["sm_75", "sm_80"], False),
        ((12, 0), ["sm_80", "sm_90a"], False),
        ((12, 0), ["sm_80", "compute_90"], True),
    ],
)
def test_gpu_without_kernels(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str], fits: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    assert machine._has_kernels(0) is fits


def test_clock_that_nobody_steers(monkeypatch: pytest.MonkeyPatch) -> None:
    for state, verdict in ((False, Verdict.WARNING), (True, Verdict.OK), (None, Verdict.OK)):
        monkeypatch.setattr(machine, "clock_is_synchronised", lambda state=state: state)
        assert only(machine.check_clock()).verdict is verdict


@pytest.mark.skipif(sys.platform != "linux", reason="another system's kernel is not asked")
def test_the_kernel_says_whether_the_clock_is_steered() -> None:
    assert machine.clock_is_synchronised() in (True, False)
