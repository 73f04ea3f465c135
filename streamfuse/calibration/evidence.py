"""Pictures of natural scenes to register: images, or moments of two recordings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np

from streamfuse.calibration.outcome import Outcome, conclude
from streamfuse.calibration.scene import register
from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.frames import DEFAULT_PERIOD_NS
from streamfuse.pairing.recorded import default_tolerance_ns, pair_frames
from streamfuse.sources import open_pair
from streamfuse.sources.image_pairs import pair_images
from streamfuse.sources.options import DEFAULT, SourceOptions
from streamfuse.sources.pixels import read_image_file
from streamfuse.sources.sequence import is_image_list
from streamfuse.urls import has_scheme

MOST_PAIRS = 12
"""Spread over what there is; more cost time and add little."""
MOST_FRAMES = 1500
"""So much of a recording is looked at: a minute."""

PlanePair = tuple[Plane, Plane]


LEAST_PAIRS = 3
"""What a single picture shows may be near, or be blurred in one of the two; only others can tell."""


def calibrate_scene(
    ir: str,
    vis: str,
    options: SourceOptions = DEFAULT,
    *,
    distance_m: float | None = None,
    least_pairs: int = LEAST_PAIRS,
) -> Outcome:
    """`ir`, `vis`: images, directories of them, or recordings as `streamfuse run` takes them.

    Raises InputError for what cannot be read, and where the pictures do not tell with certainty.
    """
    pairs, notes = _load(ir, vis, options)
    if len(pairs) < least_pairs:
        raise InputError(
            f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''} of pictures cannot be certain (needed: {least_pairs}): "
            f"give more scenes, or a recording; --least-pairs {len(pairs)} takes the risk"
        )
    for role, planes in (("infrared", [a for a, _ in pairs]), ("visible", [b for _, b in pairs])):
        if len({plane.shape for plane in planes}) > 1:
            raise InputError(f"the {role} pictures are of different sizes: calibrate with one size")
    found = register([a for a, _ in pairs], [b for _, b in pairs])
    first, second = pairs[0]
    count = f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''}"
    calibration = conclude(
        found.homography,
        (first.shape[0], first.shape[1]),
        (second.shape[0], second.shape[1]),
        f"natural scenes, {count}",
        rms_px=found.rms_px,
        distance_m=distance_m,
    )
    details = [
        f"{count}; {found.agreeing} of {found.blocks} parts of the picture agree",
        f"two halves of the evidence differ by {found.halves_px:.1f} px at the corners of what both see",
    ]
    warnings = list(notes)
    if len(pairs) == 1:
        warnings.append("from one pair only: several scenes make it more certain")
    return Outcome(calibration, details, warnings, pairs[0])


def _load(ir: str, vis: str, options: SourceOptions) -> tuple[list[PlanePair], list[str]]:
    if all(not has_scheme(text) and not text.startswith("synthetic:") and is_image_list(text) for text in (ir, vis)):
        scenes, notes = pair_images(ir, vis, None)
        chosen = [scenes[k] for k in _spread(len(scenes))]
        most = options.max_pixels
        return [(read_image_file(one.ir, most)[0], read_image_file(one.vis, most)[0]) for one in chosen], notes
    frames = list(_recorded(ir, vis, options))
    if not frames:
        raise InputError(f"{ir} and {vis} have no frames of the same moment: are they of one recording?")
    return [frames[k] for k in _spread(len(frames))], []


def _spread(count: int) -> list[int]:
    places: list[int] = np.linspace(0, count - 1, min(count, MOST_PAIRS)).round().astype(int).tolist()
    return places


def _recorded(ir: str, vis: str, options: SourceOptions) -> Iterator[PlanePair]:
    """Copies of every nth pair, n such that about twice `MOST_PAIRS` remain."""
    with ExitStack() as stack:
        sources = [stack.enter_context(source) for source in open_pair(ir, vis, options)]
        if any(source.live for source in sources):
            raise InputError("a live source does not end: record it first, and calibrate with the recording")
        expected = min(source.frame_count or MOST_FRAMES for source in sources)
        every = max(min(expected, MOST_FRAMES) // (2 * MOST_PAIRS), 1)
        tolerance_ns = default_tolerance_ns(*(source.period_ns or DEFAULT_PERIOD_NS for source in sources))
        for index, pair in enumerate(pair_frames(*sources, tolerance_ns=tolerance_ns)):
            if index % every == 0:
                yield pair.ir.luma.copy(), pair.vis.luma.copy()
            if index >= MOST_FRAMES:
                return
