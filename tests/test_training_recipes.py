"""Recipes, and the networks that they ask for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from small import RECIPE, fuse_task, images

from streamfuse.errors import UsageError
from streamfuse.network.checkpoint import Storage, default_weights, load, read_info, save
from streamfuse.network.config import Attention
from streamfuse.network.crossfuse import CrossFuse
from streamfuse.training.losses import FUSION_LOSSES, IMITATION_LOSSES, TARGET_LOSSES
from streamfuse.training.recipe import (
    ABLATIONS,
    LOSSES,
    RECIPES,
    STUDENTS,
    Norm,
    Train,
    from_dict,
    read_recipe,
    to_dict,
)

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_the_way_to_a_file_and_back(name: str) -> None:
    assert from_dict(to_dict(RECIPES[name]), "here") == RECIPES[name]


def test_every_loss_has_a_name_in_recipes() -> None:
    assert set(LOSSES) == {*FUSION_LOSSES, *TARGET_LOSSES, "steadiness", *IMITATION_LOSSES}


def test_ablations_differ_from_the_first_in_one_thing() -> None:
    base = to_dict(ABLATIONS["s1-c1"])
    for name, recipe in ABLATIONS.items():
        other = to_dict(recipe)
        differing = [key for key in base if base[key] != other[key]]
        assert len(differing) == (0 if name in ("s1-c1", "no-shift") else 1), name


@pytest.mark.parametrize("base", ["default", "published", "s2-c2"])
def test_a_recipe_file_changes_what_it_names(tmp_path: Path, base: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'base = "{base}"\nsteps = 7\n[losses]\nedges = 2\n[network]\nattention = "softmax"\n')
    network = dataclasses.replace(RECIPES[base].network, attention=Attention.SOFTMAX)
    expected = dataclasses.replace(RECIPES[base], steps=7, losses={"edges": 2.0}, network=network)
    assert read_recipe(str(path), RECIPES) == expected


@pytest.mark.parametrize(
    "text",
    [
        "stepz = 3",
        "steps = 0",
        "[losses]\nbeauty = 1",
        'train = "some"',
        "steps = 'many'",
        "losses = 3",
        "batch = 2.5",
        'bf16 = "no"',
        "[network]\ndepth = 1.5",
        '[network]\nfusion = "sum"',
        "=",
        'base = "x"',
        "night = 1.5",
        "frames = 3",
        "[losses]\nsteadiness = 1",
        "[network]\nskip_power = 5",
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UsageError):
        read_recipe(str(path), RECIPES)


def test_recipes_of_the_shipped_weights_can_be_read() -> None:
    files = sorted((Path(__file__).parent.parent / "weights" / "recipes").glob("*.toml"))
    numbered = [f"{name}-{n}" for name, runs in (("lite", 5), ("range", 5)) for n in range(1, runs + 1)]
    assert [file.stem for file in files] == ["1", "2", "3", "4", "5", "6", *numbered]
    assert {read_recipe(str(file), RECIPES).network for file in files[:6]} == {RECIPES["default"].network}
    assert {read_recipe(str(file), STUDENTS).network for file in files[6:10]} == {STUDENTS["default"].network}
    shipped = [read_recipe(str(file), known).network for file, known in ((files[-1], RECIPES), (files[10], STUDENTS))]
    weights = read_info(default_weights())
    lite = weights.lite()
    assert lite is not None
    assert shipped == [weights.config, lite.config]
    last = read_recipe(str(files[-1]), RECIPES)
    assert (last.network, last.factor) == (RECIPES["range"].network, RECIPES["range"].factor)


def test_schedules() -> None:
    steps = dataclasses.replace(RECIPE, steps=100, schedule="steps", lr=1e-2)
    assert [round(steps.rate(i), 6) for i in (0, 49, 50, 75)] == [1e-2, 1e-2, 1e-3, 1e-4]
    cosine = dataclasses.replace(RECIPE, steps=100, warmup=10, lr=1e-2)
    rates = [cosine.rate(i) for i in range(100)]
    assert rates[0] < rates[5] < rates[9]
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("name", ["softmax", "f-cnn", "f-dense"])
def test_ablated_networks_are_saved_loaded_and_folded(tmp_path: Path, name: str) -> None:
    from streamfuse.network.folding import fold

    torch.manual_seed(1)
    network = CrossFuse(ABLATIONS[name].network).eval()
    for key, value in network.named_parameters():
        if key.endswith((".q.weight", ".k.weight")):
            value.data *= 10  # from chance attention hardly chooses: let it
    save(network, tmp_path / "w.safetensors", storage=Storage.FP32)
    again = load(tmp_path / "w.safetensors")
    assert again.config == network.config
    ir, vis = torch.rand(2, 1, 1, 96, 128) * 255
    with torch.no_grad():
        plain = network(ir, vis)
        assert torch.equal(again(ir, vis), plain)
        folded = fold(again, 96, 128)(ir, vis)
    unlike = CrossFuse(dataclasses.replace(network.config, attention=Attention.RE_SOFTMAX)).eval()
    unlike.load_state_dict(network.state_dict(), strict=True)
    with torch.no_grad():
        other = unlike(ir, vis)
    assert torch.equal(other, plain) == (name != "softmax")
    # Closer than to the network that it must not become
    assert float((folded - plain).abs().max()) < (
        float((other - plain).abs().max()) / 10 if name == "softmax" else 1e-3
    )


@pytest.mark.parametrize(
    ("part", "learns"),
    [
        (Train.FUSION, {"cam", "decoder"}),
        (Train.SHALLOW, {"cam", "decoder", "conv"}),
        (Train.ALL, {"cam", "decoder", "conv", "dense"}),
    ],
)
def test_what_learns(part: Train, learns: set[str]) -> None:
    task = fuse_task(dataclasses.replace(RECIPE, train=part))
    task(torch.stack([images(seed)[:, 0] for seed in (0, 10, 0, 10)], dim=1)[:, :, :64, :64])["loss"].backward()
    found = set()
    for name, parameter in task.network.named_parameters():
        if parameter.grad is not None and bool(parameter.grad.any()):
            top, second = name.split(".")[:2]
            found.add(second.rstrip("12") if top.startswith("encoder") else top)
    assert found == learns


def test_frozen_norms_keep_their_statistics() -> None:
    task = fuse_task(dataclasses.replace(RECIPE, norm=Norm.FROZEN))
    task.set_training()
    before = task.fusion.decoder.conv1.norm.running_mean.clone()  # type: ignore[union-attr]
    batch = torch.stack([images(seed)[:, 0] for seed in (0, 10, 0, 10)], dim=1)[:, :, :64, :64]
    task(batch)
    assert torch.equal(task.fusion.decoder.conv1.norm.running_mean, before)  # type: ignore[arg-type]
