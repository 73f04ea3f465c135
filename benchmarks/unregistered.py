"""`streamfuse calibrate scene` on unregistered pairs of real cameras, beside ECC and SIFT of OpenCV.

    STREAMFUSE_DATA=DIR python benchmarks/unregistered.py [--verbose]

Every pair of `data/align/dev` is registered alone (`--min-pairs 1`).  The error is
in pixels of the visible picture: the mean distance of landmarks (survey_*, h20t_board), of the middles of the persons'
boxes (wisard), or of a grid over the middle 60 % of the picture from a reference homography that is itself good to some
pixels only (metu_vistir, uav_twmm).  Before: infrared merely resized to the visible picture.

ECC (`cv2.findTransformECC`) starts there, too, on the gradient magnitude of both pictures, 640 wide.  SIFT takes
features of the same pictures, matches them with Lowe's ratio test and finds the homography by RANSAC.  ECC answers
where it converges, SIFT where ten matches agree.

The frames of one rig are then given together, with `--baseline-m`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, permutations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Matrix3, Points, Size, inverse, project, resize_matrix, size_of
from streamfuse.calibration.registration import estimate, rejection_reason
from streamfuse.calibration.scene import Ruler, calibrate_scene
from streamfuse.color import Plane
from streamfuse.sources.pixels import read_image_file

WIDTH = 640
RIGHT_PX = 5.0
"""Error, px at a width of 640, above which an answer is wrong: the references are not good to less everywhere."""
SIFT_MATCHES = 10

TOGETHER = {
    "metu_vistir, cloudy": ("metu_vistir/cloudy_*_ir.jpg", "metu_vistir/cloudy_*_vis.jpg"),
    "metu_vistir, sunny": ("metu_vistir/sunny_*_ir.jpg", "metu_vistir/sunny_*_vis.jpg"),
    "uav_twmm": ("uav_twmm/*_ir8.png", "uav_twmm/*_vis.jpg"),
    "wisard": ("wisard/*_ir.jpg", "wisard/*_vis.jpg"),
}
"""Frames of one rig."""
RULER = Ruler(0.1, 0.0, 60.0)
"""The ruler for METU-VisTIR, of which only the direction is known; the scale of distances does not matter here."""


@dataclass(frozen=True, eq=False)
class Pair:
    """An infrared and a visible picture, and what is known of where one lies in the other."""

    kind: str
    name: str
    ir: Plane
    vis: Plane
    known: dict[str, Any]

    @property
    def sizes(self) -> tuple[Size, Size]:
        return size_of(self.ir.shape), size_of(self.vis.shape)

    def error(self, homography: Matrix3) -> float:
        """Mean error of a homography, visible px."""
        ir_size, vis_size = self.sizes
        if "ir_xy" in self.known:
            off = project(homography, np.array(self.known["ir_xy"], float)) - np.array(self.known["vis_xy"], float)
            return _mean(off)
        if "ir_boxes" in self.known:
            middles = [
                np.array(self.known[key], float)[:, :2] * size[::-1] - 0.5
                for key, size in (("ir_boxes", ir_size), ("vis_boxes", vis_size))
            ]
            return _nearest(project(homography, middles[0]), middles[1])
        return self.reference_error(homography, np.linspace(0.2, 0.8, 7))

    def reference_error(self, homography: Matrix3, shares: npt.NDArray[np.float64]) -> float:
        """Mean error on a grid at these shares of width and height, visible px."""
        ir_size, vis_size = self.sizes
        reference = np.array(self.known["H_ir_to_vis"], float)
        x, y = np.meshgrid(shares * vis_size[1], shares * vis_size[0])
        at = project(inverse(reference), np.stack((x.ravel(), y.ravel()), axis=1))
        inside = ((at >= 0) & (at < ir_size[::-1])).all(axis=1)
        return _mean(project(homography, at[inside]) - project(reference, at[inside]))


def _mean(off: Points) -> float:
    lengths = np.linalg.norm(off, axis=1)
    return float(lengths.mean()) if np.isfinite(lengths).all() else np.inf


def _nearest(mapped: Points, there: Points) -> float:
    """Mean distance of the best assignment of as many boxes as both have, px."""
    few, many = sorted((mapped, there), key=len)
    if not np.isfinite(mapped).all():
        return np.inf
    distances = np.linalg.norm(few[:, None] - many[None], axis=2)
    return float(
        min(distances[np.arange(len(few)), order].mean() for order in permutations(range(len(many)), len(few)))
    )


def pairs(data: Path) -> Iterator[Pair]:
    for path in sorted(data.glob("*/*.json")):
        known = json.loads(path.read_text())
        if not known.keys() & {"H_ir_to_vis", "ir_xy", "ir_boxes"}:
            continue
        ir, vis = (read_image_file(path.parent / known[role])[0] for role in ("ir", "vis"))
        kind = path.parent.name
        yield Pair(f"{kind}, {known['condition']}" if "condition" in known else kind, path.stem, ir, vis, known)


def gradient(plane: Plane, size: Size) -> Plane:
    """Gradient magnitude of a resized picture, 8 bits, its 99th percentile white."""
    smooth = cv2.GaussianBlur(cv2.resize(plane, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32), (0, 0), 1)
    length = np.hypot(*(cv2.Sobel(smooth, cv2.CV_32F, axis, 1 - axis) for axis in (0, 1)))
    return np.asarray(np.clip(length * 255 / max(float(np.percentile(length, 99)), 1e-3), 0, 255), np.uint8)


def _prepared(ir: Plane, vis: Plane) -> tuple[Plane, Plane, Matrix3, Matrix3]:
    """Gradients of both pictures at the visible picture's aspect ratio, and the maps to them."""
    size = round(vis.shape[0] * WIDTH / vis.shape[1]), WIDTH
    ir_map, vis_map = (resize_matrix(size_of(plane.shape), size) for plane in (ir, vis))
    return gradient(ir, size), gradient(vis, size), ir_map, vis_map


def ecc(ir: Plane, vis: Plane) -> Matrix3 | None:
    moving, still, ir_map, vis_map = _prepared(ir, vis)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 300, 1e-6)
    try:
        _, found = cv2.findTransformECC(
            moving, still, np.eye(3, dtype=np.float32), cv2.MOTION_HOMOGRAPHY, criteria, np.zeros(0, np.uint8), 5
        )
    except cv2.error:
        return None
    return inverse(vis_map) @ np.asarray(found, np.float64) @ ir_map


def sift(ir: Plane, vis: Plane) -> Matrix3 | None:
    moving, still, ir_map, vis_map = _prepared(ir, vis)
    detector = cv2.SIFT.create(4000)
    (points, one), (there, other) = (detector.detectAndCompute(plane, None) for plane in (moving, still))
    if one is None or other is None or min(len(one), len(other)) < 2:
        return None
    matches = cv2.BFMatcher().knnMatch(one, other, k=2)
    good = [first for first, second in matches if first.distance < 0.8 * second.distance]
    if len(good) < 4:
        return None
    source = np.array([points[match.queryIdx].pt for match in good], np.float32)
    target = np.array([there[match.trainIdx].pt for match in good], np.float32)
    found, inliers = cv2.findHomography(source, target, cv2.RANSAC, 3.0)
    if found is None or inliers.sum() < SIFT_MATCHES:
        return None
    return inverse(vis_map) @ found @ ir_map


@dataclass
class Row:
    """Errors of one kind of pictures, px at a width of 640; infinity for a map that is not possible."""

    pairs: int = 0
    before: list[float] = field(default_factory=list)
    answers: dict[str, list[float]] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbose", action="store_true", help="print a line for every pair")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    data = Path(os.environ["STREAMFUSE_DATA"], "data/align/dev")
    rows: dict[str, Row] = {}
    seconds = 0.0
    for kind, group in groupby(pairs(data), key=lambda pair: pair.kind):
        frames = list(group)
        row = rows.setdefault(kind, Row())
        for pair in frames:
            unit = max(pair.vis.shape) / WIDTH
            row.pairs += 1
            row.before.append(pair.error(resize_matrix(*pair.sizes)) / unit)
            began = time.perf_counter()
            ours = estimate([pair.ir], [pair.vis])
            seconds += time.perf_counter() - began
            reason = "no structure in common" if ours is None else rejection_reason(ours)
            results = {
                "calibrate scene": None if ours is None or reason is not None else ours.homography,
                "ECC": ecc(pair.ir, pair.vis),
                "SIFT": sift(pair.ir, pair.vis),
            }
            for name, homography in results.items():
                if homography is not None:
                    row.answers.setdefault(name, []).append(pair.error(homography) / unit)
            if arguments.verbose:
                refused = "" if ours is None else f"{pair.error(ours.homography) / unit:.1f} px"
                said = {k: "-" if h is None else f"{pair.error(h) / unit:.1f}" for k, h in results.items()}
                print(f"{kind:22} {pair.name:32} before {row.before[-1]:6.1f}; {said}"
                      f"{f'; refused at {refused}: {reason}' if reason else ''}", flush=True)  # fmt: skip
    print(f"{'pictures':22}{'pairs':>6}{'before':>9}{'calibrate scene':>34}{'ECC':>34}{'SIFT':>34}")
    for kind, row in rows.items():
        print(f"{kind:22}{row.pairs:6}{np.median(row.before):9.1f}", end="")
        for name in ("calibrate scene", "ECC", "SIFT"):
            values = np.array(row.answers.get(name, []))
            wrong = int((values > RIGHT_PX).sum())
            cell = f"{len(values)} answered, {wrong} wrong, {np.median(values):.1f} px" if len(values) else "0 answered"
            print(f"{cell:>34}", end="")
        print()
    print(f"{seconds / sum(row.pairs for row in rows.values()):.1f} s a pair")
    together(data)


def together(data: Path) -> None:
    """Print what comes of the frames of one rig, given together."""
    known = {pair.name: pair for pair in pairs(data)}
    for kind, (irs, viss) in TOGETHER.items():
        began = time.perf_counter()
        ir, vis = ([str(path) for path in sorted(data.glob(pattern))] for pattern in (irs, viss))
        found = calibrate_scene(ir, vis, ruler=RULER)
        seconds = time.perf_counter() - began
        frames = [known[path.stem.removesuffix("_vis")] for path in sorted(data.glob(viss))]
        away = found.distances_m or [np.inf] * len(frames)
        maps = [found.calibration.at(metres).homography for metres in away]
        unit = max(frames[0].vis.shape) / WIDTH
        off = [frame.error(each) / unit for frame, each in zip(frames, maps, strict=True)]
        line = f"{kind}, together: {len(frames)} frames, median {np.median(off):.1f} px, at most {max(off):.1f}"
        if "H_ir_to_vis" in frames[0].known:
            middle = np.full(1, 0.5)
            at = [frame.reference_error(each, middle) / unit for frame, each in zip(frames, maps, strict=True)]
            line += f"; in the middle {np.median(at):.1f}, at most {max(at):.1f}"
        print(f"{line}; {'one' if found.distances_m is None else 'several'} distances, {seconds:.0f} s")


if __name__ == "__main__":
    main()
