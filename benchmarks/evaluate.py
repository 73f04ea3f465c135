"""Time of the metrics for 21 pairs, and of each metric.

    python benchmarks/evaluate.py [--workers 2] [--runs 3] [--json FILE]

The pairs are the 21 of TNO if STREAMFUSE_DATA is set, otherwise noise of the same sizes.  The fused picture is the
plain average.  Only scoring is timed, not reading and fusing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from streamfuse.color import Plane
from streamfuse.evaluation import fmi
from streamfuse.evaluation import paper_metrics as paper
from streamfuse.evaluation import reference_metrics as reference
from streamfuse.evaluation.score import Triple, score_all
from streamfuse.sources.pixels import read_image_file

SIZES = [(270, 360)] * 7 + [(496, 632)] * 4 + [(450, 620)] * 4 + [(576, 768)] * 3 + [(280, 280)] * 3
"""Size of pictures with about as many pixels as the 21 TNO pairs."""


def load() -> tuple[str, list[Triple]]:
    """Return the origin of the pictures, and the pictures."""
    data = os.environ.get("STREAMFUSE_DATA")
    if data:
        vis = sorted(Path(data, "data/eval/tno21/vis").iterdir())
        pairs = [(read_image_file(path.parent.parent / "ir" / path.name)[0], read_image_file(path)[0]) for path in vis]
        return "TNO", [(a, b, average(a, b)) for a, b in pairs]
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (2, *size)).astype(np.uint8) for size in SIZES]
    return "noise", [(a, b, average(a, b)) for a, b in ((cv2.blur(p, (5, 5)), cv2.blur(q, (5, 5))) for p, q in noise)]


def average(a: Plane, b: Plane) -> Plane:
    return ((a.astype(np.uint16) + b + 1) // 2).astype(np.uint8)


def shares(triples: list[Triple]) -> dict[str, float]:
    """Return the time of each metric in one thread, s."""
    metrics: dict[str, Callable[[Plane, Plane, Plane], object]] = {
        "FMI_dct": fmi.fmi_dct,
        "FMI_pixel": fmi.fmi_pixel,
        "SCD": paper.sum_of_correlations,
        "EN": lambda a, b, f: paper.entropy(f),
        "true_MI": lambda a, b, f: (
            reference.mutual_information(a, f),
            reference.mutual_information(b, f),
        ),
        "Q_ABF": reference.edge_preservation,
        "SSIM": lambda a, b, f: (
            reference.structural_similarity(a, f),
            reference.structural_similarity(b, f),
        ),
        "VIF": lambda a, b, f: (reference.visual_information(a, f), reference.visual_information(b, f)),
        "AG": lambda a, b, f: reference.average_gradient(f),
    }
    spent = dict.fromkeys(metrics, 0.0)
    for name, metric in metrics.items():
        begin = time.perf_counter()
        for triple in triples:
            metric(*triple)
        spent[name] = time.perf_counter() - begin
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    kind, triples = load()
    list(score_all(triples[:1]))  # imports
    times = []
    for _ in range(args.runs):
        begin = time.perf_counter()
        list(score_all(triples, workers=args.workers))
        times.append(time.perf_counter() - begin)
    megapixels = sum(triple[2].size for triple in triples) / 1e6
    median = statistics.median(times)
    print(f"{len(triples)} pairs of {kind}, {megapixels:.1f} megapixels, {args.workers} threads")
    print(f"all metrics: {median:.1f} s (median of {args.runs}, {min(times):.1f} to {max(times):.1f})")
    spent = shares(triples)
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {name:<10}{seconds:7.2f} s of one thread")
    if args.json:
        result = {"pairs": len(triples), "kind": kind, "megapixels": megapixels, "seconds": times, "shares": spent}
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
