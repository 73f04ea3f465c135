"""Warm things followed from picture to picture: a region is the thing that it overlaps most.

Where two things touch or come apart, their region is that of a new thing, which descends from one of them: what was
found out about the old ones need not be true of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamfuse.calibration.warm import Region, WarmRegions

LEAST_OVERLAP = 0.5
"""Least intersection over union of the boxes of one thing, where it is expected and where it is."""
DESCENDED = 0.5
"""Least share of the smaller box that is common to the boxes of a new thing and of the one that it descends from."""
LOST = 5
"""Successive pictures without a region after which a thing is forgotten."""


@dataclass(slots=True)
class Track:
    """A thing that is followed."""

    number: int
    """Different for every thing."""
    region: Region
    """Its last region."""
    label: int = 0
    """Number of that region in the labels of the last picture; 0 where it was not found there."""
    missed: int = 0
    """Pictures since it was found."""
    moves: tuple[int, int] = (0, 0)
    """How far its box moved from the last picture, reduced px."""
    parent: int | None = None
    """Number of the thing that it descends from."""

    def take(self, region: Region, label: int) -> None:
        """Take its region in the next picture."""
        old = self.region
        right = 2 * (region.left - old.left) + region.width - old.width
        down = 2 * (region.top - old.top) + region.height - old.height
        self.moves = (right // 2, down // 2) if self.missed == 1 else (0, 0)
        self.region, self.label, self.missed = region, label, 0


class Tracker:
    """Gives the regions of successive pictures to things."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._count = 0

    def update(self, found: WarmRegions) -> None:
        """Take the regions of the next picture."""
        before = [(track.number, track.region) for track in self.tracks]
        overlaps = sorted(
            (
                (share, track, index)
                for track, known in enumerate(self.tracks)
                for index, region in enumerate(found.regions)
                if (share := overlap(_moved(known), region)) >= LEAST_OVERLAP
            ),
            reverse=True,
        )
        for track in self.tracks:
            track.label = 0
            track.missed += 1
        taken = set()
        for _, number, index in overlaps:
            track = self.tracks[number]
            if track.missed and index not in taken:
                taken.add(index)
                track.take(found.regions[index], index + 1)
        self.tracks = [track for track in self.tracks if track.missed < LOST]
        for index, region in enumerate(found.regions):
            if index not in taken:
                self._count += 1
                self.tracks.append(Track(self._count, region, index + 1, parent=_parent(region, before)))


def _moved(track: Track) -> Region:
    """Return the region of a thing where it is expected in the next picture."""
    right, down = track.moves
    return track.region._replace(left=track.region.left + right, top=track.region.top + down)


def overlap(one: Region, other: Region) -> float:
    """Return the intersection of two boxes over their union, 0..1."""
    common = _common(one, other)
    return common / (one.width * one.height + other.width * other.height - common)


def _common(one: Region, other: Region) -> int:
    """Area of the intersection of two boxes."""
    wide = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    tall = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    return max(wide, 0) * max(tall, 0)


def _parent(region: Region, before: list[tuple[int, Region]]) -> int | None:
    """Return the number of the thing of which a new region has most, if it has enough."""
    shares = [
        (common, number)
        for number, other in before
        if (common := _common(region, other))
        >= DESCENDED * min(region.width * region.height, other.width * other.height)
    ]
    return max(shares)[1] if shares else None
