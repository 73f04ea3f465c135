"""Web server of the preview: one thread with its own event loop, on one or two addresses.

    /                the page                        /metrics   for Prometheus
    /socket          its WebSocket                   /status    the same as JSON
    /stream.mjpg     an MJPEG stream                 /readyz    200, or 503 with the reasons, as JSON
    /snapshot.jpg    the newest picture              /healthz   200 while the process runs

Streams and snapshots take `?view=fused`, `infrared` or `visible`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import prometheus_client
from aiohttp import WSCloseCode, web
from aiohttp.http_exceptions import HttpProcessingError

from streamfuse.telemetry import Summary
from streamfuse.web.address import Listener
from streamfuse.web.auth import Guard
from streamfuse.web.hub import Closed, Hub, View
from streamfuse.web.metrics import make_registry
from streamfuse.web.page import CONTENT_SECURITY_POLICY, page
from streamfuse.web.stalls import stall_limit
from streamfuse.web.status import not_ready, status
from streamfuse.web.viewer import serve_viewer

MOST_VIEWERS = 32
"""Clients that are sent pictures at the same time."""
SHUTDOWN_S = 1.0
"""Time for viewers to answer the closing handshake, s."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "streamfuse",
    "X-Content-Type-Options": "nosniff",
}
_BOUNDARY = b"--frame\r\n"
_cookie: ContextVar[str | None] = ContextVar("cookie", default=None)
"""Set-Cookie value for the answer to the current request, as the guard returned it; every request has a task."""


def _is_ours(record: logging.LogRecord) -> bool:
    """Filter out malformed requests: they are answered, and a flood of them must not fill the log."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_log = logging.getLogger("streamfuse.preview")
_log.addFilter(_is_ours)


@dataclass(frozen=True, slots=True)
class Site:
    """A listening address and the routes on it."""

    listener: Listener
    guard: Guard
    pages: bool
    """Serve the page and the pictures, not only the routes for monitoring."""


class Server:
    """Serves the pictures of a hub and the state of a run from `start` to `close`."""

    def __init__(self, sites: Sequence[Site], hub: Hub, state: Callable[[], Summary]) -> None:
        """state: called in the server's thread."""
        self._sites = sites
        self._hub = hub
        self._state = state
        self._sockets: set[web.WebSocketResponse] = set()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="streamfuse preview", daemon=True)

    def start(self) -> None:
        """Start the thread; return when requests are accepted."""
        self._thread.start()
        self._started.wait()

    def close(self) -> None:
        """Close the connections and stop the thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._hub.open()
        # Handlers must be cancelled when their client disconnects: one that has nothing to send would not notice.
        runners = [
            web.AppRunner(
                self._app(site), handler_cancellation=True, access_log=None, logger=_log, shutdown_timeout=SHUTDOWN_S
            )
            for site in self._sites
        ]
        try:
            for runner, site in zip(runners, self._sites, strict=True):
                await runner.setup()
                await web.SockSite(runner, site.listener.sock).start()
            self._loop = asyncio.get_running_loop()
            self._started.set()
            await self._stop.wait()
        finally:
            self._hub.close()
            for runner in runners:
                await runner.cleanup()

    def _app(self, site: Site) -> web.Application:
        @web.middleware
        async def guarded(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
            _cookie.set(None)
            _check_text(request)
            if request.match_info.handler is not _healthz:
                _cookie.set(site.guard.admit(request))
            return cast(web.StreamResponse, await handler(request))

        async def prepared(request: web.Request, response: web.StreamResponse) -> None:
            response.headers.update(_HEADERS)
            if response.status < 400 and (cookie := _cookie.get()) is not None:
                response.headers.add("Set-Cookie", cookie)

        app = web.Application(middlewares=[guarded])
        app.on_response_prepare.append(prepared)
        app.on_shutdown.append(self._close_sockets)
        registry = make_registry(self._state, self._hub)

        async def metrics(request: web.Request) -> web.Response:
            data = prometheus_client.generate_latest(registry)
            return web.Response(body=data, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})

        async def socket(request: web.Request) -> web.StreamResponse:
            site.guard.check_origin(request)
            return await self._socket(request)

        routes = [
            web.get("/metrics", metrics),
            web.get("/status", self._status),
            web.get("/healthz", _healthz),
            web.get("/readyz", self._readyz),
        ]
        if site.pages:
            routes += [
                web.get("/", _page),
                web.get("/socket", socket, allow_head=False),
                web.get("/stream.mjpg", self._stream, allow_head=False),
                web.get("/snapshot.jpg", self._snapshot),
            ]
        app.add_routes(routes)
        return app

    async def _close_sockets(self, app: web.Application) -> None:
        closing = [socket.close(code=WSCloseCode.GOING_AWAY, message=b"the run has ended") for socket in self._sockets]
        await asyncio.gather(*closing)

    # Handlers of the routes.

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(status(self._state(), self._hub))

    async def _readyz(self, request: web.Request) -> web.Response:
        reasons = not_ready(self._state())
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        view = _view(request)
        with self._viewing(request):
            shown = self._hub.newest
            if shown is None:
                raise web.HTTPServiceUnavailable(text="no picture yet: try again\n")
            data = await self._hub.jpeg(shown, view)
            if data is None:
                raise web.HTTPNotFound(text=f"the {view} stream is away\n")
            # aiohttp keeps an answer until the next request of the connection: this one has no body of its own.
            response = web.StreamResponse(headers={"Content-Type": "image/jpeg", "Content-Length": str(len(data))})
            await response.prepare(request)
            if request.method != "HEAD":
                with stall_limit(request):
                    await response.write_eof(data)
            return response

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        view = _view(request)
        response = web.StreamResponse()
        response.headers["Content-Type"] = "multipart/x-mixed-replace; boundary=frame"
        with self._viewing(request), contextlib.suppress(Closed, ConnectionError):
            await response.prepare(request)
            await response.write(_BOUNDARY)
            number = 0
            while True:
                number, part = await self._part(number, view)
                with stall_limit(request):
                    await response.write(part)
        return response

    async def _part(self, number: int, view: View) -> tuple[int, bytes]:
        """Return the next picture's number and its part of an MJPEG stream, empty if the view's stream is away."""
        shown = await self._hub.after(number)
        data = await self._hub.jpeg(shown, view)
        if data is None:
            return shown.number, b""
        # The boundary after a picture lets the browser show it now, not when the next one comes.
        head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
        return shown.number, head + data + b"\r\n" + _BOUNDARY

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            heartbeat=10.0,
            timeout=SHUTDOWN_S,
            compress=False,  # JPEGs do not get smaller
            max_msg_size=4096,
            writer_limit=0,
        )
        with self._viewing(request):
            await socket.prepare(request)
            self._sockets.add(socket)
            try:
                await serve_viewer(request, socket, self._hub, lambda: status(self._state(), self._hub))
                return socket
            finally:
                self._sockets.discard(socket)

    @contextlib.contextmanager
    def _viewing(self, request: web.Request) -> Iterator[None]:
        """Count a viewer for the length of the block.  Raises HTTPServiceUnavailable if there are MOST_VIEWERS.

        Writes that are awaited in the block wait until the operating system has taken everything.
        """
        if self._hub.viewers >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_VIEWERS} viewers are connected already: try again later\n")
        self._hub.viewers += 1
        try:
            if request.transport is not None:
                request.transport.set_write_buffer_limits(high=0)
            yield
        finally:
            self._hub.viewers -= 1


def _check_text(request: web.Request) -> None:
    """Raises HTTPBadRequest for headers that are not UTF-8: aiohttp fails to quote them in its own error answers."""
    try:
        for value in request.headers.values():
            value.encode()
    except UnicodeEncodeError:
        raise web.HTTPBadRequest(text="headers must be UTF-8\n") from None


async def _page(request: web.Request) -> web.Response:
    return web.Response(text=page(), content_type="text/html")


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="alive\n")


def _view(request: web.Request) -> View:
    """Return the view in the query.  Raises HTTPBadRequest for an unknown one."""
    try:
        return View(request.query.get("view", View.FUSED))
    except ValueError:
        raise web.HTTPBadRequest(text=f"unknown view: use {', '.join(View)}\n") from None
