"""Warm things followed with distances of their own, in the compute thread.

Every infrared picture is searched for regions that stand out, which are followed from picture to picture.  The watch
over the alignment finds their distances (`streamfuse.calibration.objects`).  A thing whose distance is sure, and
another one than that of the scene, is warped for it; the others stay with the scene.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streamfuse.calibration.dominant import Estimate
from streamfuse.calibration.objects import SURE, Seen
from streamfuse.calibration.tracks import Track, Tracker
from streamfuse.calibration.warm import Labels, WarmRegions, find_warm, touches_edge
from streamfuse.color import Plane
from streamfuse.layers import Thing, Things

APART_PX = 2.0
"""Displacement beside the scene from which a thing is warped on its own, px at a width of 640; until it is half of it.
Answers of one thing differ by a pixel."""
STILL_PX = 0.5
"""Change of its answer that is not followed, px at a width of 640."""
RELEASED = 4
"""Successive answers that are not sure after which a thing goes back to the distance of the scene: a second."""


@dataclass(slots=True)
class _Goal:
    """Distance of one thing, 1/m."""

    wanted: float | None = None
    """Last sure one; None: that of the scene."""
    now: float | None = None
    """For which it was warped last; None: that of the scene."""
    unsure: int = 0
    counted: bool = False


def _descended(known: Mapping[int, _Goal], track: Track) -> _Goal:
    """Return the goal of a new thing: that of the one that it descends from, for half a second if it is not sure."""
    parent = None if track.parent is None else known.get(track.parent)
    return _Goal() if parent is None else _Goal(parent.wanted, parent.now, RELEASED // 2)


class WarmThings:
    """Follows the warm things of successive pictures and moves each to its distance."""

    def __init__(self, unit_inverse_m: float) -> None:
        """`unit_inverse_m`: change of 1 / distance that moves the warp by a pixel at a width of 640, 1/m."""
        self._unit = unit_inverse_m
        self._tracker = Tracker()
        self._goals: dict[int, _Goal] = {}
        self._found = WarmRegions(np.zeros((2, 2), np.uint8), [])
        self.seen = self.own = self.total = 0
        """Things in the last picture, those of them with a distance of their own, and how many ever had one."""

    def look(self, ir: Plane) -> None:
        """Find the things of the next picture (h, w) uint8."""
        self._found = find_warm(ir)
        self._tracker.update(self._found)
        known = self._goals
        self._goals = {
            track.number: known.get(track.number) or _descended(known, track) for track in self._tracker.tracks
        }

    def shown(self) -> tuple[Labels, list[Seen]]:
        """Return the labels of the last picture and the things in it."""
        shape = self._found.labels.shape
        return self._found.labels, [
            Seen(track.number, track.label, touches_edge(track.region, shape))
            for track in self._tracker.tracks
            if track.label
        ]

    def take(self, answers: Mapping[int, Estimate], scene_inverse_m: float) -> None:
        """Take the answers for things by their numbers; `scene_inverse_m`: 1 / distance of the scene, 1/m."""
        for number, goal in self._goals.items():
            answer = answers.get(number)
            if answer is None:
                continue
            if answer.confidence < SURE:
                goal.unsure += 1
                if goal.unsure >= RELEASED:
                    goal.wanted = None
                continue
            goal.unsure = 0
            least = APART_PX if goal.wanted is None else APART_PX / 2
            if abs(answer.inverse_m - scene_inverse_m) < least * self._unit:
                goal.wanted = None
            elif goal.wanted is None or abs(answer.inverse_m - goal.wanted) > STILL_PX * self._unit:
                goal.wanted = answer.inverse_m

    def release(self) -> None:
        """Let all things go back to the distance of the scene."""
        for goal in self._goals.values():
            goal.wanted = None

    def forget(self) -> None:
        """Forget all things, after a cut."""
        self._tracker = Tracker()
        self._goals = {}

    def step(self, scene_inverse_m: float, most: float | None) -> Things:
        """Move every thing towards its distance, by at most `most` (1/m; None: at once); return those of the last
        picture that are not warped with the scene."""
        moved = []
        self.own = 0
        for track in self._tracker.tracks:
            goal = self._goals[track.number]
            if goal.wanted is None and goal.now is None:
                continue
            aim = scene_inverse_m if goal.wanted is None else goal.wanted
            now = scene_inverse_m if goal.now is None else goal.now
            goal.now = aim if most is None else min(max(aim, now - most), now + most)
            if goal.wanted is None and goal.now == aim:
                goal.now = None
                continue
            self.own += goal.wanted is not None
            if not goal.counted and goal.wanted is not None:
                goal.counted = True
                self.total += 1
            if track.label:
                moved.append(Thing(track.number, track.label, track.region, goal.now))
        self.seen = len(self._found.regions)
        return Things(self._found.labels, moved)

    @property
    def busy(self) -> bool:
        """True while a thing is warped on its own."""
        return any(goal.now is not None for goal in self._goals.values())
