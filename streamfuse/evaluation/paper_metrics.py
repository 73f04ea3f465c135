"""EN, SD, MI and SCD as in the published tables; some differ from the usual definitions of their names.

H. Li and X.-J. Wu, "CrossFuse: a novel cross attention mechanism based infrared and visible image fusion approach",
Information Fusion 103, 2024, tables 3 and 4.  Its two FMI columns are in `streamfuse.evaluation.fmi`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane

LEVELS = 256


def entropy(fused: Plane) -> float:
    """EN: Shannon entropy of the grey levels of an (H, W) uint8 picture, 0 to 8 bits."""
    return entropy_of(np.bincount(fused.ravel(), minlength=LEVELS))


def entropy_of(counts: npt.NDArray[np.int64]) -> float:
    """Entropy of a histogram of any shape, bits."""
    share = counts[counts > 0] / counts.sum()
    return max(float(-(share * np.log2(share)).sum()), 0.0)


def spread(fused: Plane) -> float:
    """SD of the tables: sqrt(sum of (x - mean)^2) of the picture scaled to 0..1, not divided by its size.

    It grows with the number of pixels; `streamfuse.evaluation.reference_metrics.deviation` does not.
    """
    return math.sqrt(fused.size) * float(fused.std(dtype=np.float64)) / 255


def table_mi(fused: Plane) -> float:
    """MI of the tables: twice the entropy of the fused picture.

    It does not depend on the sources; `reference_metrics.mutual_information` is the usual definition.
    """
    return 2 * entropy(fused)


def sum_of_correlations(ir: Plane, vis: Plane, fused: Plane) -> float:
    """SCD: corr(F - B, A) + corr(F - A, B), of (H, W) uint8 pictures, -2 to 2; A infrared, B visible, F fused.

    V. Aslantas and E. Bendes, "A new image quality metric for image fusion: the sum of the correlations of
    differences", AEU 69, 2015.  NaN if it is undefined: if a difference or a source is constant, for example for a
    fused picture that is a copy of a source.
    """
    a, b, f = (plane.astype(np.float64) for plane in (ir, vis, fused))
    return _correlation(f - b, a) + _correlation(f - a, b)


def _correlation(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float((x * x).sum()) * float((y * y).sum()))
    # The means of constants such as 1/3 may be off by a rounding error; these are whole numbers up to 255.
    return float((x * y).sum()) / scale if scale > 1e-6 else math.nan
