"""The coarse search: every scale and rotation that two cameras side by side may have, and all translations at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Matrix3, Size, corners, difference, project, resize_matrix
from streamfuse.calibration.structure import features, warp
from streamfuse.color import Plane

SIDE = 112
"""Pixels of the visible picture's longer side; a step of the search is then less than one such pixel in most places."""
PLANE = 256
"""Side of the transforms: room for an infrared picture up to 1.3 times as large."""
SCALES = 1.1 ** np.arange(-8, 9)
"""Infrared pictures shown at 0.47 to 2.1 times the visible one's width."""
TURNS_DEG = np.arange(-12, 13, 4)
LEAST_OVERLAP = 0.35
"""Of the smaller picture."""
MOST_PAIRS = 4
"""Taking part in the search; more cost time and add little."""
DISTINCT = 0.05
"""Of the picture's width at its corners: candidates that are nearer to a better one are left out."""

Spectrum = npt.NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Candidate:
    homography: Matrix3
    """A similarity, infrared to visible pixels."""
    score: float


@dataclass(frozen=True, eq=False)
class _Spectra:
    """Of one picture: its structure, its energy and where it is."""

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
    """The `count` best similarities that differ from each other, best first.

    The score is the normalised correlation of the pictures' structure where they overlap, all pairs together, times
    the fourth root of the overlap's share, so that a few pixels that agree by chance do not win.
    """
    ir, vis = (_spread(planes, MOST_PAIRS) for planes in (ir, vis))
    ir_size, vis_size = _size(ir[0]), _size(vis[0])
    shrink = SIDE / max(vis_size)
    small = round(vis_size[0] * shrink), round(vis_size[1] * shrink)
    targets = [_Spectra.of(np.asarray(cv2.resize(p, small[::-1], interpolation=cv2.INTER_AREA), np.uint8)) for p in vis]
    enlarge = resize_matrix(small, vis_size)
    found = []
    for scale in SCALES * SIDE / max(ir_size):
        for turn in TURNS_DEG:
            placed = _place(ir, targets, small, float(scale), float(turn))
            if placed is not None:
                found.append(Candidate(enlarge @ placed.homography, placed.score))
    found.sort(key=lambda candidate: -candidate.score)
    chosen: list[Candidate] = []
    for candidate in found:
        apart = [difference(candidate.homography, other.homography, corners(ir_size)).mean() for other in chosen]
        if not apart or min(apart) > DISTINCT * vis_size[1]:
            chosen.append(candidate)
        if len(chosen) == count:
            break
    return chosen


def _place(
    ir: Sequence[Plane], targets: Sequence[_Spectra], small: Size, scale: float, turn: float
) -> Candidate | None:
    """The best translation at one scale and rotation."""
    angle = np.deg2rad(turn)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turned = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1.0]])
    at = project(turned, corners(_size(ir[0])))
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
    enough = overlap > LEAST_OVERLAP * min(small[0] * small[1], present)
    score = np.where(enough, correlation * share**0.25, -1)
    y, x = np.unravel_index(score.argmax(), score.shape)
    best = float(score[y, x])
    if best <= 0:
        return None
    shift = np.array([[1, 0, x if x < small[1] else x - PLANE], [0, 1, y if y < small[0] else y - PLANE], [0, 0, 1.0]])
    return Candidate(shift @ turned, best)


def _spread(planes: Sequence[Plane], count: int) -> list[Plane]:
    places = np.linspace(0, len(planes) - 1, min(count, len(planes))).round().astype(int)
    return [planes[k] for k in places]


def _size(plane: Plane) -> Size:
    return plane.shape[0], plane.shape[1]
