"""How well `run --align` notices and follows cameras that moved, on re-rendered real videos.

    STREAMFUSE_DATA=DIR python benchmarks/drift.py [--runs 12] [--minutes 10]

Registered videos are pulled apart to a random distance, as in benchmarks/distance.py.  After five seconds infrared is
displaced at once: by 3 to 8 px in a random direction, by up to 0.5 degrees and 1 %.  The error of the warp is the root
mean square over the picture against the true map of the plane.  Noticed: the misfit is above 2 px.  Then minutes
without a displacement, with a new distance every ten seconds: how large the misfit gets, and whether anything is
reported.  The videos are first aligned by the homography that `calibrate scene` finds, as their registration is off by
up to 5 px; it is another method than the one that is measured.  The same minutes follow on the drawn scene.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from distance import DUE, PARALLAX, SIZE, Video, frames, noisy, rig

from streamfuse.alignment import Aligner
from streamfuse.calibration.geometry import Matrix3, inverse, project
from streamfuse.calibration.model import Calibration
from streamfuse.calibration.registration import register
from streamfuse.calibration.similarity import Similarity
from streamfuse.color import Plane
from streamfuse.following import TOLERATED_PX, AlignmentWatch
from streamfuse.sources.scene.scene import Scene

PERIOD_NS = 33_333_333
BEFORE, AFTER = 150, 450
"""Frames before and after the displacement."""


def placed(ir: Plane, homography: Matrix3, random: np.random.Generator) -> Plane:
    """Infrared picture of which `homography` maps the pixels to the visible picture."""
    flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    moved = cv2.warpPerspective(ir, homography, SIZE[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return noisy(np.asarray(moved, np.float32), 1.5, random)


def own_map(video: Video) -> Matrix3:
    """Return the homography of a video's own infrared to its visible pictures."""
    step = max(len(video[0]) // 6, 1)
    return register(video[0][::step], video[1][::step]).homography


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=10)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    logging.disable(logging.WARNING)
    data = Path(os.environ["STREAMFUSE_DATA"], "data")
    names = [("train/videos", "0113_1714.mp4"), ("train/videos", "0117_1605.mp4"), ("eval/videos", "0111_1716.mp4")]
    videos: list[tuple[Video, Matrix3]] = []
    for where, name in names:
        video = frames(data / where / "ir" / name), frames(data / where / "vis" / name)
        videos.append((video, own_map(video)))
    random = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(80, 640, 160), np.arange(60, 480, 120))
    at = np.stack((x.ravel(), y.ravel()), axis=1).astype(np.float64)
    noticed, ends, before_px = [], [], []
    for run in range(arguments.runs):
        (irs, viss), own = videos[run % len(videos)]
        angle, length = random.uniform(0, 2 * math.pi), random.uniform(3, 8) / 640
        turn, scale = math.radians(random.uniform(-0.5, 0.5)), random.uniform(-0.01, 0.01)
        moved = Similarity(length * math.cos(angle), length * math.sin(angle), turn, scale)
        made = rig()
        aligner = Aligner(made)
        at_m = PARALLAX / random.uniform(4, PARALLAX / 3)
        seen_s, error = math.nan, math.nan
        with AlignmentWatch(aligner, automatic=True, align="follow") as watch:
            for index in range(BEFORE + AFTER):
                now = moved.matrix(SIZE) if index >= BEFORE else np.eye(3)
                truth = now @ made.at(at_m).homography
                frame = _swing(index, min(len(irs), len(viss)))
                if index % DUE == 0:
                    ir = placed(irs[frame], inverse(own) @ truth, random)
                watch.offer(ir, viss[frame], index * PERIOD_NS)
                aligner.align(ir, viss[frame])
                if math.isnan(seen_s) and index >= BEFORE and (watch.state.error_px or 0) > TOLERATED_PX:
                    seen_s = (index - BEFORE) * PERIOD_NS / 1e9
            assert aligner.distance_m is not None
            warp = aligner.moved.matrix(SIZE) @ made.at(aligner.distance_m).homography
            off = np.linalg.norm(project(warp, at) - project(truth, at), axis=1)
            error = float(np.sqrt(np.mean(np.square(off))))
        noticed.append(seen_s)
        ends.append(error)
        before_px.append(moved.rms_px(SIZE))
        name = names[run % len(videos)][1]
        print(
            f"{name:16} {before_px[-1]:4.1f} px, {math.degrees(turn):+.2f} degrees, {scale:+.1%}: "
            f"noticed after {seen_s:.1f} s, {error:.2f} px off after {AFTER * PERIOD_NS / 1e9:.0f} s",
            flush=True,
        )
    seen = [value for value in noticed if not math.isnan(value)]
    print(f"{len(seen)} of {len(noticed)} noticed, after {np.median(seen):.1f} s (at most {max(seen):.1f}); "
          f"error after following: median {np.median(ends):.2f} px, at most {max(ends):.2f}")  # fmt: skip
    count = round(arguments.minutes * 60 * 4)  # pairs, four a second
    largest, reports = undisturbed(still(videos, count, random), rig())
    print(f"{arguments.minutes:g} minutes without, real: misfit at most {largest:.2f} px, reported {reports} times")
    largest, reports = undisturbed(drawn(count), rig())
    print(f"{arguments.minutes:g} minutes without, drawn: misfit at most {largest:.2f} px, reported {reports} times")


Frames = Iterator[tuple[Plane, Plane]]


def still(videos: Sequence[tuple[Video, Matrix3]], count: int, random: np.random.Generator) -> Frames:
    """Pairs of all videos in turn, a quarter of a second apart, at another distance every ten seconds."""
    for (irs, viss), own in videos:
        for index in range(count // len(videos)):
            if index % 40 == 0:
                at_m = PARALLAX / random.uniform(0.5, PARALLAX / 3)
            frame = _swing(index * 7, min(len(irs), len(viss)))
            yield placed(irs[frame], inverse(own) @ rig().at(at_m).homography, random), viss[frame]


def drawn(count: int) -> Frames:
    """Pairs of the drawn scene, from 6 cm beside the visible camera."""
    scene = Scene(*SIZE, 0, 0.06)
    for index in range(count):
        vis = cv2.cvtColor(scene.visible(index * 0.25, index), cv2.COLOR_BGR2GRAY)
        yield scene.infrared(index * 0.25, index), np.asarray(vis, np.uint8)


def undisturbed(pairs: Frames, made: Calibration) -> tuple[float, int]:
    """Return the largest misfit, px, and the number of reports."""
    largest, reports = 0.0, 0
    with AlignmentWatch(Aligner(made), automatic=True, align="fixed") as watch:
        for index, (ir, vis) in enumerate(pairs):
            before = watch.state.drifted
            watch.offer(ir, vis, index * 250_000_000)
            largest = max(largest, watch.state.error_px or 0)
            reports += watch.state.drifted and not before
    return largest, reports


def _swing(index: int, count: int) -> int:
    """Frame of a video that plays forwards and backwards."""
    return count - 1 - abs(index % (2 * count - 2) - (count - 1))


if __name__ == "__main__":
    main()
