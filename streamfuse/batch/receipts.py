"""Receipts: a file beside each output that names its inputs and options, so that a later run can skip it unopened.

    out/a.mp4               the output: whole, or not there
    out/.a.mp4.batch.json   its receipt: what it was made of, its size and time of change, and its figures
    out/.a.mp4.work/        while it is made: files being written, and finished segments with their receipts

The receipt is written first and then the output takes its name: an output without a receipt belongs to somebody else,
and a receipt without its output is ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamfuse.errors import OutputError
from streamfuse.files import reason, write_whole

MAX_BYTES = 1 << 20
"""Largest receipt that is read; they have some thousand bytes."""
LEFTOVER_S = 86_400.0
"""Age after which an unchanged file of a process on another machine counts as left over."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of an output: done, absent, or another file of that name."""

    done: bool = False
    """The output exists, made from the same inputs with the same options."""
    exists: str | None = None
    """Description of any other file of that name; None where there is none."""
    figures: dict[str, Any] | None = None
    """Figures of an output that is done."""


def receipt_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.batch.json")


def work_of(output: Path) -> Path:
    """Return the directory for the unfinished files of an output."""
    return output.with_name(f".{output.name}.work")


def segment_file(output: Path, made_of: dict[str, Any], index: int) -> Path:
    """Return the file of a segment; its name depends on what it is made of."""
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    return work_of(output) / f"{digest[:16]}-{index:05d}{output.suffix}"


def standing(output: Path, made_of: dict[str, Any]) -> Standing:
    """Look up an output; raises OutputError where that fails."""
    try:
        receipt = _read(receipt_of(output))
        if receipt is not None and receipt.get("size") == 0 and receipt.get("made_of") == made_of:
            return Standing(True, figures=receipt["figures"])  # a segment without frames
        if not output.exists():
            return Standing()
        if receipt is None or not _is_of(output, receipt):
            return Standing(exists="was not made by a batch, or has changed since")
    except OSError as error:
        raise OutputError(f"cannot look at {output}: {reason(error.errno, str(error))}") from None
    if receipt["made_of"] == made_of:
        return Standing(True, figures=receipt["figures"])
    return Standing(exists=f"was made {_difference(receipt['made_of'], made_of)}")


def _read(path: Path) -> dict[str, Any] | None:
    """Read a receipt; None if the file is absent or no receipt.  The output then counts as not made by a batch."""
    try:
        with path.open("rb") as file:
            receipt = json.loads(file.read(MAX_BYTES))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    whole = isinstance(receipt, dict) and all(isinstance(receipt.get(key), dict) for key in ("made_of", "figures"))
    return receipt if whole and _are_figures(receipt["figures"]) else None


def _are_figures(figures: dict[str, Any]) -> bool:
    """Tell whether a report can show these figures; an older version may have left some out."""
    drops, notes = figures.get("drops", {}), figures.get("notes", [])
    return (
        all(_is_number(figures.get(key)) for key in ("frames", "seconds"))
        and (figures.get("segments") is None or _is_number(figures["segments"]))
        and all(isinstance(figures.get(key), str | None) for key in ("damage", "worker", "engine"))
        and isinstance(drops, dict)
        and all(isinstance(reasons, dict) and all(map(_is_number, reasons.values())) for reasons in drops.values())
        and isinstance(notes, list)
        and all(isinstance(note, str) for note in notes)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < 1e15


def _is_of(output: Path, receipt: dict[str, Any]) -> bool:
    stat = output.stat()
    return (stat.st_size, stat.st_mtime_ns) == (receipt.get("size"), receipt.get("mtime_ns"))


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    if before.get("inputs") != now["inputs"]:
        return "of inputs that have changed since"
    if before.get("weights") != now["weights"]:
        return "with other weights"
    if before.get("calibration") != now["calibration"]:
        return "with another calibration"
    if before.get("version") != now["version"]:
        return f"by streamfuse {before.get('version')}"
    old, new = (made.get("options") for made in (before, now))
    if not isinstance(old, dict) or not isinstance(new, dict):
        return "with other options"
    changed = [key for key in sorted(new.keys() | old.keys()) if old.get(key) != new.get(key)]
    return "with " + ", ".join(f"{key.replace('_', '-')} {old.get(key)} instead of {new.get(key)}" for key in changed)


@contextlib.contextmanager
def aside(output: Path) -> Iterator[Path]:
    """Provide a name for a new file on the same file system as the output; a file left there is removed at the end.

    Files that killed processes have left are removed, too.  Raises OutputError.
    """
    work = work_of(output)
    try:
        work.mkdir(parents=True, exist_ok=True)
        _clear(work)
    except OSError as error:
        raise OutputError(f"cannot write into {output.parent}: {reason(error.errno, str(error))}") from None
    path = work / f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}{output.suffix}"
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            work.rmdir()  # unless there are segments


def deliver(aside: Path, output: Path, made_of: dict[str, Any], figures: dict[str, Any], force: bool) -> None:
    """Rename the finished temporary file to the output, and write its receipt.

    A segment without frames has only a receipt.  If another process has delivered the same output, its file is kept.
    Raises OutputError, also if any other file of that name exists, unless `force`.
    """
    found = standing(output, made_of)
    if found.exists and not force:
        raise OutputError(
            f"{output} was created during the run and {found.exists}: "
            "choose another directory, or replace it with --force"
        )
    try:
        if found.done:
            return
        stat = aside.stat() if figures["frames"] else None
        receipt = {
            "size": stat.st_size if stat else 0,
            "mtime_ns": stat.st_mtime_ns if stat else 0,
            "made_of": made_of,
            "figures": figures,
        }
        text = (json.dumps(receipt, indent=1) + "\n").encode()
        write_whole(receipt_of(output), text, aside=aside.with_suffix(".json"))
        if stat is None:
            return
        aside.replace(output)
        # Where two deliver at once, the receipt is that of the one that came last.
        if (now := _read(receipt_of(output))) is not None and not _is_of(output, now) and _is_of(output, receipt):
            write_whole(receipt_of(output), text, aside=aside.with_suffix(".json"))
    except OSError as error:
        raise OutputError(f"cannot write {output}: {reason(error.errno, str(error))}") from None


def tidy(output: Path) -> None:
    """Remove the segments of a finished output and the files that killed processes have left; nothing else."""
    work = work_of(output)
    with contextlib.suppress(OSError):
        for path in work.iterdir():
            if _owner(path) is None:
                path.unlink(missing_ok=True)
        _clear(work)
        work.rmdir()


def sweep(output: Path) -> None:
    """Remove the files that killed processes have left of an unfinished output, but no finished segment."""
    work = work_of(output)
    with contextlib.suppress(OSError):
        _clear(work)
        work.rmdir()


def _clear(work: Path) -> None:
    for path in work.iterdir():
        owner = _owner(path)
        if owner is None:
            continue
        host, pid = owner
        with contextlib.suppress(FileNotFoundError):
            here = host == socket.gethostname()
            if not _alive(pid) if here else path.stat().st_mtime < time.time() - LEFTOVER_S:
                path.unlink()


def _owner(path: Path) -> tuple[str, int] | None:
    """Return host and process that write this file; None for a finished segment or a receipt."""
    pieces = path.name.rsplit(".", 3)
    if len(pieces) != 4 or not pieces[1].isdecimal():
        return None
    return pieces[0], int(pieces[1])


def _alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not write any more."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
