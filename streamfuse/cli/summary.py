"""Progress and summary of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from streamfuse.cli import logs
from streamfuse.cli.progress import progress
from streamfuse.frames import Role
from streamfuse.telemetry import AlignmentSummary, Summary, each_count


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
        f"read     {', '.join(f'{role.label} {summary.read.get(role, 0)}' for role in Role)} frames",
        f"paired   {summary.pairs}",
        f"fused    {summary.fused} in {summary.elapsed_s:.1f} s, {summary.fps:.2f} fps",
    ]
    if summary.lifted:
        lines.append(f"lifted   {summary.lifted} with white smoke or glare, on which infrared was drawn")
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
    lines += _alignment(summary.alignment)
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


def _alignment(alignment: AlignmentSummary | None) -> list[str]:
    if alignment is None:
        return []
    lines = []
    if alignment.distance_m is not None:
        line = "distance far" if alignment.distance_m == math.inf else f"distance {alignment.distance_m:.1f} m"
        if alignment.automatic:
            line += f", auto: {alignment.answered} times sure"
            line += f", {alignment.kept} times not, so the last one was kept" if alignment.kept else ""
        lines.append(line)
    if alignment.by_object:
        count = alignment.apart_total
        own = "thing with a distance of its own" if count == 1 else "things with distances of their own"
        lines.append(f"objects  {count} warm {own}")
    if alignment.error_px is not None:
        lines.append(f"fit      infrared is off by {alignment.error_px:.1f} px since the calibration")
    return lines
