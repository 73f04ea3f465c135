"""Training: samples, losses, runs that are resumed or shared, on small synthetic pairs."""

from __future__ import annotations

import csv
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from streamfuse.errors import InputError, OutputError, TrainingError, UsageError
from streamfuse.network.checkpoint import load, save
from streamfuse.network.config import Attention, CrossFuseConfig, Fusion, Output, SkipWeights
from streamfuse.network.crossfuse import CrossFuse
from streamfuse.training import losses
from streamfuse.training.export import export_weights
from streamfuse.training.pairs import Pair, find_pairs
from streamfuse.training.parallel import Place
from streamfuse.training.recipe import (
    ABLATIONS,
    AUTOENCODERS,
    RECIPES,
    Norm,
    Recipe,
    Train,
    from_dict,
    read_recipe,
    to_dict,
)
from streamfuse.training.samples import Positions, Samples
from streamfuse.training.state import read_network, read_state
from streamfuse.training.tasks import AutoEncoder, AutoEncoderTask, FusionTask, start_network
from streamfuse.training.trainer import Plan, Trainer, open_directory

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

ALONE = Place(0, 1, torch.device("cpu"))
SMALL = CrossFuseConfig(skip_weights=SkipWeights.MAGNITUDE, output=Output.DIRECT, fusion=Fusion.CNN)
RECIPE = Recipe(
    steps=8,
    batch=2,
    crop=64,
    lr=2e-3,
    warmup=0,
    bf16=False,
    zoom=1.2,
    noise=2.0,
    light=0.1,
    train=Train.ALL,
    network=SMALL,
)


def picture(seed: int, size: tuple[int, int] = (96, 112)) -> np.ndarray:
    """Smooth patches with some grain."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(30, 220, (6, 7)).astype(np.float32)
    smooth = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 3, size), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    for side, offset in (("ir", 0), ("vis", 100)):
        (root / side).mkdir()
        for i in range(5):
            cv2.imwrite(str(root / side / f"{i:03d}.png"), picture(offset + i))
    return root


def fuse_task(recipe: Recipe) -> FusionTask:
    torch.manual_seed(0)
    return FusionTask(recipe, start_network(recipe, None, None))


def train(directory: Path, data: Path, recipe: Recipe = RECIPE, stop_after: int | None = None) -> list[dict[str, str]]:
    directory.mkdir(exist_ok=True)
    plan = Plan(directory, seed=3, save_every=3, stop_after=stop_after)
    Trainer(fuse_task(recipe), recipe, find_pairs([data]), plan, ALONE).run()
    return rows(directory)


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "losses.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "validation")} for row in csv.DictReader(file)]


# Data sets


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["ir/a.png", "vis/a.png", "ir/b.png"], [("ir/a.png", "vis/a.png")]),
        (["ir/IR1.png", "vis/VIS1.jpg"], [("ir/IR1.png", "vis/VIS1.jpg")]),
        (["IR1.png", "VIS1.png", "IR02.png", "VIS2.png"], [("IR1.png", "VIS1.png"), ("IR02.png", "VIS2.png")]),
        (
            [f"{m}/{s}/010001.jpg" for m in ("infrared", "visible") for s in ("train", "test")],
            [("infrared/train/010001.jpg", "visible/train/010001.jpg")],
        ),
        (
            [f"{s}/{m}/1N.png" for s in ("train", "test") for m in ("ir", "vi")],
            [("train/ir/1N.png", "train/vi/1N.png")],
        ),
        (["Ir/00000.png", "Vis/00000.png"], [("Ir/00000.png", "Vis/00000.png")]),
        (
            [f"{s}/V000/{m}/I00001.jpg" for s in ("set00", "set06") for m in ("lwir", "visible")],
            [("set00/V000/lwir/I00001.jpg", "set00/V000/visible/I00001.jpg")],
        ),
    ],
    ids=["names", "numbers", "one-directory", "llvip", "msrs", "m3fd", "kaist"],
)
def test_layouts(tmp_path: Path, files: list[str], expected: list[tuple[str, str]]) -> None:
    for name in files:
        touch(tmp_path / name)
    assert [(pair.ir, pair.vis) for pair in find_pairs([tmp_path])] == [
        (tmp_path / a, tmp_path / b) for a, b in expected
    ]


def test_videos_pair_by_time(tmp_path: Path) -> None:
    from media import every, number_of, write_video

    for side in ("ir", "vis"):
        (tmp_path / side).mkdir()
    write_video(tmp_path / "ir" / "a.mp4", every(40, 9))
    write_video(tmp_path / "vis" / "a.mp4", every(40, 9))
    pairs = find_pairs([tmp_path], every=4)
    assert [[number_of(plane) for plane in pair.load()] for pair in pairs] == [[0, 0], [4, 4], [8, 8]]


def test_a_directory_without_pairs_says_what_is_expected(tmp_path: Path) -> None:
    touch(tmp_path / "images" / "a.png")
    with pytest.raises(InputError, match="infrared"):
        find_pairs([tmp_path])


def test_pairs_of_two_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="registered"):
        Pair(picture(1), picture(2, (80, 80))).load()


# Samples


def test_crops_and_flips_keep_the_pair_aligned() -> None:
    plane = picture(1, (200, 300))
    recipe = dataclasses.replace(RECIPE, noise=0.0, light=0.0, zoom=1.5)
    samples = Samples([Pair(plane, 255 - plane)], recipe, seed=0)
    seen = [samples[i] for i in range(12)]
    for ir, vis in seen:
        assert (ir + vis - 255).abs().max() <= 1
    assert not torch.equal(seen[0], seen[1])


def test_every_pair_is_drawn_once_before_any_is_drawn_again() -> None:
    pairs = [Pair(np.full((64, 64), v, np.uint8), np.full((64, 64), v, np.uint8)) for v in (10, 20, 30, 40, 50)]
    samples = Samples(pairs, dataclasses.replace(RECIPE, noise=0.0, light=0.0), seed=1)
    drawn = [int(samples[i][0, 0, 0]) for i in range(10)]
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == [10, 20, 30, 40, 50]


def test_processes_share_one_batch() -> None:
    alone = list(Positions(3, 6, 4, 0, 1))
    shares = [list(Positions(3, 6, 4, rank, 2)) for rank in (0, 1)]
    assert alone == list(range(12, 24))
    assert [position for i in range(0, 6, 2) for share in shares for position in share[i : i + 2]] == alone


# Losses


def images(seed: int, count: int = 2) -> Tensor:
    return torch.stack([torch.from_numpy(picture(seed + i)).float()[None] for i in range(count)])


def test_equation_7() -> None:
    image = images(0)
    assert float(losses.reconstruction(image, image)) == pytest.approx(0, abs=1e-2)
    assert float(losses.reconstruction(image, image + 4)) == pytest.approx(
        16 + 1e4 * (1 - float(losses.ssim(image, image + 4))), rel=1e-5
    )


def test_intensity_wants_the_source_whose_neighbourhood_is_brighter() -> None:
    dark, bright = torch.full((1, 1, 32, 32), 50.0), torch.full((1, 1, 32, 32), 90.0)
    assert float(losses.intensity(bright, dark, bright)) == float(losses.intensity(bright, bright, dark)) == 0
    assert float(losses.intensity(dark, dark, bright)) == 1600


def test_gradient_counts_what_is_brighter_than_its_neighbours() -> None:
    flat = torch.full((1, 1, 5, 5), 10.0)
    dot = flat.clone()
    dot[0, 0, 2, 2] = 20  # Laplacian 40 here, -10 at four neighbours: clipped
    assert float(losses.gradient(flat, flat, dot)) == pytest.approx(40**2 / 25)
    assert float(losses.gradient(dot, flat, dot)) == 0


def test_ssim_and_vif_are_those_of_scikit_image_and_of_the_evaluation() -> None:
    from skimage.metrics import structural_similarity

    from streamfuse.evaluation import honest

    a, b = picture(1), picture(2)
    x, y = (torch.from_numpy(p).double()[None, None] for p in (a, b))
    _, full = structural_similarity(  # type: ignore[no-untyped-call]
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert float(losses.ssim(x, y)) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-6)
    near = np.clip(a.astype(int) + np.random.default_rng(0).integers(-9, 10, a.shape), 0, 255).astype(np.uint8)
    ours = float(losses.vif(x, torch.from_numpy(near).double()[None, None]))
    assert 0.05 < ours < 0.9
    assert ours == pytest.approx(honest.visual_information(a, near), abs=1e-6)


def test_mutual_information_of_an_image_with_itself_is_its_entropy() -> None:
    image = images(0)
    assert float(losses.information(image, image, image)) == pytest.approx(0, abs=1e-6)
    noise = torch.rand(2, 1, 96, 112, generator=torch.Generator().manual_seed(0)) * 255
    assert float(losses.information(noise, image, image)) > 0.9


def test_differences_of_a_sum_are_perfectly_correlated() -> None:
    ir, vis = images(0), images(10)
    assert float(losses.differences(ir + vis - 128, ir, vis)) == pytest.approx(0, abs=0.01)
    assert float(losses.differences(vis, ir, vis)) > 0.9


@pytest.mark.parametrize("name", losses.FUSION_LOSSES)
def test_every_loss_has_a_gradient_that_leads_down(name: str) -> None:
    ir, vis = images(0), images(10)
    fused = (0.4 * ir + 0.3 * vis + 20).requires_grad_()
    loss = losses.FUSION_LOSSES[name]
    before = loss(fused, ir, vis)
    before.backward()  # type: ignore[no-untyped-call]
    assert fused.grad is not None
    with torch.no_grad():
        moved = fused - fused.grad * (0.5 / fused.grad.abs().max())
        assert float(loss(moved, ir, vis)) < float(before)


# Recipes


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_the_way_to_a_file_and_back(name: str) -> None:
    assert from_dict(to_dict(RECIPES[name]), "here") == RECIPES[name]


def test_ablations_differ_from_the_first_in_one_thing() -> None:
    base = to_dict(ABLATIONS["s1-c1"])
    for name, recipe in ABLATIONS.items():
        other = to_dict(recipe)
        differing = [key for key in base if base[key] != other[key]]
        assert len(differing) == (0 if name in ("s1-c1", "no-shift") else 1), name


def test_a_recipe_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "published"\nsteps = 7\n[losses]\nedges = 2\n[network]\nattention = "softmax"\n')
    recipe = read_recipe(str(path), RECIPES)
    assert (recipe.steps, recipe.batch, recipe.losses) == (7, RECIPES["published"].batch, {"edges": 2.0})
    assert recipe.network.attention is Attention.SOFTMAX


@pytest.mark.parametrize(
    "text",
    [
        "stepz = 3",
        "steps = 0",
        "[losses]\nbeauty = 1",
        'train = "some"',
        "steps = 'many'",
        "losses = 3",
        "=",
        'base = "x"',
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UsageError):
        read_recipe(str(path), RECIPES)


def test_recipes_of_the_shipped_weights_can_be_read() -> None:
    files = sorted((Path(__file__).parent.parent / "weights" / "recipes").glob("*.toml"))
    assert [file.stem for file in files] == ["1", "2", "3", "4", "5"]
    assert {read_recipe(str(file), RECIPES).network for file in files} == {RECIPES["default"].network}


def test_schedules() -> None:
    steps = dataclasses.replace(RECIPE, steps=100, schedule="steps", lr=1e-2)
    assert [round(steps.rate(i), 6) for i in (0, 49, 50, 75)] == [1e-2, 1e-2, 1e-3, 1e-4]
    cosine = dataclasses.replace(RECIPE, steps=100, warmup=10, lr=1e-2)
    rates = [cosine.rate(i) for i in range(100)]
    assert rates[0] < rates[5] < rates[9]
    assert rates[10:] == sorted(rates[10:], reverse=True)


# Networks


@pytest.mark.parametrize("name", ["softmax", "f-cnn", "f-dense"])
def test_ablated_networks_are_saved_loaded_and_folded(tmp_path: Path, name: str) -> None:
    from streamfuse.network.folding import fold

    torch.manual_seed(1)
    network = CrossFuse(ABLATIONS[name].network).eval()
    save(network, tmp_path / "w.safetensors", half=False)
    again = load(tmp_path / "w.safetensors")
    assert again.config == network.config
    ir, vis = torch.rand(2, 1, 1, 96, 128) * 255
    with torch.no_grad():
        plain = network(ir, vis)
        assert torch.equal(again(ir, vis), plain)
        assert torch.allclose(fold(again, 96, 128)(ir, vis), plain, atol=1e-3)
    unlike = CrossFuse(dataclasses.replace(network.config, attention=Attention.RE_SOFTMAX)).eval()
    unlike.load_state_dict(network.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(unlike(ir, vis), plain) == (name != "softmax")


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
    task(torch.stack([images(0)[:, 0], images(10)[:, 0]], dim=1)[:, :, :64, :64])["loss"].backward()
    found = set()
    for name, parameter in task.network.named_parameters():
        if parameter.grad is not None and bool(parameter.grad.any()):
            top, second = name.split(".")[:2]
            found.add(second.rstrip("12") if top.startswith("encoder") else top)
    assert found == learns


def test_frozen_norms_keep_their_statistics() -> None:
    task = fuse_task(dataclasses.replace(RECIPE, norm=Norm.FROZEN))
    task.set_training(True)
    before = task.fusion.decoder.conv1.norm.running_mean.clone()  # type: ignore[union-attr]
    batch = torch.stack([images(0)[:, 0], images(10)[:, 0]], dim=1)[:, :, :64, :64]
    task(batch)
    assert torch.equal(task.fusion.decoder.conv1.norm.running_mean, before)  # type: ignore[arg-type]


# Runs


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
    trained = AutoEncoder()
    read_network(best, trained)
    assert torch.equal(network.encoder_vis.dense1.adjust.weight, trained.encoder.dense1.adjust.weight)
    with pytest.raises(InputError, match="another network"):
        read_network(best, network)
    save(network, tmp_path / "w.safetensors", half=False)
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


def test_a_loss_that_is_not_finite_stops_with_the_batch_saved(tmp_path: Path, data: Path) -> None:
    from safetensors.torch import load_file

    task = fuse_task(RECIPE)
    with torch.no_grad():
        task.fusion.decoder.last.conv.bias.fill_(float("nan"))  # type: ignore[union-attr]
    trainer = Trainer(task, RECIPE, find_pairs([data]), Plan(tmp_path, seed=3), ALONE)
    with pytest.raises(TrainingError, match="not finite at step 1"):
        trainer.run()
    batch = load_file(next(tmp_path.glob("not-finite-*.safetensors")))["batch"]
    assert torch.equal(batch, torch.stack([trainer._samples[0], trainer._samples[1]]))
    assert not (tmp_path / "last.safetensors").exists()


# The command


def command(*arguments: str | Path, processes: int = 1) -> subprocess.CompletedProcess[str]:
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    line = [sys.executable, *launch, "-m", "streamfuse", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(line, capture_output=True, text=True, timeout=240, env=environment)


def test_two_processes_have_the_losses_of_one(tmp_path: Path, data: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        'base = "s1-c1"\nsteps = 5\nbatch = 4\ncrop = 64\ntrain = "all"\nwarmup = 0\nbf16 = false\n'
        '[network]\nfusion = "cnn"\n'
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
