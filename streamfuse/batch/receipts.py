"""What has been made, and of what: a receipt beside each output, so that a later run knows without opening it.

    out/a.mp4               the output: whole, or not there
    out/.a.mp4.batch.json   its receipt: what it was made of, its size and time of change, and how it went
    out/.a.mp4.work/        while it is made: files that are being written, and finished parts with their receipts

The receipt is written first and then the output takes its name, so that an output without a receipt is somebody
else's, and a receipt without its output says nothing.
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
"""Of a receipt, which has some thousand."""
LEFTOVER_S = 86_400.0
"""A file of another machine's process that has not grown for so long is not being written any more."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is found at an output's place."""

    done: bool = False
    """The output is there, made of the same."""
    exists: str | None = None
    """What else is there, in words; None where nothing is."""
    figures: dict[str, Any] | None = None
    """How it went when it was made, where it is done."""


def receipt_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.batch.json")


def work_of(output: Path) -> Path:
    """The directory for what is on its way to an output."""
    return output.with_name(f".{output.name}.work")


def part_of(output: Path, made_of: dict[str, Any], place: int) -> Path:
    """The file of a part, whose name changes with what it is made of."""
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    return work_of(output) / f"{digest[:16]}-{place:05d}{output.suffix}"


def standing(output: Path, made_of: dict[str, Any]) -> Standing:
    """Raises OutputError where it cannot be told."""
    try:
        receipt = _read(receipt_of(output))
        if receipt is not None and receipt.get("size") == 0 and receipt.get("made_of") == made_of:
            return Standing(True, figures=receipt["figures"])  # a part in which there was nothing to write
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
    """None for what is no receipt, too: then the output counts as somebody else's."""
    try:
        with path.open("rb") as file:
            receipt = json.loads(file.read(MAX_BYTES))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    whole = isinstance(receipt, dict) and all(isinstance(receipt.get(key), dict) for key in ("made_of", "figures"))
    return receipt if whole and _are_figures(receipt["figures"]) else None


def _are_figures(figures: dict[str, Any]) -> bool:
    """Whether a report can show them; what an older program did not write may be missing."""
    drops, notes = figures.get("drops", {}), figures.get("notes", [])
    return (
        all(_is_number(figures.get(key)) for key in ("frames", "seconds"))
        and (figures.get("parts") is None or _is_number(figures["parts"]))
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
    """A name for a new file on the same file system as the output; what is still there in the end is removed.

    What killed processes have left there is removed, too.  Raises OutputError.
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
            work.rmdir()  # unless there are parts


def deliver(aside: Path, output: Path, made_of: dict[str, Any], figures: dict[str, Any], force: bool) -> None:
    """The file written aside takes the output's name, with its receipt.

    Of a part without frames there is only the receipt.  Where another process was faster with the same, that one's
    stays.  Raises OutputError, also for somebody else's file that is there by now, unless `force`.
    """
    found = standing(output, made_of)
    if found.exists and not force:
        raise OutputError(f"{output} exists by now and {found.exists}: choose another place, or replace with --force")
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
    """The output is there: let go of its parts, and of what killed processes have left; of nothing else."""
    work = work_of(output)
    with contextlib.suppress(OSError):
        for path in work.iterdir():
            if _owner(path) is None:
                path.unlink(missing_ok=True)
        _clear(work)
        work.rmdir()


def sweep(output: Path) -> None:
    """The output was not finished: remove what killed processes have left of it, but no finished part."""
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
    """Host and process that write this file; None for a finished part or a receipt."""
    pieces = path.name.rsplit(".", 3)
    if len(pieces) != 4 or not pieces[1].isdecimal():
        return None
    return pieces[0], int(pieces[1])


def _alive(pid: int) -> bool:
    """A dead one that its parent has not looked after yet, a zombie, writes nothing any more."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
