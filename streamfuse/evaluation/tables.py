"""The figures as tables for a terminal and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from streamfuse.evaluation.peers import AUTHORS_IMAGES, AVERAGE, DATASET, PAPER_ROW, Reference
from streamfuse.evaluation.result import Evaluation
from streamfuse.evaluation.score import APPEARANCE, METRICS, PAPER, REFERENCE
from streamfuse.evaluation.video import temporal_rows

if TYPE_CHECKING:
    from rich.console import RenderableType

DIGITS = {"EN": 4, "SD": 3, "MI": 4, "FMI_dct": 4, "FMI_pixel": 4, "SCD": 4, "AG": 2, "std": 2}
"""Decimal places; three for all other metrics."""

BESIDE: Sequence[Reference] = (PAPER_ROW, AUTHORS_IMAGES, AVERAGE)
UNDEFINED = "–"  # noqa: RUF001 - a dash, as tables have it


def number(metric: str, value: float | None, digits: int | None = None) -> str:
    """Format a value as in the published tables, or with `digits` decimal places; a dash for none."""
    if value is None or math.isnan(value):
        return UNDEFINED
    return f"{value:.{DIGITS.get(metric, 3) if digits is None else digits}f}"


def reference_number(row: Reference, metric: str) -> str:
    return number(metric, row.values.get(metric), row.digits.get(metric))


def level(value: float) -> str:
    """Format a value of a stream in grey levels."""
    return UNDEFINED if math.isnan(value) else f"{value:.3f}"


def explain(metric: str) -> str:
    return _MEANINGS.get(metric, "")


_MEANINGS = {
    "EN": "entropy",
    "SD": "spread x √size",
    "MI": "twice EN",
    "FMI_dct": "feature MI, DCT",
    "FMI_pixel": "feature MI, edges",
    "SCD": "sum of correlations",
    "true_MI": "bits, of both",
    "Q_ABF": "edges kept",
    "SSIM": "mean of both",
    "SSIM_ir": "to infrared",
    "SSIM_vis": "to visible",
    "VIF": "sum of both",
    "VIF_ir": "of infrared",
    "VIF_vis": "of visible",
    "AG": "average gradient",
    "std": "standard deviation",
    "shadow_loss": "% made black",
    "highlight_loss": "% made white",
    "shadow_contrast": "kept in the dark",
    "warm_contrast": "infrared is 1",
    "noise_gain": "quieter source is 1",
}


def terminal_tables(evaluation: Evaluation) -> Iterator[RenderableType]:
    """Return tables for a rich console, at most 80 columns wide."""
    from rich.table import Table

    mean = evaluation.mean
    table = Table(
        title=f"mean of {len(evaluation.cases)}; the columns on the right are of the {DATASET}",
        title_justify="left",
        caption="higher is better except for losses and noise; the first block is easily pleased",
        caption_justify="left",
    )
    table.add_column("metric", no_wrap=True)
    table.add_column("", style="dim", no_wrap=True)
    table.add_column("this", justify="right", style="bold", no_wrap=True)
    for reference in BESIDE:
        table.add_column(reference.short, justify="right")
    for metric in METRICS:
        if metric in mean:
            cells = [reference_number(reference, metric) for reference in BESIDE]
            last = metric in (PAPER[-1], REFERENCE[-1])
            table.add_row(
                metric,
                explain(metric),
                number(metric, mean[metric]),
                *cells,
                end_section=last,
            )
    yield table
    if evaluation.temporal is not None:
        stream = Table(
            title=f"over {evaluation.temporal.frames} frames, grey levels; lower is better", title_justify="left"
        )
        stream.add_column("", no_wrap=True)
        for title in ("fused", "infrared", "visible"):
            stream.add_column(title, justify="right")
        for _, title, *figures in temporal_rows(evaluation.temporal):
            stream.add_row(title, *map(level, figures))
        yield stream


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = "|---" + "|--:" * (len(head) - 1) + "|"
    return "\n".join([_markdown_row(head), rule, *map(_markdown_row, rows)])


def _row(metrics: Sequence[str], title: str, values: Mapping[str, float]) -> list[str]:
    return [title, *(number(metric, values.get(metric)) for metric in metrics)]


def markdown(evaluation: Evaluation) -> str:
    """Return the same as a Markdown document, with a row for each picture."""
    mean = evaluation.mean
    parts = [
        "# Evaluation",
        f"{evaluation.method}\n\nInputs: {evaluation.inputs}",
        *(f"- {note}" for note in evaluation.notes),
    ]
    for title, metrics in (("Published metrics", PAPER), ("Further metrics", REFERENCE), ("Appearance", APPEARANCE)):
        rows = [_row(metrics, f"**mean of {len(evaluation.cases)}**", mean)]
        rows += [
            [f"{reference.title} ({DATASET})", *(reference_number(reference, metric) for metric in metrics)]
            for reference in BESIDE
            if any(metric in reference.values for metric in metrics)
        ]
        parts.append(f"## {title}\n\n{_markdown_table(['', *metrics], rows)}")
    if evaluation.temporal is not None:
        stream = [[title, *map(level, figures)] for _, title, *figures in temporal_rows(evaluation.temporal)]
        parts.append(
            f"## Over {evaluation.temporal.frames} frames, in grey levels\n\n"
            + _markdown_table(["", "fused", "infrared", "visible"], stream)
        )
    all_metrics = [metric for metric in METRICS if metric in mean]
    pictures = [_row(all_metrics, case.name, case.scores) for case in evaluation.cases]
    parts.append(f"## Pictures\n\n{_markdown_table(['', *all_metrics], pictures)}")
    parts += [f"{metric}: {reason}" for metric, reason in evaluation.undefined.items()]
    return "\n\n".join(parts) + "\n"
