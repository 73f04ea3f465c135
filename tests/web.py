"""A preview on loopback for tests: pictures of known grey levels, and viewers that are real clients.

As a program, `python web.py PORT`, it serves such pictures until it is killed; `python web.py PORT noise` serves noise
of 640x480, whose JPEGs are large.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType
from media import SIZE

from streamfuse.color import Chroma, Plane
from streamfuse.frames import Content, FusedFrame, Role
from streamfuse.sinks.preview import PreviewSink
from streamfuse.sources.base import State
from streamfuse.telemetry import SourceSummary, StageSummary, Summary
from streamfuse.temperature import TemperaturePlane

GREYS = {"fused": 200, "infrared": 120, "visible": 40}
TOKEN = "a-token-for-tests"


def picture(
    index: int = 0,
    *,
    size: tuple[int, int] = SIZE,
    content: Content = Content.FUSED,
    chroma: Chroma | None = None,
    luma: Plane | None = None,
    temperature: TemperaturePlane | None = None,
) -> FusedFrame:
    """A picture whose views have the grey levels of GREYS plus index % 10; a stream that is away has no view."""

    def plane(view: str) -> Plane:
        return np.full(size, GREYS[view] + index % 10, np.uint8)

    return FusedFrame(
        plane("fused") if luma is None else luma,
        chroma,
        index,
        index * 40_000_000,
        infrared=None if content is Content.VISIBLE else plane("infrared"),
        visible=None if content is Content.INFRARED else plane("visible"),
        content=content,
        skew_ns=4_000_000,
        arrival_ns=time.monotonic_ns(),
        timings_ns={"align": 1_000_000, "fuse": 20_000_000, "tone": 2_000_000},
        temperature=temperature,
    )


@dataclass
class Run:
    """A fixed summary in place of a pipeline's."""

    summary: Summary = field(
        default_factory=lambda: Summary(
            read={Role.IR: 12, Role.VIS: 13},
            pairs=11,
            fused=10,
            lifted=4,
            written={"out.mp4": 9},
            drops={"visible": {"late: by far": 3}},
            elapsed_s=1.0,
            fps=10.0,
            stages={"fuse": StageSummary(10, 20.0, 21.0, 22.0, total_s=0.2, within=(0, 0, 0, 0, *[10] * 8))},
            skew_ms=4.0,
            sources={
                Role.IR: SourceSummary(State.LIVE, 2, "cam0", 0.04),
                Role.VIS: SourceSummary(State.LIVE, 0, "cam1", 0.04),
            },
            silent_s={Role.IR: 0.01, Role.VIS: 0.02},
            engine_loaded=True,
        )
    )

    def __call__(self) -> Summary:
        return self.summary


@contextmanager
def serving(address: str = "127.0.0.1:0", run: Run | None = None, **options: Any) -> Iterator[PreviewSink]:
    sink = PreviewSink(address, **options)
    sink.attach(run or Run())
    try:
        yield sink
    finally:
        sink.close()


@contextmanager
def pumping(sink: PreviewSink, period_s: float = 0.02, **options: Any) -> Iterator[None]:
    """Write a picture each period, in a thread of its own, as a pipeline does.  options: those of `picture`."""
    stopping = threading.Event()

    def pump() -> None:
        index = 0
        while not stopping.wait(period_s):
            sink.write(picture(index, **options))
            index += 1

    thread = threading.Thread(target=pump)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


class Viewer:
    """A client that follows the protocol as the page does."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket

    async def look(self, *views: str) -> None:
        await self.socket.send_json({"views": views})

    async def next(self, *, shown: bool = True) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return header and JPEGs of the next picture.  shown: acknowledge it."""
        while True:
            message = await self.socket.receive(timeout=20)
            assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message
            if message.type is WSMsgType.BINARY:
                break
        data = message.data
        length = int.from_bytes(data[:4], "big")
        header = json.loads(data[4 : 4 + length])
        offset = 4 + length
        jpegs = {}
        for view, size in header["views"]:
            jpegs[view] = data[offset : offset + size]
            offset += size
        assert offset == len(data)
        if shown:
            await self.show(header["number"])
        return header, jpegs

    async def show(self, number: int) -> None:
        await self.socket.send_json({"shown": number})


async def viewer(session: ClientSession, sink: PreviewSink, *views: str) -> Viewer:
    made = Viewer(await session.ws_connect(f"http://127.0.0.1:{sink.port}/socket"))
    await made.look(*views)
    return made


def until(true: Callable[[], bool], timeout_s: float = 20) -> None:
    """Wait until a condition holds that another thread or process brings about."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.005)


def _serve(port: str, *kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640), np.uint8)
    options: dict[str, Any] = {"size": noise.shape, "luma": noise} if kind == ("noise",) else {}
    with serving(f"127.0.0.1:{port}") as sink, pumping(sink, 0.1 if options else 0.02, **options):
        threading.Event().wait()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
