"""Plots as SVG text for an HTML page; colours are CSS classes of the page, so they suit light and dark mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

WIDTH, BOX_HEIGHT, LINE_HEIGHT = 320, 92, 170
MARGIN = 14


Mark = tuple[str, str, float]
"""CSS class, name and value of something to compare with."""


def box_plot(metric: str, values: Sequence[float], marks: Sequence[Mark]) -> str:
    """Draw quartiles, range and all values of one metric, and marks for comparison."""
    finite = np.array([value for value in values if math.isfinite(value)])
    if finite.size == 0:
        return f'<p class="none">{escape(metric)}: no value is defined</p>'
    everything: list[float] = [*finite.tolist(), *(value for _, _, value in marks)]
    low, high = min(everything), max(everything)
    span = high - low or 1.0

    def x(value: float) -> float:
        return MARGIN + (value - low) / span * (WIDTH - 2 * MARGIN)

    first, median, third = (float(q) for q in np.percentile(finite, (25, 50, 75)))
    axis = 40
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {BOX_HEIGHT}" role="img" aria-label="{escape(metric)}: median {median:.4g}, '
        f'{float(finite.min()):.4g} to {float(finite.max()):.4g}">',
        f'<line class="range" x1="{x(float(finite.min())):.1f}" x2="{x(float(finite.max())):.1f}" '
        f'y1="{axis}" y2="{axis}"/>',
        f'<rect class="box" x="{x(first):.1f}" y="{axis - 11}" width="{max(x(third) - x(first), 1):.1f}" height="22"/>',
        f'<line class="median" x1="{x(median):.1f}" x2="{x(median):.1f}" y1="{axis - 11}" y2="{axis + 11}"/>',
    ]
    parts += [f'<circle class="dot" cx="{x(float(value)):.1f}" cy="{axis}" r="2.5"/>' for value in finite]
    parts.append(f'<circle class="mean" cx="{x(float(finite.mean())):.1f}" cy="{axis}" r="4.5"/>')
    for css, name, value in marks:
        parts.append(
            f'<g class="mark {css}"><line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="20" y2="60"/>'
            f"<title>{escape(name)} {value:g}</title></g>"
        )
    parts.append(f'<text x="{MARGIN}" y="{BOX_HEIGHT - 8}">{low:.4g}</text>')
    parts.append(f'<text x="{WIDTH - MARGIN}" y="{BOX_HEIGHT - 8}" text-anchor="end">{high:.4g}</text></svg>')
    return "".join(parts)


def level_plot(levels: Mapping[str, Sequence[float]]) -> str:
    """Draw the mean level of each stream over its frames, relative to its mean, so that flicker shows."""
    series = {name: np.array(values) - np.mean(values) for name, values in levels.items() if len(values) > 1}
    if not series:
        return ""
    width = 2 * WIDTH
    reach = max(float(np.abs(values).max()) for values in series.values()) or 1.0
    middle = LINE_HEIGHT / 2
    parts = [
        f'<svg class="levels" viewBox="0 0 {width} {LINE_HEIGHT}" role="img" aria-label="mean level over the frames">'
    ]
    parts.append(f'<line class="range" x1="{MARGIN}" x2="{width - MARGIN}" y1="{middle}" y2="{middle}"/>')
    for name, values in series.items():
        step = (width - 2 * MARGIN) / (len(values) - 1)
        points = " ".join(
            f"{MARGIN + index * step:.1f},{middle - value / reach * (middle - 22):.1f}"
            for index, value in enumerate(values)
        )
        parts.append(f'<polyline class="{escape(name)}" points="{points}"/>')
    parts.append(f'<text x="{MARGIN}" y="16">+{reach:.3g} grey levels</text>')
    parts.append(f'<text x="{MARGIN}" y="{LINE_HEIGHT - 6}">-{reach:.3g}</text></svg>')
    return "".join(parts)
