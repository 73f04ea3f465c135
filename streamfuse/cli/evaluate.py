"""`streamfuse evaluate`: score fused images or streams."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamfuse.cli import logs, options
from streamfuse.cli.progress import Update, progress
from streamfuse.errors import DamagedInput, OutputError, UsageError, printable

if TYPE_CHECKING:
    from streamfuse.engines.base import Engine
    from streamfuse.evaluation.result import Evaluation
    from streamfuse.evaluation.run import Evaluator
    from streamfuse.fuser import Fuser
    from streamfuse.sources.base import Source


@dataclass(frozen=True)
class _Inputs:
    ir: str
    vis: str
    vot: Path | None
    fused: str | None
    sources: options.SourceOptions

    def __str__(self) -> str:
        from streamfuse.support.urls import redact

        return str(self.vot) if self.vot is not None else f"{redact(self.ir)}, {redact(self.vis)}"

    def open_sources(self) -> tuple[Source, Source]:
        from streamfuse.sources import open_pair
        from streamfuse.sources.vot import open_vot

        return open_vot(self.vot, self.sources) if self.vot is not None else open_pair(self.ir, self.vis, self.sources)

    def open_results(self) -> tuple[Source, Source]:
        """The visible stream again, and the fused one on its time line."""
        from streamfuse.sources import open_pair, open_source
        from streamfuse.sources.vot import open_vot

        assert self.fused is not None
        if self.vot is None:
            return open_pair(self.vis, self.fused, self.sources)
        ir, vis = open_vot(self.vot, self.sources)
        ir.close()
        rate = 1e9 / vis.period_ns if vis.period_ns else None
        return vis, open_source(self.fused, self.sources.with_fps(self.sources.fps or rate))


@dataclass(frozen=True)
class _Fusing:
    choice: options.EngineChoice
    tone: str

    def make_fuser(self) -> Fuser:
        return self.choice.fuser(self.tone)

    def describe(self, engine: Engine) -> str:
        weights = self.choice.weights
        name = weights.name if weights is not None else "the shipped weights"
        return f"CrossFuse with {name} ({engine.name} {engine.precision}, preset {engine.preset}, tone {self.tone})"


@click.command()
@click.option("--ir", type=options.SOURCE, help="Infrared: a directory of images, an image, or a video.")
@click.option("--vis", type=options.SOURCE, help="Visible: the same kinds.")
@options.vot
@click.option("--fused", type=options.SOURCE, help="Fused images or video; without it, the pairs are fused first.")
@options.engine
@click.option("--tone", help="per-frame, smooth or fixed:LO,HI; default: per-frame for images, smooth for streams.")
@click.option("--video", is_flag=True, help="Treat directories of images as streams.")
@click.option("--fps", type=options.RATE, help="Frame rate of images that form a stream; default: 25.")
@click.option("--every", type=click.IntRange(1), help="Score every N-th frame of a stream; default: 25 frames or so.")
@click.option("--frames", type=click.IntRange(1), help="Stop after this many frames of a stream.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="JSON file for all figures.")
@click.option(
    "--markdown", "markdown_file", type=click.Path(path_type=Path, dir_okay=False), help="Markdown file for tables."
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for an HTML report.",
)
@options.force
@options.max_pixels
@options.config
@options.common
def command(
    ir: str | None,
    vis: str | None,
    vot: Path | None,
    fused: str | None,
    engine: options.EngineChoice,
    tone: str | None,
    video: bool,
    fps: float | None,
    every: int | None,
    frames: int | None,
    json_file: Path | None,
    markdown_file: Path | None,
    report: Path | None,
    force: bool,
    max_pixels: int,
) -> None:
    """Score fused images, or a fused stream, against their sources.

    Images in directories are matched by name, or by the number in the name (IR3.png and VIS3.png).  Without
    --fused the pairs are fused first.  For streams, flicker and temporal error are measured too, over all frames.

    \b
    streamfuse evaluate --ir tno/ir --vis tno/vis --fused results/ --report report/
    streamfuse evaluate --ir tno/ir --vis tno/vis --weights mine.safetensors --json mine.json
    streamfuse evaluate --ir ir.mp4 --vis vis.mp4 --tone smooth --frames 250
    """
    from streamfuse.evaluation.packages import check_research_packages
    from streamfuse.evaluation.report import PAGE

    inputs = _Inputs(*options.two_sources(ir, vis, vot), vot, fused, options.SourceOptions(fps, max_pixels=max_pixels))
    as_stream = video or not _are_images(inputs)
    if not as_stream:
        _refuse_for_images(every=every, frames=frames, fps=fps)
    fusing = _fusing(engine, tone, fused, as_stream)
    _check_outputs([json_file, markdown_file, report / PAGE if report is not None else None], force)
    check_research_packages("scipy", "skimage")
    if as_stream:
        evaluation, damage = _evaluate_stream(inputs, fusing, every, frames, report is not None)
    else:
        evaluation, damage = _evaluate_images(inputs, fusing, report is not None), None
    _show(evaluation)
    _write(evaluation, json_file, markdown_file, report)
    if damage is not None:
        raise damage


def _are_images(inputs: _Inputs) -> bool:
    from streamfuse.sources.sequence import is_image_list
    from streamfuse.support.urls import expand

    texts = [text for text in (inputs.ir, inputs.vis, inputs.fused) if text is not None]
    return inputs.vot is None and all(is_image_list(expand(text)) for text in texts)


def _refuse_for_images(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"--{name} is for streams: add --video to take directories of images as streams")


def _fusing(engine: options.EngineChoice, tone: str | None, fused: str | None, as_stream: bool) -> _Fusing | None:
    if fused is None:
        if tone == "smooth" and not as_stream:
            raise UsageError("tone smooth needs a stream: use --tone per-frame or fixed:LO,HI, or --video")
        return _Fusing(engine, tone or ("smooth" if as_stream else "per-frame"))
    if tone is not None or engine != options.EngineChoice():
        raise UsageError(
            "--fused needs no engine: leave out --weights, --engine, --precision, --preset, --device and --tone"
        )
    return None


def _check_outputs(paths: Sequence[Path | None], force: bool) -> None:
    """Before an hour of work, not after."""
    for path in paths:
        if path is None:
            continue
        if path.exists() and not force:
            raise OutputError(f"{path} exists: choose another name, or replace it with --force")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {path.parent}: {error.strerror}") from None


def _evaluate_images(inputs: _Inputs, fusing: _Fusing | None, pictures: bool) -> Evaluation:
    from streamfuse.evaluation.streams import read_images
    from streamfuse.sources import open_source
    from streamfuse.sources.image_pairs import pair_images

    scenes, notes = pair_images(inputs.ir, inputs.vis, inputs.fused)
    for note in notes:
        logs.say(f"note: {note}")
    with open_source(str(scenes[0].ir), inputs.sources) as first:
        notes += _about(first)
    with ExitStack() as stack:
        fuser = None
        method = f"images of {inputs.fused}"
        if fusing is not None:
            fuser = stack.enter_context(fusing.make_fuser())
        advance = _counting(stack.enter_context(progress("scoring", len(scenes), unit="images")))
        evaluator = _evaluator(pictures, notes, advance)
        evaluation = evaluator.images(
            method, str(inputs), [scene.name for scene in scenes], read_images(scenes, fuser, inputs.sources.max_pixels)
        )
        # The engine may choose its precision for the first picture
        return replace(evaluation, method=fusing.describe(fuser.engine)) if fusing and fuser else evaluation


def _evaluate_stream(
    inputs: _Inputs, fusing: _Fusing | None, every: int | None, frames: int | None, pictures: bool
) -> tuple[Evaluation, DamagedInput | None]:
    from streamfuse.evaluation.run import FRAMES_SCORED
    from streamfuse.evaluation.streams import expected_frames, fuse_stream, read_streams
    from streamfuse.evaluation.video import every_nth
    from streamfuse.pipeline import Pipeline

    sources = inputs.open_sources()
    about = _about(sources[0])
    expected = expected_frames(sources, frames)
    every = every or every_nth(expected, FRAMES_SCORED)
    note = "every frame is scored" if every == 1 else f"one of {every} frames is scored (--every)"
    logs.say(f"note: {note}; flicker and temporal error are of all frames")
    with ExitStack() as stack:
        if fusing is not None:
            fuser = stack.enter_context(fusing.make_fuser())
            pipeline = stack.enter_context(Pipeline(*sources, fuser=fuser, frames=frames))
            method, triples = "", fuse_stream(pipeline)
        else:
            fuser = None
            for source in sources:
                source.close()
            method, triples = (
                f"frames of {inputs.fused}",
                read_streams(inputs.open_sources, inputs.open_results, frames),
            )
        advance = _counting(stack.enter_context(progress("scoring", expected)))
        evaluator = _evaluator(pictures, [f"{note}; flicker and temporal error are of all frames", *about], advance)
        evaluation = evaluator.stream(method, str(inputs), triples, every)
        if fusing and fuser:
            evaluation = replace(evaluation, method=fusing.describe(fuser.engine))
        return evaluation, evaluator.damage


def _about(ir: Source) -> list[str]:
    """Return a note about the thermal camera, where the files of infrared tell of it."""
    found = ir.describe()
    return [f"infrared: {found}"] if found else []


def _counting(update: Update) -> Callable[[], None]:
    count = itertools.count(1)
    return lambda: update(next(count))


def _evaluator(pictures: bool, notes: list[str], advance: Callable[[], None]) -> Evaluator:
    from streamfuse.evaluation.run import Evaluator

    return Evaluator(pictures=pictures, on_picture=advance, notes=notes)


def _show(evaluation: Evaluation) -> None:
    from rich.console import Console

    from streamfuse.evaluation.tables import terminal_tables

    console = Console(highlight=False)
    console.print(printable(evaluation.method), markup=False)
    for table in terminal_tables(evaluation):
        console.print(table)
    for metric, reason in evaluation.undefined.items():
        console.print(f"{metric} {reason}", markup=False)


def _write(evaluation: Evaluation, json_file: Path | None, markdown_file: Path | None, report: Path | None) -> None:
    from streamfuse.evaluation.report import write_report
    from streamfuse.evaluation.tables import markdown

    for path, content in ((json_file, evaluation.to_json), (markdown_file, lambda: markdown(evaluation))):
        if path is None:
            continue
        try:
            path.write_text(content(), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from None
    if report is not None:
        logs.say(f"report: {write_report(report, evaluation)}")
