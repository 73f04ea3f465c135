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

from streamfuse.cli import options
from streamfuse.errors import InputError, UsageError

if TYPE_CHECKING:
    from streamfuse.color import Plane
    from streamfuse.engines.base import Engine

TERMINAL_S, PLAIN_S = 1.0, 10.0
"""Between signs of life on a terminal and elsewhere."""


MOST_PAIRS = 32
"""That ranges are measured on; each takes seconds."""


@click.command()
@click.option(
    "--size",
    "sizes",
    multiple=True,
    required=True,
    metavar="WIDTHxHEIGHT",
    callback=lambda ctx, param, texts: [options.parse_size(ctx, param, text) for text in texts],
    help="Of the pictures that will be fused; may be given several times.",
)
@click.option(
    "--calibrate",
    "roots",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PAIRS",
    help="For --precision int8: paired directories or videos of what will be fused; may be given several times.",
)
@options.engine
@options.common
def command(
    sizes: list[tuple[int, int]],
    roots: tuple[Path, ...],
    engine: options.EngineChoice,
) -> None:
    """Compile the network for pictures of a size and keep it, so that the first run starts at once.

    \b
    streamfuse build --size 640x480
    streamfuse build --size 640x480 --size 1280x1024 --engine tensorrt
    streamfuse build --size 640x480 --precision int8 --calibrate recordings

    It stays in the user's cache directory (STREAMFUSE_CACHE).  Ctrl-C ends it at once; what is not complete
    is not kept.
    """
    if (engine.precision == "int8") != bool(roots):
        raise UsageError("--precision int8 needs --calibrate PAIRS to measure on, and nothing else does")
    with engine.open() as made:
        for height, width in sizes:
            what = f"{made.name} {made.precision}, preset {made.preset}, for {width}x{height}"
            begin = time.monotonic()
            with _ended_at_once(), _signs_of_life(what):
                if roots:
                    _calibrate(made, roots, height, width)
                made.prepare(height, width)
            if not made.keeps_builds:
                raise UsageError(f"engine {made.name} compiles nothing that could be kept: leave this out")
            click.echo(f"{what} on {made.device}: ready in {time.monotonic() - begin:.1f} s", err=True)


def _calibrate(made: Engine, roots: tuple[Path, ...], height: int, width: int) -> None:
    from streamfuse.engines.openvino import OpenvinoEngine

    assert isinstance(made, OpenvinoEngine)  # no other takes int8
    made.calibrate(calibration_pairs(roots, height, width))


def calibration_pairs(roots: Sequence[Path], height: int, width: int) -> list[tuple[Plane, Plane]]:
    """Up to `MOST_PAIRS` pairs of paired directories or recordings, spread over all, as (H, W) uint8 luma.

    Raises InputError where there is none.
    """
    import cv2
    import numpy as np

    from streamfuse.training.pairs import find_pairs

    found = find_pairs(roots, every=25)
    if not found:
        raise InputError(f"{', '.join(map(str, roots))}: no pairs to calibrate on")
    chosen = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, MOST_PAIRS).round().astype(int))]
    pairs = []
    for pair in chosen:
        ir, vis = (cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in pair.load())
        pairs.append((ir.astype(np.uint8), vis.astype(np.uint8)))
    return pairs


@contextmanager
def _ended_at_once() -> Iterator[None]:
    """Ctrl-C ends the process as if Python were not there: compilers do not return to it for minutes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _signs_of_life(what: str) -> Iterator[None]:
    """How long it has taken by now, on stderr."""
    terminal = options.on_terminal()
    done = threading.Event()

    def show() -> None:
        begin = time.monotonic()
        while not done.wait(TERMINAL_S if terminal else PLAIN_S):
            text = f"{what}: {time.monotonic() - begin:.0f} s"
            click.echo(f"\r{text}" if terminal else text, nl=not terminal, err=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if terminal:
            click.echo("\r\x1b[K", nl=False, err=True)
