"""Regions of infrared that stand out of what is beside them, such as people: found in every picture, cheaply.

The background is estimated by a horizontal opening of the reduced picture: what is warmer than everything at both sides
of it, and narrower than a third of the picture, is left out of it.  Ground that gets warmer towards the camera, roofs
and horizons belong to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Size, size_of
from streamfuse.color import Plane

Labels: TypeAlias = npt.NDArray[np.uint8]
"""(h, w) 0 for the background, else 1 + the index of a region."""

SIDE = 320
"""Longer side of the reduced pictures."""
COARSE = 4
"""Reduction of the background's width."""
WIDEST = 0.3
"""Width of the widest thing that stands out, as a share of the picture's width."""
LEAST_CONTRAST = 10.0
"""Contrast of a thing that stands out, grey levels."""
CONTRAST_SHARE = 0.3
"""The same as a share of the contrast of the warmest things in the picture."""
WARMEST = 0.005
"""Share of the pixels that are the warmest."""
WEAK_SHARE = 0.5
"""Share of the contrast from which pixels beside a warm one belong to its thing: clothes are colder than a face."""
STRONG_AREA = 0.15
"""Least share of a thing's pixels that have the whole contrast."""
CLOSED_PX = (3, 7)
"""Width and height of gaps in a thing that are closed, reduced px: between a head and a collar."""
LEAST_AREA = 50
"""Area of a thing, reduced px: a person 10 px wide and 20 px tall at a width of 640."""
LARGEST_AREA = 0.15
"""The same as a share of the picture."""
LARGEST_BOX = 0.2
"""Area of the box around it, as a share of the picture: a person 3 m away takes 0.16."""
MOST = 10
"""Largest number of regions; those of the largest area."""


class Region(NamedTuple):
    """A thing that stands out, in reduced pixels."""

    left: int
    top: int
    width: int
    height: int
    area: int
    x: float
    y: float
    """Centre of gravity."""


@dataclass(frozen=True, slots=True, eq=False)
class WarmRegions:
    """Regions of one picture."""

    labels: Labels
    regions: list[Region]


def reduced_size(shape: tuple[int, ...]) -> Size:
    """Return the size at which regions of a picture of `shape` are found."""
    height, width = size_of(shape)
    shrink = min(SIDE / max(height, width), 1.0)
    return max(round(height * shrink), 2), max(round(width * shrink), 2)


def find_warm(ir: Plane) -> WarmRegions:
    """Find the regions of an infrared picture (h, w) uint8, in which warm is bright."""
    height, width = reduced_size(ir.shape)
    small = cv2.resize(ir, (width, height), interpolation=cv2.INTER_AREA)
    smooth = cv2.blur(small, (3, 3))
    narrow = max(width // COARSE, 1)
    coarse = cv2.resize(smooth, (narrow, height), interpolation=cv2.INTER_AREA)
    line = np.ones((1, max(int(WIDEST * narrow), 1) | 1), np.uint8)
    coarse = cv2.morphologyEx(coarse, cv2.MORPH_OPEN, line, borderType=cv2.BORDER_REPLICATE)
    contrast = cv2.subtract(smooth, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))
    counts = cv2.calcHist([contrast], [0], None, [256], [0, 256]).ravel()
    highest = int(np.searchsorted(np.cumsum(counts), (1 - WARMEST) * contrast.size))
    least = max(LEAST_CONTRAST, CONTRAST_SHARE * highest)
    weak = cv2.threshold(contrast, WEAK_SHARE * least, 1, cv2.THRESH_BINARY)[1]
    weak = cv2.morphologyEx(weak, cv2.MORPH_CLOSE, np.ones(CLOSED_PX[::-1], np.uint8))
    weak = cv2.morphologyEx(weak, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, parts, stats, centres = cv2.connectedComponentsWithStats(weak, connectivity=4, ltype=cv2.CV_16U)
    chosen: list[tuple[int, Region]] = []
    for part in sorted(range(1, count), key=lambda part: -int(stats[part, cv2.CC_STAT_AREA])):
        left, top, wide, tall, area = (int(value) for value in stats[part])
        if len(chosen) == MOST or area < LEAST_AREA:
            break
        if area > LARGEST_AREA * contrast.size or wide * tall > LARGEST_BOX * contrast.size:
            continue
        rows, columns = slice(top, top + tall), slice(left, left + wide)
        strong = np.count_nonzero((contrast[rows, columns] > least) & (parts[rows, columns] == part))
        if strong >= STRONG_AREA * area:
            x, y = (float(value) for value in centres[part])
            chosen.append((part, Region(left, top, wide, tall, area, x, y)))
    numbers = np.zeros(count, np.uint8)
    for index, (part, _) in enumerate(chosen):
        numbers[part] = index + 1
    return WarmRegions(cast(Labels, numbers[parts]), [region for _, region in chosen])


def touches_edge(region: Region, shape: tuple[int, ...]) -> bool:
    """Return whether a region reaches the edge of a reduced picture of `shape`, so that its outline is not its own."""
    return (
        min(region.left, region.top) <= 1
        or region.left + region.width >= shape[1] - 1
        or region.top + region.height >= shape[0] - 1
    )
