"""An endless, repeatable stream of training samples.

The sample at a position depends only on the seed and the position.  So a resumed run sees the same samples as an
uninterrupted one, and any number of processes that share a batch see the same batch together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.training.pairs import Pair
from streamfuse.training.recipe import Recipe


class Samples(Dataset[Tensor]):
    """Position to (2, crop, crop) FP32, 0..255: infrared and visible, cut, flipped and disturbed.

    Every pair is drawn once before any is drawn again.
    """

    def __init__(self, pairs: Sequence[Pair], recipe: Recipe, seed: int) -> None:
        if not pairs:
            raise InputError("there are no training pairs")
        self._pairs = pairs
        self._recipe = recipe
        self._seed = seed

    def __getitem__(self, position: int) -> Tensor:
        epoch, place = divmod(position, len(self._pairs))
        order = np.random.default_rng((self._seed, 0, epoch)).permutation(len(self._pairs))
        rng = np.random.default_rng((self._seed, 1, position))
        ir, vis = self._pairs[order[place]].load()
        both = _cut(ir, vis, self._recipe.crop, self._recipe.zoom, rng)
        if rng.random() < 0.5:
            both = both[:, :, ::-1]
        pixels = np.stack([self._disturb(plane, rng) for plane in both])
        return torch.from_numpy(np.ascontiguousarray(pixels))

    def _disturb(self, plane: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Another exposure, and sensor noise; clipped and rounded as a camera does."""
        recipe = self._recipe
        if recipe.light:
            gain, offset = 1 + recipe.light * rng.uniform(-1, 1), 128 * recipe.light * rng.uniform(-1, 1)
            plane = (plane - 128) * np.float32(gain) + np.float32(128 + offset)
        if recipe.noise:
            sigma = np.float32(recipe.noise * rng.random())
            plane = plane + sigma * rng.standard_normal(plane.shape, dtype=np.float32)
        return np.clip(np.rint(plane), 0, 255)


def _cut(ir: Plane, vis: Plane, crop: int, zoom: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The same part of both, (2, crop, crop).  What is smaller than the part is enlarged as a whole."""
    height, width = ir.shape
    side = min(round(crop * zoom ** rng.uniform(-1, 1)), height, width)
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    parts = [plane[top : top + side, left : left + side] for plane in (ir, vis)]
    if side != crop:
        method = cv2.INTER_AREA if side > crop else cv2.INTER_CUBIC
        parts = [cv2.resize(part, (crop, crop), interpolation=method).astype(np.uint8) for part in parts]
    return np.stack(parts).astype(np.float32)


class Positions(Sampler[int]):
    """The positions of one process: its slice of each batch, starting at a step."""

    def __init__(self, first_step: int, steps: int, batch: int, rank: int, world: int) -> None:
        self._steps = range(first_step, steps)
        self._batch, self._rank, self._world = batch, rank, world

    def __iter__(self) -> Iterator[int]:
        share = self._batch // self._world
        for step in self._steps:
            start = step * self._batch + self._rank * share
            yield from range(start, start + share)

    def __len__(self) -> int:
        return len(self._steps) * (self._batch // self._world)
