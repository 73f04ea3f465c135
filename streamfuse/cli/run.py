"""`streamfuse run`: fuse two streams."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from streamfuse.cli import logs, options, summary
from streamfuse.errors import InputError, StreamfuseError, UsageError

if TYPE_CHECKING:
    from streamfuse.calibration.model import Calibration
    from streamfuse.cli.publish import Publication
    from streamfuse.fuser import Fuser
    from streamfuse.pipeline import Pipeline
    from streamfuse.sinks.base import Sink
    from streamfuse.sources.base import Source
    from streamfuse.thermometry.finish import ThermalFinish


@click.command()
@click.option(
    "--ir",
    type=options.SOURCE,
    help="Infrared: a video, images, walk.bag?topic=/ir, cam0, rtsp://..., or synthetic:ir.",
)
@click.option(
    "--vis",
    type=options.SOURCE,
    help="Visible: the same kinds, or synthetic:vis.  Not needed for the images of a thermal camera that hold both, or "
    "that lie beside the visible ones.",
)
@options.vot
@options.bag
@click.option(
    "-o",
    "--output",
    "outputs",
    metavar="FILE|URL",
    multiple=True,
    help="out.mp4, out.mkv, out.mcap, images: out/%06d.png, vot:DIR, or rtsp://server/path; may be repeated.  "
    "Default: a preview in the browser.",
)
@options.force
@options.fusion
@options.live
@options.thermal
@options.publish
@options.preview
@click.option(
    "--align",
    type=click.Choice(["fixed", "follow", "auto"]),
    default="fixed",
    show_default=True,
    help="When infrared does not fit the visible picture: fixed tells it, follow also corrects slowly what has changed "
    "since the calibration, auto makes a calibration of the first seconds where there is none.",
)
@click.option("--frames", type=click.IntRange(1), help="Stop after this many pairs.")
@options.config
@options.print_config
@options.log_json
@options.common
def command(
    ir: str | None,
    vis: str | None,
    vot: Path | None,
    bag: Path | None,
    outputs: tuple[str, ...],
    force: bool,
    fusion: options.FusionOptions,
    max_age_ms: float,
    policy: str,
    on_loss: str,
    finish: ThermalFinish | None,
    publish: Publication | None,
    preview: options.Preview,
    align: str,
    frames: int | None,
) -> int:
    """Fuse an infrared and a visible stream, frame by frame, into a video, images, or a preview in the browser.

    \b
    streamfuse run --ir cam0 --vis cam1
    streamfuse run --ir rtsp://camera/ir --vis rtsp://camera/rgb -o fused.mp4 --preview 127.0.0.1:8080
    streamfuse run --ir ir.mp4 --vis vis.mp4 -o fused.mp4
    streamfuse run --ir 'walk.mcap?topic=/ir/image_raw' --vis 'walk.mcap?topic=/rgb/image_raw' -o fused.mp4
    streamfuse run --bag walk.bag -o fused.mp4
    streamfuse run --vot sequences/street -o street.mp4 -o vot:fused/street
    streamfuse run --ir 'synthetic:ir?seconds=10' --vis 'synthetic:vis?seconds=10' -o demo.mp4

    Without an output the result is shown in a browser, on the first free port from 8080 of this machine; recordings
    then play in real time.

    Ctrl-C stops cleanly: fused frames are written and the file is finished.  A second Ctrl-C stops at once.
    """
    from streamfuse.cli.browser import open_browser
    from streamfuse.pairing.flow import OnLoss
    from streamfuse.pairing.live import Policy
    from streamfuse.pipeline import Pipeline
    from streamfuse.sinks import open_sinks
    from streamfuse.sinks.about import About
    from streamfuse.sources.agc import SPAN
    from streamfuse.sources.paced import PacedSource

    if align == "follow" and fusion.calib is None:
        raise UsageError("--align follow needs a calibration: give it with --calib")
    if align == "auto" and fusion.calib is not None:
        raise UsageError("--align auto makes a calibration: leave --calib out, or use --align follow")
    if finish is None and fusion.sources.agc.startswith(SPAN):
        from streamfuse.thermometry.finish import ThermalFinish

        finish = ThermalFinish()  # says so where there are no temperatures
    only_preview = not outputs and publish is None and preview.address is None
    with ExitStack() as stack:
        ir_source, vis_source = _open_sources(ir, vis, vot, bag, fusion)
        sources = stack.enter_context(ir_source), stack.enter_context(vis_source)
        if align == "auto" and not sources[0].live and ir is not None and vis is not None:
            own = _calibrated(ir, vis, fusion.sources)
            fuser = stack.enter_context(fusion.fuser(own, "fixed"))
        else:
            fuser = stack.enter_context(_make_fuser(fusion, *sources, align))
        made: Future[Pipeline] = Future()
        # Before the outputs announce themselves: whoever reads of one may stop the run from then on
        received = stack.enter_context(stopping_on_signals(lambda: made.result().stop()))
        files = [path for source in sources for path in source.files]
        period_ns = max(source.period_ns or 0 for source in sources) or None
        with ExitStack() as opened:  # the pipeline closes the sinks, once it has them
            sinks: list[Sink] = []

            def add(sink: Sink) -> None:
                sinks.append(sink)
                opened.callback(sink.close, failed=True)

            shown = preview.sink(only_output=only_preview)
            if shown is not None:
                add(shown)
            if publish is not None:
                add(publish.open(fusion.engine.weights, fusion.calib))
            calibration = fuser.calibration
            text = None if calibration is None else calibration.to_toml()
            about = About(sources[1].epoch_ns, text, None if fusion.crop else vot)  # a crop moves the ground truth
            for sink in open_sinks(
                outputs, video=fusion.video, force=force, period_ns=period_ns, inputs=files, about=about
            ):
                add(sink)
            opened.pop_all()
        pipeline = Pipeline(
            sources[0],
            PacedSource(sources[1]) if only_preview and not sources[1].live else sources[1],
            sinks=sinks,
            fuser=fuser,
            tolerance_ms=fusion.tolerance_ms,
            ir_offset_ms=fusion.ir_offset_ms,
            frames=frames,
            max_age_ms=max_age_ms,
            policy=Policy(policy),
            on_loss=OnLoss(on_loss),
            finish=finish,
        )
        made.set_result(pipeline)
        if only_preview and preview.open and shown is not None:
            open_browser(shown.links["preview"])
        return watch(pipeline, received)


def _open_sources(
    ir: str | None, vis: str | None, vot: Path | None, bag: Path | None, fusion: options.FusionOptions
) -> tuple[Source, Source]:
    from streamfuse.sources import images_exist, open_pair
    from streamfuse.sources.vot import open_vot

    if bag is not None:
        from streamfuse.cli.ask import ask_topics
        from streamfuse.sources.bags.choose import addresses

        if (ir, vis, vot) != (None, None, None):
            raise UsageError("--bag has both channels: leave out --ir, --vis and --vot")
        return open_pair(*addresses(bag, ask_topics(bag)), fusion.sources)
    if ir is not None and vis is None and vot is None and images_exist(ir):
        return open_pair(ir, None, fusion.sources)
    ir, vis = options.two_sources(ir, vis, vot)
    return open_vot(vot, fusion.sources) if vot is not None else open_pair(ir, vis, fusion.sources)


def _calibrated(ir: str, vis: str, sources: options.SourceOptions) -> Calibration | None:
    """Return a calibration of two recordings, None where they are pixel-aligned.  Raises InputError."""
    from streamfuse.calibration.scene import load_pairs
    from streamfuse.first_look import fits, look

    pairs, _ = load_pairs(ir, vis, sources)
    if fits(pairs):
        return None
    found = look(pairs)
    if found is None:
        raise InputError(
            "these recordings do not tell how infrared lies in the visible picture: calibrate with `streamfuse "
            "calibrate board` or `points`, or leave --align auto out if they are pixel-aligned"
        )
    logs.log.warning("infrared and visible do not fit each other by %s: calibrated from these recordings", found[1])
    return found[0]


def _make_fuser(fusion: options.FusionOptions, ir: Source, vis: Source, align: str) -> Fuser:
    """Make the fuser; without --calib, the files of the infrared camera or a bag may tell the calibration."""
    from streamfuse.calibration.bag import calibration_of

    if fusion.calib is not None:
        ir.placement = None
    if fusion.calib is not None or ir.placement is None:
        found = None if fusion.ignore_camera_info or fusion.calib is not None else calibration_of(ir, vis)
        if found is not None:
            logs.log.info("calibration: %s", "; ".join([found.calibration.method, *found.details, *found.warnings]))
        return fusion.fuser(None if found is None else found.calibration, align)
    from streamfuse.calibration.stored import stored_calibration

    fuser = replace(fusion, crop=False, distance_m=None).fuser()
    try:
        fuser.use_calibration(stored_calibration(ir.placement, ir.name), fusion.crop)
    except BaseException:
        fuser.close()
        raise
    return fuser


def watch(pipeline: Pipeline, received: list[int]) -> int:
    """Run a pipeline with progress and a summary; return the exit code, which depends on the signals received."""
    with summary.run_progress(pipeline.expected_pairs) as on_tick:
        error: StreamfuseError | None = None
        try:
            pipeline.run(on_tick)
        except StreamfuseError as raised:
            error = raised
    state = pipeline.summary()
    if error is None or any(state.read.values()):  # else the error says it all
        summary.show_summary(state)
    if error is not None:
        raise error
    if received and not pipeline.live:
        logs.log.info("stopped by a signal before the end")
        return 128 + received[0]
    return 0


@contextmanager
def stopping_on_signals(stop_it: Callable[[], None]) -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM call `stop_it`; the same signal again ends the process at once.

    Yields the signals received so far.
    """
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
