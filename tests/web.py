"""A preview on loopback for tests: pictures of known greys, viewers that are real clients.

As a program, `python web.py PORT`, it serves such pictures until it is killed.
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

GREYS = {"fused": 200, "infrared": 120, "visible": 40}
TOKEN = "a-token-for-tests"


def picture(
    index: int = 0,
    *,
    size: tuple[int, int] = SIZE,
    content: Content = Content.FUSED,
    chroma: Chroma | None = None,
    luma: Plane | None = None,
) -> FusedFrame:
    """Each view has the grey of GREYS, plus the index below 10; a stream that is away has none."""

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
    )


@dataclass
class Run:
    """Stands in for a pipeline: says what it is told to."""

    summary: Summary = field(
        default_factory=lambda: Summary(
            read={Role.IR: 12, Role.VIS: 13},
            pairs=11,
            fused=10,
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
def pumping(sink: PreviewSink, period_s: float = 0.02) -> Iterator[None]:
    """A picture each period, in a thread of its own, as a pipeline does."""
    stopping = threading.Event()

    def pump() -> None:
        index = 0
        while not stopping.wait(period_s):
            sink.write(picture(index))
            index += 1

    thread = threading.Thread(target=pump)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


class Viewer:
    """What the page does, in Python."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket

    async def look(self, *views: str) -> None:
        await self.socket.send_json({"views": views})

    async def next(self, *, shown: bool = True) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The header and the JPEGs of the next picture; `shown`: it says so."""
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
    """Wait for what another thread will do."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


if __name__ == "__main__":
    with serving(f"127.0.0.1:{sys.argv[1]}") as served, pumping(served):
        threading.Event().wait()
