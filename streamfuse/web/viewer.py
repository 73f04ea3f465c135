"""WebSocket of one browser: the next picture is sent when the last one was shown.

    browser                                      server
    {"views": ["fused", "visible"]}       ───►                the views to show; [] for none
                                          ◄───   picture      4 bytes: length of a JSON header; the header; the JPEGs
    {"shown": 17}                         ───►                acknowledges the number in that header
    {"measure": {"point": [0.5, 0.5]}}    ───►                where to measure: `streamfuse.web.thermometer`
                                          ◄───   {"measured": {...}}   the temperatures there, as in each header
                                          ◄───   {...}        the state of the run as text, once a second

New views are sent without waiting for the acknowledgement.  Whatever a browser sends, a connection has at most one
picture and one state waiting to be written, and it keeps no picture alive: a browser that stalls is sent nothing more,
and continues with the newest picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType, web

from streamfuse.web.hub import Closed, Hub, Shown, View
from streamfuse.web.stalls import stall_limit
from streamfuse.web.thermometer import Wanted, parse_wanted

STATUS_S = 1.0
Send = Callable[[str | bytes], Awaitable[None]]
"""Sends one message; returns when it has left the process, or nearly so."""


async def serve_viewer(
    request: web.Request, socket: web.WebSocketResponse, hub: Hub, status: Callable[[], dict[str, Any]]
) -> None:
    """Serve one browser until it disconnects.

    socket: prepared, with a `writer_limit` of 0, so that every message waits for room in the write buffer.
    """

    async def send(message: str | bytes) -> None:
        with stall_limit(request):
            await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))

    viewer = _Viewer(send, hub)
    telling = asyncio.create_task(_tell(send, status))
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                viewer.hear(message.data)
    finally:
        tasks = [telling, *viewer.tasks()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tell(send: Send, status: Callable[[], dict[str, Any]]) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await send(json.dumps(status()))
            await asyncio.sleep(STATUS_S)


class _Viewer:
    """The pictures of one connection."""

    def __init__(self, send: Send, hub: Hub) -> None:
        self._send = send
        self._hub = hub
        self._views: tuple[View, ...] = ()
        self._showing: asyncio.Task[None] | None = None
        self._sending = False
        """A picture is being written: this must not be cancelled, or another would be written beside it."""
        self._free = asyncio.Event()
        """The last picture was acknowledged, or the views have changed since."""
        self._number = 0
        """Number of the last picture that was sent in these views; 0 if there was none."""
        self._sent: tuple[int, int] | None = None
        """Number and arrival time of the last picture that was sent, ns."""
        self._wanted = Wanted()
        self._answering: asyncio.Task[None] | None = None
        self._glass_ms: float | None = None
        """Time from the arrival of a picture's frames until the browser had shown it."""

    def tasks(self) -> list[asyncio.Task[None]]:
        return [task for task in (self._showing, self._answering) if task is not None]

    def hear(self, text: str) -> None:
        """Handle a message from the browser; malformed ones are ignored."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(message, dict):
            return
        views, number = message.get("views"), message.get("shown")
        if "measure" in message:
            self._wanted = parse_wanted(message["measure"])
            if self._answering is None or self._answering.done():
                self._answering = asyncio.create_task(self._answer())
        elif isinstance(views, list):
            self._look(tuple(view for view in View if view in views))
        elif self._sent is not None and number == self._sent[0]:
            self._glass_ms = (self._hub.now_ns() - self._sent[1]) / 1e6
            self._free.set()

    def _look(self, views: tuple[View, ...]) -> None:
        """Change the views, beginning with the newest picture, even if that was sent before."""
        self._views, self._number = views, 0
        self._free.set()
        if self._sending:
            return  # the task continues with these views
        if self._showing is not None:
            self._showing.cancel()
        self._showing = asyncio.create_task(self._show()) if views else None

    async def _show(self) -> None:
        with contextlib.suppress(Closed, ConnectionError):
            while self._views:
                await self._free.wait()
                await self._write(await self._next())

    async def _answer(self) -> None:
        """Send the temperatures at the places asked for last, of the newest picture: it may stand still."""
        wanted = None
        with contextlib.suppress(ConnectionError):
            while wanted is not self._wanted:  # asked anew while the answer was written
                wanted = self._wanted
                shown = self._hub.newest
                measured = None if shown is None else shown.measure(wanted)
                await self._send(json.dumps({"measured": measured}))

    async def _next(self) -> bytes:
        """Return the message for the next picture, which counts as sent from now on."""
        shown = await self._hub.after(self._number)
        jpegs = [(view, await self._hub.jpeg(shown, view)) for view in self._views]
        self._free.clear()
        self._number = shown.number
        self._sent = shown.number, shown.frame.arrival_ns
        return self._message(shown, jpegs)

    async def _write(self, message: bytes) -> None:
        self._sending = True
        try:
            await self._send(message)
        finally:
            self._sending = False

    def _message(self, shown: Shown, jpegs: list[tuple[View, bytes | None]]) -> bytes:
        frame = shown.frame
        height, width = frame.luma.shape
        header = {
            "number": shown.number,
            "index": frame.index,
            "width": width,
            "height": height,
            "content": frame.content,
            "age_ms": round((self._hub.now_ns() - frame.arrival_ns) / 1e6, 2),
            "glass_ms": None if self._glass_ms is None else round(self._glass_ms, 2),
            "skew_ms": round(frame.skew_ns / 1e6, 2),
            "temperature": shown.measure(self._wanted),
            "timings_ms": {stage: round(ns / 1e6, 2) for stage, ns in frame.timings_ns.items()},
            "views": [[view, len(data)] for view, data in jpegs if data is not None],
        }
        text = json.dumps(header).encode()
        return b"".join([len(text).to_bytes(4, "big"), text, *(data for _, data in jpegs if data is not None)])
