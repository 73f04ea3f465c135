"""`streamfuse batch`: archives, over the cores of this machine or a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamfuse.cli import logs, options
from streamfuse.cli.run import stopping_on_signals
from streamfuse.cli.show import PLAIN_LINE_S
from streamfuse.errors import DamagedInput, StreamfuseError, UsageError
from streamfuse.sources.limits import max_pixels

if TYPE_CHECKING:
    from distributed import Client

    from streamfuse.batch.fusing import Fusing
    from streamfuse.batch.recordings import Alone, Clip
    from streamfuse.batch.report import Report
    from streamfuse.batch.run import Entry, State


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--ir", help="Instead of a manifest: a pattern with *, such as 'rec/*/ir.mp4'.")
@click.option("--vis", help="The same of visible ones; pairs are known by what the * stand for.")
@click.option("--vot", type=click.Path(path_type=Path), help="Instead: a directory with VOT-RGBT sequences in it.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Outputs go below here."
)
@options.force
@click.option("--report", type=click.Path(path_type=Path, file_okay=False), help="batch.json and .html; default: -o.")
@click.option(
    "--split",
    type=options.FiniteRange(1, 86_400),
    help="Longer recordings are fused in parts of about so many seconds, and joined.",
)
@click.option("--scheduler", help="tcp://HOST:PORT of a Dask cluster; without it, this machine's cores or GPUs.")
@click.option("--workers", type=click.IntRange(1, 4096), help="Processes on this machine; default: one a core or GPU.")
@click.option("--threads", type=click.IntRange(1, 4096), help="Of each engine on a CPU; default: its share of cores.")
@options.video
@options.engine
@options.hardware
@options.calibration
@options.pairing
@options.max_pixels
@options.config
@options.print_config
@options.log_json
@options.common
def command(
    manifest: Path | None,
    ir: str | None,
    vis: str | None,
    vot: Path | None,
    output: Path,
    force: bool,
    report: Path | None,
    split: float | None,
    scheduler: str | None,
    workers: int | None,
    threads: int | None,
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
) -> int:
    """Fuse many recordings, each into a file: those of MANIFEST, of two patterns, or of a tree of VOT sequences.

    MANIFEST is a .csv or .toml file with ir and vis, or vot, and where needed output, calib and ir-offset-ms.

    \b
    streamfuse batch clips.csv -o fused/
    streamfuse batch --ir 'rec/*/ir.mp4' --vis 'rec/*/vis.mp4' -o fused/
    streamfuse batch --vot sequences/ -o fused/
    streamfuse batch clips.csv -o fused/ --split 300 --scheduler tcp://127.0.0.1:8786

    What was made before, of the same inputs with the same options, is skipped: after a crash, run the same again.
    """
    from streamfuse.batch import cluster
    from streamfuse.batch.fusing import Fusing, check

    cluster.check_installed()
    if scheduler is not None and workers is not None:
        raise UsageError("--workers is of this machine: a cluster that is named with --scheduler has its own")
    fusing = Fusing(
        weights=_absolute(engine.weights),
        engine=engine.engine,
        precision=engine.precision,
        preset=engine.preset,
        device=engine.device,
        tone=tone,
        calib=_absolute(calib),
        crop=crop == "overlap",
        codec=codec,
        crf=crf,
        effort=effort,
        hw_encode=hw_encode,
        hw_decode=hw_decode,
        fps=fps,
        agc=agc,
        ir_offset_ms=ir_offset_ms,
        tolerance_ms=tolerance_ms,
        split_s=split,
        max_pixels=max_pixels(),
    )
    clips, alone = _list_clips(manifest, ir, vis, vot, output, fusing.suffix)
    fusing = check(fusing, clips)
    place = _Place(scheduler, workers, threads, engine.device)
    return _run(clips, alone, place, fusing, force, report or output)


def _absolute(path: Path | None) -> str | None:
    return str(path.expanduser().absolute()) if path is not None else None


def _list_clips(
    manifest: Path | None, ir: str | None, vis: str | None, vot: Path | None, output: Path, suffix: str
) -> tuple[list[Clip], list[Alone]]:
    from streamfuse.batch.recordings import pair_patterns, read_manifest, sequence_clips

    given = [manifest is not None, ir is not None or vis is not None, vot is not None]
    if sum(given) != 1:
        raise UsageError("give one of: a manifest, --ir and --vis, or --vot DIR")
    if manifest is not None:
        return read_manifest(manifest, output, suffix), []
    if vot is not None:
        return sequence_clips(vot, output, suffix), []
    if ir is None or vis is None:
        raise UsageError(f"{'--ir' if ir is None else '--vis'} missing: give two patterns")
    return pair_patterns(ir, vis, output, suffix)


class _Place:
    """Where a batch runs."""

    def __init__(self, scheduler: str | None, workers: int | None, threads: int | None, device: str) -> None:
        """Raises UsageError for a device that several workers of this machine would all take."""
        from streamfuse.batch import cluster

        self._scheduler = scheduler
        if scheduler is not None:
            self._workers, self._gpus = 0, list[str]()
            self.threads = threads or 1
            self.name = f"the cluster {scheduler}"
            return
        self._gpus = cluster.visible_gpus() if device in ("auto", "cuda") else []
        cores = cluster.cores()
        self._workers = workers or cluster.worker_count(cores, cluster.free_memory(), len(self._gpus))
        self.threads = threads or max(1, cores // self._workers)
        what = f"GPUs {', '.join(self._gpus)}" if self._gpus else f"{self.threads} threads each"
        self.name = f"this machine, {self._workers} workers, {what}"

    def open(self) -> AbstractContextManager[Client]:
        from streamfuse.batch import cluster

        if self._scheduler is not None:
            return cluster.remote(self._scheduler)
        return cluster.local(self._workers, self._gpus)


def _run(clips: list[Clip], alone: list[Alone], place: _Place, fusing: Fusing, force: bool, directory: Path) -> int:
    from streamfuse.batch import receipts
    from streamfuse.batch.report import Report, write
    from streamfuse.batch.run import Run, Status, idle, plan

    fusing = replace(fusing, threads=place.threads)
    begun = datetime.now(UTC)
    entries = plan(clips, fusing, force)
    state, name = idle(entries), "no worker, as nothing was left to do"
    stopped: list[int] = []
    lost: StreamfuseError | None = None
    if any(entry.status is Status.LEFT for entry in entries):
        name = place.name
        try:
            with place.open() as client:
                run = Run(client, entries, fusing, force)
                with stopping_on_signals(run.stop) as stopped, _progress(len(entries)) as on_tick:
                    try:
                        run(on_tick)
                    finally:
                        state = run.state()
        except StreamfuseError as error:
            lost = error
    for entry in entries:  # a killed process may have left something, also after its output had its name
        if entry.status in (Status.LEFT, Status.FAILED):
            receipts.sweep(entry.clip.output)
        else:
            receipts.tidy(entry.clip.output)
    report = Report(entries, alone, state, name, begun)
    page = write(report, directory)
    _show(report, page)
    if lost is not None:
        raise lost
    if stopped:
        logs.log.info("stopped by a signal before the end; run the same again to go on")
        return 128 + stopped[0]
    _raise_outcome(entries, page)
    return 0


def _raise_outcome(entries: list[Entry], page: Path) -> None:
    """Raises for the clips that failed, with the exit code that they share, else 1; and for damaged inputs."""
    from streamfuse.batch.run import Status

    failed = [entry for entry in entries if entry.status is Status.FAILED]
    if failed:
        first = "; ".join(f"{entry.clip.output.name}: {entry.error}" for entry in failed[:3])
        error = StreamfuseError(f"{len(failed)} of {len(entries)} clips failed: {first}; all of them are in {page}")
        codes = {entry.code for entry in failed}
        error.exit_code = codes.pop() if len(codes) == 1 else StreamfuseError.exit_code
        raise error
    if damaged := [entry for entry in entries if entry.damage]:
        first = "; ".join(f"{entry.clip.output.name}: {entry.damage}" for entry in damaged[:3])
        raise DamagedInput(
            f"{len(damaged)} of {len(entries)} recordings are damaged, and fused from what could be read: "
            f"{first}; all of them are in {page}"
        )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[State], None]]:
    """A bar on a terminal, plain lines elsewhere, all on stderr."""
    if logs.as_json() or not options.on_terminal():
        yield _PlainLines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("fusing"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, words="starting")

        def on_tick(state: State) -> None:
            bar.update(task, completed=state.done + state.skipped + state.failed, words=_words(state))

        yield on_tick


def _words(state: State) -> str:
    failed = f", {state.failed} failed" if state.failed else ""
    return f"{state.workers} workers, {state.frames / max(state.elapsed_s, 1e-9):.1f} fps{failed}"


class _PlainLines:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, state: State) -> None:
        now = time.monotonic()
        if now - self._last < PLAIN_LINE_S:
            return
        self._last = now
        if logs.as_json():
            logs.log.info("progress", extra={logs.FIELDS: asdict(state)})
            return
        click.echo(f"{state.done + state.skipped + state.failed} of {state.total} clips, {_words(state)}", err=True)


def _show(report: Report, page: Path) -> None:
    """What became of the clips, on stderr."""
    counts = report.counts
    if logs.as_json():
        logs.log.info("summary", extra={logs.FIELDS: {"counts": counts, "fps": report.fps, "report": str(page)}})
        return
    lines = [f"{name:<9}{count}" for name, count in counts.items() if count or name in ("done", "skipped", "failed")]
    lines.append(f"frames   {report.state.frames} in {report.state.elapsed_s:.1f} s, {report.fps:.2f} fps")
    lines.append(f"report   {page}")
    logs.say(*lines)
