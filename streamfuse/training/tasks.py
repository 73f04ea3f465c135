"""The training stages as modules that compute losses of a batch."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.color import Plane
from streamfuse.engines.base import Engine
from streamfuse.engines.veil import lift_veil
from streamfuse.errors import InputError, UsageError
from streamfuse.frames import Role
from streamfuse.network.checkpoint import FORMAT as WEIGHTS_FORMAT
from streamfuse.network.checkpoint import load
from streamfuse.network.config import CrossFuseConfig, Output, Veil
from streamfuse.network.crossfuse import CrossFuse, DecoderConv, Encoder, to_luma
from streamfuse.network.scaled import DeepScaled
from streamfuse.training.losses import (
    FUSION_LOSSES,
    IMITATION_LOSSES,
    TARGET_LOSSES,
    leaning,
    reconstruction,
    steadiness,
)
from streamfuse.training.recipe import Norm, Recipe, Train
from streamfuse.training.state import read_format, read_network
from streamfuse.training.target import pyramid_target

DIRECT_SCALE, DIRECT_SHIFT = 0.2, 0.4
"""Initial scale and shift of the last BatchNorm for luma in 0..1: with 1 and 0, training is very slow."""


class AutoEncoder(nn.Module):
    """Stage 1 (section 3.2): an encoder and a plain decoder, (B, 1, H, W) in 0..1 to the same; H, W multiples of 8."""

    def __init__(self, config: CrossFuseConfig) -> None:
        super().__init__()
        shallow, deep = config.shallow, config.deep
        self.encoder = Encoder(config)
        self.conv1 = DecoderConv(deep, deep // 2)
        self.conv2 = DecoderConv(deep // 2, shallow)
        self.conv3 = DecoderConv(shallow, shallow)
        self.last = DecoderConv(shallow, 1, kernel=1)
        start_direct(self.last)

    def forward(self, image: Tensor) -> Tensor:
        shallow, x = self.encoder(image)
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.interpolate(conv(x), scale_factor=2.0)
        out: Tensor = self.last(x + shallow)
        return out


def start_direct(last: DecoderConv) -> None:
    nn.init.constant_(last.norm.weight, DIRECT_SCALE)
    nn.init.constant_(last.norm.bias, DIRECT_SHIFT)


class Task(nn.Module):
    """Trains `network`; a call returns the losses of a batch, with the one to minimise under "loss"."""

    network: nn.Module
    recipe: Recipe

    @abstractmethod
    def render(self, batch: Tensor) -> Tensor:
        """Compute images (B, 1, H, W), FP32, 0..255, from a batch (B, 4, H, W) of `Samples`."""

    @abstractmethod
    def losses(self, rendered: Tensor, batch: Tensor) -> dict[str, Tensor]: ...

    def images(self, batch: Tensor) -> Tensor:
        """Images by `render`, computed in the recipe's precision."""
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            return self.render(batch).float()

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        return self.losses(self.images(batch), batch)

    def set_training(self) -> None:
        """Return to training mode after an evaluation; fixed modules stay in evaluation mode."""
        self.network.train()


class AutoEncoderTask(Task):
    """Stage 1 of one modality: channel 0 of a batch is infrared, 1 visible."""

    def __init__(self, recipe: Recipe, modality: str) -> None:
        super().__init__()
        self.recipe = recipe
        self.network = AutoEncoder(recipe.network)
        self._channel = list(Role).index(Role(modality))

    def render(self, batch: Tensor) -> Tensor:
        raw: Tensor = self.network(batch[:, self._channel, None] / 255)
        return raw.float() * 255

    def losses(self, rendered: Tensor, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": reconstruction(batch[:, 2 + self._channel, None], rendered)}


class FusionTask(Task):
    """Stage 2.  Raises UsageError for a recipe whose losses need a teacher."""

    def __init__(self, recipe: Recipe, network: CrossFuse) -> None:
        super().__init__()
        if taught := [name for name in recipe.losses if name not in self._loss_names()]:
            raise UsageError(f"loss {taught[0]} needs a teacher: streamfuse train distill")
        self.recipe = recipe
        self.network = network
        for encoder in (network.encoder_ir, network.encoder_vis):
            encoder.requires_grad_(recipe.train is Train.ALL)
            encoder.conv.requires_grad_(recipe.train is not Train.FUSION)

    @property
    def fusion(self) -> CrossFuse:
        return cast(CrossFuse, self.network)

    @classmethod
    def _loss_names(cls) -> tuple[str, ...]:
        return (*FUSION_LOSSES, *TARGET_LOSSES, "steadiness")

    def render(self, batch: Tensor) -> Tensor:
        network, batch = self.fusion, self._seen(batch[:, :2])
        if self.recipe.factor > 1:
            height, width = batch.shape[2:]
            scaled = DeepScaled(network, height, width, self.recipe.factor)
            ir, vis = (batch / 255).chunk(2, dim=1)
            deep = scaled.deep_picture(ir, vis)
            with torch.autocast(batch.device.type, enabled=False):
                # FP32: the choice of the stronger source depends on small differences
                return self._to_luma(scaled.finish(deep.float(), ir, vis))
        ir, vis = (batch / 255).chunk(2, dim=1)
        shallow_ir, deep_ir = self._encode(network.encoder_ir, ir)
        shallow_vis, deep_vis = self._encode(network.encoder_vis, vis)
        x = network.cam(deep_ir, deep_vis)
        return self._to_luma(network.bound(network.decoder(x, (deep_ir, deep_vis), (shallow_ir, shallow_vis))))

    def _seen(self, batch: Tensor) -> Tensor:
        """Return pairs (B, 2, H, W) with the visible pictures as the network gets them from an engine."""
        if self.fusion.config.veil is Veil.KEPT:
            return batch
        seen = batch.clone()
        for one, (ir, vis) in zip(seen, _pictures(batch), strict=True):
            one[1] += torch.from_numpy(lift_veil(ir, vis).astype(np.float32) - vis).to(one)
        return seen

    def _to_luma(self, raw: Tensor) -> Tensor:
        # Not clamped: pixels out of range need a gradient.
        raw, output = raw.float(), self.fusion.config.output
        return raw * 255 if output is Output.DIRECT else to_luma(raw, output)

    def _encode(self, encoder: Encoder, image: Tensor) -> tuple[Tensor, Tensor]:
        if self.recipe.train is Train.SHALLOW:
            shallow: Tensor = encoder.conv(image)
            with torch.no_grad():
                return shallow, encoder.deepen(shallow)
        with torch.set_grad_enabled(self.recipe.train is Train.ALL and torch.is_grad_enabled()):
            features: tuple[Tensor, Tensor] = encoder(image)
        return features

    def losses(self, rendered: Tensor, batch: Tensor) -> dict[str, Tensor]:
        weights = {name: weight for name, weight in self.recipe.losses.items() if weight}
        # Of two frames only the first counts, except for the loss over time
        first, seen = rendered[:: self.recipe.frames], batch[:: self.recipe.frames]
        ir, vis = seen[:, 2:3], seen[:, 3:4]
        found = {name: FUSION_LOSSES[name](first, ir, vis) for name in weights if name in FUSION_LOSSES}
        if targeted := [name for name in weights if name in TARGET_LOSSES]:
            target = pyramid_target(ir, vis)
            found |= {name: TARGET_LOSSES[name](first, target) for name in targeted}
        if "steadiness" in weights:
            found["steadiness"] = steadiness(rendered, batch[:, 2:3], batch[:, 3:4])
        found |= self._taught(first, seen, [name for name in weights if name in IMITATION_LOSSES])
        return {"loss": torch.stack([weights[name] * value for name, value in found.items()]).sum(), **found}

    def _taught(self, rendered: Tensor, batch: Tensor, names: list[str]) -> dict[str, Tensor]:
        """The losses to a teacher's pictures; here there is none."""
        return {}

    def set_training(self) -> None:
        super().set_training()
        if self.recipe.norm is Norm.FROZEN:
            self.network.eval()  # its BatchNorms are all that differs


class DistillTask(FusionTask):
    """Distillation: the network learns the pictures of `teacher`, in addition to the recipe's other losses.

    The teacher sees the same crops with the same noise as the network.
    """

    def __init__(self, recipe: Recipe, network: CrossFuse, teacher: Engine) -> None:
        """`teacher` gives luma directly.  Raises InputError for one that does not."""
        super().__init__(recipe, network)
        if not teacher.output is recipe.network.output is Output.DIRECT:
            raise InputError("the teacher and its student must give luma directly: output = direct")
        self._teacher = teacher

    @classmethod
    def _loss_names(cls) -> tuple[str, ...]:
        return (*super()._loss_names(), *IMITATION_LOSSES)

    def _taught(self, rendered: Tensor, batch: Tensor, names: list[str]) -> dict[str, Tensor]:
        taught = np.stack([self._teacher.fuse(ir, vis) for ir, vis in _pictures(batch[:, :2])])
        wanted = torch.from_numpy(taught).to(rendered)[:, None].clamp(0, 1) * 255
        ir, vis = batch[:, 2:3], batch[:, 3:4]
        if self.recipe.lean:
            wanted = leaning(wanted, ir, vis, self.recipe.lean)
        return {name: IMITATION_LOSSES[name](rendered, wanted) for name in names}


def _pictures(batch: Tensor) -> Iterator[tuple[Plane, Plane]]:
    """Yield the pairs of (B, 2, H, W) as an engine gets them, (H, W) uint8."""
    for ir, vis in batch.detach().clamp(0, 255).round().byte().cpu().numpy():
        yield np.ascontiguousarray(ir), np.ascontiguousarray(vis)


def start_network(recipe: Recipe, init: Path | None, encoders: tuple[Path, Path] | None) -> CrossFuse:
    """Return the initial network of stage 2: from a file, from two trained encoders, or random."""
    if init is not None and read_format(init) != WEIGHTS_FORMAT:
        network = CrossFuse(recipe.network)
        read_network(init, network)
        return network
    if init is not None:
        before, network = load(init), CrossFuse(recipe.network)
        try:
            network.load_state_dict(before.state_dict())
        except RuntimeError:
            other = ", ".join(
                f"{key} {value} for {wanted}"
                for (key, value), wanted in zip(
                    dataclasses.asdict(before.config).items(), dataclasses.astuple(recipe.network), strict=True
                )
                if value != wanted
            )
            raise InputError(f"{init} is of another network than the recipe: {other}") from None
        return network
    network = CrossFuse(recipe.network)
    if recipe.network.output is Output.DIRECT:
        start_direct(network.decoder.last)
    for name, path in zip(("encoder_ir", "encoder_vis"), encoders or (), strict=False):
        getattr(network, name).load_state_dict(_read_encoder(path, name, recipe.network))
    return network


def _read_encoder(path: Path, name: str, config: CrossFuseConfig) -> dict[str, Tensor]:
    """Read the encoder of a stage-1 checkpoint, or the encoder `name` of a weights file."""
    if read_format(path) == WEIGHTS_FORMAT:
        return cast("dict[str, Tensor]", load(path).get_submodule(name).state_dict())
    trained = AutoEncoder(config)
    read_network(path, trained)
    return trained.encoder.state_dict()
