"""Run of an evaluation: read or fuse pictures, score them in threads, keep the pictures for a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from streamfuse.errors import DamagedInput, InputError
from streamfuse.evaluation.maps import draw_faults
from streamfuse.evaluation.report import encode, encode_pictures
from streamfuse.evaluation.result import Case, Evaluation
from streamfuse.evaluation.score import Triple, in_threads, score
from streamfuse.evaluation.video import TemporalScorer

WORKERS = 2
"""Threads that score; NumPy, SciPy and OpenCV release the GIL most of the time."""
FRAMES_SCORED = 25
"""Default number of scored frames of a stream: with FMI, a 640x480 frame takes about a second of one core."""

Named = tuple[str, Triple]


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Evaluator:
    """Scores images, or a stream."""

    pictures: bool = False
    """True to keep the pictures for a report."""
    workers: int = WORKERS
    on_picture: Callable[[], None] = _nothing
    """Called after each image, or each frame of a stream, that was read."""
    notes: list[str] = field(default_factory=list)
    damage: DamagedInput | None = None
    """Missing parts at the end of a stream, set after scoring."""

    def images(self, method: str, inputs: str, names: Sequence[str], triples: Iterator[Triple]) -> Evaluation:
        """Score images, each one case; the first error of reading, fusing or scoring is raised."""

        def named() -> Iterator[Named]:
            for name, triple in zip(names, triples, strict=True):
                yield name, triple
                self.on_picture()

        cases = list(in_threads(self._score, named(), self.workers))
        return Evaluation(method, inputs, cases, notes=self.notes)

    def stream(self, method: str, inputs: str, triples: Iterator[Triple], every: int) -> Evaluation:
        """Score a stream; every `every`-th frame, from the first one, is a case; flicker and motion use all frames.

        A recording that is cut off is scored as far as it can be read, and described in `damage` and a note.
        """
        temporal = TemporalScorer()

        def chosen() -> Iterator[Named]:
            try:
                for index, triple in enumerate(triples):
                    temporal.add(*triple)
                    if index % every == 0:
                        yield f"frame {index}", triple
                    self.on_picture()
            except DamagedInput as error:
                self.damage = error
                self.notes.append(str(error))

        cases = list(in_threads(self._score, chosen(), self.workers))
        if not cases:
            raise InputError(f"{inputs}: no frame could be read; {'; '.join(self.notes)}")
        return Evaluation(method, inputs, cases, temporal.result(), self.notes)

    def _score(self, item: Named) -> Case:
        name, triple = item
        try:
            scores = score(*triple)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        if not self.pictures:
            return Case(name, scores)
        return Case(name, scores, encode_pictures(triple), encode(draw_faults(*triple)))
