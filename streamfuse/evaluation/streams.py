"""Pictures to be scored: image files, or streams, fused before or during the evaluation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing

from streamfuse.alignment import Aligner
from streamfuse.color import Plane
from streamfuse.errors import DamagedInput, InputError
from streamfuse.evaluation.score import Triple
from streamfuse.frames import DEFAULT_PERIOD_NS, Frame, FramePair
from streamfuse.fuser import Fuser
from streamfuse.pairing.recorded import default_tolerance_ns, pair_frames
from streamfuse.pipeline import Pipeline
from streamfuse.sources.base import Source
from streamfuse.sources.image_pairs import ImagePaths
from streamfuse.sources.limits import MAX_PIXELS
from streamfuse.sources.pixels import read_image_file

Open = Callable[[], tuple[Source, Source]]


def read_images(scenes: Sequence[ImagePaths], fuser: Fuser | None, max_pixels: int = MAX_PIXELS) -> Iterator[Triple]:
    """Infrared, visible and fused luma of each scene, of the visible one's shape; `fuser` makes what is not there.

    An infrared picture of another size is resized, as for fusing.  Raises InputError for what cannot be read and
    for a fused picture of another size, or one of more than `max_pixels` pixels.
    """
    aligner = Aligner()
    for paths in scenes:
        ir, _ = read_image_file(paths.ir, max_pixels)
        vis, _ = read_image_file(paths.vis, max_pixels)
        ir = aligner.apply(ir, vis.shape)
        if paths.fused is not None:
            fused, _ = read_image_file(paths.fused, max_pixels)
            _check_size(str(paths.fused), fused, str(paths.vis), vis)
        else:
            assert fuser is not None
            fused = fuser.fuse_luma(ir, vis, stamp_ns=0).luma
        yield ir, vis, fused


def _check_size(fused_name: str, fused: Plane, vis_name: str, vis: Plane) -> None:
    if fused.shape != vis.shape:
        (fused_height, fused_width), (height, width) = fused.shape, vis.shape
        raise InputError(f"{fused_name} is {fused_width}x{fused_height}, but {vis_name} is {width}x{height}")


def fuse_stream(pipeline: Pipeline) -> Iterator[Triple]:
    """Yield every frame of a pipeline of recordings, as it would be written, with its inputs."""
    for frame in pipeline:
        assert frame.infrared is not None
        assert frame.visible is not None
        yield frame.infrared, frame.visible, frame.luma


def read_streams(sources: Open, results: Open, frames: int | None = None) -> Iterator[Triple]:
    """Yield the frames of a fused stream with their inputs.

    `sources`: opens the infrared and the visible stream.  `results`: opens the visible (again) and the fused one.  Both
    are paired by time as for fusing, and joined by the visible frame.  Raises InputError if no frames belong together,
    and DamagedInput at the end if a recording was cut off.
    """
    given = 0
    opened: list[Source] = []
    aligner = Aligner()
    with closing(_pairs(sources, opened)) as inputs, closing(_pairs(results, opened)) as outputs:
        for source_pair, result_pair in _join(inputs, outputs):
            ir, vis, fused = source_pair.ir.luma, source_pair.vis.luma, result_pair.vis.luma
            _check_size(result_pair.vis.source, fused, source_pair.vis.source, vis)
            yield aligner.apply(ir, vis.shape), vis, fused
            given += 1
            if given == frames:
                return
    damage = [f"{source.name}: {source.damage}" for source in opened if source.damage]
    if not given:
        names = ", ".join(dict.fromkeys(source.name for source in opened))
        raise InputError(f"no frames of these belong together in time: {'; '.join([names, *damage])}")
    if damage:
        raise DamagedInput("; ".join(dict.fromkeys(damage)))


def _pairs(open_both: Open, opened: list[Source]) -> Generator[FramePair]:
    first, second = open_both()
    opened += (first, second)
    with first, second:
        tolerance_ns = default_tolerance_ns(first.period_ns, second.period_ns)
        yield from pair_frames(_frames(first), _frames(second), tolerance_ns=tolerance_ns)


def _frames(source: Source) -> Iterator[Frame]:
    yield from source


def _join(inputs: Iterator[FramePair], outputs: Iterator[FramePair]) -> Iterator[tuple[FramePair, FramePair]]:
    """Join pairs with the same visible frame, which is second in `inputs` and first in `outputs`."""
    one, other = next(inputs, None), next(outputs, None)
    while one is not None and other is not None:
        if one.vis.index == other.ir.index:
            yield one, other
            one, other = next(inputs, None), next(outputs, None)
        elif one.vis.index < other.ir.index:
            one = next(inputs, None)
        else:
            other = next(outputs, None)


def expected_frames(sources: Sequence[Source], limit: int | None) -> int | None:
    """Return the number of frames by the headers; None if they do not give it."""
    slowest_ns = max(source.period_ns or DEFAULT_PERIOD_NS for source in sources)
    counts = [
        source.frame_count * (source.period_ns or DEFAULT_PERIOD_NS) // slowest_ns
        for source in sources
        if source.frame_count is not None
    ]
    return min([*counts, *([limit] if limit is not None else [])], default=None)
