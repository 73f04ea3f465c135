"""Small pictures, a small network and its recipe, for tests of training."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from streamfuse.network.config import CrossFuseConfig, Fusion, Output, SkipWeights
from streamfuse.training.parallel import Place
from streamfuse.training.recipe import (
    Recipe,
    Train,
)
from streamfuse.training.tasks import FusionTask, start_network

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


def images(seed: int, count: int = 2) -> Tensor:
    return torch.stack([torch.from_numpy(picture(seed + i)).float()[None] for i in range(count)])


def fuse_task(recipe: Recipe) -> FusionTask:
    torch.manual_seed(0)
    return FusionTask(recipe, start_network(recipe, None, None))
