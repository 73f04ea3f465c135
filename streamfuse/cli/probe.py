"""`streamfuse probe`: the capabilities of this machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import click

from streamfuse.cli import options

Row = tuple[str, str]


@click.command()
@options.common
def command() -> None:
    """Show this machine's processors, GPU, engines, codecs and cameras, and the engine that `auto` chooses.

    \b
    streamfuse probe
    """
    for title, rows in (
        ("machine", _machine()),
        ("engines", _engines()),
        ("codecs", _codecs()),
        ("cameras", _cameras()),
    ):
        click.secho(title, bold=True)
        for name, value in rows:
            click.echo(f"  {name:<18}{value}")


def _machine() -> Iterator[Row]:
    from streamfuse import __version__

    yield "streamfuse", __version__
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "processors", f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"
    yield "NVIDIA GPU", _gpu()


def _gpu() -> str:
    import torch

    from streamfuse.engines.device import gpu_names
    from streamfuse.errors import EngineUnavailable

    try:
        names = gpu_names()
    except EngineUnavailable:
        built = "" if torch.version.cuda else "; this torch is a CPU build"
        return f"none{built}"
    return f"{', '.join(names)} (CUDA {torch.version.cuda})"


def _engines() -> Iterator[Row]:
    from streamfuse.engines import create_engine, engine_names
    from streamfuse.errors import EngineError

    for name in engine_names():
        try:
            with create_engine(name) as engine:
                yield name, f"{_version(engine.package)}; precision auto is {engine.precision} on {engine.device}"
        except EngineError as error:
            yield name, f"not available: {error}"
    with create_engine("auto") as engine:
        yield "auto", f"chooses {engine.name} in {engine.precision}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _codecs() -> Iterator[Row]:
    import av

    from streamfuse.sinks.encoder import why_not

    yield "PyAV", f"{av.__version__} with libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
    for name, encoder in (
        ("h264", "libx264"),
        ("hevc", "libx265"),
        ("ffv1", "ffv1"),
        ("h264 on NVENC", "h264_nvenc"),
    ):
        reason = why_not(encoder)
        yield name, "yes" if reason is None else f"no: {reason}"


def _cameras() -> Iterator[Row]:
    found = sorted(Path("/dev").glob("video*")) if platform.system() == "Linux" else []
    for device in found:
        readable = os.access(device, os.R_OK)
        yield str(device), "present" if readable else "present, but not readable: join the group video"
    if not found:
        yield "none", "no /dev/video*" if platform.system() == "Linux" else "not detected on this system"
