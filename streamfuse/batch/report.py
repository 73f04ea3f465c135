"""What became of a batch: a JSON file, and an HTML page that needs nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from streamfuse import __version__
from streamfuse.batch.recordings import Alone
from streamfuse.batch.run import Entry, State, Status
from streamfuse.errors import OutputError
from streamfuse.files import reason, write_whole
from streamfuse.telemetry import each_count

JSON, PAGE = "batch.json", "batch.html"
ROWS = 2000
"""Clips that went well and are listed on the page; what did not is always listed."""


@dataclass(frozen=True, slots=True)
class Report:
    entries: Sequence[Entry]
    alone: Sequence[Alone]
    state: State
    cluster: str
    """Where it ran, in words."""
    begun: datetime

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; times are UTC, in ISO 8601."""
        return {
            "version": __version__,
            "begun": _moment(self.begun),
            "ended": _moment(datetime.now(UTC)),
            "elapsed_s": round(self.state.elapsed_s, 3),
            "cluster": self.cluster,
            "counts": self.counts,
            "frames": self.state.frames,
            "fps": round(self.fps, 3),
            "clips": [_clip(entry) for entry in self.entries],
            "alone": [{"path": one.path, "reason": one.reason} for one in self.alone],
        }

    @property
    def counts(self) -> dict[str, int]:
        """Clips by status, how many of the outputs are of damaged inputs, and inputs without a partner."""
        by_status = {str(status): sum(entry.status is status for entry in self.entries) for status in Status}
        return {**by_status, "damaged": sum(bool(entry.damage) for entry in self.entries), "alone": len(self.alone)}

    @property
    def fps(self) -> float:
        """Of all workers together, from the first unit to the last."""
        return self.state.frames / self.state.elapsed_s if self.state.elapsed_s > 0 else 0.0


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _clip(entry: Entry) -> dict[str, Any]:
    clip, figures = entry.clip, entry.figures or {}
    seconds = figures.get("seconds")
    inputs = {"vot": clip.vot} if clip.vot else {"ir": clip.ir, "vis": clip.vis}
    return {
        "output": str(clip.output),
        **inputs,
        "status": str(entry.status),
        "reason": _reason(entry),
        "frames": figures.get("frames"),
        "seconds": round(seconds, 3) if seconds is not None else None,
        "fps": round(figures["frames"] / seconds, 3) if seconds else None,
        "parts": figures.get("parts"),
        "drops": figures.get("drops", {}),
        "damage": entry.damage,
        "notes": figures.get("notes", []),
        "worker": figures.get("worker"),
        "engine": figures.get("engine"),
        **({"traceback": entry.trace} if entry.trace else {}),
    }


def _reason(entry: Entry) -> str | None:
    if entry.status is Status.SKIPPED:
        return "made by an earlier run, of the same inputs with the same options"
    if entry.status is Status.LEFT:
        return "the batch was stopped before"
    return entry.error


def write(report: Report, directory: Path) -> Path:
    """Both files into a directory, made if need be; the page's path.  Raises OutputError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {directory}: {reason(error.errno, str(error))}") from None
    made = report.as_dict()
    write_whole(directory / JSON, (json.dumps(made, indent=1) + "\n").encode())
    write_whole(directory / PAGE, render(made).encode("utf-8", "backslashreplace"))
    return directory / PAGE


def render(made: dict[str, Any]) -> str:
    """The page's text, from `Report.as_dict`."""
    template = Template(files("streamfuse.batch").joinpath("report.html").read_text(encoding="utf-8"))
    clips = made["clips"]
    order = {"failed": 0, "left": 1, "done": 2, "skipped": 3}
    bad = [clip for clip in clips if clip["status"] in ("failed", "left") or clip["damage"]]
    good = [clip for clip in clips if clip["status"] in ("done", "skipped") and not clip["damage"]]
    shown = sorted(bad, key=lambda clip: order[clip["status"]]) + good[:ROWS]
    base = _common(clips)
    hidden = len(clips) - len(shown)
    return template.substitute(
        title=escape(f"{len(clips)} clips"),
        begun=escape(made["begun"]),
        cluster=escape(made["cluster"]),
        base=escape(base or "/"),
        tiles="".join(_tiles(made)),
        rows="".join(_row(clip, base) for clip in shown),
        hidden=f"<p class='soft'>and {hidden} more that went well, in {JSON}</p>" if hidden else "",
        alone="".join(_alone(made["alone"])),
        version=escape(made["version"]),
    )


def _common(clips: Sequence[dict[str, Any]]) -> str:
    """The directory that all outputs are in."""
    parents = [Path(clip["output"]).parent for clip in clips]
    common = parents[0]
    while any(common not in (parent, *parent.parents) for parent in parents):
        common = common.parent
    return str(common)


def _tiles(made: dict[str, Any]) -> Iterator[str]:
    counts = made["counts"]
    for name in ("done", "skipped", "failed", "damaged", "left", "alone"):
        if counts[name] or name in ("done", "skipped", "failed"):
            yield f'<div class="tile {name}"><b>{counts[name]}</b> {name}</div>'
    yield f'<div class="tile"><b>{made["frames"]}</b> frames fused</div>'
    yield f'<div class="tile"><b>{_duration(made["elapsed_s"])}</b> {made["fps"]:.1f} fps</div>'


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _row(clip: dict[str, Any], base: str) -> str:
    name = clip["output"].removeprefix(base).lstrip("/")
    remarks = [clip["reason"]] if clip["reason"] and clip["status"] != "skipped" else []
    remarks += [clip["damage"]] if clip["damage"] else []
    remarks += [f"{count} {stream}: {reason}" for stream, reason, count in each_count(clip["drops"])]
    remarks += clip["notes"]
    cells = (
        str(clip["frames"]) if clip["frames"] is not None else "",
        f"{clip['seconds']:.1f}" if clip["seconds"] is not None else "",
        f"{clip['fps']:.1f}" if clip["fps"] is not None else "",
        str(clip["parts"] or ""),
    )
    small = f"<small>{escape('; '.join(remarks))}</small>" if remarks else ""
    inputs = clip.get("vot") or f"{clip['ir']}, {clip['vis']}"
    css = "damaged" if clip["damage"] and clip["status"] != "failed" else clip["status"]
    return (
        f'<tr class="{css}"><th title="{escape(inputs)}">{escape(name)}{small}</th>'
        f'<td class="status">{clip["status"]}</td>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}"
        f'<td class="text">{escape(clip["worker"] or "")}</td></tr>'
    )


def _alone(alone: Sequence[dict[str, str]]) -> Iterator[str]:
    if not alone:
        return
    yield "<h2>Without a partner</h2><ul>"
    for one in alone:
        yield f"<li>{escape(one['path'])}: {escape(one['reason'])}</li>"
    yield "</ul>"
