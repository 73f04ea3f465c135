"""The training loop: runs a task on pairs by a recipe; writes checkpoints, weights and a journal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from streamfuse.errors import OutputError, TrainingError, UsageError
from streamfuse.support.files import write_whole
from streamfuse.training.journal import Journal
from streamfuse.training.pairs import Pair
from streamfuse.training.parallel import Place, mean_over_processes, share_batch_norms
from streamfuse.training.recipe import Recipe, to_dict
from streamfuse.training.samples import Positions, Samples
from streamfuse.training.state import Progress, load_state, save_state
from streamfuse.training.tasks import Task

log = logging.getLogger("streamfuse")

HELD_OUT = 20
"""One pair in this many is used for validation."""
VALIDATION = 16
"""Number of crops over which the validation loss is averaged; always the same ones."""
SEED_OF_VALIDATION = 1_000_003

OnStep = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Execution of a run; the recipe determines its result."""

    directory: Path
    seed: int = 0
    save_every: int = 250
    """Steps between checkpoints, validations and pictures."""
    workers: int = 0
    """Processes that read and crop images; 0: the training process itself."""
    stop_after: int | None = None
    """Stop after this step, to be resumed later."""


class Trainer:
    """Trains `task` on `pairs`; an interrupted run continues from its last checkpoint.

    Raises TrainingError if a loss is not finite, after saving the batch.
    """

    def __init__(self, task: Task, recipe: Recipe, pairs: Sequence[Pair], plan: Plan, place: Place) -> None:
        if recipe.batch % place.world:
            raise UsageError(f"a batch of {recipe.batch} cannot be shared by {place.world} processes")
        self._recipe, self._plan, self._place = recipe, plan, place
        torch.manual_seed(plan.seed)
        if place.world > 1:
            share_batch_norms(task)
        self._task = task.to(place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._task.set_training()
        held = [pair for index, pair in enumerate(pairs) if index % HELD_OUT == HELD_OUT - 1]
        kept = [pair for index, pair in enumerate(pairs) if index % HELD_OUT != HELD_OUT - 1]
        self._samples = Samples(kept, recipe, plan.seed)
        self._validation = Samples(held or kept, recipe, SEED_OF_VALIDATION)
        learning = [parameter for parameter in task.network.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(learning, recipe.lr)
        self._learning = learning
        self._mean: dict[str, Tensor] = {}
        if recipe.ema:
            self._mean = {
                name: parameter.detach().clone()
                for name, parameter in task.network.named_parameters()
                if parameter.requires_grad
            }
        self._progress = Progress()
        self._about: dict[str, Any] = {"recipe": to_dict(recipe), "seed": plan.seed, "pairs": len(pairs)}
        self._parallel: Callable[[Tensor], dict[str, Tensor]] = self._task
        if place.world > 1:
            self._parallel = DistributedDataParallel(self._task)

    def run(self, on_step: OnStep = lambda step, values: None) -> Progress:
        """Train to the recipe's last step.  `on_step`: called with each step, counted from 1, and its figures."""
        directory = self._plan.directory
        last = directory / "last.safetensors"
        if last.is_file():
            self._progress = load_state(last, self._task.network, self._mean, self._optimizer, self._about)
            log.info("continuing after step %d of %s", self._progress.step, directory)
        with ExitStack() as stack:
            journal = None
            if self._place.leads:
                journal = stack.enter_context(Journal(directory, self._progress.step))
            began = time.monotonic()
            final = min(self._plan.stop_after or self._recipe.steps, self._recipe.steps)
            for batch in self._batches(final):
                step = self._progress.step
                values = self._step(step, batch)
                self._progress.step = step = step + 1
                if step % self._plan.save_every == 0 or step == final:
                    values["validation"] = self._validate(journal)
                values["seconds"] = time.monotonic() - began
                if journal is not None:
                    journal.add(step, values)
                if "validation" in values and self._place.leads:
                    self._save(values["validation"])
                    assert journal is not None
                    journal.plot()
                on_step(step, values)
        return self._progress

    def _batches(self, final: int) -> Iterator[Tensor]:
        recipe, place = self._recipe, self._place
        loader: DataLoader[Tensor] = DataLoader(
            self._samples,
            batch_size=recipe.batch // place.world,
            sampler=Positions(self._progress.step, final, recipe.batch, place.rank, place.world),
            num_workers=self._plan.workers,
            persistent_workers=self._plan.workers > 0,
        )
        for batch in loader:
            # Consecutive images are the frames of one sample
            yield batch.flatten(0, 1).to(place.device, memory_format=torch.channels_last)

    def _step(self, step: int, batch: Tensor) -> dict[str, float]:
        rate = self._recipe.rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        found = self._parallel(batch)
        found["loss"].backward()  # type: ignore[no-untyped-call]
        values = mean_over_processes(torch.stack([value.detach().float() for value in found.values()]))
        norm = torch.nn.utils.clip_grad_norm_(self._learning, self._recipe.clip or float("inf"))
        if not bool(torch.isfinite(values).all()) or not bool(torch.isfinite(norm)):
            self._give_up(step, batch)
        self._optimizer.step()
        self._optimizer.zero_grad()
        for name, parameter in self._task.network.named_parameters():
            if name in self._mean:
                # At the start, the mean over all steps so far
                self._mean[name].lerp_(parameter.detach(), max(1 - self._recipe.ema, 1 / (step + 1)))
        return {**dict(zip(found, values.tolist(), strict=True)), "rate": rate}

    def _give_up(self, step: int, batch: Tensor) -> None:
        path = self._plan.directory / f"not-finite-{step + 1}-{self._place.rank}.safetensors"
        write_whole(path, to_bytes({"batch": batch.cpu().contiguous()}))
        raise TrainingError(
            f"the loss or its gradient is not finite at step {step + 1}: the batch is in {path}; what was saved before "
            "is kept: begin another run with --init best.safetensors and a lower --lr"
        )

    def _validate(self, journal: Journal | None) -> float:
        """Return the mean loss of the current result on validation crops; every process computes the same."""
        network = self._task.network
        trained = {name: value.clone() for name, value in network.state_dict().items()}
        self._task.eval()
        network.load_state_dict(self._mean, strict=False)
        batch = torch.stack([self._validation[i] for i in range(VALIDATION)])
        losses: list[Tensor] = []
        with torch.no_grad():
            batch = batch.flatten(0, 1).to(self._place.device, memory_format=torch.channels_last)
            for part in torch.split(batch, self._recipe.batch * self._recipe.frames):
                rendered = self._task.images(part)
                if journal is not None and not losses:
                    journal.show(self._progress.step, part[:, :2], rendered)
                losses += [self._task.losses(rendered, part)["loss"]] * len(part)
        network.load_state_dict(trained)
        self._task.set_training()
        return float(torch.stack(losses).mean())

    def _save(self, validation: float) -> None:
        """Save the last checkpoint, and the network separately if it is the best so far."""
        best = validation < self._progress.best
        self._progress.best = min(validation, self._progress.best)
        directory, network, mean = self._plan.directory, self._task.network, self._mean
        if best:
            save_state(directory / "best.safetensors", network, mean, None, self._progress, self._about)
        save_state(directory / "last.safetensors", network, mean, self._optimizer, self._progress, self._about)


def open_directory(directory: Path, *, resume: bool) -> None:
    """Make the directory of a run; an existing run is continued only with --resume."""
    if (directory / "last.safetensors").exists() and not resume:
        raise OutputError(f"{directory} contains a run: continue it with --resume, or choose another -o")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {directory}: {error.strerror}") from None
