"""Report of a batch: a JSON file, and an HTML page that needs no other file."""

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
from streamfuse.batch.recordings import Unpaired
from streamfuse.batch.run import Entry, State, Status
from streamfuse.errors import OutputError
from streamfuse.support.files import reason, write_whole
from streamfuse.telemetry import each_count

JSON, PAGE = "batch.json", "batch.html"
ROWS = 2000
"""Successful recordings that the page lists at most; all others are always listed."""


@dataclass(frozen=True, slots=True)
class Report:
    entries: Sequence[Entry]
    unpaired: Sequence[Unpaired]
    state: State
    cluster: str
    """Description of the machine or cluster that it ran on."""
    begun: datetime

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it; times are UTC, in ISO 8601."""
        return {
            "version": __version__,
            "begun": _moment(self.begun),
            "ended": _moment(datetime.now(UTC)),
            "elapsed_s": round(self.state.elapsed_s, 3),
            "cluster": self.cluster,
            "counts": self.counts,
            "frames": self.state.frames,
            "fps": round(self.fps, 3),
            "recordings": [_recording(entry) for entry in self.entries],
            "unpaired": [{"path": one.path, "reason": one.reason} for one in self.unpaired],
        }

    @property
    def counts(self) -> dict[str, int]:
        """Number of recordings by status, of outputs from damaged inputs, and of inputs without a partner."""
        by_status = {str(status): sum(entry.status is status for entry in self.entries) for status in Status}
        damaged = sum(bool(entry.damage) for entry in self.entries)
        return {**by_status, "damaged": damaged, "unpaired": len(self.unpaired)}

    @property
    def fps(self) -> float:
        """Frames per second of all workers together, from the first unit to the last."""
        return self.state.frames / self.state.elapsed_s if self.state.elapsed_s > 0 else 0.0


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _recording(entry: Entry) -> dict[str, Any]:
    recording, figures = entry.recording, entry.figures or {}
    seconds = figures.get("seconds")
    inputs = {key: text for key in ("ir", "vis", "vot", "bag") if (text := getattr(recording, key))}
    return {
        "output": str(recording.output),
        **inputs,
        "status": str(entry.status),
        "reason": _reason(entry),
        "frames": figures.get("frames"),
        "seconds": round(seconds, 3) if seconds is not None else None,
        "fps": round(figures["frames"] / seconds, 3) if seconds else None,
        "segments": figures.get("segments"),
        "drops": figures.get("drops", {}),
        "damage": entry.damage,
        "notes": figures.get("notes", []),
        "worker": figures.get("worker"),
        "engine": figures.get("engine"),
        **({"traceback": entry.trace} if entry.trace else {}),
    }


def _reason(entry: Entry) -> str | None:
    if entry.status is Status.SKIPPED:
        return "made by an earlier run, from the same inputs with the same options"
    if entry.status is Status.LEFT:
        return "the batch was stopped before it"
    return entry.error


def write(report: Report, directory: Path) -> Path:
    """Write both files into a directory, which is made if need be; return the page's path.  Raises OutputError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {directory}: {reason(error.errno, str(error))}") from None
    made = report.as_dict()
    write_whole(directory / JSON, (json.dumps(made, indent=1) + "\n").encode())
    write_whole(directory / PAGE, render(made).encode("utf-8", "backslashreplace"))
    return directory / PAGE


def render(made: dict[str, Any]) -> str:
    """Return the page's HTML, from `Report.as_dict`."""
    template = Template(files("streamfuse.batch").joinpath("report.html").read_text(encoding="utf-8"))
    recordings = made["recordings"]
    order = {"failed": 0, "left": 1, "done": 2, "skipped": 3}
    bad = [recording for recording in recordings if recording["status"] in ("failed", "left") or recording["damage"]]
    good = [
        recording for recording in recordings if recording["status"] in ("done", "skipped") and not recording["damage"]
    ]
    shown = sorted(bad, key=lambda recording: order[recording["status"]]) + good[:ROWS]
    base = _common(recordings)
    hidden = len(recordings) - len(shown)
    return template.substitute(
        title=escape(f"{len(recordings)} recordings"),
        begun=escape(made["begun"]),
        cluster=escape(made["cluster"]),
        base=escape(base or "/"),
        tiles="".join(_tiles(made)),
        rows="".join(_row(recording, base) for recording in shown),
        hidden=f"<p class='soft'>and {hidden} more successful recordings, listed in {JSON}</p>" if hidden else "",
        unpaired="".join(_unpaired(made["unpaired"])),
        version=escape(made["version"]),
    )


def _common(recordings: Sequence[dict[str, Any]]) -> str:
    """Return the directory that holds all outputs."""
    parents = [Path(recording["output"]).parent for recording in recordings]
    common = parents[0]
    while any(common not in (parent, *parent.parents) for parent in parents):
        common = common.parent
    return str(common)


def _tiles(made: dict[str, Any]) -> Iterator[str]:
    counts = made["counts"]
    for name in ("done", "skipped", "failed", "damaged", "left", "unpaired"):
        if counts[name] or name in ("done", "skipped", "failed"):
            yield f'<div class="tile {name}"><b>{counts[name]}</b> {name}</div>'
    yield f'<div class="tile"><b>{made["frames"]}</b> frames fused</div>'
    yield f'<div class="tile"><b>{_duration(made["elapsed_s"])}</b> {made["fps"]:.1f} fps</div>'


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _row(recording: dict[str, Any], base: str) -> str:
    name = recording["output"].removeprefix(base).lstrip("/")
    remarks = [recording["reason"]] if recording["reason"] and recording["status"] != "skipped" else []
    remarks += [recording["damage"]] if recording["damage"] else []
    remarks += [f"{count} {stream}: {reason}" for stream, reason, count in each_count(recording["drops"])]
    remarks += recording["notes"]
    cells = (
        str(recording["frames"]) if recording["frames"] is not None else "",
        f"{recording['seconds']:.1f}" if recording["seconds"] is not None else "",
        f"{recording['fps']:.1f}" if recording["fps"] is not None else "",
        str(recording["segments"] or ""),
    )
    small = f"<small>{escape('; '.join(remarks))}</small>" if remarks else ""
    inputs = ", ".join(recording[key] for key in ("ir", "vis", "vot", "bag") if key in recording)
    css = "damaged" if recording["damage"] and recording["status"] != "failed" else recording["status"]
    return (
        f'<tr class="{css}"><th title="{escape(inputs)}">{escape(name)}{small}</th>'
        f'<td class="status">{recording["status"]}</td>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}"
        f'<td class="text">{escape(recording["worker"] or "")}</td></tr>'
    )


def _unpaired(unpaired: Sequence[dict[str, str]]) -> Iterator[str]:
    if not unpaired:
        return
    yield "<h2>Without a partner</h2><ul>"
    for one in unpaired:
        yield f"<li>{escape(one['path'])}: {escape(one['reason'])}</li>"
    yield "</ul>"
