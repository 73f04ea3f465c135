"""Accuracy and refusals of `streamfuse calibrate scene` on registered pairs that are warped at random.

    STREAMFUSE_DATA=DIR python benchmarks/calibration.py [--warps 4] [--seed 0] [--look plain] [--verbose]

The infrared picture of a registered pair is shifted, rotated (up to 8 degrees), zoomed (0.74 to 1.35), tilted (corners
by up to 3 % of the picture) and gets noise; then the homography is estimated.  The error of a run is the mean distance,
in visible pixels, between the corners of the overlap as mapped by the result and by the reference.

There are two references, because the registration of the pairs has errors: "as given" is the data set's registration;
"own" is the result for the pair before the warp, so it shows the effect of the warp only.  The mutual information of
the unwarped pair, which the estimation does not use, shows which of the two registrations is better.

Pairs of different scenes and flat pictures must all be refused.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from streamfuse.calibration.geometry import Matrix3, Size, corners, difference, inverse, overlap_corners, project
from streamfuse.calibration.registration import Registration, estimate, rejection_reason
from streamfuse.color import Plane
from streamfuse.evaluation.reference_metrics import mutual_information
from streamfuse.sources.file import VideoFile
from streamfuse.sources.pixels import read_image_file

LOOKS = ("plain", "inverted", "gamma", "blurred")


@dataclass
class Row:
    """Results of the runs of one kind."""

    runs: int = 0
    seconds: float = 0.0
    given: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warps", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--look", choices=LOOKS, default="plain", help="additional change of the infrared picture")
    parser.add_argument("--verbose", action="store_true", help="print a line for every run")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    random = np.random.default_rng(arguments.seed)
    data = Path(os.environ["STREAMFUSE_DATA"], "data/eval")
    rows: dict[str, Row] = {}
    gains = []
    for kind, name, ir, vis in pairs(data):
        ir = [look(plane, arguments.look) for plane in ir]
        size: Size = (ir[0].shape[0], ir[0].shape[1])
        unwarped = estimate(ir, vis)
        if unwarped is not None and rejection_reason(unwarped) is None:
            gains.append([information(ir[0], vis[0], h) for h in (np.eye(3), unwarped.homography)])
        for _ in range(arguments.warps):
            warp = random_warp(random, size)
            began = time.perf_counter()
            found = estimate([moved(plane, warp, random) for plane in ir], vis)
            row = rows.setdefault(kind, Row())
            row.seconds += time.perf_counter() - began
            row.runs += 1
            answered = found is not None and rejection_reason(found) is None
            line = f"{kind:8} {name:>5} {describe(found)}"
            if found is not None:
                at = overlap_corners(inverse(warp), size, (vis[0].shape[0], vis[0].shape[1]))
                given = float(difference(found.homography, inverse(warp), at).mean())
                own = np.nan
                if unwarped is not None and rejection_reason(unwarped) is None:
                    own = float(difference(found.homography, unwarped.homography @ inverse(warp), at).mean())
                line += f", error {given:.1f} px as given, {own:.1f} own"
                if answered:
                    row.given.append(given)
                    row.own += [own] * bool(np.isfinite(own))
            if arguments.verbose:
                print(line, flush=True)
    print(f"{'pictures':10}{'runs':>6}{'answered':>10}{'as given: mean':>17}{'95 %':>7}{'worst':>7}"
          f"{'own: mean':>12}{'95 %':>7}{'worst':>7}{'s a run':>10}")  # fmt: skip
    for kind, row in rows.items():
        print(f"{kind:10}{row.runs:6}{len(row.given) / row.runs:10.0%}{cells(row.given, 17)}{cells(row.own, 12)}"
              f"{row.seconds / row.runs:10.1f}")  # fmt: skip
    if gains:
        before, after = np.mean(gains, axis=0)
        better = sum(b > a for a, b in gains)
        print(f"mutual information of the unwarped pairs: {before:.3f} bit as given, {after:.3f} as registered here; "
              f"higher in {better} of {len(gains)}")  # fmt: skip
    wrong, count = unrelated(data, arguments.verbose)
    print(f"pairs of different scenes, and flat pictures: {count - wrong} of {count} refused")


def pairs(data: Path) -> Iterator[tuple[str, str, list[Plane], list[Plane]]]:
    for path in sorted((data / "tno21/vis").iterdir(), key=lambda file: int(file.stem)):
        yield "TNO", path.stem, [read_image_file(data / "tno21/ir" / path.name)[0]], [read_image_file(path)[0]]
    ir, vis = (frames(data / "videos" / channel / "0111_1716.mp4") for channel in ("ir", "vis"))
    for index in range(0, len(ir), 40):
        yield "M3SVD x1", str(index), [ir[index]], [vis[index]]
    yield "M3SVD x4", "all", ir[::45], vis[::45]


def frames(path: Path) -> list[Plane]:
    with VideoFile(path) as source:
        return [frame.luma.copy() for frame in source]


def look(plane: Plane, kind: str) -> Plane:
    if kind == "inverted":
        return 255 - plane
    if kind == "gamma":
        return np.asarray(np.rint(255 * (plane / 255) ** 0.45), np.uint8)
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), 1.5), np.uint8) if kind == "blurred" else plane


def random_warp(random: np.random.Generator, size: Size) -> Matrix3:
    """Return a random homography from registered to warped infrared pixels."""
    height, width = size
    zoom, angle = np.exp(random.uniform(-0.3, 0.3)), np.radians(random.uniform(-8, 8))
    shift = random.uniform(-0.1, 0.1, 2) * (width, height)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    middle = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1.0]])
    similar = inverse(middle) @ np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]], [0, 0, 1.0]]) @ middle
    target = project(similar, corners(size)) + random.uniform(-0.03, 0.03, (4, 2)) * (width, height)
    found = cv2.getPerspectiveTransform(corners(size).astype(np.float32), target.astype(np.float32))
    return np.asarray(found, np.float64)


def moved(plane: Plane, warp: Matrix3, random: np.random.Generator) -> Plane:
    warped = cv2.warpPerspective(plane, warp, plane.shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    noisy = warped.astype(np.float32) + random.normal(0, 3, plane.shape)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def information(ir: Plane, vis: Plane, homography: Matrix3) -> float:
    """Return the mutual information in the overlap without a border of 5 %, bits."""
    warped = cv2.warpPerspective(ir, homography, vis.shape[::-1], flags=cv2.INTER_LINEAR)
    y, x = vis.shape[0] // 20, vis.shape[1] // 20
    return mutual_information(np.asarray(warped, np.uint8)[y:-y, x:-x], vis[y:-y, x:-x])


def unrelated(data: Path, verbose: bool) -> tuple[int, int]:
    """Return the number of pairs of different scenes that were not refused, and the number of all."""
    alone = [(ir, vis) for kind, _, ir, vis in pairs(data) if kind != "M3SVD x4"]
    tries = [(alone[k][0], alone[(k + shift) % 21][1]) for k in range(21) for shift in (2, 7)]
    flat = [np.full((480, 640), 90, np.uint8)]
    tries += [(flat, flat), (alone[3][0], flat), (flat, alone[3][1])]
    wrong = 0
    for ir, vis in tries:
        found = estimate(ir, vis)
        wrong += found is not None and rejection_reason(found) is None
        if verbose:
            print(f"unrelated {describe(found)}", flush=True)
    return wrong, len(tries)


def describe(found: Registration | None) -> str:
    if found is None:
        return "none"
    return (
        f"{'refused' if rejection_reason(found) else 'answered'}: {found.agreeing} of {found.blocks} agree to "
        f"{found.rms_px:.2f} px on {found.coverage:.0%}, halves {found.halves_px:.1f}, second {found.coarse_px:.1f}, "
        f"rival {found.rival_px:.1f}"
    )


def cells(values: list[float], width: int) -> str:
    if not values:
        return f"{'-':>{width}}{'-':>7}{'-':>7}"
    return f"{np.mean(values):{width}.2f}{np.quantile(values, 0.95):7.2f}{max(values):7.2f}"


if __name__ == "__main__":
    main()
