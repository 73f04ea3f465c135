"""The processes that a batch runs on: of this machine, or of a running Dask cluster."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from streamfuse.errors import StreamfuseError, UsageError

if TYPE_CHECKING:
    from distributed import Client

WORKER_BYTES = 1_500_000_000
"""Most memory of one worker: openvino takes 1.2 GB while it compiles for 1280x960, 0.9 GB afterwards."""
DEATHS = 1
"""Attempts by Dask to rerun a unit whose worker died; after them the unit is deferred (`batch.run`)."""
CONNECT_S = 10.0
"""Time within which a scheduler must answer."""


def worker_count(cores: int, memory_bytes: int | None, gpus: int) -> int:
    """Return one worker per GPU; without GPUs one per core, as far as the free memory allows."""
    if gpus:
        return gpus
    fit = cores if memory_bytes is None else memory_bytes // WORKER_BYTES
    return max(1, min(cores, fit))


def cores() -> int:
    """Number of this machine's cores that this process may use."""
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)


def free_memory() -> int | None:
    """Free memory in bytes, within the limit of a container; None if unknown."""
    import psutil
    from distributed.system import MEMORY_LIMIT

    return int(min(psutil.virtual_memory().available, MEMORY_LIMIT))


def visible_gpus() -> list[str]:
    """List the NVIDIA GPUs of this machine as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() and name.strip() != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    with suppress(OSError, subprocess.TimeoutExpired):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
        lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
        return [str(number) for number in range(len(lines))]
    return []


def check_installed() -> None:
    """Raise UsageError where Dask is missing."""
    from importlib.util import find_spec

    if missing := [name for name in ("distributed", "cryptography") if find_spec(name) is None]:
        raise UsageError(f"this needs the package {missing[0]}: pip install 'streamfuse[cluster]'")


@contextmanager
def local(workers: int, gpus: list[str]) -> Iterator[Client]:
    """Start a cluster of processes on this machine, each with one thread for units, until the block is left.

    Its ports are on loopback and require the certificate that is made for this one cluster: a scheduler runs the code
    of everyone who can connect to it.  `gpus`: each worker sees one of them, in turn.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster
    from distributed.security import Security

    settings = {
        "distributed.scheduler.allowed-failures": DEATHS,
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        # Dask's measurements of itself, for pages that are not served, take a fortieth of a worker's core.
        "distributed.worker.profile.enabled": False,
        "distributed.admin.system-monitor.interval": "10s",
        "distributed.admin.system-monitor.gil.enabled": False,
        "distributed.admin.tick.interval": "1s",
    }
    security = Security.temporary()
    common = {"security": security, "protocol": "tls://", "host": "127.0.0.1", "dashboard": False}
    common["dashboard_address"] = "127.0.0.1:0"
    options: dict[str, Any] = {"nthreads": 1, "memory_limit": None, "silence_logs": logging.CRITICAL, **common}
    specs = {
        number: {
            "cls": Nanny,
            "options": {**options, "env": {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}},
        }
        for number in range(workers)
    }
    with (
        dask.config.set(settings),
        SpecCluster(
            workers=specs,
            scheduler={"cls": Scheduler, "options": common},
            security=security,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def remote(address: str) -> Iterator[Client]:
    """Connect to a running cluster; raises StreamfuseError where none answers, UsageError for a wrong address."""
    from distributed import Client

    _, separator, host = address.partition("://")
    if not separator or not host:
        raise UsageError(f"--scheduler {address}: give tcp://HOST:PORT or tls://HOST:PORT")
    for handler in logging.getLogger("distributed").handlers:  # the errors that matter are reported in our own words
        handler.setLevel(logging.CRITICAL)
    client, why = None, ""
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
    if client is None:
        # Collecting the failed client takes a lock of Dask: do it here, not in a thread that the next client waits for.
        gc.collect()
        raise StreamfuseError(f"no Dask scheduler answers at {address}: {why}")
    with client:
        yield client
