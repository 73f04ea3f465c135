"""An endless, repeatable stream of training samples.

The sample at a position depends only on the seed and the position.  So a resumed run sees the same samples as an
uninterrupted one, and any number of processes that share a batch see the same batch together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.training.disturb import Weather, draw_weather, weathered, with_noise
from streamfuse.training.pairs import Pair
from streamfuse.training.recipe import Recipe

DRIFT = 2
"""Largest shift of the second frame made from a still pair, pixels."""

Window = tuple[slice, slice]


class Samples(Dataset[Tensor]):
    """Random samples by position, (frames, 4, crop, crop) FP32, 0..255: cropped, flipped and augmented.

    The four are infrared and visible as the network sees them, and the same without noise.  The second of two frames
    is the next one of the video or, for images, the same picture shifted by up to `DRIFT` pixels in another light.
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
        pair, recipe = self._pairs[order[place]], self._recipe
        frames = [pair.load()]
        window = _draw_window(frames[0][0].shape, recipe.crop, recipe.zoom, rng)
        windows = [window]
        if recipe.frames > 1:
            frames.append(pair.later.load() if pair.later is not None else frames[0])
            windows.append(window if pair.later is not None else _moved(window, frames[0][0].shape, rng))
        flip = rng.random() < 0.5
        weather = draw_weather(recipe, rng)
        levels = recipe.noise * rng.random(2)
        made = []
        for index, ((ir, vis), (rows, columns)) in enumerate(zip(frames, windows, strict=True)):
            cut = [_resized(plane[rows, columns], recipe.crop) for plane in (ir, vis)]
            if flip:
                cut = [plane[:, ::-1] for plane in cut]
            clean = weathered(cut[0], cut[1], weather if index == 0 else _drifted(weather, rng))
            seen = with_noise(clean[0], levels[0], 1.0, rng), with_noise(clean[1], levels[1], weather.dark, rng)
            made.append(np.stack((*seen, *clean)))
        return torch.from_numpy(np.stack(made))


def _draw_window(size: tuple[int, ...], crop: int, zoom: float, rng: np.random.Generator) -> Window:
    height, width = size
    side = min(round(crop * zoom ** rng.uniform(-1, 1)), height, width)
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return slice(top, top + side), slice(left, left + side)


def _moved(window: Window, size: tuple[int, ...], rng: np.random.Generator) -> Window:
    """Shift a window by whole pixels within the picture."""
    starts = [
        int(np.clip(one.start + rng.integers(-DRIFT, DRIFT + 1), 0, most - (one.stop - one.start)))
        for one, most in zip(window, size, strict=True)
    ]
    rows, columns = (slice(start, start + p.stop - p.start) for start, p in zip(starts, window, strict=True))
    return rows, columns


def _drifted(weather: Weather, rng: np.random.Generator) -> Weather:
    """Return the same changes with an exposure that differs by up to 1 %, as in the next frame."""
    first, second = weather.gains
    return dataclasses.replace(
        weather, gains=(first * (1 + 0.01 * rng.uniform(-1, 1)), second * (1 + 0.01 * rng.uniform(-1, 1)))
    )


def _resized(square: Plane, crop: int) -> npt.NDArray[np.float32]:
    """Resize a square to the size of the crop."""
    side = square.shape[0]
    if side != crop:
        method = cv2.INTER_AREA if side > crop else cv2.INTER_CUBIC
        return cv2.resize(square, (crop, crop), interpolation=method).astype(np.float32)
    return square.astype(np.float32)


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
