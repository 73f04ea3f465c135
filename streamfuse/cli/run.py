"""`streamfuse run`: two streams into a video."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from streamfuse.cli import logs, options, show
from streamfuse.errors import StreamfuseError, UsageError

if TYPE_CHECKING:
    from streamfuse.cli.publish import Publication
    from streamfuse.pipeline import Pipeline
    from streamfuse.sinks.base import Sink
    from streamfuse.sources.base import Source


@click.command()
@click.option("--ir", type=options.SOURCE, help="Infrared: a video, images, cam0, rtsp://..., or synthetic:ir.")
@click.option("--vis", type=options.SOURCE, help="Visible: the same kinds, or synthetic:vis.")
@options.vot
@click.option(
    "-o",
    "--output",
    "outputs",
    metavar="FILE|URL",
    multiple=True,
    help="out.mp4, out.mkv, images: out/%06d.png, or rtsp://server/path; may be given several times.",
)
@options.force
@options.video
@options.engine
@options.hardware
@options.calibration
@options.pairing
@options.live
@options.publish
@options.preview
@click.option("--frames", type=click.IntRange(1), help="Stop after this many pairs.")
@options.max_pixels
@options.config
@options.print_config
@options.log_json
@options.common
def command(
    ir: str | None,
    vis: str | None,
    vot: Path | None,
    outputs: tuple[str, ...],
    force: bool,
    codec: str,
    crf: int,
    effort: str,
    tone: str,
    engine: options.EngineChoice,
    hw_decode: bool,
    hw_encode: bool,
    calib: Path | None,
    crop: str | None,
    fps: float | None,
    agc: str,
    ir_offset_ms: float,
    tolerance_ms: float | None,
    max_age_ms: float,
    policy: str,
    on_loss: str,
    preview: options.Preview,
    frames: int | None,
    publish: Publication | None,
) -> int:
    """Fuse an infrared and a visible stream, frame by frame, into a video or images.

    \b
    streamfuse run --ir cam0 --vis cam1 -o fused.mp4
    streamfuse run --ir rtsp://camera/ir --vis rtsp://camera/rgb -o fused.mp4 --preview 127.0.0.1:8080
    streamfuse run --ir ir.mp4 --vis vis.mp4 -o fused.mp4
    streamfuse run --vot sequences/street -o street.mp4
    streamfuse run --ir 'synthetic:ir?seconds=10' --vis 'synthetic:vis?seconds=10' -o demo.mp4

    Ctrl-C stops cleanly: what was fused is written and the file is finished.  A second one stops at once.
    """
    from streamfuse.engines.base import gpu_of
    from streamfuse.pairing.flow import OnLoss
    from streamfuse.pairing.live import Policy
    from streamfuse.pipeline import Pipeline
    from streamfuse.sinks import open_sinks
    from streamfuse.sinks.encoder import VideoFormat

    if not outputs and publish is None and preview.address is None:
        raise UsageError("nowhere to write to: give -o FILE, --preview 127.0.0.1:8080 or --publish URL")
    gpu = gpu_of(engine.device) if hw_decode else None
    sources = _open_sources(ir, vis, vot, fps, agc, gpu)
    fuser = engine.fuser(tone, calib, crop)
    files = [path for source in sources for path in source.files]
    period_ns = max(source.period_ns or 0 for source in sources) or None
    sinks: list[Sink] = []
    try:
        sinks += preview.sinks()
        if publish is not None:
            sinks.append(publish.open(engine.weights, calib))
        sinks += open_sinks(
            outputs, video=VideoFormat(codec, crf, effort, hw_encode), force=force, period_ns=period_ns, inputs=files
        )
    except BaseException:
        for sink in sinks:
            sink.close(failed=True)
        raise
    pipeline = Pipeline(
        *sources,
        sinks=sinks,
        fuser=fuser,
        tolerance_ms=tolerance_ms,
        ir_offset_ms=ir_offset_ms,
        frames=frames,
        max_age_ms=max_age_ms,
        policy=Policy(policy),
        on_loss=OnLoss(on_loss),
    )
    return watch(pipeline)


def _open_sources(
    ir: str | None, vis: str | None, vot: Path | None, fps: float | None, agc: str, gpu: int | None
) -> tuple[Source, Source]:
    from streamfuse.sources import open_pair
    from streamfuse.sources.vot import open_vot

    ir, vis = options.two_sources(ir, vis, vot)
    return open_vot(vot, fps, agc) if vot is not None else open_pair(ir, vis, fps=fps, agc=agc, gpu=gpu)


def watch(pipeline: Pipeline) -> int:
    """Run with progress, signals and a summary; the exit code."""
    with stopping_on_signals(pipeline.stop) as received, show.progress(pipeline.expected_pairs) as on_tick:
        error: StreamfuseError | None = None
        try:
            pipeline.run(on_tick)
        except StreamfuseError as raised:
            error = raised
    show.show_summary(pipeline.summary())
    if error is not None:
        raise error
    if received and not pipeline.live:
        logs.log.info("stopped by a signal before the end")
        return 128 + received[0]
    return 0


@contextmanager
def stopping_on_signals(stop_it: Callable[[], None]) -> Iterator[list[int]]:
    """SIGINT and SIGTERM call `stop_it`; the same again ends the process at once, as without us."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        # From a thread of its own: the interrupted code may hold the locks that stopping needs.
        threading.Thread(target=stop_it, daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
