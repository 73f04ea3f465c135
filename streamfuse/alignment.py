"""Infrared pixels onto visible pixels.

Both cameras must look at the same scene through registered optics; where only the sizes differ, infrared is
resized to the visible picture.
"""

from __future__ import annotations

import logging
from typing import cast

import cv2

from streamfuse.frames import Plane

log = logging.getLogger("streamfuse")


class Aligner:
    """Brings infrared frames to the visible frames' size and says so once for each change of size."""

    def __init__(self) -> None:
        self._announced: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def apply(self, ir: Plane, shape: tuple[int, ...]) -> Plane:
        """(h, w) to `shape` (H, W): averaged where it shrinks, cubic where it grows."""
        if ir.shape == shape:
            return ir
        if self._announced != (ir.shape, shape):
            self._announced = (ir.shape, shape)
            log.warning(
                "infrared is %dx%d and visible %dx%d: infrared is resized to visible%s",
                ir.shape[1],
                ir.shape[0],
                shape[1],
                shape[0],
                "" if _same_aspect(ir.shape, shape) else ", which stretches it: the aspect ratios differ",
            )
        shrinks = shape[0] <= ir.shape[0] and shape[1] <= ir.shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return cast(Plane, cv2.resize(ir, (shape[1], shape[0]), interpolation=method))


def _same_aspect(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """To within a pixel of rounding."""
    return abs(a[1] * b[0] / a[0] - b[1]) <= 1 or abs(a[0] * b[1] / a[1] - b[0]) <= 1
