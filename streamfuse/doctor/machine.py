"""The machine: Python and packages, processor, memory, GPU and driver, clocks, shared memory, cameras."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from streamfuse import __version__
from streamfuse.doctor.report import Check, failed, ok, warning
from streamfuse.engines import has_gpu
from streamfuse.engines.base import read_cpu
from streamfuse.errors import EngineUnavailable
from streamfuse.support.cpus import usable_cpus

FAST_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""Instruction sets that engines gain from, by Linux's names."""
LEAST_MEMORY = 2_000_000_000
"""Bytes: loading torch, an engine and the network takes about half of it."""
LEAST_SHARED = 256_000_000
"""Bytes: what the workers of training and of a cluster pass to each other; containers often have 64 MB."""
BUILT = datetime(2025, 1, 1, tzinfo=UTC)
"""No clock that is right is before this."""
TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronised."""


def check_python() -> Iterator[Check]:
    version = f"{platform.python_version()} on {platform.system()} {platform.machine()}, streamfuse {__version__}"
    yield ok("Python", version, version=platform.python_version(), system=platform.system(), streamfuse=__version__)


def check_packages() -> Iterator[Check]:
    """Versions of the packages that streamfuse requires, and of the optional ones that are installed."""
    from packaging.requirements import Requirement

    try:
        own = importlib.metadata.distribution("streamfuse")
    except importlib.metadata.PackageNotFoundError:
        yield warning("packages", "versions cannot be checked: install streamfuse itself with pip")
        return
    extras = own.metadata.get_all("Provides-Extra") or []
    problems, found = [], {}
    for text in own.requires or []:
        needed = Requirement(text)
        required = needed.marker is None or needed.marker.evaluate({"extra": ""})
        optional = any(needed.marker is not None and needed.marker.evaluate({"extra": extra}) for extra in extras)
        if not (required or optional):
            continue  # for another system
        version = installed_version(needed.name)
        if version is not None:
            found[needed.name] = version
        if version is None and not required:
            continue
        if version is None or not needed.specifier.contains(version, prereleases=True):
            state = "is not installed" if version is None else f"{version} is installed"
            problems.append(f"{needed.name} {state}: pip install '{needed.name}{needed.specifier}'")
    if problems:
        yield failed("packages", "; ".join(dict.fromkeys(problems)), **found)
    else:
        yield ok("packages", f"{len(found)} installed, each of a version that fits", **found)


def installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_processor() -> Iterator[Check]:
    cpu = read_cpu()
    usable = usable_cpus()
    fast = [flag for flag in FAST_FLAGS if flag in cpu.flags]
    text = f"{cpu.model}, {usable} of {os.cpu_count()} usable; {', '.join(fast) or 'its instruction sets are unknown'}"
    values = {"model": cpu.model, "usable": usable, "flags": fast}
    if cpu.flags and not fast:
        yield warning("processor", f"{text}: fusing will be slow, use --preset realtime", **values)
    else:
        yield ok("processor", text, **values)


def check_memory() -> Iterator[Check]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return  # no Linux
    kilobytes = {key: int(value.split()[0]) for key, _, value in (line.partition(":") for line in lines)}
    free, total = (kilobytes[key] * 1024 for key in ("MemAvailable", "MemTotal"))
    text = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB available"
    if free < LEAST_MEMORY:
        yield warning("memory", f"{text}: close other programs, or use small pictures", available=free, total=total)
    else:
        yield ok("memory", text, available=free, total=total)


def check_gpu() -> Iterator[Check]:
    """The NVIDIA GPUs that the driver shows, against those that PyTorch can use."""
    import torch

    from streamfuse.engines.device import gpu_names

    driver = driver_version()
    values = {"driver": driver, "cuda": torch.version.cuda}
    try:
        names = gpu_names()
    except EngineUnavailable as error:
        if not has_gpu():
            yield ok("GPU", "no NVIDIA GPU; engines run on the CPU", **values)
        elif torch.version.cuda is None:
            yield warning(
                "GPU", "there is one, and this torch is built for CPUs: pip install a CUDA build of torch", **values
            )
        else:
            yield failed("GPU", f"there is one that cannot be used: {error}; check the driver", **values)
        return
    text = f"{', '.join(names)}; driver {driver or 'of unknown version'}, CUDA {torch.version.cuda}"
    foreign = [name for index, name in enumerate(names) if not _has_kernels(index)]
    if foreign:
        yield failed("GPU", f"{text}: torch {torch.__version__} has no kernels for {', '.join(foreign)}", **values)
    else:
        yield ok("GPU", text, gpus=names, **values)


def _has_kernels(index: int) -> bool:
    """Tell whether this build of PyTorch has code for a GPU: of its generation, or of an older one to compile."""
    import torch

    major, minor = torch.cuda.get_device_capability(index)
    built = [name.rpartition("_") for name in torch.cuda.get_arch_list()]
    numbers = [(kind, int(digits.rstrip("af"))) for kind, _, digits in built]
    return any(
        number <= 10 * major + minor and (number // 10 == major or kind == "compute") for kind, number in numbers
    )


def driver_version() -> str | None:
    """The NVIDIA driver's version, None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def check_clock() -> Iterator[Check]:
    """The wall clock, which live streams of other machines are compared with, and the clock that durations use."""
    now = datetime.now(UTC)
    resolution_s = time.get_clock_info("monotonic").resolution
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC, monotonic to {resolution_s * 1e9:.0f} ns"
    values = {"resolution_s": resolution_s, "synchronised": clock_is_synchronised()}
    if now < BUILT:
        yield failed("clock", f"{text}: the date is wrong; set it, or start a time service such as chrony", **values)
    elif values["synchronised"] is False:
        yield warning(
            "clock",
            f"{text}; not synchronised: start a time service such as chrony if streams carry their senders' time",
            **values,
        )
    else:
        yield ok("clock", text, **values)


def clock_is_synchronised() -> bool | None:
    """Ask the kernel whether a time service steers the clock; None where it does not tell."""
    if sys.platform != "linux":
        return None
    asked = ctypes.create_string_buffer(512)  # struct timex, all zero: nothing is changed
    try:
        state = int(ctypes.CDLL(None).adjtimex(asked))
    except (AttributeError, OSError):
        return None
    return None if state < 0 else state != TIME_ERROR


def check_shared_memory() -> Iterator[Check]:
    place = Path("/dev/shm")
    if not place.is_dir():
        return  # not on this system
    free = shutil.disk_usage(place).free
    text = f"{free / 1e6:.0f} MB free in {place}"
    if free < LEAST_SHARED:
        yield warning(
            "shared memory", f"{text}: training needs more; in a container, docker run --shm-size 1g", free=free
        )
    else:
        yield ok("shared memory", text, free=free)


def check_cameras() -> Iterator[Check]:
    if platform.system() != "Linux":
        yield ok("cameras", "not looked for on this system")
        return
    found = sorted(map(str, Path("/dev").glob("video*")))
    closed = [device for device in found if not os.access(device, os.R_OK)]
    if closed:
        yield failed(
            "cameras", f"{', '.join(closed)} may not be opened: join the group video, then log in again", cameras=found
        )
    else:
        yield ok("cameras", ", ".join(found) or "no /dev/video*", cameras=found)
