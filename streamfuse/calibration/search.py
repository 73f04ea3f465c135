"""The coarse search over all plausible scales and rotations, with all translations at once by FFT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import (
    Matrix3,
    Size,
    corners,
    difference,
    evenly_spaced,
    project,
    resize_matrix,
    size_of,
)
from streamfuse.calibration.structure import features, warp
from streamfuse.color import Plane

SIDE = 112
"""Longer side of the reduced visible picture; a search step is less than one such pixel over most of it."""
PLANE = 256
"""Side of the Fourier transforms: room for an infrared picture up to 1.3 times as large."""
SCALES = 1.1 ** np.arange(-8, 9)
"""Widths of the infrared picture, 0.47 to 2.1 times that of the visible one."""
TURNS_DEG = np.arange(-12, 13, 4)
MIN_OVERLAP = 0.35
"""Smallest overlap as a share of the smaller picture."""
MAX_PAIRS = 4
"""Pairs that are searched; more cost time and add little."""
DISTINCT = 0.05
"""Smallest mean distance between two candidates at the picture's corners, as a share of its width."""

Spectrum = npt.NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A result of the coarse search."""

    homography: Matrix3
    """(3, 3) similarity, infrared to visible pixels."""
    score: float
    """Weighted correlation, above 0; higher is better."""


@dataclass(frozen=True, eq=False)
class _Spectra:
    """Fourier transforms of one picture's structure, energy and mask."""

    twofold: Spectrum
    fourfold: Spectrum
    energy: Spectrum
    mask: Spectrum

    @classmethod
    def of(cls, plane: Plane, mask: npt.NDArray[np.uint8] | None = None) -> _Spectra:
        found = features(plane, mask)
        present = np.ones(plane.shape) if mask is None else mask
        return cls(
            _transform(found[..., 0] + 1j * found[..., 1]),
            _transform(found[..., 2] + 1j * found[..., 3]),
            _transform(np.square(found).sum(axis=2)),
            _transform(present),
        )


def _transform(values: npt.NDArray[np.generic]) -> Spectrum:
    return np.fft.fft2(values, (PLANE, PLANE))


def coarse_search(ir: Sequence[Plane], vis: Sequence[Plane], count: int) -> list[Candidate]:
    """Find the `count` best similarities that differ from each other, best first.

    The score is the normalised correlation of the pictures' structure where they overlap, over all pairs together,
    times the fourth root of the overlap's share, so that a small overlap that agrees by chance does not win.
    """
    ir, vis = ([planes[k] for k in evenly_spaced(len(planes), MAX_PAIRS)] for planes in (ir, vis))
    ir_size, vis_size = size_of(ir[0].shape), size_of(vis[0].shape)
    shrink = SIDE / max(vis_size)
    small = round(vis_size[0] * shrink), round(vis_size[1] * shrink)
    targets = [_Spectra.of(np.asarray(cv2.resize(p, small[::-1], interpolation=cv2.INTER_AREA), np.uint8)) for p in vis]
    enlarge = resize_matrix(small, vis_size)
    found = []
    for scale in SCALES * SIDE / max(ir_size):
        for turn in TURNS_DEG:
            best = _best_translation(ir, targets, small, float(scale), float(turn))
            if best is not None:
                found.append(Candidate(enlarge @ best.homography, best.score))
    found.sort(key=lambda candidate: -candidate.score)
    chosen: list[Candidate] = []
    for candidate in found:
        distances = [difference(candidate.homography, other.homography, corners(ir_size)).mean() for other in chosen]
        if not distances or min(distances) > DISTINCT * vis_size[1]:
            chosen.append(candidate)
        if len(chosen) == count:
            break
    return chosen


def _best_translation(
    ir: Sequence[Plane], targets: Sequence[_Spectra], small: Size, scale: float, turn: float
) -> Candidate | None:
    """Find the best translation at one scale and rotation (degrees); None where the pictures do not fit."""
    angle = np.deg2rad(turn)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turned = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1.0]])
    at = project(turned, corners(size_of(ir[0].shape)))
    turned[:2, 2] = -at.min(axis=0)
    width, height = np.ceil(np.ptp(at, axis=0)).astype(int) + 1
    if max(height + small[0], width + small[1]) > PLANE or min(height, width) < 16:
        return None
    product = np.zeros((PLANE, PLANE))
    energies = np.zeros((PLANE, PLANE), complex)
    overlap = np.zeros((PLANE, PLANE))
    present = 1
    for plane, target in zip(ir, targets, strict=True):
        moved, mask = warp(plane, turned, (int(height), int(width)))
        source = _Spectra.of(moved, mask)
        structure = target.twofold * source.twofold.conj() + target.fourfold * source.fourfold.conj()
        product += np.fft.ifft2(structure).real
        # Two real correlations in one transform.
        energies += np.fft.ifft2(target.energy * source.mask.conj() + 1j * target.mask * source.energy.conj())
        overlap = np.fft.ifft2(target.mask * source.mask.conj()).real
        present = int(mask.sum())
    correlation = product / np.sqrt(np.maximum(energies.real, 1) * np.maximum(energies.imag, 1))
    share = np.maximum(overlap, 0) / (small[0] * small[1])
    enough = overlap > MIN_OVERLAP * min(small[0] * small[1], present)
    score = np.where(enough, correlation * share**0.25, -1)
    y, x = np.unravel_index(score.argmax(), score.shape)
    best = float(score[y, x])
    if best <= 0:
        return None
    shift = np.array([[1, 0, x if x < small[1] else x - PLANE], [0, 1, y if y < small[0] else y - PLANE], [0, 0, 1.0]])
    return Candidate(shift @ turned, best)
