"""Quality of an engine's picture, compared with that of the original network and with its sources."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from streamfuse.color import Plane, Raw
from streamfuse.engines.seen import as_seen
from streamfuse.network.checkpoint import default_weights, load
from streamfuse.network.config import Output

METRICS = ("Q_ABF", "VIF", "SSIM", "true_MI")
"""Metrics of `streamfuse.evaluation.score` that are reported."""


@dataclass(frozen=True, slots=True)
class Similarity:
    """Similarity of a picture to that of the original network, and its metrics."""

    psnr_db: float
    """PSNR to the original, over 0..255; infinite if the pictures are equal."""
    ssim: float | None
    """SSIM to the original; None if scikit-image is not installed."""
    scores: dict[str, float]
    """Values of METRICS; empty if the research packages are not installed."""


def original(weights: Path | None, ir: Plane, vis: Plane) -> tuple[Raw, Output]:
    """Compute the raw output (H, W) of the network as written, in FP32 PyTorch on the CPU; also return its kind."""
    network = load(weights or default_weights())
    planes = ir, as_seen(network.config.veil, ir, vis)
    pair = (torch.from_numpy(np.ascontiguousarray(plane))[None, None].float() for plane in planes)
    with torch.inference_mode():
        raw: Raw = network(*pair)[0, 0].numpy()
    return raw, network.config.output


def compare(raw: Raw, reference: Raw, output: Output, ir: Plane, vis: Plane) -> Similarity:
    """Compare `raw` with `reference`, both raw output of the kind `output`.  All arguments are (H, W)."""
    fused, wanted = as_luma(raw, reference, output), as_luma(reference, reference, output)
    ssim, scores = None, {}
    if all(find_spec(package) for package in ("skimage", "scipy")):
        from streamfuse.evaluation.reference_metrics import structural_similarity
        from streamfuse.evaluation.score import score

        planes = [np.rint(picture).astype(np.uint8) for picture in (fused, wanted)]
        ssim = structural_similarity(planes[1], planes[0])
        found = score(ir, vis, planes[0], with_fmi=False)
        scores = {name: found[name] for name in METRICS}
    return Similarity(psnr(raw, reference, output), ssim, scores)


def psnr(raw: Raw, reference: Raw, output: Output) -> float:
    """Return the PSNR of the lumas 0..255, not rounded, in dB; infinite if they are equal."""
    error = float(np.mean((as_luma(raw, reference, output) - as_luma(reference, reference, output)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def as_luma(raw: Raw, reference: Raw, output: Output) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Convert to luma 0..255, clamped.  Min-max output is scaled by the reference's range, so that a shift shows."""
    low, high = (0.0, 1.0) if output is Output.DIRECT else (float(reference.min()), float(reference.max()))
    return np.clip((raw.astype(np.float64) - low) / max(high - low, 1e-9), 0, 1) * 255
