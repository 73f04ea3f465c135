"""Checks of the directories that the program writes to: cache, temporary files, current directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from streamfuse.doctor.report import Check, failed, ok, warning
from streamfuse.engines.cache import NO_HOME, default_directory
from streamfuse.errors import OutputError
from streamfuse.support.files import reason, write_whole

TRIAL_BYTES = 1 << 20
"""Written and removed again, to see whether it can be."""
LEAST_FREE = 1_000_000_000
"""Bytes: some compiled networks of 160 MB, and minutes of video."""


def check_cache() -> Iterator[Check]:
    directory = default_directory()
    if directory is None:
        yield failed("cache", NO_HOME)
        return
    entries = list(directory.glob("*.engine")) if directory.is_dir() else []
    held = sum(entry.stat().st_size for entry in entries)
    values = {"directory": str(directory), "networks": len(entries), "bytes": held}
    if (problem := why_not_writable(directory)) is not None:
        yield failed(
            "cache",
            f"{problem}: every start compiles again; set STREAMFUSE_CACHE to a directory that can be written",
            **values,
        )
    else:
        yield ok("cache", f"{directory}, {len(entries)} compiled networks, {held / 1e6:.0f} MB", **values)


def check_disks() -> Iterator[Check]:
    """The disks of temporary files and of the current directory, where outputs usually go."""
    for name, directory in (("temporary files", Path(tempfile.gettempdir())), ("disk", Path.cwd())):
        free = shutil.disk_usage(directory).free
        text = f"{directory}: {free / 1e9:.1f} GB free"
        if (problem := why_not_writable(directory)) is not None:
            where = "set TMPDIR to another" if name == "temporary files" else "write outputs to another directory"
            yield failed(name, f"{problem}: make room, or {where}", directory=str(directory), free=free)
        elif free < LEAST_FREE:
            yield warning(name, f"{text}: make room", directory=str(directory), free=free)
        else:
            yield ok(name, text, directory=str(directory), free=free)


def why_not_writable(directory: Path) -> str | None:
    """Write a file of 1 MiB there and remove it: None if that works, else why not."""
    trial = directory / f".streamfuse-doctor-{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(trial, bytes(TRIAL_BYTES), durable=True)
        trial.unlink()
    except OutputError as error:
        return f"cannot write in {directory}: {str(error).rpartition(': ')[2]}"
    except OSError as error:
        return f"cannot write in {directory}: {reason(error.errno, str(error))}"
    return None
