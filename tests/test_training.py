"""Runs of training: resumed, shared between processes, stopped, on small synthetic pairs."""

from __future__ import annotations

import csv
import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small import ALONE, RECIPE, SMALL, fuse_task, picture

from streamfuse.errors import InputError, OutputError, TrainingError, UsageError
from streamfuse.network.checkpoint import Storage, load, save
from streamfuse.network.crossfuse import CrossFuse
from streamfuse.training.export import export_weights
from streamfuse.training.pairs import find_pairs
from streamfuse.training.recipe import (
    AUTOENCODERS,
    Recipe,
)
from streamfuse.training.state import read_network, read_state
from streamfuse.training.tasks import AutoEncoder, AutoEncoderTask, start_network
from streamfuse.training.trainer import Plan, Trainer, open_directory

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    for side, offset in (("ir", 0), ("vis", 100)):
        (root / side).mkdir()
        for i in range(5):
            cv2.imwrite(str(root / side / f"{i:03d}.png"), picture(offset + i))
    return root


def train(directory: Path, data: Path, recipe: Recipe = RECIPE, stop_after: int | None = None) -> list[dict[str, str]]:
    directory.mkdir(exist_ok=True)
    plan = Plan(directory, seed=3, save_every=3, stop_after=stop_after)
    Trainer(fuse_task(recipe), recipe, find_pairs([data]), plan, ALONE).run()
    return rows(directory)


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "losses.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "validation")} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    train(directory, data, dataclasses.replace(RECIPE, ema=0.5))
    return directory


def test_losses_fall(tmp_path: Path, data: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=30, noise=0.0, zoom=1.0)
    found = [float(row["loss"]) for row in train(tmp_path, data, recipe)]
    assert np.mean(found[-5:]) < 0.8 * np.mean(found[:5])


def test_an_auto_encoder_learns_and_its_encoder_is_what_stage_2_begins_with(tmp_path: Path, data: Path) -> None:
    recipe = dataclasses.replace(AUTOENCODERS["default"], steps=25, crop=64, lr=2e-3, warmup=0, bf16=False)
    torch.manual_seed(0)
    Trainer(AutoEncoderTask(recipe, "vis"), recipe, find_pairs([data]), Plan(tmp_path), ALONE).run()
    found = [float(row["loss"]) for row in rows(tmp_path)]
    assert np.mean(found[-5:]) < 0.7 * np.mean(found[:5])
    best = export_weights(tmp_path)
    network = start_network(RECIPE, None, (best, best))
    trained = AutoEncoder(RECIPE.network)
    read_network(best, trained)
    assert torch.equal(network.encoder_vis.dense1.adjust.weight, trained.encoder.dense1.adjust.weight)
    with pytest.raises(InputError, match="another network"):
        read_network(best, network)
    save(network, tmp_path / "w.safetensors", storage=Storage.FP32)
    again = start_network(RECIPE, None, (tmp_path / "w.safetensors",) * 2)
    assert torch.equal(again.encoder_vis.dense1.adjust.weight, trained.encoder.dense1.adjust.weight)


def test_a_resumed_run_has_the_losses_of_one_that_was_not_stopped(tmp_path: Path, data: Path, whole: Path) -> None:
    recipe = dataclasses.replace(RECIPE, ema=0.5)
    train(tmp_path, data, recipe, stop_after=4)
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3", "4"]
    assert train(tmp_path, data, recipe) == rows(whole)
    resumed, at_once = (read_state(directory / "last.safetensors")[1] for directory in (tmp_path, whole))
    assert resumed.keys() == at_once.keys()
    assert all(torch.equal(value, at_once[name]) for name, value in resumed.items())


def test_steps_after_the_last_checkpoint_are_done_again_not_twice(tmp_path: Path, data: Path, whole: Path) -> None:
    recipe = dataclasses.replace(RECIPE, ema=0.5)
    train(tmp_path, data, recipe, stop_after=3)
    with (tmp_path / "losses.csv").open("a") as file:
        file.write("4,1.0,1.0,1.0,1.0,1.0,\n")  # the process died before the next checkpoint
    assert train(tmp_path, data, recipe) == rows(whole)


def test_what_a_run_leaves(whole: Path) -> None:
    assert {"last.safetensors", "best.safetensors", "losses.csv", "losses.png"} <= {f.name for f in whole.iterdir()}
    assert any(file.name.startswith("events.out.tfevents") for file in whole.iterdir())
    assert not list(whole.glob("*.part"))
    assert sorted(file.name for file in (whole / "samples").iterdir()) == ["0000003.png", "0000006.png", "0000008.png"]
    sheet = cv2.imread(str(whole / "samples" / "0000008.png"))
    assert sheet is not None
    assert sheet.shape[1] > 3 * 64
    network = load(export_weights(whole))
    assert network.config == SMALL


def test_the_result_is_the_mean_of_the_weights(whole: Path) -> None:
    _, tensors = read_state(whole / "best.safetensors")
    name = "decoder.conv1.conv.weight"
    assert not torch.equal(tensors[f"network.{name}"], tensors[f"mean.{name}"])
    network = CrossFuse(SMALL)
    read_network(whole / "best.safetensors", network)
    assert torch.equal(network.decoder.conv1.conv.weight, tensors[f"mean.{name}"])


def test_another_recipe_does_not_go_on(data: Path, whole: Path) -> None:
    with pytest.raises(InputError, match="recipe"):
        train(whole, data, dataclasses.replace(RECIPE, ema=0.5, lr=1e-3))


def test_a_damaged_checkpoint_is_said(tmp_path: Path, data: Path) -> None:
    (tmp_path / "last.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="damaged"):
        train(tmp_path, data)


def test_a_directory_that_holds_a_run_is_not_written_over(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="--resume"):
        open_directory(whole, resume=False)
    open_directory(whole, resume=True)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        open_directory(tmp_path / "file", resume=False)


def test_a_new_run_can_begin_with_the_best_of_another(whole: Path) -> None:
    network = start_network(RECIPE, whole / "best.safetensors", None)
    _, tensors = read_state(whole / "best.safetensors")
    name = "decoder.conv1.conv.weight"
    assert torch.equal(network.state_dict()[name], tensors[f"mean.{name}"])


def test_a_loss_that_is_not_finite_stops_with_the_batch_saved(tmp_path: Path, data: Path) -> None:
    from safetensors.torch import load_file

    task = fuse_task(RECIPE)
    with torch.no_grad():
        task.fusion.decoder.last.conv.bias.fill_(float("nan"))  # type: ignore[union-attr]
    trainer = Trainer(task, RECIPE, find_pairs([data]), Plan(tmp_path, seed=3), ALONE)
    with pytest.raises(TrainingError, match="not finite at step 1"):
        trainer.run()
    batch = load_file(next(tmp_path.glob("not-finite-*.safetensors")))["batch"]
    assert torch.equal(batch, torch.cat([trainer._samples[0], trainer._samples[1]]))
    assert not (tmp_path / "last.safetensors").exists()


def command(*arguments: str | Path, processes: int = 1) -> subprocess.CompletedProcess[str]:
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    line = [sys.executable, *launch, "-m", "streamfuse", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(line, capture_output=True, text=True, timeout=240, env=environment)


def test_a_run_that_was_killed_goes_on_to_the_same_losses(tmp_path: Path, data: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        'base = "s1-c1"\nsteps = 60\nbatch = 2\ncrop = 64\ntrain = "all"\nbf16 = false\n'
        '[network]\nfusion = "cnn"\nshallow = 8\ndeep = 32\ngrowth = 16\n'
    )
    common = ("train", "fusion", "--data", data, "--recipe", recipe, "--save-every", "2")
    killed = tmp_path / "killed"
    line = [sys.executable, "-m", "streamfuse", *map(str, common), "-o", str(killed)]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        while not (killed / "last.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert len(rows(killed)) < 60
    for arguments in ((*common, "-o", killed, "--resume"), (*common, "-o", tmp_path / "whole")):
        done = command(*arguments)
        assert done.returncode == 0, done.stderr
    assert rows(killed) == rows(tmp_path / "whole")
    assert len(rows(killed)) == 60


def test_two_processes_have_the_losses_of_one(tmp_path: Path, data: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        'base = "s1-c1"\nsteps = 5\nbatch = 4\ncrop = 64\ntrain = "all"\nwarmup = 0\nbf16 = false\n'
        '[network]\nfusion = "cnn"\nshallow = 8\ndeep = 32\ngrowth = 16\n'
    )
    for processes in (1, 2):
        done = command(
            "train", "fusion", "--data", data, "--recipe", recipe, "-o", tmp_path / str(processes), processes=processes
        )
        assert done.returncode == 0, done.stderr
    one, two = (rows(tmp_path / name) for name in "12")
    assert len(one) == len(two) == 5
    for a, b in zip(one, two, strict=True):
        for key in a:
            assert float(a[key]) == pytest.approx(float(b[key]), rel=2e-3), (a["step"], key)


def test_usage_and_input_errors_have_their_codes(tmp_path: Path, data: Path) -> None:
    from click.testing import CliRunner

    from streamfuse.cli.train import command as train_command

    def fails(kind: type[Exception], *arguments: str | Path) -> str:
        outcome = CliRunner().invoke(train_command, ["fusion", "-o", str(tmp_path / "run"), *map(str, arguments)])
        assert isinstance(outcome.exception, kind), outcome.output
        return str(outcome.exception)

    assert "--ir-encoder" in fails(UsageError, "--data", data)
    assert "--ir-encoder" in fails(UsageError, "--data", data, "--ir-encoder", "a")
    assert "there is no directory" in fails(InputError, "--data", tmp_path / "x", "--recipe", "one-stage")
    assert "unknown recipe" in fails(UsageError, "--data", data, "--recipe", "best")
    assert "there is no file" in fails(
        InputError, "--data", data, "--ir-encoder", tmp_path / "a", "--vis-encoder", tmp_path / "b"
    )
