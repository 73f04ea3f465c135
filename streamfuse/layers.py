"""Warm things warped for distances of their own and laid over their background.

Where a thing is moved away, the background is filled from what is around the thing: neither a second edge of it nor a
hole is left.  A thing moves from the warp of the background to its own by at most half a pixel a picture, so none
appears suddenly.  All work is confined to the boxes of the things that are moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Points
from streamfuse.calibration.warm import Labels, Region
from streamfuse.color import Plane
from streamfuse.temperature import NONE, OVER, Counts

Map: TypeAlias = npt.NDArray[np.float32]
Box: TypeAlias = tuple[slice, slice]
"""Rows and columns of a picture."""

AROUND = 12
"""Surroundings of a thing from which its background is filled, reduced px."""
GROWN = 1
"""Width of the rim of a thing that moves with it, reduced px."""
COVERED = 3
"""Width of the rim that is filled with it, reduced px: nothing of the thing may be left."""
LEAST_PX = 0.25
"""Displacement below which a thing is left where it is, visible px."""
WHOLE_PX = 2.0
"""Displacement from which the background is filled entirely, visible px."""


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """A warm thing of one picture and the distance for which it is warped."""

    number: int
    """The same in all pictures of the thing."""
    label: int
    """Its number in the labels."""
    region: Region
    inverse_m: float
    """1 / distance, 1/m."""


@dataclass(frozen=True, slots=True, eq=False)
class Things:
    """Things of one infrared picture that have a distance of their own."""

    labels: Labels
    """(h, w) of the reduced picture."""
    things: Sequence[Thing]


class Placing(Protocol):
    """The warps of one infrared picture; `streamfuse.alignment` has them."""

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the infrared picture that the maps are for."""
        ...

    def box_of(self, corners: Points, inverse_m: float | None) -> tuple[Box, Points]:
        """Return the box of the result that a rectangle of infrared, corners as shares (4, 2), comes to lie in, and its
        corners there; `inverse_m` None: with the background."""
        ...

    def maps_of(self, box: Box, inverse_m: float | None) -> tuple[Map, Map]:
        """Return x and y of a box's pixels in infrared, px."""
        ...


class _Cutout:
    """One thing cut out of the reduced picture."""

    def __init__(self, thing: Thing, labels: Labels) -> None:
        region, (height, width) = thing.region, labels.shape
        self.rows = slice(max(region.top - AROUND, 0), min(region.top + region.height + AROUND, height))
        self.columns = slice(max(region.left - AROUND, 0), min(region.left + region.width + AROUND, width))
        near = labels[self.rows, self.columns]
        own = np.where(near == thing.label, np.uint8(255), np.uint8(0))
        other = np.where((near != thing.label) & (near > 0), np.uint8(255), np.uint8(0))
        self.weight = cv2.blur(_widened(own, GROWN), (3, 3))
        """(h, w) uint8, 255 where the thing is."""
        wide = _widened(own, COVERED)
        self.cover = cv2.subtract(cv2.blur(wide, (3, 3)), other)
        """(h, w) uint8, 255 where the background is filled."""
        self._known = cv2.bitwise_not(cv2.bitwise_or(wide, _widened(other, GROWN)))
        rim = COVERED + 1
        left, right = max(region.left - rim, 0), min(region.left + region.width + rim, width)
        top, bottom = max(region.top - rim, 0), min(region.top + region.height + rim, height)
        self.corners: Points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) / (width, height)
        """Corners of the thing and of what is filled, as shares of the picture, (4, 2)."""

    def filled(self, small: npt.NDArray[np.generic]) -> cv2.typing.MatLike:
        """Return the background of the cutout, float32, by the reduced picture (h, w) around the thing."""
        values = small[self.rows, self.columns]
        known = self._known
        if values.dtype == np.uint16:
            known = np.where((values == NONE) | (values == OVER), np.uint8(0), known)
        weights = known.astype(np.float32) * np.float32(1 / 255)
        return _spread(values.astype(np.float32) * weights, weights)


def _spread(values: cv2.typing.MatLike, weights: cv2.typing.MatLike) -> cv2.typing.MatLike:
    """Fill where the weight is 0 from around, the coarser the farther away.

    `values`: (h, w) float32, multiplied by the weights.  (Push and pull: Gortler et al., SIGGRAPH 1996, section 4.)
    """
    height, width = weights.shape
    if min(height, width) <= 2:
        return np.full_like(values, values.sum() / max(float(weights.sum()), 1e-6))
    half = (width + 1) // 2, (height + 1) // 2
    coarse = _spread(*(cv2.resize(each, half, interpolation=cv2.INTER_AREA) for each in (values, weights)))
    return values + cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR) * (1 - weights)


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """A thing with the places that it leaves and takes."""

    cutout: _Cutout
    left: Box
    taken: Box
    inverse_m: float
    moved_px: float


class Layers:
    """The things of one picture, placed; lays pictures and temperatures alike."""

    def __init__(self, things: Things, placing: Placing) -> None:
        self._placing = placing
        self._size = things.labels.shape
        self._placed: list[_Placed] = []
        for thing in sorted(things.things, key=lambda each: each.inverse_m):
            cutout = _Cutout(thing, things.labels)
            left, before = placing.box_of(cutout.corners, None)
            taken, after = placing.box_of(cutout.corners, thing.inverse_m)
            moved = float(np.linalg.norm(after - before, axis=1).mean())
            if moved >= LEAST_PX and _area(left) and _area(taken):
                self._placed.append(_Placed(cutout, left, taken, thing.inverse_m, moved))

    def lay(self, picture: Plane, ir: Plane) -> None:
        """Lay the things over `picture` (H, W), warped infrared; `ir`: (h, w) before the warp, of the maps' size."""
        small = cv2.resize(ir, self._size[::-1], interpolation=cv2.INTER_AREA)
        for placed in self._placed:
            filled = np.asarray(placed.cutout.filled(small).clip(0, 255), np.uint8)
            x, y = self._small_maps(placed, *self._placing.maps_of(placed.left, None))
            sampled = cv2.remap(cv2.merge((filled, placed.cutout.cover)), x, y, cv2.INTER_LINEAR)
            share = min(placed.moved_px / WHOLE_PX, 1.0)
            picture[placed.left] = _blend(
                sampled[..., 0], picture[placed.left], sampled[..., 1] * np.float32(share / 255)
            )
        for placed in self._placed:
            x, y = self._placing.maps_of(placed.taken, placed.inverse_m)
            thing = cv2.remap(ir, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            weight = cv2.remap(placed.cutout.weight, *self._small_maps(placed, x, y), cv2.INTER_LINEAR)
            picture[placed.taken] = _blend(thing, picture[placed.taken], weight * np.float32(1 / 255))

    def lay_values(self, picture: Counts, values: Counts) -> None:
        """Lay values of a scale, (h, w) uint16, over `picture` (H, W): none is mixed of a thing and its background."""
        small = cv2.resize(values, self._size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        moved = [placed for placed in self._placed if placed.moved_px >= WHOLE_PX / 2]
        for placed in moved:
            x, y = self._small_maps(placed, *self._placing.maps_of(placed.left, None))
            beneath = cv2.remap(placed.cutout.filled(small), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            covered = (cv2.remap(placed.cutout.cover, x, y, cv2.INTER_LINEAR) > 127) & (beneath > NONE + 0.5)
            picture[placed.left][covered] = np.rint(beneath[covered]).clip(NONE + 1, OVER - 1)
        for placed in moved:
            x, y = self._placing.maps_of(placed.taken, placed.inverse_m)
            weight = cv2.remap(placed.cutout.weight, *self._small_maps(placed, x, y), cv2.INTER_LINEAR)
            (height, width), (rows, columns) = self._placing.size, values.shape
            x, y = _scaled(x, width, columns), _scaled(y, height, rows)
            nearest = cv2.remap(values, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
            picture[placed.taken] = np.where(weight > 127, nearest, picture[placed.taken])

    def _small_maps(self, placed: _Placed, x: Map, y: Map) -> tuple[Map, Map]:
        """Return maps into the thing's cutout of the reduced picture."""
        (height, width), cutout = self._placing.size, placed.cutout
        return _scaled(x, width, self._size[1], cutout.columns.start), _scaled(
            y, height, self._size[0], cutout.rows.start
        )


def _scaled(axis: Map, old: int, new: int, start: int = 0) -> Map:
    """Return coordinates in a picture with a side of `old` px in one with `new` px, from its px `start` on."""
    share = new / old
    return cast(Map, cv2.addWeighted(axis, share, axis, 0, 0.5 * share - 0.5 - start))


def _widened(mask: cv2.typing.MatLike, rim: int) -> cv2.typing.MatLike:
    return cv2.dilate(mask, np.ones((2 * rim + 1, 2 * rim + 1), np.uint8))


def _area(box: Box) -> int:
    tall, wide = (max(int(side.stop) - int(side.start), 0) for side in box)
    return tall * wide


def _blend(over: cv2.typing.MatLike, under: Plane, weight: cv2.typing.MatLike) -> Plane:
    return cast(Plane, cv2.blendLinear(np.ascontiguousarray(over), np.ascontiguousarray(under), weight, 1 - weight))
