"""Progress and summary of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from streamfuse.cli import logs
from streamfuse.cli.options import on_terminal
from streamfuse.frames import Role
from streamfuse.telemetry import Summary, each_count

PLAIN_LINE_S = 5.0
"""Interval between progress lines where there is no terminal."""


@contextmanager
def progress(total: int | None) -> Iterator[Callable[[Summary], None]]:
    """Make a callback that shows the progress of a run on stderr: a bar on a terminal, plain lines elsewhere."""
    if logs.as_json() or not on_terminal():
        yield _PlainLines(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("fusing"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[fps]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, fps="starting")
        yield lambda summary: bar.update(
            task, completed=summary.fused, fps=f"{summary.fps:.1f} fps" if summary.fps else "starting"
        )


class _PlainLines:
    def __init__(self, total: int | None) -> None:
        self._total = total
        self._last = time.monotonic()

    def __call__(self, summary: Summary) -> None:
        now = time.monotonic()
        if now - self._last < PLAIN_LINE_S:
            return
        self._last = now
        if logs.as_json():
            logs.log_summary("progress", summary)
            return
        of = f" of {self._total}" if self._total else ""
        left = ""
        if self._total and summary.fps:
            left = f", {max(self._total - summary.fused, 0) / summary.fps:.0f} s left"
        pace = f"{summary.fps:.1f} fps" if summary.fps else "starting"
        click.echo(f"{summary.fused}{of} frames, {pace}{left}", err=True)


def show_summary(summary: Summary) -> None:
    """Show what a run did, on stderr: stdout is for results."""
    if logs.as_json():
        logs.log_summary("summary", summary)
        return
    lines = [
        f"read     {', '.join(f'{role.label} {summary.read.get(role, 0)}' for role in Role)} frames",
        f"paired   {summary.pairs}",
        f"fused    {summary.fused} in {summary.elapsed_s:.1f} s, {summary.fps:.2f} fps",
    ]
    lines += [
        f"passed   {count} {role.label} without fusion: the other stream was away"
        for role, count in summary.passthrough.items()
    ]
    if summary.sources:
        known = summary.skew_ms is not None
        lines.append(f"skew     {summary.skew_ms:+.1f} ms, infrared after visible" if known else "skew     unknown")
        lines += [
            f"{role.label:<9}{source.state}, {source.reconnects} reconnects, "
            f"by the clock {summary.clocks.get(role, 'none')}"
            for role, source in summary.sources.items()
        ]
    lines += [f"written  {count} to {name}" for name, count in summary.written.items()]
    lines += [f"dropped  {summary.dropped}"] if summary.drops else ["dropped  none"]
    lines += [f"         {count:5d}  {stream}: {reason}" for stream, reason, count in each_count(summary.drops)]
    lines += [f"repeated {count:5d}  {stream}: {reason}" for stream, reason, count in each_count(summary.repeated)]
    if summary.stages:
        lines.append(f"{'latency, ms':<20}{'p50':>9}{'p95':>9}{'p99':>9}")
        lines += [
            f"  {name:<18}{stage.p50_ms:9.2f}{stage.p95_ms:9.2f}{stage.p99_ms:9.2f}"
            for name, stage in summary.stages.items()
        ]
    logs.say(*lines)
