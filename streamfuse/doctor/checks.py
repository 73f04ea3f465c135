"""All checks in their order, by topic."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from streamfuse.doctor import machine, software, storage
from streamfuse.doctor.report import Checking


def machine_checks(weights: Path | None) -> dict[str, Checking]:
    """Checks that fuse nothing; a second or two.  `weights`: None for the shipped file."""
    return {
        "Python": machine.check_python,
        "packages": machine.check_packages,
        "processor": machine.check_processor,
        "memory": machine.check_memory,
        "GPU": machine.check_gpu,
        "clock": machine.check_clock,
        "shared memory": machine.check_shared_memory,
        "cache": storage.check_cache,
        "disk": storage.check_disks,
        "cameras": machine.check_cameras,
        "codecs": software.check_codecs,
        "weights": partial(software.check_weights, weights),
        "engines": partial(software.check_engines, weights),
    }


def run_checks(weights: Path | None) -> dict[str, Checking]:
    """Checks that fuse, write and send."""
    from streamfuse.doctor import loopback, runs

    return {
        "runs": partial(runs.check_runs, weights),
        "files": partial(loopback.check_files, weights),
        "ZeroMQ": loopback.check_zeromq,
        "preview": loopback.check_preview,
    }
