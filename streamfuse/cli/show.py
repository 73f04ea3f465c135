"""Progress and summary of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from streamfuse.cli import logs
from streamfuse.cli.progress import progress
from streamfuse.telemetry import Summary


@contextmanager
def run_progress(total: int | None) -> Iterator[Callable[[Summary], None]]:
    """Show the progress of a run until the block is left, from the summaries that the callback is passed."""
    with progress("fusing", total) as update:

        def on_tick(summary: Summary) -> None:
            words = f"{summary.fps:.1f} fps" if summary.fps else "starting"
            if total and summary.fps:
                words += f", {max(total - summary.fused, 0) / summary.fps:.0f} s left"
            update(summary.fused, words, fields=logs.summary_fields(summary))

        yield on_tick


def show_summary(summary: Summary) -> None:
    """Show the summary of a run on stderr; stdout is for results."""
    if logs.as_json():
        logs.log_summary("summary", summary)
        return
    lines = [
        f"read     infrared {summary.read.get('ir', 0)}, visible {summary.read.get('vis', 0)} frames",
        f"paired   {summary.pairs}",
        f"fused    {summary.fused} in {summary.elapsed_s:.1f} s, {summary.fps:.2f} fps",
    ]
    lines += [f"alone    {count} {role}, the other stream being away" for role, count in summary.alone.items()]
    if summary.sources:
        lines.append(
            f"skew     {summary.skew_ms:+.1f} ms, infrared after visible" if summary.skew_ms else "skew     none"
        )
        lines += [
            f"{name:<9}{source.state}, {source.reconnects} reconnects, by the clock {summary.clocks.get(role, 'none')}"
            for role, (name, source) in zip(("ir", "vis"), summary.sources.items(), strict=True)
        ]
    lines += [f"written  {count} to {name}" for name, count in summary.written.items()]
    lines += [f"dropped  {summary.dropped}"] if summary.drops else ["dropped  none"]
    lines += [f"         {count:5d}  {reason}" for reason, count in sorted(summary.drops.items())]
    lines += [f"held     {count:5d}  {reason}" for reason, count in sorted(summary.held.items())]
    if summary.stages:
        lines.append(f"{'latency, ms':<20}{'p50':>9}{'p95':>9}{'p99':>9}")
        lines += [
            f"  {name:<18}{stage.p50_ms:9.2f}{stage.p95_ms:9.2f}{stage.p99_ms:9.2f}"
            for name, stage in summary.stages.items()
        ]
    logs.say(*lines)
