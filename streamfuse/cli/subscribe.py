"""`streamfuse subscribe`: receive published frames, show statistics and record them."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamfuse.cli import options
from streamfuse.cli.run import stopping_on_signals
from streamfuse.errors import InputError

if TYPE_CHECKING:
    from streamfuse.sinks.base import Sink
    from streamfuse.zeromq.subscriber import Received, Subscriber

log = logging.getLogger("streamfuse")

LINE_S = 1.0


@click.command()
@click.argument("url")
@click.option("--stream", metavar="NAME", help="Receive only this stream.")
@click.option("-o", "--output", metavar="FILE", help="Record: out.mp4, out.mkv, or images: out/%06d.png.")
@options.force
@click.option("--frames", type=click.IntRange(1), help="Stop after this many frames.")
@click.option(
    "--timeout-s",
    type=options.FiniteRange(0.01, 1e6),
    default=10.0,
    show_default=True,
    help="End with exit code 3 after this time without a frame.",
)
@options.max_pixels
@click.option("--server-key", type=click.Path(path_type=Path), help="File of the publisher's public key, server.key.")
@click.option("--client-key", type=click.Path(path_type=Path), help="File of your secret key, client.key_secret.")
@options.common
def command(
    url: str,
    stream: str | None,
    output: str | None,
    force: bool,
    frames: int | None,
    timeout_s: float,
    server_key: Path | None,
    client_key: Path | None,
    max_pixels: int,
) -> int:
    """Receive frames from `streamfuse run --publish URL`.

    Prints a line of statistics each second; with -o, records the frames.

    \b
    streamfuse subscribe tcp://127.0.0.1:5556
    streamfuse subscribe tcp://127.0.0.1:5556 --stream front -o front.mp4
    """
    from streamfuse.sinks import open_sink
    from streamfuse.zeromq.subscriber import Mode, Subscriber

    with Subscriber(
        url,
        stream=stream,
        mode=Mode.EVERY,
        timeout_s=timeout_s,
        server_key=server_key,
        client_key=client_key,
        max_pixels=max_pixels,
    ) as subscriber:
        recorder = _Recorder(open_sink(output, force=force)) if output is not None else None
        failed = True
        try:
            with stopping_on_signals(subscriber.close), _figures(subscriber):
                for frame in itertools.islice(subscriber, frames):
                    if recorder is not None:
                        recorder.take(frame)
            failed = False
        finally:
            if recorder is not None:
                recorder.close(failed=failed)
    return 0


@contextmanager
def _figures(subscriber: Subscriber) -> Iterator[None]:
    """Print a line of statistics each second while the block runs, and one at its end.

    Raises BrokenPipeError if stdout is closed.
    """
    done = threading.Event()
    gone: list[BrokenPipeError] = []

    def show() -> None:
        begin = time.monotonic()
        before = 0
        for line in itertools.count(1):
            ended = done.wait(max(begin + line * LINE_S - time.monotonic(), 0))
            passed_s = time.monotonic() - begin
            s = subscriber.statistics()
            rate = (s.received - before) / (passed_s - (line - 1) * LINE_S)
            before = s.received
            click.echo(
                f"{passed_s:.1f} s  {s.link}  received {s.received} ({rate:.1f}/s)  gaps {s.gaps}  "
                f"restarts {s.restarts}  malformed {s.malformed}  oversized {s.oversized}  "
                f"age p50 {s.age_p50_ms:.1f} p95 {s.age_p95_ms:.1f} ms"
            )
            if ended:
                return

    def guarded() -> None:
        try:
            show()
        except BrokenPipeError as error:
            gone.append(error)
            subscriber.close()

    thread = threading.Thread(target=guarded, name="streamfuse figures")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if gone:
        raise gone[0]


class _Recorder:
    """Writes the received frames of one stream to a sink, on one time line, also across restarts of the publisher."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._last: Received | None = None
        self._shift_ns = 0
        self._said = False

    def take(self, frame: Received) -> None:
        last = self._last
        if last is not None and frame.header.stream != last.header.stream:
            if not self._said:
                self._said = True
                others = frame.header.stream, last.header.stream
                log.warning("the stream %s is ignored and %s recorded: choose with --stream", *others)
            return
        if last is not None and frame.header.run != last.header.run:
            passed_ns = max(frame.received_ns - last.received_ns, 0)
            self._shift_ns += last.header.time_ns + passed_ns - frame.header.time_ns
        self._last = frame
        try:
            fused = frame.to_fused()
        except InputError as error:
            log.warning("%s", error)
            return
        self._sink.write(replace(fused, time_ns=fused.time_ns + self._shift_ns))

    def close(self, *, failed: bool) -> None:
        self._sink.close(failed=failed)
