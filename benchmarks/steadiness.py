"""Steadiness of `--distance-m auto-plane` and `--align follow` beside a fixed warp, on real video.

    STREAMFUSE_DATA=DIR python benchmarks/steadiness.py [--preset realtime]

Registered videos are pulled apart as cameras with 40 px m see a scene at 8 m (benchmarks/distance.py), fused with the
tone of streams, and measured as `streamfuse evaluate` does it: own flicker and temporal error, grey levels.  The warp's
largest movement from one frame to the next is that of any corner of the infrared picture, px; steps at a cut do not
count, and there are none here.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
from distance import PARALLAX, PERIOD_NS, SIZE, Video, frames, noisy, pulled_apart, rig

from streamfuse.calibration.geometry import corners, project
from streamfuse.evaluation.video import Temporal, TemporalScorer
from streamfuse.fuser import Fuser

DISTANCE_M = 8.0


def fused(
    video: Video, nearer: float, distance_m: float | str, align: str | None, preset: str
) -> tuple[Temporal, float, float]:
    """Fuse a video; return its figures over time, the largest movement of the warp, and its mean error, px."""
    random = np.random.default_rng(0)
    made = rig()
    scorer, moves, errors = TemporalScorer(), [], []
    before = None
    truth = project(made.at(DISTANCE_M).homography, corners(SIZE))
    with Fuser(preset=preset, tone="smooth", calibration=made, distance_m=distance_m, align=align) as fuser:
        for index, (ir, vis) in enumerate(zip(*video, strict=False)):
            apart = noisy(pulled_apart(ir, PARALLAX / DISTANCE_M, nearer), 1.5, random)
            result = fuser.fuse_luma(apart, vis, index * PERIOD_NS)
            scorer.add(apart, vis, result.luma)
            aligner = fuser._aligner
            assert aligner.distance_m is not None
            warp = aligner.moved.matrix(SIZE) @ made.at(aligner.distance_m).homography
            now = project(warp, corners(SIZE))
            if before is not None:
                moves.append(float(np.linalg.norm(now - before, axis=1).max()))
            before = now
            errors.append(float(np.linalg.norm(now - truth, axis=1).mean()))
    return scorer.result(), max(moves), float(np.mean(errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="realtime")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    data = Path(os.environ["STREAMFUSE_DATA"], "data")
    print(f"{'video':12}{'planes':>8}{'warp':>20}{'own flicker':>13}{'temporal error':>16}{'move':>7}{'error':>7}")
    for where, name in (("eval/videos", "0111_1716.mp4"), ("train/videos", "0113_1714.mp4")):
        video = frames(data / where / "ir" / name)[:151], frames(data / where / "vis" / name)[:151]
        for planes, nearer in ((1, 0.0), (2, 5.0)):
            for title, distance_m, align in (
                ("8 m", DISTANCE_M, None),
                ("auto-plane", "auto-plane", None),
                ("auto-plane, follow", "auto-plane", "follow"),
            ):
                found, moved, error = fused(video, nearer, distance_m, align, arguments.preset)
                print(f"{name[:9]:12}{planes:8}{title:>20}{found.own_flicker:13.4f}{found.temporal_error.fused:16.3f}"
                      f"{moved:7.2f}{error:7.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
