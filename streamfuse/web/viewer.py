"""One browser's WebSocket: it gets the next picture when it has shown the last one.

    browser                                      server
    {"views": ["fused", "visible"]}       ───►                what it looks at; [] for nothing
                                          ◄───   picture      4 bytes, length of a JSON header; header; the JPEGs
    {"shown": 17}                         ───►                the number in that header
                                          ◄───   {...}        the state of the run, as text, once a second

A viewer that stalls is sent nothing more and costs nothing; it goes on with what is newest then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from streamfuse.web.hub import Closed, Hub, Shown, View

STATUS_S = 1.0


async def serve_viewer(socket: web.WebSocketResponse, hub: Hub, status: Callable[[], dict[str, Any]]) -> None:
    """Until the browser leaves."""
    viewer = _Viewer(socket, hub)
    telling = asyncio.create_task(_tell(socket, status))
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                viewer.hear(message.data)
    finally:
        tasks = [telling, *viewer.tasks()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tell(socket: web.WebSocketResponse, status: Callable[[], dict[str, Any]]) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await socket.send_str(json.dumps(status()))
            await asyncio.sleep(STATUS_S)


class _Viewer:
    def __init__(self, socket: web.WebSocketResponse, hub: Hub) -> None:
        self._socket = socket
        self._hub = hub
        self._views: tuple[View, ...] = ()
        self._sending: asyncio.Task[None] | None = None
        self._free = asyncio.Event()
        """It has shown what it was sent."""
        self._sent: Shown | None = None
        self._glass_ms: float | None = None
        """From the arrival of a picture's frames until the browser had shown it."""

    def tasks(self) -> list[asyncio.Task[None]]:
        return [] if self._sending is None else [self._sending]

    def hear(self, text: str) -> None:
        """What makes no sense is passed over: it is the browser's loss."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(message, dict):
            return
        views, number = message.get("views"), message.get("shown")
        if isinstance(views, list):
            self._look(tuple(view for view in View if view in views))
        elif self._sent is not None and number == self._sent.number:
            self._glass_ms = (self._hub.now_ns() - self._sent.frame.arrival_ns) / 1e6
            self._free.set()

    def _look(self, views: tuple[View, ...]) -> None:
        """Another look begins with the newest picture, even if that was sent before."""
        for task in self.tasks():
            task.cancel()
        self._views = views
        self._free.set()
        self._sending = asyncio.create_task(self._send()) if views else None

    async def _send(self) -> None:
        number = 0
        with contextlib.suppress(Closed, ConnectionError):
            while True:
                await self._free.wait()
                shown = await self._hub.after(number)
                number = shown.number
                jpegs = [(view, await self._hub.jpeg(shown, view)) for view in self._views]
                self._free.clear()
                self._sent = shown
                await self._socket.send_bytes(self._message(shown, jpegs))

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
            "timings_ms": {stage: round(ns / 1e6, 2) for stage, ns in frame.timings_ns.items()},
            "views": [[view, len(data)] for view, data in jpegs if data is not None],
        }
        text = json.dumps(header).encode()
        return b"".join([len(text).to_bytes(4, "big"), text, *(data for _, data in jpegs if data is not None)])
