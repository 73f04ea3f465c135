"""How well `--distance-m auto` warps warm things for distances of their own.

    STREAMFUSE_DATA=DIR python benchmarks/objects.py [--fit] [--sheet DIR]

Registered videos are pulled apart in two layers, as two cameras 6 cm apart would see them: people are cut out of
infrared, their place is filled, and they are displaced by 10 px more than their background.  Every three seconds are
followed on their own, with another displacement of the background.  In the drawn street every person and car is where
its distance puts it.  The error is that of the warp of each warm region that belongs to one layer, px of 640x480, in
all frames from two seconds on; beside it that of the warp for the scene's distance alone.

`--fit` fits the confidence (`streamfuse.calibration.objects`) on the first video and the short runs, with people
displaced by 0 to 12 px, wrong pairs, darkness and smoke; the tables are of the other videos.
`--sheet` writes pictures: infrared warped for the scene, by object, and the visible picture.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from distance import PERIOD_NS, SEGMENT, SIZE, frames, noisy, rig, shifted

from streamfuse.alignment import Aligner
from streamfuse.calibration.dominant import DominantDistance
from streamfuse.calibration.evidence import Evidence
from streamfuse.calibration.objects import SURE, ObjectDistances, Seen
from streamfuse.calibration.tracks import Tracker
from streamfuse.calibration.warm import Labels, find_warm, touches_edge
from streamfuse.color import Plane
from streamfuse.following import AlignmentWatch
from streamfuse.fuser import Fuser
from streamfuse.sources.synthetic import SyntheticSource

NEARER_PX = 10.0
"""Displacement of people beside their background."""
RIGHT_PX = 3.0
"""Error of an answer that counts as right in the fit."""
EVERY = 8
"""Frames between two looks."""
SETTLED = 60
"""Frames that do not count: in two seconds a thing is found, told and moved to its place."""

PEOPLE = (("eval/videos", "0111_1716.mp4"), slice(0, 46)), (("train/videos", "0117_1605.mp4"), slice(300, 390))
"""Parts of the videos in which people are not before other warm things, so that they can be cut out."""
TESTED = ("0111_1803.mp4", "0115_1847.mp4")
"""Short runs of which the same is true, not used in the fit."""

Reals = npt.NDArray[np.floating]
Truth = npt.NDArray[np.float32]
"""(h, w) true shift of every pixel of infrared, px; NaN where it is not known."""
Frame = tuple[Plane, Plane, Truth]
"""Infrared, visible and truth."""


def people(ir: Plane) -> Plane:
    """Mask of warm things that are not wider than tall, (H, W) uint8, 0 or 255: people, mostly.

    More is taken than `streamfuse.calibration.warm` does, so that a person is displaced in all pictures or in none.
    """
    height, width = ir.shape
    smooth = cv2.GaussianBlur(ir, (0, 0), 1.5)
    narrow = cv2.resize(smooth, (80, height), interpolation=cv2.INTER_AREA)
    background = cv2.morphologyEx(narrow, cv2.MORPH_OPEN, np.ones((1, 35), np.uint8), borderType=cv2.BORDER_REPLICATE)
    contrast = cv2.subtract(smooth, cv2.resize(background, (width, height)))
    least = max(0.2 * float(np.quantile(contrast, 0.998)), 8.0)
    mask = cv2.morphologyEx((contrast > least).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((13, 5), np.uint8))
    _, parts, stats, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5))))
    chosen = [
        part
        for part, (_, top, wide, tall, area) in enumerate(stats)
        if part and area > 150 and tall > 0.7 * wide and wide < 0.45 * width and top + tall > 0.35 * height and top > 2
    ]
    mask = np.isin(parts, chosen).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(mask, outlines, -1, (255,), -1)
    return cast(Plane, mask)


Cut = tuple[Reals, Plane, Reals]
"""Infrared without its people, the mask of people, and the same with soft edges, 0..1."""


def cut_out(ir: Plane) -> Cut:
    mask = people(ir)
    hole = (cv2.dilate(mask, np.ones((9, 9), np.uint8)) > 64).astype(np.uint8)
    soft = cv2.GaussianBlur(cv2.dilate(mask, np.ones((5, 5), np.uint8)).astype(np.float32) / 255, (0, 0), 1)
    return cv2.inpaint(ir, hole, 4, cv2.INPAINT_TELEA).astype(np.float32), mask, cast(Reals, soft)


def two_layers(ir: Plane, cut: Cut, shift: float, nearer: float, turn_deg: float = 0.0) -> tuple[Reals, Truth]:
    """Infrared as the camera beside sees it, with people displaced by `nearer` more; and the true shifts."""
    filled, mask, soft = cut
    base = shifted(filled, shift, turn_deg)
    cover = shifted(soft, shift + nearer, turn_deg).clip(0, 1)
    drawn = base * (1 - cover) + shifted(ir.astype(np.float32), shift + nearer, turn_deg) * cover
    truth = np.where(shifted(mask.astype(np.float32), shift + nearer, turn_deg) > 127, shift + nearer, shift)
    return drawn, truth.astype(np.float32)


class Recording:
    """A registered video; a short one is shown forward and backward."""

    def __init__(self, data: Path, where: str, name: str, chosen: slice = slice(None)) -> None:
        self.name = f"{name[:9]}"
        self._ir, self._vis = (frames(data / where / kind / name)[chosen] for kind in ("ir", "vis"))
        self._cut: dict[int, Cut] = {}
        self.short = len(self._ir) < SEGMENT
        self.length = 2 * SEGMENT if self.short else min(len(self._ir), len(self._vis))

    def __getitem__(self, index: int) -> tuple[Plane, Plane, Cut]:
        if self.short:
            turn = index % (2 * len(self._ir) - 2)
            index = min(turn, 2 * len(self._ir) - 2 - turn)
        if index not in self._cut:
            self._cut[index] = cut_out(self._ir[index])
        return self._ir[index], self._vis[index], self._cut[index]


def of_label(truth: Truth, labels: Labels, label: int) -> float | None:
    """True shift of a region, px; None where it belongs to two layers."""
    values = cv2.resize(truth, labels.shape[::-1], interpolation=cv2.INTER_NEAREST)[labels == label]
    middle = float(np.nanmedian(values)) if np.isfinite(values).any() else np.nan
    return middle if float(np.mean(np.abs(values - middle) < 0.5)) > 0.7 else None


@dataclass
class Row:
    """Errors of the warm regions of one kind, px."""

    plane: list[float] = field(default_factory=list)
    warp: list[float] = field(default_factory=list)
    answered: list[bool] = field(default_factory=list)


@dataclass
class Result:
    near: Row = field(default_factory=Row)
    """Things that are 2.5 px or more from the scene."""
    rest: Row = field(default_factory=Row)

    def add(self, other: Result) -> None:
        for mine, its in ((self.near, other.near), (self.rest, other.rest)):
            mine.plane += its.plane
            mine.warp += its.warp
            mine.answered += its.answered


def follow(stream: Iterator[Frame], parallax: float, result: Result) -> None:
    """Follow a stream and take the errors of all warm regions.

    A mask of people that fails in a picture displaces them in no physical way: such things do not count from then on.
    """
    aligner = Aligner(rig(parallax))
    tracker, known, wrong = Tracker(), dict[int, float](), set[int]()
    with AlignmentWatch(aligner, automatic=True, by_object=True) as watch:
        for index, (ir, vis, truth) in enumerate(stream):
            things = watch.offer(ir, vis, index * PERIOD_NS)
            aligner.align(ir, vis, things)
            assert things is not None
            tracker.update(find_warm(ir))
            truths = {}
            for track in tracker.tracks:
                if not track.label or (right := of_label(truth, things.labels, track.label)) is None:
                    continue
                before = known.get(track.number, known.get(track.parent or 0, right))
                if abs(right - before) > 2.5 or track.parent in wrong:
                    wrong.add(track.number)
                known[track.number] = right
                if track.number not in wrong:
                    truths[track.label] = right
            if index < SETTLED:
                continue
            assert aligner.distance_m is not None
            plane = parallax / aligner.distance_m
            own = {thing.label: thing.inverse_m * parallax for thing in things.things}
            for label, right in truths.items():
                row = result.near if abs(right - plane) > 2.5 else result.rest
                row.plane.append(abs(plane - right))
                row.warp.append(abs(own.get(label, plane) - right))
                row.answered.append(label in own)


def real(recording: Recording, nearer: float, begin: int) -> Iterator[Frame]:
    """A segment of a video, with a displacement of its background of its own."""
    random = np.random.default_rng(begin)
    shift = float(random.uniform(0, 3.5))
    for index in range(begin, min(begin + SEGMENT, recording.length)):
        ir, vis, cut = recording[index]
        drawn, truth = two_layers(ir, cut, shift, nearer)
        yield noisy(drawn, 1.5, random), vis, truth


def street(parallax_px: float, seconds: int = 6) -> Iterator[Frame]:
    """The drawn street; `parallax_px`: shift of the house fronts."""
    probe = SyntheticSource("ir", baseline_m=0.1, fps=30)
    fronts = float(np.median(probe.distances_m(0.0)[180:260]))
    baseline = 0.1 * parallax_px * fronts / probe.parallax_px_m
    source = SyntheticSource("ir", baseline_m=baseline, fps=30, seconds=seconds)
    other = SyntheticSource("vis", fps=30, seconds=seconds)
    for ir, vis in zip(source, other, strict=True):
        distances = source.distances_m(ir.stamp_ns / 1e9)
        yield ir.luma, vis.luma, _seen_beside(distances, source.parallax_px_m)


def _seen_beside(distances_m: npt.NDArray[np.float64], parallax: float) -> Truth:
    """Shifts that the infrared camera sees at every pixel, from the distances that the visible one sees."""
    height, width = SIZE
    truth = np.full(SIZE, np.nan, np.float32)
    shift = parallax / distances_m
    columns = np.arange(width)
    for row in range(height):
        order = np.argsort(shift[row], kind="stable")  # near before far
        target = np.rint(columns[order] - shift[row][order]).astype(int)
        inside = (target >= 0) & (target < width)
        truth[row, target[inside]] = shift[row][order][inside]
    return truth


def show(name: str, row: Row) -> None:
    if not row.warp:
        return
    plane, warp, answered = np.array(row.plane), np.array(row.warp), np.array(row.answered)
    text = f"{name:28}{len(warp):6} regions; scene: {np.median(plane):5.2f}, 90 % {np.quantile(plane, 0.9):5.2f}; "
    text += f"by object: {np.median(warp):5.2f}, 90 % {np.quantile(warp, 0.9):5.2f}; answered {answered.mean():4.0%}"
    if answered.any():
        sure = warp[answered]
        text += f": {np.median(sure):5.2f}, 90 % {np.quantile(sure, 0.9):5.2f}, {np.mean(sure <= 4):4.0%} <= 4 px"
    print(text, flush=True)


def sheet(stream: Iterator[Frame], parallax: float, path: Path, every: int = 45) -> None:
    """Write the fused pictures of a stream, with the scene's distance and by object, and infrared and visible."""
    rows = []
    aligners = [Aligner(rig(parallax)) for _ in range(2)]
    with (
        Fuser(preset="balanced") as fuser,
        AlignmentWatch(aligners[0], automatic=True) as scene,
        AlignmentWatch(aligners[1], automatic=True, by_object=True) as objects,
    ):
        for index, (ir, vis, _) in enumerate(stream):
            shown = [
                aligner.align(ir, vis, watch.offer(ir, vis, index * PERIOD_NS))[0]
                for aligner, watch in zip(aligners, (scene, objects), strict=True)
            ]
            if index % every == every - 1:
                rows.append(np.hstack([fuser.fuse(each, vis) for each in shown]))
                rows.append(np.hstack(shown))
    cv2.imwrite(str(path), np.vstack(rows))


@dataclass(frozen=True, slots=True)
class Case:
    """A pair in trouble, or not."""

    kind: str
    parallax: float
    turn_deg: float
    shift: float
    nearer: float
    noise: float
    dim: float

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Case:
        kind = str(random.choice(["plain", "plain", "plain", "wrong pair", "mirrored", "darkness", "smoke"]))
        return cls(
            kind,
            float(random.choice([30, 40, 60])),
            float(random.choice([0, 0, 35, 90])),
            float(random.uniform(0, 12)),
            float(random.choice([0, 4, 6, 8, 10, 12])),
            float(random.choice([1, 2, 3])),
            float(10 ** random.uniform(-2.5, -1)),
        )

    def visible(self, vis: Plane, other: Plane, random: np.random.Generator) -> Plane:
        seen: Reals = vis.astype(np.float32)
        if self.kind == "wrong pair":
            seen = other.astype(np.float32)
        elif self.kind == "mirrored":
            seen = seen[:, ::-1]
        elif self.kind == "darkness":
            seen = seen * self.dim + 3
        elif self.kind == "smoke":
            seen = seen * self.dim + 180
        return noisy(seen, 2.0, random)


Answer = tuple[npt.NDArray[np.float64], float, bool, float | None, bool]
"""Measures, confidence, whether it was sure, its error in px (None where nothing is right), and whether the thing is
displaced beside its background."""


def answers(recordings: Sequence[Recording], rounds: int, seed: int) -> dict[str, list[Answer]]:
    """Look at all recordings in all kinds of trouble, for two seconds each."""
    random = np.random.default_rng(seed)
    found: dict[str, list[Answer]] = {}
    for _ in range(rounds):
        for recording in recordings:
            case = Case.drawn(random)
            other = recordings[int(random.integers(len(recordings)))]
            if case.kind == "wrong pair" and other is recording:
                continue
            evidence = Evidence(rig(case.parallax, case.turn_deg), SIZE)
            objects, scene, tracker = ObjectDistances(evidence), DominantDistance(evidence), Tracker()
            first = int(random.integers(max(recording.length - 8 * EVERY, 1)))
            for index in range(first, min(first + 8 * EVERY, recording.length), EVERY // 2):
                ir, vis, cut = recording[index]
                drawn, truth = two_layers(ir, cut, case.shift, case.nearer, case.turn_deg)
                picture = noisy(drawn, case.noise, random)
                warm = find_warm(picture)
                tracker.update(warm)
                if (index - first) % EVERY:
                    continue
                seen = [
                    Seen(track.number, track.label, touches_edge(track.region, warm.labels.shape))
                    for track in tracker.tracks
                    if track.label
                ]
                shown = case.visible(vis, other[index % other.length][1], random)
                structures = evidence.structures(picture, shown)
                distance = scene.add(evidence.correlate(*structures))
                given = objects.add(structures, warm.labels, seen, distance)
                for one in seen:
                    if one.number not in given or (right := of_label(truth, warm.labels, one.label)) is None:
                        continue
                    related = case.kind not in ("wrong pair", "mirrored")
                    answer = given[one.number]
                    error = abs(answer.inverse_m * case.parallax - right) if related else None
                    apart = case.nearer > 0 and right > case.shift + 1
                    found.setdefault(case.kind, []).append(
                        (objects.measures[one.number], answer.confidence, answer.confidence >= SURE, error, apart)
                    )
    return found


def fit(found: dict[str, list[Answer]]) -> None:
    """Fit and print the weights of the confidence."""
    rows = [row for kind in found.values() for row in kind]
    x = np.array([row[0] for row in rows])
    y = np.array([float(row[3] is not None and row[3] <= RIGHT_PX) for row in rows])
    weights = np.zeros(x.shape[1])
    for _ in range(50):  # Newton's method, with a weak prior
        p = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (y - p) - 0.05 * weights
        weights += np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + 0.05 * np.eye(x.shape[1]), gradient)
    print(f"{len(y)} answers, {y.mean():.0%} right; weights {np.round(weights, 2).tolist()}")


def tell(found: dict[str, list[Answer]]) -> None:
    for kind, rows in found.items():
        for apart in (True, False):
            errors = [(row[2], row[3]) for row in rows if row[4] == apart]
            sure = [error for answered, error in errors if answered and error is not None]
            if not errors:
                continue
            text = f"{kind:12}{'displaced' if apart else 'not displaced':15}{len(errors):5} looks, "
            text += f"{np.mean([answered for answered, _ in errors]):4.0%} sure"
            if sure:
                text += f": {np.median(sure):.2f} px, 90 % {np.quantile(sure, 0.9):.2f} px"
                text += f", {np.mean(np.array(sure) <= 4):.0%} within 4 px"
            print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit the confidence")
    parser.add_argument("--sheet", type=Path, metavar="DIR", help="only write pictures")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    data = Path(os.environ["STREAMFUSE_DATA"], "data")
    runs = [path.name for path in sorted((data / "train/m3svd_runs/ir").iterdir())]
    if arguments.fit:
        train = [Recording(data, "train/m3svd_runs", name) for name in runs if name not in TESTED]
        fit(answers([Recording(data, "train/videos", "0113_1714.mp4"), *train], 24, 1))
        return
    tested = [Recording(data, *name, chosen) for name, chosen in PEOPLE]
    tested += [Recording(data, "train/m3svd_runs", name) for name in runs if name in TESTED]
    if arguments.sheet is not None:
        for recording in (tested[0], tested[-1]):
            sheet(real(recording, NEARER_PX, 0), 40.0, arguments.sheet / f"{recording.name}.png")
        sheet(street(4.0), 40.0, arguments.sheet / "drawn.png")
        return
    everything = Result()
    for recording in tested:
        result = Result()
        for begin in range(0, recording.length - SEGMENT // 2, SEGMENT):
            follow(real(recording, NEARER_PX, begin), 40.0, result)
        show(f"{recording.name} people", result.near)
        show(f"{recording.name} other warm things", result.rest)
        everything.add(result)
    show("all people", everything.near)
    show("all other warm things", everything.rest)
    everything = Result()
    for shift in (4.0, 6.0):
        result = Result()
        follow(street(shift), 40.0, result)
        show(f"drawn, house fronts {shift:g} px", result.near)
        show("other warm things", result.rest)
    tell(answers(tested, 8, 2))


if __name__ == "__main__":
    main()
