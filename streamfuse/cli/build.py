"""`streamfuse build`: compile the network before it is needed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamfuse.cli import logs, options
from streamfuse.cli.progress import waiting
from streamfuse.errors import InputError, UsageError
from streamfuse.sources.options import DEFAULT, SourceOptions

if TYPE_CHECKING:
    from streamfuse.color import Plane
    from streamfuse.engines.base import Engine

MOST_PAIRS = 32
"""Pairs on which the ranges of int8 are measured; each takes seconds."""


@click.command()
@click.option(
    "--size",
    "sizes",
    multiple=True,
    required=True,
    metavar="WIDTHxHEIGHT",
    callback=lambda ctx, param, texts: [options.parse_size(ctx, param, text) for text in texts],
    help="Size of the pictures that will be fused; may be given several times.",
)
@click.option(
    "--calibrate",
    "roots",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PAIRS",
    help="For --precision int8: paired directories or videos like those to be fused; may be given several times.",
)
@options.engine
@options.max_pixels
@options.common
def command(
    sizes: list[tuple[int, int]],
    roots: tuple[Path, ...],
    engine: options.EngineChoice,
    max_pixels: int,
) -> None:
    """Compile the network for pictures of a given size and store it, so that the first run starts at once.

    \b
    streamfuse build --size 640x480
    streamfuse build --size 640x480 --size 1280x1024 --engine tensorrt
    streamfuse build --size 640x480 --precision int8 --calibrate recordings

    It is stored in the user's cache directory (STREAMFUSE_CACHE).  Ctrl-C stops at once and stores nothing incomplete.
    """
    if (engine.precision == "int8") != bool(roots):
        raise UsageError("--precision int8 needs --calibrate PAIRS, and other precisions do not take it")
    with engine.open() as made:
        for height, width in sizes:
            what = f"preset {made.preset}, for {width}x{height} on {made.device}"
            begin = time.monotonic()
            with _interruptible(), waiting(f"{made.name}, {what}"):
                if roots:
                    _calibrate(made, roots, height, width, max_pixels)
                made.prepare(height, width)
            if not made.keeps_builds:
                raise UsageError(f"engine {made.name} compiles nothing: it needs no build")
            logs.say(f"{made.name} {made.precision}, {what}: ready in {time.monotonic() - begin:.1f} s")


def _calibrate(made: Engine, roots: tuple[Path, ...], height: int, width: int, max_pixels: int) -> None:
    from streamfuse.engines.openvino import OpenvinoEngine

    assert isinstance(made, OpenvinoEngine)  # no other takes int8
    made.calibrate(calibration_pairs(roots, height, width, SourceOptions(max_pixels=max_pixels)))


def calibration_pairs(
    roots: Sequence[Path], height: int, width: int, options: SourceOptions = DEFAULT
) -> list[tuple[Plane, Plane]]:
    """Read up to `MOST_PAIRS` pairs of paired directories or recordings, spread evenly, as (H, W) uint8 luma.

    Raises InputError where there is none.
    """
    import cv2
    import numpy as np

    from streamfuse.training.pairs import find_pairs

    found = find_pairs(roots, every=25, options=options)
    if not found:
        raise InputError(f"{', '.join(map(str, roots))}: no pairs to calibrate on")
    chosen = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, MOST_PAIRS).round().astype(int))]
    pairs = []
    for pair in chosen:
        ir, vis = (cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in pair.load())
        pairs.append((ir.astype(np.uint8), vis.astype(np.uint8)))
    return pairs


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process at once: compilers do not return to Python for minutes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
