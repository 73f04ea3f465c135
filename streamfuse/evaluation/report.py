"""An evaluation as one self-contained HTML page with pictures and plots."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import cv2
import numpy as np

from streamfuse import __version__
from streamfuse.errors import OutputError
from streamfuse.evaluation import plots
from streamfuse.evaluation.maps import COLOURS
from streamfuse.evaluation.peers import (
    AUTHORS_IMAGES,
    AVERAGE,
    DATASET,
    PAPER_ROW,
    REFERENCE_ROWS,
    TABLE_ROWS,
    Reference,
)
from streamfuse.evaluation.result import RANKED_BY, Case, Evaluation
from streamfuse.evaluation.score import APPEARANCE, METRICS, PAPER, Triple
from streamfuse.evaluation.tables import explain, level, number, reference_number
from streamfuse.evaluation.video import temporal_rows

PAGE = "index.html"
PICTURE_WIDTH = 480
"""Pictures in the page are at most so wide: enough for a phone, and some 25 KB each."""
JPEG_QUALITY = 82
SHEET_LIMIT = 120
"""Scenes that are shown; of more, evenly spaced ones."""
EXTREMES = 3
"""Best and worst scenes that are shown large."""

REFERENCE_COLUMNS = ("true_MI", "Q_ABF", "SSIM", "VIF", "AG", "EN", "SD", "SCD")
MARKS: Sequence[Reference] = (PAPER_ROW, AUTHORS_IMAGES, AVERAGE)
TITLES = ("infrared", "visible", "fused", "lost")
_KEY = (
    f"; dashed, means over the {DATASET}: "
    '<span class="m0">paper</span><span class="m1">authors\' images</span><span class="m2">plain average</span>'
)


def encode_pictures(triple: Triple) -> tuple[bytes, bytes, bytes]:
    """Three (H, W) planes as JPEG, made smaller where they are wider than the page shows them."""
    return encode(triple[0]), encode(triple[1]), encode(triple[2])


def encode(plane: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """Encode (H, W) grey or (H, W, 3) BGR as JPEG, made smaller where it is wider than the page shows it."""
    height, width = plane.shape[:2]
    if width > PICTURE_WIDTH:
        size = PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width))
        small = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
    else:
        small = np.ascontiguousarray(plane)
    done, data = cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    assert done
    return data.tobytes()


def write_report(directory: Path, evaluation: Evaluation) -> Path:
    """Write the page to a directory, which is created if necessary; return its path.  Raises OutputError."""
    page = directory / PAGE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        page.write_text(render(evaluation), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {page}: {error.strerror}") from None
    return page


def render(evaluation: Evaluation) -> str:
    """Return the page's HTML."""
    template = Template(files("streamfuse.evaluation").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        method=escape(evaluation.method),
        inputs=escape(evaluation.inputs),
        count=len(evaluation.cases),
        notes="".join(f"<li>{escape(note)}</li>" for note in _notes(evaluation)),
        published=_table(PAPER, evaluation, TABLE_ROWS),
        reference=_table(REFERENCE_COLUMNS, evaluation, REFERENCE_ROWS),
        appearance=_table(APPEARANCE, evaluation, ()),
        faults="".join(_fault_key()),
        stream=_stream(evaluation),
        key=_KEY if evaluation.temporal is None else ".",
        plots="".join(_plots(evaluation)),
        extremes="".join(_extremes(evaluation)),
        sheet="".join(_sheet(evaluation)),
        figures=_figures(evaluation),
        version=escape(__version__),
    )


def _notes(evaluation: Evaluation) -> Iterator[str]:
    yield from evaluation.notes
    for metric, reason in evaluation.undefined.items():
        yield f"{metric}: {reason}"


def _cells(metrics: Sequence[str], values: Mapping[str, float]) -> str:
    return "".join(f"<td>{number(metric, values.get(metric))}</td>" for metric in metrics)


def _reference_cells(metrics: Sequence[str], row: Reference) -> str:
    return "".join(f"<td>{reference_number(row, metric)}</td>" for metric in metrics)


def _head(metrics: Sequence[str]) -> str:
    cells = "".join(f'<th title="{escape(explain(metric))}">{metric}</th>' for metric in metrics)
    return f"<thead><tr><th></th>{cells}</tr></thead>"


def _table(metrics: Sequence[str], evaluation: Evaluation, references: Sequence[Reference]) -> str:
    rows = [f'<tr class="own"><th>this: mean of {len(evaluation.cases)}</th>{_cells(metrics, evaluation.mean)}</tr>']
    rows += [f"<tr><th>{escape(row.title)}</th>{_reference_cells(metrics, row)}</tr>" for row in references]
    return f'<div class="wide"><table>{_head(metrics)}<tbody>{"".join(rows)}</tbody></table></div>'


def _figures(evaluation: Evaluation) -> str:
    metrics = [metric for metric in METRICS if metric in evaluation.mean]
    rows = [f"<tr><th>{escape(case.name)}</th>{_cells(metrics, case.scores)}</tr>" for case in evaluation.cases]
    return f'<div class="wide"><table>{_head(metrics)}<tbody>{"".join(rows)}</tbody></table></div>'


def _stream(evaluation: Evaluation) -> str:
    temporal = evaluation.temporal
    if temporal is None:
        return ""
    rows = "".join(
        f"<tr><th>{escape(title)}</th>{''.join(f'<td>{level(figure)}</td>' for figure in figures)}</tr>"
        for _, title, *figures in temporal_rows(temporal)
    )
    return (
        f"<section><h2>Over {temporal.frames} frames</h2><p>In grey levels; lower is better. <b>Own flicker</b> is the "
        "change of the fused picture's mean level from frame to frame that the two sources do not explain. "
        "<b>Temporal error</b> compares each frame with the one before, moved by the visible stream's optical flow.</p>"
        '<div class="wide"><table><thead><tr><th></th><th>fused</th><th>infrared</th><th>visible</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        f'<h3>Mean level</h3><p class="key"><span class="fused">fused</span> <span class="ir">infrared</span> '
        f'<span class="vis">visible</span>, each about its own mean</p>{plots.level_plot(temporal.levels)}</section>'
    )


def _fault_key() -> Iterator[str]:
    for kind, (blue, green, red) in COLOURS.items():
        yield f'<span style="border-left:.9em solid rgb({red},{green},{blue});padding-left:.4em">{escape(kind)}</span>'


def _plots(evaluation: Evaluation) -> Iterator[str]:
    for metric in METRICS:
        if metric not in evaluation.mean:
            continue
        values = [case.scores[metric] for case in evaluation.cases]
        marks = [
            (f"m{place}", row.short, row.values[metric])
            for place, row in enumerate(MARKS)
            if metric in row.values and evaluation.temporal is None
        ]
        key = "".join(
            f'<span class="{css}">{escape(name)} {number(metric, value)}</span>' for css, name, value in marks
        )
        yield (
            f"<figure><figcaption><b>{metric}</b> {number(metric, evaluation.mean[metric])} "
            f"<small>{escape(explain(metric))}</small></figcaption>"
            f'{plots.box_plot(metric, values, marks)}<p class="key">{key}</p></figure>'
        )


def _pictures(case: Case) -> str:
    if case.pictures is None or case.faults is None:
        return ""
    return "".join(
        f'<img tabindex="0" alt="{title}, {escape(case.name)}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
        for title, data in zip(TITLES, (*case.pictures, case.faults), strict=True)
    )


def _extremes(evaluation: Evaluation) -> Iterator[str]:
    """Return the section of the best and the worst scenes by mean rank."""
    ranked = evaluation.ranked()
    count = min(EXTREMES, len(ranked) // 2)
    for title, cases in (("Best", ranked[:count]), ("Worst", ranked[-count:][::-1] if count else [])):
        for place, case in enumerate(cases, 1):
            figures = ", ".join(f"{metric} {number(metric, case.scores[metric])}" for metric in RANKED_BY)
            yield (
                f'<figure class="case"><figcaption><b>{title} {place}: {escape(case.name)}</b> '
                f'<small>{figures}</small></figcaption><div class="large">{_pictures(case)}</div></figure>'
            )


def _sheet(evaluation: Evaluation) -> Iterator[str]:
    cases = evaluation.cases
    step = math.ceil(len(cases) / SHEET_LIMIT)
    for case in cases[::step] if step else ():
        figures = ", ".join(f"{metric} {number(metric, case.scores[metric])}" for metric in ("Q_ABF", "VIF", "SCD"))
        yield (
            f'<div class="row"><p><b>{escape(case.name)}</b> <small>{figures}</small></p>'
            f'<div class="four">{_pictures(case)}</div></div>'
        )
