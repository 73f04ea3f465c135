"""`streamfuse batch`: fuse an archive, on the cores of this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamfuse.cli import logs, options
from streamfuse.cli.progress import progress
from streamfuse.cli.run import stopping_on_signals
from streamfuse.errors import DamagedInput, StreamfuseError, UsageError

if TYPE_CHECKING:
    from distributed import Client

    from streamfuse.batch.options import BatchOptions
    from streamfuse.batch.recordings import Recording, Unpaired
    from streamfuse.batch.report import Report
    from streamfuse.batch.run import Entry, State


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option(
    "--ir", type=options.SOURCE, help="Instead of a manifest: pattern of the infrared files, such as 'rec/*/ir.mp4'."
)
@click.option(
    "--vis",
    type=options.SOURCE,
    help="Pattern of the visible files; paired with those that have the same text for each *.  Not needed for images "
    "of a thermal camera that hold both pictures, or that lie beside the visible ones.",
)
@click.option(
    "--vot", type=click.Path(path_type=Path), help="Instead of a manifest: a directory of VOT-RGBT sequences."
)
@click.option("--bag", help="Instead of a manifest: pattern of bags, such as 'rec/*.mcap', whose topics are found.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Directory of the outputs."
)
@options.force
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for batch.json and batch.html; default: that of the outputs.",
)
@click.option(
    "--split",
    type=options.FiniteRange(1, 86_400),
    help="Fuse longer recordings in segments of about this many seconds, which are then joined.",
)
@click.option("--scheduler", help="Dask scheduler, tcp://HOST:PORT; default: this machine's cores or GPUs.")
@click.option(
    "--workers", type=click.IntRange(1, 4096), help="Processes on this machine; default: one per core or GPU."
)
@click.option(
    "--threads", type=click.IntRange(1, 4096), help="CPU threads per engine; default: its share of the cores."
)
@options.fusion
@options.config
@options.print_config
@options.log_json
@options.common
def command(
    manifest: Path | None,
    ir: str | None,
    vis: str | None,
    vot: Path | None,
    bag: str | None,
    output: Path,
    force: bool,
    report: Path | None,
    split: float | None,
    scheduler: str | None,
    workers: int | None,
    threads: int | None,
    fusion: options.FusionOptions,
) -> int:
    """Fuse many recordings, each into one file.

    The recordings are listed in MANIFEST, match patterns, or are VOT sequences in a directory.

    MANIFEST is a .csv or .toml file with the keys ir and vis, or vot, or bag, and optionally output, calib and
    ir-offset-ms.  Images of a thermal camera that hold both pictures need no vis.

    \b
    streamfuse batch archive.csv -o fused/
    streamfuse batch --ir 'rec/*/ir.mp4' --vis 'rec/*/vis.mp4' -o fused/
    streamfuse batch --ir 'surveys/*' -o fused/
    streamfuse batch --vot sequences/ -o fused/
    streamfuse batch --bag 'rec/*.mcap' -o fused/
    streamfuse batch archive.csv -o fused/ --split 300 --scheduler tcp://127.0.0.1:8786

    Outputs already made from the same inputs with the same options are skipped. After a crash, run the command again.
    """
    from streamfuse.batch import cluster
    from streamfuse.batch.options import BatchOptions, check

    cluster.check_installed()
    if scheduler is not None and workers is not None:
        raise UsageError("--workers starts processes on this machine: leave it out with --scheduler")
    weights, calib = (_absolute(path) for path in (fusion.engine.weights, fusion.calib))
    fusion = replace(fusion, engine=replace(fusion.engine, weights=weights), calib=calib)
    batch = BatchOptions(fusion, split_s=split)
    recordings, unpaired = _list_recordings(manifest, ir, vis, vot, bag, output, batch.suffix)
    batch = check(batch, recordings)
    site = _Site(scheduler, workers, threads, fusion.engine.device)
    return _run(recordings, unpaired, site, batch, force, report or output)


def _absolute(path: Path | None) -> Path | None:
    return path.absolute() if path is not None else None


def _list_recordings(
    manifest: Path | None,
    ir: str | None,
    vis: str | None,
    vot: Path | None,
    bag: str | None,
    output: Path,
    suffix: str,
) -> tuple[list[Recording], list[Unpaired]]:
    from streamfuse.batch.recordings import (
        bag_recordings,
        pair_patterns,
        read_manifest,
        sequence_recordings,
        stored_recordings,
    )

    given = [manifest is not None, ir is not None or vis is not None, vot is not None, bag is not None]
    if sum(given) != 1:
        raise UsageError("give one of: a manifest, --ir and --vis, --vot DIR, or --bag PATTERN")
    if manifest is not None:
        return read_manifest(manifest, output, suffix), []
    if vot is not None:
        return sequence_recordings(vot, output, suffix), []
    if bag is not None:
        return bag_recordings(bag, output, suffix), []
    if ir is None or vis is None:
        if ir is None:
            raise UsageError("--ir missing: give two patterns")
        return stored_recordings(ir, output, suffix), []
    return pair_patterns(ir, vis, output, suffix)


class _Site:
    """The machine or cluster that a batch runs on."""

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


def _run(
    recordings: list[Recording],
    unpaired: list[Unpaired],
    site: _Site,
    batch: BatchOptions,
    force: bool,
    directory: Path,
) -> int:
    from streamfuse.batch import receipts
    from streamfuse.batch.report import Report, write
    from streamfuse.batch.run import Run, Status, idle, plan

    batch = replace(batch, threads=site.threads)
    begun = datetime.now(UTC)
    entries = plan(recordings, batch, force)
    state, name = idle(entries), "no worker: nothing was left to do"
    stopped: list[int] = []
    lost: StreamfuseError | None = None
    if any(entry.status is Status.LEFT for entry in entries):
        name = site.name
        try:
            with site.open() as client:
                run = Run(client, entries, batch, force)
                with stopping_on_signals(run.stop) as stopped, _progress(len(entries)) as on_tick:
                    try:
                        run(on_tick)
                    finally:
                        state = run.state()
        except StreamfuseError as error:
            lost = error
    for entry in entries:  # a killed process may have left files, even after its output was complete
        if entry.status in (Status.LEFT, Status.FAILED):
            receipts.sweep(entry.recording.output)
        else:
            receipts.tidy(entry.recording.output)
    report = Report(entries, unpaired, state, name, begun)
    page = write(report, directory)
    _show(report, page)
    if lost is not None:
        raise lost
    if stopped:
        logs.log.info("stopped by a signal before the end; run the same command again to continue")
        return 128 + stopped[0]
    _raise_outcome(entries, page)
    return 0


def _raise_outcome(entries: list[Entry], page: Path) -> None:
    """Raise for recordings that failed, with the exit code that they share, else 1; and for damaged inputs."""
    from streamfuse.batch.run import Status

    failed = [entry for entry in entries if entry.status is Status.FAILED]
    if failed:
        first = "; ".join(f"{entry.recording.output.name}: {entry.error}" for entry in failed[:3])
        error = StreamfuseError(f"{len(failed)} of {len(entries)} recordings failed: {first}; {page} lists all")
        codes = {entry.code for entry in failed}
        error.exit_code = codes.pop() if len(codes) == 1 else StreamfuseError.exit_code
        raise error
    if damaged := [entry for entry in entries if entry.damage]:
        first = "; ".join(f"{entry.recording.output.name}: {entry.damage}" for entry in damaged[:3])
        raise DamagedInput(
            f"{len(damaged)} of {len(entries)} recordings are damaged; what could be read was fused: "
            f"{first}; {page} lists all"
        )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[State], None]]:
    with progress("fusing", total, unit="recordings") as update:

        def on_tick(state: State) -> None:
            failed = f", {state.failed} failed" if state.failed else ""
            words = f"{state.workers} workers, {state.frames / max(state.elapsed_s, 1e-9):.1f} fps{failed}"
            update(state.done + state.skipped + state.failed, words, fields=asdict(state))

        yield on_tick


def _show(report: Report, page: Path) -> None:
    """Show the outcome on stderr."""
    counts = report.counts
    if logs.as_json():
        logs.log.info("summary", extra={logs.FIELDS: {"counts": counts, "fps": report.fps, "report": str(page)}})
        return
    lines = [f"{name:<9}{count}" for name, count in counts.items() if count or name in ("done", "skipped", "failed")]
    lines.append(f"frames   {report.state.frames} in {report.state.elapsed_s:.1f} s, {report.fps:.2f} fps")
    lines.append(f"report   {page}")
    logs.say(*lines)
