"""`streamfuse train`: stage 1, the auto-encoders; stage 2, fusion; and distillation of a small network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamfuse.cli import logs, options
from streamfuse.cli.decorators import together
from streamfuse.cli.progress import progress
from streamfuse.errors import UsageError

if TYPE_CHECKING:
    from streamfuse.training.recipe import Recipe
    from streamfuse.training.tasks import Task


@click.group()
def command() -> None:
    """Train the network on your own pairs.

    Stage 1 trains an auto-encoder for each modality, stage 2 the fusion of their features.  Distillation trains a
    small network to reproduce the pictures of a large one.

    To use several processes, which share each batch: torchrun --nproc-per-node 2 -m streamfuse train fusion ...

    After Ctrl-C, --resume continues from the last checkpoint and reaches the same losses.
    """


_shared = together(
    click.option(
        "--data",
        "roots",
        type=click.Path(path_type=Path),
        multiple=True,
        required=True,
        help="Data set: paired directories or videos, or LLVIP, MSRS, M3FD or KAIST; may be given several times.",
    ),
    click.option("-o", "directory", type=click.Path(path_type=Path), required=True, help="Directory of the run."),
    click.option(
        "--recipe", "recipe_name", default="default", show_default=True, help="Name of a recipe, or TOML file."
    ),
    click.option("--steps", type=click.IntRange(min=1), help="Number of steps; default: the recipe's."),
    click.option("--batch", type=click.IntRange(min=1), help="Pairs in a batch, all processes; default: the recipe's."),
    click.option(
        "--lr",
        type=options.FiniteRange(0, 1, min_open=True, max_open=True),
        help="Learning rate; default: the recipe's.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed."),
    click.option(
        "--every", type=click.IntRange(min=1), default=8, show_default=True, help="Use every N-th frame of videos."
    ),
    click.option(
        "--save-every", type=click.IntRange(min=1), default=250, show_default=True, help="Steps between checkpoints."
    ),
    click.option(
        "--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Processes that read images."
    ),
    click.option("--stop-after", type=click.IntRange(min=1), help="Stop after this step; --resume continues later."),
    click.option("--resume", is_flag=True, help="Continue the run in the -o directory."),
    options.max_pixels,
    options.common,
)


@command.command("autoencoder", short_help="Stage 1: train an auto-encoder for one modality.")
@click.option("--modality", type=click.Choice(["ir", "vis"]), required=True, help="Modality of the encoder.")
@_shared
def autoencoder(modality: str, recipe_name: str, **shared: Any) -> None:
    """Train an auto-encoder for one modality (stage 1, Eq. 7 of the paper).

    \b
    streamfuse train autoencoder --modality ir --data pairs/ -o runs/ir
    streamfuse train autoencoder --modality vis --data pairs/ -o runs/vis
    """
    from streamfuse.training.recipe import AUTOENCODERS, read_recipe

    def make(recipe: Recipe) -> Task:
        from streamfuse.training.tasks import AutoEncoderTask

        return AutoEncoderTask(recipe, modality)

    _train(read_recipe(recipe_name, AUTOENCODERS), make, **shared)


@command.command("fusion", short_help="Stage 2: train attention and decoder.")
@click.option(
    "--ir-encoder", type=click.Path(path_type=Path), help="Infrared encoder: best.safetensors of stage 1, or weights."
)
@click.option(
    "--vis-encoder", type=click.Path(path_type=Path), help="Visible encoder: best.safetensors of stage 1, or weights."
)
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    help="Weights to start from instead of encoders: best.safetensors of a run, or a weights file.",
)
@_shared
def fusion(
    ir_encoder: Path | None, vis_encoder: Path | None, init: Path | None, recipe_name: str, **shared: Any
) -> None:
    """Train attention and decoder on the features of both encoders (stage 2, Eq. 8-12 of the paper).

    The result is weights.safetensors in the directory of the run.

    \b
    streamfuse train fusion --ir-encoder runs/ir/best.safetensors \\
        --vis-encoder runs/vis/best.safetensors --data pairs/ -o runs/fusion
    streamfuse train fusion --init weights/crossfuse.safetensors --data pairs/ -o runs/ours
    streamfuse train fusion --data pairs/ -o runs/ours --resume
    """
    from streamfuse.training.recipe import RECIPES, Train, read_recipe

    recipe = read_recipe(recipe_name, RECIPES)
    if (ir_encoder is None) != (vis_encoder is None) or (init is not None and ir_encoder is not None):
        raise UsageError("give --ir-encoder and --vis-encoder, or --init")
    if init is None and ir_encoder is None and recipe.train is not Train.ALL:
        raise UsageError("stage 2 needs what stage 1 made: --ir-encoder and --vis-encoder, or --init WEIGHTS")

    def make(recipe: Recipe) -> Task:
        from streamfuse.training.tasks import FusionTask, start_network

        encoders = (ir_encoder, vis_encoder) if ir_encoder is not None and vis_encoder is not None else None
        return FusionTask(recipe, start_network(recipe, init, encoders))

    _train(recipe, make, **shared)


@command.command("distill", short_help="Train a small network for preset realtime.")
@click.option(
    "--teacher", type=click.Path(path_type=Path), help="Weights of the large network; default: the shipped ones."
)
@click.option(
    "--init", type=click.Path(path_type=Path), help="Weights to start from: best.safetensors of a run, or weights."
)
@_shared
def distill(teacher: Path | None, init: Path | None, recipe_name: str, **shared: Any) -> None:
    """Train a small network to reproduce the pictures of a large one, for preset realtime.

    The result is weights.safetensors.  Copy it beside the large network's NAME.safetensors as NAME-lite.safetensors.

    \b
    streamfuse train distill --data pairs/ -o runs/lite
    streamfuse train distill --teacher mine.safetensors --data pairs/ -o runs/lite
    """
    from streamfuse.training.recipe import STUDENTS, read_recipe

    def make(recipe: Recipe) -> Task:
        from streamfuse.engines import create_engine
        from streamfuse.network.config import Preset
        from streamfuse.training.tasks import DistillTask, start_network

        engine = create_engine(weights=teacher)
        if Preset.BALANCED in engine.presets:
            engine.use(Preset.BALANCED)
        return DistillTask(recipe, start_network(recipe, init, None), engine)

    _train(read_recipe(recipe_name, STUDENTS), make, **shared)


def _train(
    recipe: Recipe,
    make: Callable[[Recipe], Task],
    *,
    roots: tuple[Path, ...],
    directory: Path,
    steps: int | None,
    batch: int | None,
    lr: float | None,
    seed: int,
    every: int,
    save_every: int,
    workers: int,
    stop_after: int | None,
    resume: bool,
    max_pixels: int,
) -> None:
    import dataclasses

    import torch

    from streamfuse.evaluation.packages import check_research_packages
    from streamfuse.training.export import export_weights
    from streamfuse.training.pairs import find_pairs
    from streamfuse.training.parallel import joined
    from streamfuse.training.trainer import Plan, Trainer, open_directory

    given: dict[str, Any] = {
        key: value for key, value in (("steps", steps), ("batch", batch), ("lr", lr)) if value is not None
    }
    recipe = dataclasses.replace(recipe, **given)
    check_research_packages("matplotlib", "tensorboard")
    open_directory(directory, resume=resume)
    with joined() as place:
        if not place.leads:
            options.silence_notes()
        pairs = find_pairs(roots, every=every, options=options.SourceOptions(max_pixels=max_pixels))
        torch.manual_seed(seed)  # what the network begins with
        plan = Plan(directory, seed, save_every, workers, stop_after)
        trainer = Trainer(make(recipe), recipe, pairs, plan, place)
        if not place.leads:
            trainer.run()
            return
        logs.say(f"{len(pairs)} pairs; {recipe.steps} steps of {recipe.batch} on {place.device}")
        with progress("training", recipe.steps, unit="steps") as update:

            def on_step(step: int, values: dict[str, float]) -> None:
                update(step, _describe(values), at_once=step == recipe.steps or "validation" in values)

            reached = trainer.run(on_step)
        done = export_weights(directory)
        click.echo(f"step {reached.step}, best validation loss {reached.best:.5g}: {done}")


def _describe(values: dict[str, float]) -> str:
    terms = ", ".join(f"{key} {value:.4g}" for key, value in values.items() if key not in ("rate", "seconds"))
    return f"{terms}, {values['seconds']:.0f} s"
