"""Calibration from pictures of natural scenes: images, or frames of two recordings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from streamfuse.calibration.geometry import Matrix3, evenly_spaced
from streamfuse.calibration.model import Calibration, normalized
from streamfuse.calibration.outcome import Outcome, make_calibration
from streamfuse.calibration.parallax import Vector, at_distance
from streamfuse.calibration.placing import focal_px
from streamfuse.calibration.registration import ADVICE, estimate, rejection_reason
from streamfuse.calibration.several import MIN_SCENES, SeveralScenes, register_several
from streamfuse.color import Plane
from streamfuse.errors import InputError, UsageError
from streamfuse.frames import DEFAULT_PERIOD_NS, Role
from streamfuse.pairing.recorded import default_tolerance_ns, pair_frames
from streamfuse.sources import open_pair
from streamfuse.sources.image_pairs import pair_images
from streamfuse.sources.options import DEFAULT, SourceOptions
from streamfuse.sources.pixels import read_image_file
from streamfuse.sources.sequence import is_image_list
from streamfuse.support.urls import has_scheme

MAX_PAIRS = 12
"""Pairs that are registered, spread over the input; more cost time and add little."""
MAX_FRAMES = 1500
"""Pairs of a recording that are read: a minute."""
MIN_PAIRS = 3
"""Default of `--min-pairs`: a single scene may be near or blurred, and only other scenes can show that."""

RULER_ERROR_M = 0.003
"""Error of the distance between two lenses that is measured from outside, m."""
ANGLE_ERROR = 0.03
"""Error of an angle of view in a data sheet, as a share of the focal length."""

FAR_SHARE = 0.02
"""Share of the spread of the scenes within which one is as far as the farthest."""
LARGEST_ANGLE_DEG = 20.0
"""Largest angle between the parallax of the scenes and that of the ruler, degrees."""

PlanePair = tuple[Plane, Plane]
Sources = str | Sequence[str]
"""One source, or several of the same cameras."""


def calibrate_scene(
    ir: Sources,
    vis: Sources,
    options: SourceOptions = DEFAULT,
    *,
    distance_m: float | None = None,
    min_pairs: int = MIN_PAIRS,
    ruler: Ruler | None = None,
) -> Outcome:
    """Calibrate from natural scenes.

    `distance_m`: distance of the scenes, far unless given.  `ruler`: gives the parallax; the calibration is then valid
    at every distance.  `ir`, `vis`: images, directories of them, or recordings as for `streamfuse run`; or as many of
    them each, which belong together in their order.

    Raises InputError for input that cannot be read, and where the pictures do not determine the alignment with
    certainty.
    """
    scenes = load_pairs(ir, vis, options)
    pairs, notes = scenes.pairs, scenes.notes
    if len(pairs) < min_pairs:
        raise InputError(
            f"too few pairs of pictures for a certain result: {len(pairs)} (needed: {min_pairs}); "
            f"give more scenes or a recording, or accept the risk with --min-pairs {len(pairs)}"
        )
    irs, viss = [a for a, _ in pairs], [b for _, b in pairs]
    found = estimate(irs, viss)
    if found is None:
        raise InputError(f"infrared and visible have no structure in common: {ADVICE}")
    if reason := rejection_reason(found):
        several = _several(irs, viss, found.homography, ruler)
        if several is None:
            raise InputError(f"{reason}: {ADVICE}")
        return calibrate_several(several, scenes, ruler, distance_m)
    first, second = pairs[0]
    count = f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''}"
    calibration = make_calibration(
        found.homography,
        (first.shape[0], first.shape[1]),
        (second.shape[0], second.shape[1]),
        f"natural scenes, {count}",
        rms_px=found.rms_px,
        distance_m=distance_m,
    )
    if ruler is not None:
        calibration = with_ruler(calibration, ruler)
    details = [
        f"{count}; {found.agreeing} of {found.blocks} blocks agree",
        f"fits to two halves of the blocks differ by {found.halves_px:.1f} px at the corners of the overlap",
    ]
    warnings = list(notes)
    if len(pairs) == 1:
        warnings.append("calibrated from a single pair: several scenes make the result more certain")
    return Outcome(calibration, details, warnings, pairs[0])


def _several(ir: list[Plane], vis: list[Plane], homography: Matrix3, ruler: Ruler | None) -> SeveralScenes | None:
    """Register scenes that are at different distances; None where that is not certain either."""
    if len(ir) < MIN_SCENES:
        return None
    along = np.array([1.0, 0.0] if ruler is None else [ruler.right_m, ruler.down_m])
    found = register_several(ir, vis, homography, along)
    return found if found.reason_against() is None else None


def calibrate_several(found: SeveralScenes, scenes: Scenes, ruler: Ruler | None, distance_m: float | None) -> Outcome:
    """Make a calibration of scenes at different distances, the farthest of which counts as far."""
    pairs = scenes.pairs
    first, second = pairs[0]
    spread = float(np.ptp(found.shifts_px))
    if ruler is None:
        raise InputError(
            f"the scenes are at different distances, up to {spread:.1f} px apart: give --baseline-m and --fov-deg "
            "(then they make a calibration for every distance), or pictures of far scenes only"
        )
    measured = focal_px(ruler.fov_deg, second.shape[1]) * np.array([ruler.right_m, ruler.down_m])
    length = float(np.hypot(*measured))
    cosine = float(measured @ found.direction) / length
    if abs(cosine) < math.cos(math.radians(LARGEST_ANGLE_DEG)):
        raise InputError(
            f"the scenes tell a parallax {math.degrees(math.acos(abs(cosine))):.0f} degrees from that of --baseline-m: "
            "check its two numbers, right and down"
        )
    side = math.copysign(1.0, cosine)
    nearness = side * found.shifts_px
    nearness = nearness - nearness.min()
    far = found.homography.copy()
    far[:2, 2] += side * found.direction * float((side * found.shifts_px).min())
    parallax = side * length * found.direction
    calibration = make_calibration(
        far,
        (first.shape[0], first.shape[1]),
        (second.shape[0], second.shape[1]),
        f"natural scenes at different distances, {len(pairs)} pairs, ruler",
        rms_px=found.across_px,
        distance_m=distance_m,
        parallax=np.append(parallax, 0.0),
        parallax_sd=_ruler_error(parallax, focal_px(ruler.fov_deg, second.shape[1])),
    )
    distances_m = [math.inf if q < FAR_SHARE * spread else length / q for q in nearness]
    details = [
        f"{len(pairs)} pairs at different distances; {found.agreeing} of {found.blocks} blocks agree",
        "distance of most of each scene:",
        *(
            f"  {'far' if away == math.inf else f'{away:.1f} m':8}{name}"
            for away, name in zip(distances_m, scenes.names, strict=True)
        ),
    ]
    return Outcome(calibration, details, scenes.notes, pairs[0], distances_m)


@dataclass(frozen=True, slots=True)
class Ruler:
    """The place of the infrared camera beside the visible one, measured by hand."""

    right_m: float
    """How far it is to the right of the visible camera, seen from behind the cameras, m; negative to the left."""
    down_m: float
    """How far it is below the visible camera, m; negative above."""
    fov_deg: float
    """Horizontal angle of view of the visible camera, degrees."""


def with_ruler(calibration: Calibration, ruler: Ruler) -> Calibration:
    """Add the parallax to a calibration for the distance of its scenes.

    With cameras that look the same way, e = (f right, f down, 0), f in visible pixels.
    """
    focal = focal_px(ruler.fov_deg, calibration.vis_size[1])
    parallax = focal * np.array([ruler.right_m, ruler.down_m, 0.0])
    error = _ruler_error(parallax[:2], focal)
    there = calibration.distance_m or math.inf
    far = at_distance(calibration.homography, parallax, -1 / there)
    return replace(
        calibration,
        homography=normalized(far),
        parallax=parallax / far[2, 2],
        parallax_sd=error,
        method=f"{calibration.method}, ruler",
    )


def _ruler_error(shift_px_m: Vector, focal: float) -> Vector:
    """Standard error, (2,) px m, of a parallax that a ruler and an angle of view tell; `focal`: px."""
    return np.asarray(np.hypot(focal * RULER_ERROR_M, shift_px_m * ANGLE_ERROR), np.float64)


@dataclass(frozen=True, eq=False)
class Scenes:
    """Pairs of pictures of one rig."""

    pairs: list[PlanePair]
    names: list[str]
    """Name of each pair, for people."""
    notes: list[str] = field(default_factory=list)


def load_pairs(ir: Sources, vis: Sources, options: SourceOptions) -> Scenes:
    """Read up to `MAX_PAIRS` pairs of images or of recordings, spread over them.  Raises InputError."""
    irs, viss = ([text] if isinstance(text, str) else list(text) for text in (ir, vis))
    if len(irs) != len(viss):
        raise UsageError(
            f"{len(irs)} infrared and {len(viss)} visible sources: give as many --ir as --vis, in the same order"
        )
    most = math.ceil(MAX_PAIRS / len(irs))
    parts = [_load(*both, most, options) for both in zip(irs, viss, strict=True)]
    return Scenes(
        _of_one_size([pair for part in parts for pair in part.pairs]),
        [name for part in parts for name in part.names],
        [note for part in parts for note in part.notes],
    )


def _load(ir: str, vis: str, most: int, options: SourceOptions) -> Scenes:
    """Read up to `most` pairs of one source each."""
    if all(not has_scheme(text) and not text.startswith("synthetic:") and is_image_list(text) for text in (ir, vis)):
        scenes, notes = pair_images(ir, vis, None)
        chosen = [scenes[k] for k in evenly_spaced(len(scenes), most)]
        largest = options.max_pixels
        pairs = [(read_image_file(one.ir, largest)[0], read_image_file(one.vis, largest)[0]) for one in chosen]
        return Scenes(pairs, [one.name for one in chosen], notes)
    frames = list(_recorded(ir, vis, options))
    if not frames:
        raise InputError(f"{ir} and {vis} have no frames of the same moment: give two streams of one recording")
    taken = [frames[k] for k in evenly_spaced(len(frames), most)]
    return Scenes([pair for pair, _ in taken], [f"{Path(vis).name} at {seconds:.1f} s" for _, seconds in taken])


def _of_one_size(pairs: list[PlanePair]) -> list[PlanePair]:
    for role, planes in zip(Role, zip(*pairs, strict=True), strict=True):
        if len({plane.shape for plane in planes}) > 1:
            raise InputError(f"the {role.label} pictures are of different sizes: use a single size")
    return pairs


def _recorded(ir: str, vis: str, options: SourceOptions) -> Iterator[tuple[PlanePair, float]]:
    """Yield copies of every nth pair of two recordings and its time, s; about twice `MAX_PAIRS` in all."""
    with ExitStack() as stack:
        sources = [stack.enter_context(source) for source in open_pair(ir, vis, options)]
        if any(source.live for source in sources):
            raise InputError("a live source does not end: record it first, and calibrate from the recording")
        expected = min(source.frame_count or MAX_FRAMES for source in sources)
        every = max(min(expected, MAX_FRAMES) // (2 * MAX_PAIRS), 1)
        tolerance_ns = default_tolerance_ns(*(source.period_ns or DEFAULT_PERIOD_NS for source in sources))
        first_ns = None
        for index, pair in enumerate(pair_frames(*sources, tolerance_ns=tolerance_ns)):
            if first_ns is None:
                first_ns = pair.vis.stamp_ns
            if index % every == 0:
                yield (pair.ir.luma.copy(), pair.vis.luma.copy()), (pair.vis.stamp_ns - first_ns) / 1e9
            if index >= MAX_FRAMES:
                return
