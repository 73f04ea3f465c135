"""How well `--distance-m auto-plane` follows the dominant distance, on the drawn scene and on re-rendered real videos.

    STREAMFUSE_DATA=DIR python benchmarks/distance.py [--fit] [--sheet DIR]

Registered videos are pulled apart as two cameras 6 cm apart would see them (40 px m: 4 px at 10 m, 13 px at 3 m): as a
plane at one distance, or as two, where what is warm is 5 or 10 px nearer than the rest.  The distance changes at a cut
to another video, and within a video.  The error is that of the warp against the distance of the (larger) plane, px of
640x480, and it counts from one second after a cut or a change.  Beside it: the same with a fixed warp for 10 m and for
far.  The registration of the videos themselves is good to about 1 px, which is part of every figure.

Then wrong pairs, flat pictures, darkness and dense smoke: how many answers were given and how many of them were right.
`--fit` fits the confidence (`streamfuse.calibration.dominant`) on the first video, the short runs and the drawn scene;
the table is of the other two videos, unless it says so.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.alignment import Aligner
from streamfuse.calibration.dominant import DominantDistance
from streamfuse.calibration.evidence import Evidence
from streamfuse.calibration.model import Calibration
from streamfuse.color import Plane
from streamfuse.following import AlignmentWatch
from streamfuse.sources.file import VideoFile
from streamfuse.sources.scene.paint import View, units_per_metre
from streamfuse.sources.scene.scene import Scene

SIZE = (480, 640)
PARALLAX = 40.0
"""px m."""
PERIOD_NS = 33_333_333
SEGMENT = 90
"""Frames between changes of the distance: three seconds."""
DUE = 8
"""Frames from one pair that is looked at to the next; those between are not drawn."""
SETTLED = 30
"""Frames after a change that do not count: one second."""

Reals = npt.NDArray[np.floating]
Pair = tuple[Plane, Plane]
Video = tuple[list[Plane], list[Plane]]
"""Infrared and visible frames."""
Stream = Iterator[tuple[Plane, Plane, float, bool]]
"""Infrared, visible, true shift in px, and whether it changed with this frame."""
Take = Callable[[str, npt.NDArray[np.float64], bool, float | None], None]
"""Takes a case: kind, measures, whether it was answered, and error in px or None where nothing is right."""


def rig(parallax: float = PARALLAX, turn_deg: float = 0.0) -> Calibration:
    direction = np.array([np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg)), 0])
    made = Calibration(SIZE, SIZE, np.eye(3), None, None, date(2026, 1, 1), "drawn")
    return replace(made, parallax=parallax * direction)


def frames(path: Path) -> list[Plane]:
    with VideoFile(path) as source:
        return [frame.luma.copy() for frame in source]


def shifted(plane: Reals, shift: float, turn_deg: float = 0.0) -> Reals:
    x, y = shift * np.cos(np.radians(turn_deg)), shift * np.sin(np.radians(turn_deg))
    move = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
    size = plane.shape[::-1]
    moved = cv2.warpAffine(plane, move, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return cast(Reals, moved)


def warm(ir: Reals) -> npt.NDArray[np.float32]:
    """Mask of what stands out, with soft edges, 0..1."""
    smooth = cv2.GaussianBlur(ir, (0, 0), 2)
    mask = (smooth > max(np.percentile(ir, 97), ir.mean() + ir.std())).astype(np.uint8)
    wider = cv2.dilate(mask, np.ones((9, 9))).astype(np.float32)
    return cast("npt.NDArray[np.float32]", cv2.GaussianBlur(wider, (0, 0), 1))


def pulled_apart(ir: Plane, shift: float, nearer: float, turn_deg: float = 0.0) -> Reals:
    """Infrared as the camera beside sees it; `nearer`: further px by which what is warm is displaced."""
    base = shifted(ir.astype(np.float32), shift, turn_deg)
    if not nearer:
        return base
    mask = shifted(warm(ir.astype(np.float32)), shift + nearer, turn_deg)
    return base * (1 - mask) + shifted(ir.astype(np.float32), shift + nearer, turn_deg) * mask


def noisy(picture: Reals, deviation: float, random: np.random.Generator) -> Plane:
    return np.asarray(np.clip(picture + random.normal(0, deviation, picture.shape), 0, 255), np.uint8)


@dataclass
class Row:
    """Errors of one kind, px, for every frame that counts."""

    auto: list[float] = field(default_factory=list)
    ten: list[float] = field(default_factory=list)
    far: list[float] = field(default_factory=list)
    worse: list[float] = field(default_factory=list)
    """By how much auto was worse than the better of the fixed ones, in each clip of two seconds."""
    settled: list[float] = field(default_factory=list)
    """Time until it was right to 2 px after a change, s."""
    moves: float = 0.0
    answered: int = 0
    kept: int = 0
    offer_ms: list[float] = field(default_factory=list)


def follow(stream: Stream, row: Row, made: Calibration) -> None:
    """Follow a stream of (infrared, visible, true shift px, changed now)."""
    aligner = Aligner(made)
    with AlignmentWatch(aligner, automatic=True) as follower:
        since, right_at, before = 0, None, None
        clip: list[tuple[float, float]] = []
        for index, (ir, vis, shift, changed) in enumerate(stream):
            began = time.perf_counter()
            follower.offer(ir, vis, index * PERIOD_NS)
            row.offer_ms.append((time.perf_counter() - began) * 1e3)
            aligner.align(ir, vis)
            assert aligner.distance_m is not None
            now = PARALLAX / aligner.distance_m
            if changed:
                since, right_at, clip = 0, None, []
            elif before is not None and abs(now - before) < 2:
                row.moves = max(row.moves, abs(now - before))
            before = now
            error = abs(now - shift)
            if right_at is None and error <= 2:
                right_at = since
                row.settled.append(since * PERIOD_NS / 1e9)
            if since >= SETTLED:
                fixed = abs(PARALLAX / 10 - shift), abs(shift)
                row.auto.append(error)
                row.ten.append(fixed[0])
                row.far.append(fixed[1])
                clip.append((error, fixed[0]))
                if len(clip) == 60:
                    row.worse.append(float(np.mean([a - b for a, b in clip])))
                    clip = []
            since += 1
        row.answered += follower.state.answered
        row.kept += follower.state.kept


def real(videos: Sequence[Video], nearer: Sequence[float], seed: int) -> Stream:
    """Segments of the videos in turn, each at another distance; half of the changes are within a video."""
    random = np.random.default_rng(seed)
    blank, count = np.zeros(SIZE, np.float32), 0
    starts = [(v, s) for s in range(0, 10_000, 2 * SEGMENT) for v in range(len(videos))]
    for video, start in starts:
        ir, vis = videos[video]
        for begin in (start, start + SEGMENT):
            shift, extra = float(random.uniform(0, PARALLAX / 3)), float(random.choice(list(nearer)))
            for index in range(begin, min(begin + SEGMENT, len(ir), len(vis))):
                apart: Reals = pulled_apart(ir[index], shift, extra) if count % DUE == 0 else blank
                yield noisy(apart, 1.5, random), vis[index], shift, index == begin
                count += 1


def drawn(baseline_m: float) -> Stream:
    """The drawn scene by night: house fronts make the dominant plane."""
    scene = Scene(*SIZE, 0, baseline_m)
    shift = baseline_m * units_per_metre(300.0) * View(*SIZE).scale
    for index in range(120):
        seconds = index * PERIOD_NS / 1e9
        vis = cv2.cvtColor(scene.visible(seconds, index), cv2.COLOR_BGR2GRAY)
        yield scene.infrared(seconds, index), np.asarray(vis, np.uint8), shift, index == 0


Case = tuple[str, list[Pair], float | None]


def hard(videos: dict[str, Video], parallax: float, turn: float, random: np.random.Generator) -> Iterator[Case]:
    """Four successive pairs of every video, in every kind of trouble; with the true shift, or None for no relation."""
    names = list(videos)
    for name in names:
        ir, vis = videos[name]
        count = min(len(ir), len(vis))
        for kind in ("plain", "two planes", "wrong pair", "flat", "darkness", "smoke", "cold scene"):
            step = max(min(7, count // 4), 1)
            start = int(random.integers(0, max(count - 3 * step, 1)))
            chosen = [min(start + k * step, count - 1) for k in range(4)]
            shift = float(random.uniform(0, parallax / 3))
            truth: float | None = shift
            other = names[int(random.integers(len(names)))]
            deviation, dim = float(random.choice([1, 2, 4])), float(10 ** random.uniform(-2.8, -1.2))
            cloud = cv2.GaussianBlur(random.normal(0, 1, SIZE), (0, 0), 40)
            pairs = []
            for index in chosen:
                near = float(random.choice([5, 10])) if kind == "two planes" else 0.0
                a: Reals = pulled_apart(ir[index], shift, near, turn)
                b: Reals = vis[index].astype(np.float32)
                if kind == "wrong pair":
                    truth = None
                    if other[:4] == name[:4]:
                        b = b[::-1, ::-1]
                    else:
                        b = videos[other][1][min(index, len(videos[other][1]) - 1)].astype(np.float32)
                elif kind == "flat":
                    truth, a = None, np.full(SIZE, 90.0)
                elif kind == "darkness":
                    b = b * dim + 3
                elif kind == "smoke":
                    b = b * dim + 180 + 10 * cloud / cloud.std()
                elif kind == "cold scene":
                    a, deviation = a * dim * 4 + 60, 4.0
                pairs.append((noisy(a, deviation, random), noisy(b, 2.0, random)))
            yield kind, pairs, truth


def measured(videos: dict[str, Video], rounds: int, seed: int, take: Take) -> None:
    """Call `take` for every case."""
    random = np.random.default_rng(seed)
    for _ in range(rounds):
        parallax, turn = float(random.choice([14, 40, 110])), float(random.choice([0, 35, 90]))
        made = rig(parallax, turn)
        evidence = Evidence(made, SIZE)
        for kind, pairs, truth in hard(videos, parallax, turn, random):
            distance = DominantDistance(evidence)
            for ir, vis in pairs:
                found = distance.add(evidence.surfaces(ir, vis))
            error = None if truth is None else abs(found.inverse_m * parallax - truth)
            take(kind, distance.measures, found.sure, error)


def fit(videos: dict[str, Video]) -> None:
    """Fit and print the weights of the confidence."""
    table: list[npt.NDArray[np.float64]] = []
    right: list[float] = []

    def take(kind: str, measures: npt.NDArray[np.float64], sure: bool, error: float | None) -> None:
        table.append(measures)
        right.append(float(error is not None and error <= 2))

    measured(videos, 12, 1, take)
    x, y = np.array(table), np.array(right)
    weights = np.zeros(x.shape[1])
    for _ in range(50):  # Newton's method, with a weak prior
        p = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (y - p) - 0.05 * weights
        weights += np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + 0.05 * np.eye(x.shape[1]), gradient)
    print(f"{len(y)} cases, {y.mean():.0%} right; weights {np.round(weights, 2).tolist()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit the confidence")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    data = Path(os.environ["STREAMFUSE_DATA"], "data")

    def load(where: str, name: str) -> tuple[list[Plane], list[Plane]]:
        return frames(data / where / "ir" / name), frames(data / where / "vis" / name)

    if arguments.fit:
        train = {"0113 ": load("train/videos", "0113_1714.mp4")}
        for path in sorted((data / "train/m3svd_runs/ir").iterdir()):
            train[path.stem] = load("train/m3svd_runs", path.name)
        scene = Scene(*SIZE)
        grey = [cv2.cvtColor(scene.visible(k * 0.25, k), cv2.COLOR_BGR2GRAY) for k in range(12)]
        train["drawn"] = ([scene.infrared(k * 0.25, k) for k in range(12)], [np.asarray(g, np.uint8) for g in grey])
        fit(train)
        return
    videos = [load("train/videos", "0117_1605.mp4"), load("eval/videos", "0111_1716.mp4")]
    rows: dict[str, Row] = {}
    for kind, nearer in (("real, one plane", [0.0]), ("real, two planes", [5.0, 10.0])):
        follow(real(videos, nearer, 0), rows.setdefault(kind, Row()), rig())
    for metres in (3.0, 5.0, 8.0, 15.0, 60.0):
        baseline = PARALLAX / metres / (units_per_metre(300.0) * View(*SIZE).scale)
        follow(drawn(baseline), rows.setdefault("drawn", Row()), rig())
    print(f"{'':18}{'auto: median':>13}{'95 %':>7}{'fixed 10 m':>12}{'95 %':>7}{'far':>7}{'95 %':>7}{'right after':>13}"
          f"{'worst clip':>12}{'move':>7}{'kept':>7}{'offer ms':>10}")  # fmt: skip
    for kind, row in rows.items():
        columns = [f"{np.median(v):.2f}|{np.quantile(v, 0.95):.2f}" for v in (row.auto, row.ten, row.far)]
        print(f"{kind:18}{columns[0]:>20}{columns[1]:>19}{columns[2]:>14}{max(row.settled):11.2f} s"
              f"{max(row.worse):+12.2f}{row.moves:7.2f}{row.kept / max(row.answered + row.kept, 1):7.0%}"
              f"{np.mean(row.offer_ms):10.2f}")  # fmt: skip
    counts: dict[str, list[tuple[bool, bool]]] = {}

    def take(kind: str, measures: npt.NDArray[np.float64], sure: bool, error: float | None) -> None:
        counts.setdefault(kind, []).append((sure, error is not None and error <= 2))

    several: dict[str, Video] = {}
    for name, (ir, vis) in zip(("0117", "0111"), videos, strict=True):
        for start in range(0, len(ir) - 49, 50):
            several[f"{name} {start}"] = ir[start : start + 50], vis[start : start + 50]
    measured(several, 6, 5, take)
    for kind, answers in counts.items():
        given = [right for sure, right in answers if sure]
        could = sum(right for _, right in answers)
        print(f"{kind:18}{len(answers)} cases, {len(given)} answered, {sum(given)} of them right; {could} could be")


if __name__ == "__main__":
    main()
