"""The small network of preset realtime: its file, its distillation, and its similarity to the teacher."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from media import PassThrough
from small import ALONE, picture

from streamfuse.color import Plane, Raw
from streamfuse.engines import create_engine
from streamfuse.engines.torch import TorchEngine
from streamfuse.engines.veil import lift_veil
from streamfuse.errors import EngineError, InputError, UsageError, WeightsError
from streamfuse.evaluation.reference_metrics import structural_similarity
from streamfuse.network.checkpoint import default_weights, read_info, save
from streamfuse.network.config import CrossFuseConfig, Output, Preset, SkipWeights, Veil
from streamfuse.network.crossfuse import CrossFuse
from streamfuse.sources.scene.scene import Scene
from streamfuse.training.export import export_weights
from streamfuse.training.losses import leaning
from streamfuse.training.pairs import Pair, find_pairs
from streamfuse.training.recipe import STUDENTS, Recipe, Train
from streamfuse.training.tasks import DistillTask, FusionTask, start_network
from streamfuse.training.trainer import Plan, Trainer

SMALL = CrossFuseConfig(skip_weights=SkipWeights.MAGNITUDE, output=Output.DIRECT, shallow=4, deep=8, growth=4)


def random_weights(path: Path, config: CrossFuseConfig = SMALL, **extra: str) -> Path:
    torch.manual_seed(1)
    save(CrossFuse(config), path, extra=extra)
    return path


def test_small_network_is_found_beside_the_weights(tmp_path: Path) -> None:
    large = random_weights(tmp_path / "mine.safetensors", dataclasses.replace(SMALL, shallow=8), preset="balanced")
    assert read_info(large).lite() is None
    with create_engine("torch", weights=large, device="cpu") as engine:
        assert engine.presets == (Preset.QUALITY, Preset.BALANCED)
        with pytest.raises(EngineError, match=r"no mine-lite\.safetensors beside .*streamfuse train distill"):
            engine.use(Preset.REALTIME)
    small = random_weights(tmp_path / "mine-lite.safetensors", preset="realtime")
    found = read_info(large).lite()
    assert found is not None
    assert (found.path, found.config, found.lite()) == (small, SMALL, found)
    with create_engine("torch", weights=large, device="cpu") as engine:
        assert engine.preset is Preset.BALANCED
        grey = picture(1)
        before = engine.fuse(grey, grey)
        engine.use(Preset.REALTIME)
        after = engine.fuse(grey, grey)
        assert not np.array_equal(before, after)
    with create_engine("torch", weights=small, device="cpu") as engine:  # a small network returns itself
        assert engine.preset is Preset.REALTIME
        assert np.array_equal(engine.fuse(grey, grey), after)


def test_small_network_with_another_output_is_refused(tmp_path: Path) -> None:
    large = random_weights(tmp_path / "mine.safetensors")
    random_weights(tmp_path / "mine-lite.safetensors", dataclasses.replace(SMALL, output=Output.MINMAX))
    with pytest.raises(WeightsError, match="gives minmax output and"):
        create_engine("torch", weights=large, device="cpu")


@pytest.mark.parametrize("change", [{"deep": 20}, {"shallow": 0}, {"growth": 1000}, {"depth": 9}])
def test_invalid_widths(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a network has"):
        CrossFuseConfig(**change)  # type: ignore[arg-type]


class Bright(PassThrough):
    """A teacher that returns the brighter of both pictures."""

    output = Output.DIRECT

    def fuse(self, ir: Plane, vis: Plane) -> Raw:
        return np.multiply(np.maximum(ir, vis), np.float32(1 / 255))


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    for side, offset in (("ir", 0), ("vis", 100)):
        (tmp_path / side).mkdir()
        for i in range(4):
            cv2.imwrite(str(tmp_path / side / f"{i:03d}.png"), picture(offset + i))
    return find_pairs([tmp_path])


RECIPE = dataclasses.replace(
    STUDENTS["default"], steps=80, batch=2, crop=64, lr=5e-3, warmup=0, noise=0.0, network=SMALL
)


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_student_becomes_similar_to_its_teacher(tmp_path: Path, pairs: list[Pair]) -> None:
    torch.manual_seed(0)
    task = DistillTask(RECIPE, start_network(RECIPE, None, None), Bright())
    progress = []
    run = tmp_path / "run"
    run.mkdir()
    Trainer(task, RECIPE, pairs, Plan(run), ALONE).run(lambda step, values: progress.append(values["imitation"]))
    assert np.mean(progress[-10:]) < 0.75 * np.mean(progress[:10])
    info = read_info(export_weights(run))
    assert (info.preset, info.config) == (Preset.REALTIME, SMALL)


def test_teacher_picture_is_biased_to_the_visible_one() -> None:
    recipe = dataclasses.replace(RECIPE, losses={"imitation": 1.0}, lean=1.0)
    task = DistillTask(recipe, start_network(recipe, None, None), Bright())
    batch = torch.stack([torch.from_numpy(picture(seed)) for seed in (0, 100, 0, 100)])[None, :, :64, :64].float()
    ir, vis = batch[:, :1], batch[:, 1:2]
    wanted = leaning(torch.maximum(ir, vis), ir, vis, 1.0)
    assert float(task.losses(wanted, batch)["imitation"]) == pytest.approx(0, abs=1e-4)
    assert float(task.losses(torch.maximum(ir, vis), batch)["imitation"]) > 0.003


def test_a_network_that_lifts_veils_is_trained_with_lifted_ones() -> None:
    ir, vis = torch.full((1, 1, 128, 128), 70.0), torch.full((1, 1, 128, 128), 250.0)
    ir[:, :, 50:70, 40:90] = 200  # somebody behind white
    lifted = torch.from_numpy(lift_veil(*(x[0, 0].byte().numpy() for x in (ir, vis)))).float()[None, None]
    assert not torch.equal(lifted, vis)
    networks = {}
    for veil in Veil:
        torch.manual_seed(0)
        recipe = dataclasses.replace(RECIPE, network=dataclasses.replace(SMALL, veil=veil))
        networks[veil] = DistillTask(recipe, start_network(recipe, None, None), Bright()).eval()
    noise = 0.25 * torch.rand_like(vis)
    seen = torch.cat((ir, vis + noise, ir, vis), dim=1)
    drawn = torch.cat((ir, lifted + noise, ir, vis), dim=1)
    with torch.inference_mode():
        assert torch.equal(networks[Veil.LIFTED].render(seen), networks[Veil.KEPT].render(drawn))
        assert not torch.equal(networks[Veil.KEPT].render(seen), networks[Veil.KEPT].render(drawn))


def test_weights_of_another_network_are_told_by_what_differs(tmp_path: Path) -> None:
    init = random_weights(tmp_path / "w.safetensors", dataclasses.replace(SMALL, shallow=8, skip_power=4))
    with pytest.raises(InputError, match=r"of another network than the recipe: shallow 8 for 4, skip_power 4 for 1$"):
        start_network(RECIPE, init, None)


def test_invalid_recipes_for_distillation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="loss imitation needs a teacher: streamfuse train distill"):
        FusionTask(RECIPE, CrossFuse(SMALL))
    minmax = dataclasses.replace(SMALL, output=Output.MINMAX)
    with pytest.raises(InputError, match="must give luma directly"):
        DistillTask(dataclasses.replace(RECIPE, network=minmax), CrossFuse(minmax), Bright())
    with pytest.raises(UsageError, match="trains all, or fusion"):
        Recipe(factor=4, train=Train.SHALLOW)
    with pytest.raises(UsageError, match="with lean the loss imitation or likeness"):
        Recipe(lean=0.5)
    with pytest.raises(UsageError, match="a factor of 1, 2, 4 or 8"):
        Recipe(factor=3, train=Train.ALL)


def test_shipped_small_network_draws_no_frame() -> None:
    """With zeros outside the picture in the skip, the outermost pixels would be brighter by 50 grey levels."""
    scene = Scene(120, 160)
    ir, vis = scene.infrared(1.0, 0), cv2.cvtColor(scene.visible(1.0, 0), cv2.COLOR_BGR2GRAY)
    with TorchEngine(precision="fp32") as engine:
        engine.use(Preset.REALTIME)
        fused = engine.fuse(ir, vis.astype(np.uint8)) * 255
    for turned in (fused, fused.T, fused[::-1], fused.T[::-1]):
        assert abs(turned[0].mean() - turned[1].mean()) < 5


LEAST_SSIM = 0.95


def test_shipped_small_network_is_similar_to_the_shipped_network(data_dir: Path) -> None:
    """Measured on pairs on which neither was trained."""
    steps = data_dir / "data/eval/vot/steps"
    tno = data_dir / "data/eval/tno21"
    files = [(steps / "ir/00000001.png", steps / "color/00000001.png")]
    files += [(tno / f"ir/{n}.png", tno / f"vis/{n}.png") for n in (1, 8, 17)]
    assert read_info(default_weights()).lite() is not None
    for pair in files:
        ir, vis = (cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in pair)
        assert ir is not None
        assert vis is not None
        found = []
        for preset in (Preset.BALANCED, Preset.REALTIME):
            with TorchEngine(precision="fp32") as engine:
                engine.use(preset)
                raw = engine.fuse(ir.astype(np.uint8), vis.astype(np.uint8))
            found.append(np.clip(np.rint(raw * 255), 0, 255).astype(np.uint8))
        assert structural_similarity(*found) > LEAST_SSIM, pair
