"""A small shift, turn and scale of the visible picture about its middle."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streamfuse.calibration.geometry import Matrix3, Points, project


class Similarity(NamedTuple):
    """How a picture is displaced; all zero: not at all."""

    right: float = 0.0
    """Shift of the middle, as a share of the picture's width."""
    down: float = 0.0
    """The same as a share of the picture's width."""
    turn: float = 0.0
    """Clockwise, radians; small."""
    scale: float = 0.0
    """Relative enlargement."""

    def matrix(self, shape: tuple[int, ...]) -> Matrix3:
        """Return the (3, 3) map from pixels of a picture of `shape` (H, W) to displaced ones."""
        x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
        a, b = 1 + self.scale, self.turn
        right, down = self.right * shape[1], self.down * shape[1]
        return np.array([[a, -b, right + x - a * x + b * y], [b, a, down + y - b * x - a * y], [0, 0, 1.0]])

    def displacements(self, points: Points, shape: tuple[int, ...]) -> Points:
        """Return how far the points of a picture of `shape` move, (n, 2) px."""
        return project(self.matrix(shape), points) - points

    def rms_px(self, shape: tuple[int, ...]) -> float:
        """Root mean square of the displacement over a picture of `shape`, px."""
        middle = np.array([(x, y) for x in (0.125, 0.375, 0.625, 0.875) for y in (0.125, 0.375, 0.625, 0.875)])
        moved = self.displacements(middle * (shape[1], shape[0]), shape)
        return float(np.sqrt(np.mean(np.square(moved).sum(axis=1))))

    def toward(self, goal: Similarity, most_px: float, shape: tuple[int, ...]) -> Similarity:
        """Return the similarity on the way to `goal` that is `most_px` away (RMS), or `goal` if it is nearer."""
        step = Similarity(*(b - a for a, b in zip(self, goal, strict=True)))
        length = step.rms_px(shape)
        share = 1.0 if length <= most_px else most_px / length
        return Similarity(*(a + share * b for a, b in zip(self, step, strict=True)))
