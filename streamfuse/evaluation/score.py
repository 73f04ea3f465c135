"""All metrics of one fused picture, and of a stream of them.

The metrics of the published tables come first, by their published names.  They are easily satisfied: over the 21 TNO
pairs, a copy of the visible picture has more SD and FMI than the paper's network, and a plain average more FMI.  The
others are stricter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.evaluation import appearance, fmi, paper_metrics, reference_metrics

PAPER = ("EN", "SD", "MI", "FMI_dct", "FMI_pixel", "SCD")
REFERENCE = ("true_MI", "Q_ABF", "SSIM", "SSIM_ir", "SSIM_vis", "VIF", "VIF_ir", "VIF_vis", "AG", "std")
APPEARANCE = ("shadow_loss", "highlight_loss", "shadow_contrast", "warm_contrast", "noise_gain")
METRICS = (*PAPER, *REFERENCE, *APPEARANCE)

UNDEFINED = {
    "SCD": "undefined: the fused picture differs from a source by a constant, or a source is constant",
    "shadow_contrast": "undefined: no part of the visible picture is dark",
    "warm_contrast": "undefined: nothing is warm",
    "noise_gain": "undefined: nothing is flat in both sources",
}
"""Reason why a metric may have no value."""

Scores = dict[str, float]
"""Metric to value; NaN where the metric is undefined for these pictures."""

Triple = tuple[Plane, Plane, Plane]
"""Infrared, visible, fused."""

T = TypeVar("T")
R = TypeVar("R")


def score(ir: Plane, vis: Plane, fused: Plane, *, with_fmi: bool = True) -> Scores:
    """Every metric of METRICS for three (H, W) uint8 planes, 0..255.

    `SSIM` is the mean and `VIF` the sum over the two sources; `true_MI` is the sum as well.  Without FMI, which
    takes three quarters of the time, its two entries are left out.  Raises InputError for planes that do not fit.
    """
    _check(ir, vis, fused)
    # SSIM and VIF take longest after FMI; all release the GIL most of the time.
    ssim_ir, ssim_vis = (reference_metrics.structural_similarity(source, fused) for source in (ir, vis))
    vif_ir, vif_vis = (reference_metrics.visual_information(source, fused) for source in (ir, vis))
    values = {
        "EN": paper_metrics.entropy(fused),
        "SD": paper_metrics.spread(fused),
        "MI": paper_metrics.table_mi(fused),
        "SCD": paper_metrics.sum_of_correlations(ir, vis, fused),
        "true_MI": reference_metrics.mutual_information(ir, fused) + reference_metrics.mutual_information(vis, fused),
        "Q_ABF": reference_metrics.edge_preservation(ir, vis, fused),
        "SSIM": (ssim_ir + ssim_vis) / 2,
        "SSIM_ir": ssim_ir,
        "SSIM_vis": ssim_vis,
        "VIF": vif_ir + vif_vis,
        "VIF_ir": vif_ir,
        "VIF_vis": vif_vis,
        "AG": reference_metrics.average_gradient(fused),
        "std": reference_metrics.deviation(fused),
        **{name: getattr(appearance, name)(ir, vis, fused) for name in APPEARANCE},
    }
    if with_fmi:
        values["FMI_dct"] = fmi.fmi_dct(ir, vis, fused)
        values["FMI_pixel"] = fmi.fmi_pixel(ir, vis, fused)
    return {name: values[name] for name in METRICS if name in values}


def _check(ir: Plane, vis: Plane, fused: Plane) -> None:
    planes = {"infrared": ir, "visible": vis, "fused": fused}
    for name, plane in planes.items():
        if plane.ndim != 2 or plane.dtype != np.uint8:
            raise InputError(f"the {name} picture must be (H, W) uint8, got {plane.shape} {plane.dtype}")
    for name, plane in planes.items():
        if plane.shape != fused.shape:
            (height, width), (fused_height, fused_width) = plane.shape, fused.shape
            raise InputError(f"the {name} picture is {width}x{height}, the fused one {fused_width}x{fused_height}")
    if min(fused.shape) < fmi.WINDOW:
        raise InputError(f"the pictures are under {fmi.WINDOW} pixels a side: too small for a metric")


def score_all(triples: Iterable[Triple], *, with_fmi: bool = True, workers: int = 2) -> Iterator[Scores]:
    """Yield the scores of a stream of pictures, in order; at most `workers` + 1 triples are in memory at a time."""
    return in_threads(lambda triple: score(*triple, with_fmi=with_fmi), triples, workers)


def in_threads(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """`map` in threads, in order, at most `workers` + 1 items ahead of the consumer."""
    source = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(function, item) for item in islice(source, workers + 1)]
        try:
            while waiting:
                result = waiting.pop(0).result()
                waiting += [pool.submit(function, item) for item in islice(source, 1)]
                yield result
        finally:
            for future in waiting:
                future.cancel()


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Mean of each metric over the pictures, without undefined values; NaN if no picture has a value."""
    means = {}
    for name in scores[0] if scores else ():
        values = [each[name] for each in scores if not math.isnan(each[name])]
        means[name] = math.fsum(values) / len(values) if values else math.nan
    return means
