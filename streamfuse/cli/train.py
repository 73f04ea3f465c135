"""`streamfuse train`: stage 1, an auto-encoder for each modality; stage 2, fusion; then a small network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamfuse.cli import logs, options
from streamfuse.cli.progress import progress
from streamfuse.cli.together import together
from streamfuse.errors import UsageError

if TYPE_CHECKING:
    from streamfuse.training.recipe import Recipe
    from streamfuse.training.tasks import Task


@click.group()
def command() -> None:
    """Train the network: both auto-encoders, then the fusion on their features; or a small one after a large one.

    Under torchrun several processes share each batch: torchrun --nproc-per-node 2 -m streamfuse train fusion ...
    Ctrl-C loses what came after the last checkpoint; --resume goes on from there, to the same losses.
    """


_shared = together(
    click.option(
        "--data",
        "roots",
        type=click.Path(path_type=Path),
        multiple=True,
        required=True,
        help="A data set: paired directories or videos, LLVIP, MSRS, M3FD, KAIST; may be repeated.",
    ),
    click.option("-o", "directory", type=click.Path(path_type=Path), required=True, help="Where the run goes."),
    click.option("--recipe", "recipe_name", default="default", show_default=True, help="A name or a .toml file."),
    click.option("--steps", type=click.IntRange(min=1), help="Instead of the recipe's."),
    click.option("--batch", type=click.IntRange(min=1), help="Instead of the recipe's; over all processes."),
    click.option("--lr", type=options.FiniteRange(0, 1, min_open=True, max_open=True), help="Instead of the recipe's."),
    click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything that is drawn by lot."
    ),
    click.option(
        "--every", type=click.IntRange(min=1), default=8, show_default=True, help="Use every nth frame of videos."
    ),
    click.option(
        "--save-every", type=click.IntRange(min=1), default=250, show_default=True, help="Steps between checkpoints."
    ),
    click.option(
        "--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Processes that read images."
    ),
    click.option("--stop-after", type=click.IntRange(min=1), help="End after this step, to be resumed later."),
    click.option("--resume", is_flag=True, help="Go on with the run in -o."),
    options.max_pixels,
    options.common,
)


@command.command("autoencoder", short_help="Stage 1: an encoder for one modality.")
@click.option("--modality", type=click.Choice(["ir", "vis"]), required=True, help="Whose encoder.")
@_shared
def autoencoder(modality: str, recipe_name: str, **shared: Any) -> None:
    """Stage 1: an encoder, and a decoder that rebuilds the image from its features (Eq. 7).

    \b
    streamfuse train autoencoder --modality ir --data pairs/ -o runs/ir
    streamfuse train autoencoder --modality vis --data pairs/ -o runs/vis
    """
    from streamfuse.training.recipe import AUTOENCODERS, read_recipe

    def make(recipe: Recipe) -> Task:
        from streamfuse.training.tasks import AutoEncoderTask

        return AutoEncoderTask(recipe, modality)

    _train(read_recipe(recipe_name, AUTOENCODERS), make, **shared)


@command.command("fusion", short_help="Stage 2: attention and decoder.")
@click.option(
    "--ir-encoder", type=click.Path(path_type=Path), help="best.safetensors of its auto-encoder, or a weights file."
)
@click.option(
    "--vis-encoder", type=click.Path(path_type=Path), help="best.safetensors of its auto-encoder, or a weights file."
)
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    help="Weights, or best.safetensors of a run, to begin with instead of encoders.",
)
@_shared
def fusion(
    ir_encoder: Path | None, vis_encoder: Path | None, init: Path | None, recipe_name: str, **shared: Any
) -> None:
    """Stage 2: attention and decoder on the encoders' features (Eq. 8-12); weights.safetensors is the result.

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


@command.command("distill")
@click.option(
    "--teacher", type=click.Path(path_type=Path), help="Weights whose pictures are to be learned; default: the shipped."
)
@click.option("--init", type=click.Path(path_type=Path), help="best.safetensors of a run, or weights, to begin with.")
@_shared
def distill(teacher: Path | None, init: Path | None, recipe_name: str, **shared: Any) -> None:
    """A small network that gives a large one's pictures, for preset realtime.

    The result, weights.safetensors, goes beside the teacher's weights: NAME-lite.safetensors beside NAME.safetensors.

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
