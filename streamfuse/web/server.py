"""The preview's server: one thread with its own event loop, on one or two addresses.

    /                the page                        /metrics   for Prometheus
    /socket          its WebSocket                   /status    the same as JSON
    /stream.mjpg     a picture after the other       /readyz    200, or 503 and why not, as JSON
    /snapshot.jpg    the newest picture              /healthz   200 while it runs

The pictures are taken in `?view=fused`, `infrared` or `visible`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import prometheus_client
from aiohttp import WSCloseCode, web
from aiohttp.http_exceptions import HttpProcessingError

from streamfuse.telemetry import Summary
from streamfuse.web.address import Place
from streamfuse.web.auth import Guard
from streamfuse.web.hub import Closed, Hub, View
from streamfuse.web.metrics import make_registry
from streamfuse.web.page import CONTENT_SECURITY_POLICY, page
from streamfuse.web.status import not_ready, status
from streamfuse.web.viewer import serve_viewer

MOST_VIEWERS = 32
SHUTDOWN_S = 1.0
"""For viewers that take no good-bye."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "streamfuse",
    "X-Content-Type-Options": "nosniff",
}
_OPEN = frozenset({"/healthz"})
"""What anybody may ask."""
_BOUNDARY = b"--frame\r\n"


def _is_ours(record: logging.LogRecord) -> bool:
    """Not what a caller did wrong: that is answered, and whoever floods us must not fill the log as well."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_log = logging.getLogger("streamfuse.preview")
_log.addFilter(_is_ours)


@dataclass(frozen=True, slots=True)
class Site:
    """An address to serve, and what on it."""

    place: Place
    guard: Guard
    pages: bool
    """The pictures too, not only what monitoring asks for."""


class Server:
    """Serves a hub's pictures and a run's state from `start` to `close`."""

    def __init__(self, sites: Sequence[Site], hub: Hub, state: Callable[[], Summary]) -> None:
        """`state` is called in the server's thread."""
        self._sites = sites
        self._hub = hub
        self._state = state
        self._sockets: set[web.WebSocketResponse] = set()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="streamfuse preview", daemon=True)

    def start(self) -> None:
        """Returns when it can be asked."""
        self._thread.start()
        self._started.wait()

    def close(self) -> None:
        """Say good-bye to the viewers, and end."""
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
        # A viewer that leaves while there is nothing to send is noticed by its handler being cancelled.
        runners = [
            web.AppRunner(
                self._app(site), handler_cancellation=True, access_log=None, logger=_log, shutdown_timeout=SHUTDOWN_S
            )
            for site in self._sites
        ]
        try:
            for runner, site in zip(runners, self._sites, strict=True):
                await runner.setup()
                await web.SockSite(runner, site.place.listening).start()
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
            _check_text(request)
            if request.path not in _OPEN:
                site.guard.check(request)
            return cast(web.StreamResponse, await handler(request))

        async def prepared(request: web.Request, response: web.StreamResponse) -> None:
            response.headers.update(_HEADERS)
            if response.status < 400 and (cookie := site.guard.cookie(request)) is not None:
                response.headers.add("Set-Cookie", cookie)

        app = web.Application(middlewares=[guarded])
        app.on_response_prepare.append(prepared)
        app.on_shutdown.append(self._say_good_bye)
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
                web.get("/socket", socket),
                web.get("/stream.mjpg", self._stream),
                web.get("/snapshot.jpg", self._snapshot),
            ]
        app.add_routes(routes)
        return app

    async def _say_good_bye(self, app: web.Application) -> None:
        closing = [socket.close(code=WSCloseCode.GOING_AWAY, message=b"the run has ended") for socket in self._sockets]
        await asyncio.gather(*closing)

    # What is asked for.

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(status(self._state(), self._hub))

    async def _readyz(self, request: web.Request) -> web.Response:
        reasons = not_ready(self._state())
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def _snapshot(self, request: web.Request) -> web.Response:
        view = _view(request)
        shown = self._hub.newest
        if shown is None:
            raise web.HTTPServiceUnavailable(text="there is no picture yet\n")
        data = await self._hub.jpeg(shown, view)
        if data is None:
            raise web.HTTPNotFound(text=f"the {view} stream is away\n")
        return web.Response(body=data, content_type="image/jpeg")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        view = _view(request)
        self._admit()
        response = web.StreamResponse()
        response.headers["Content-Type"] = "multipart/x-mixed-replace; boundary=frame"
        self._hub.viewers += 1
        try:
            await response.prepare(request)
            await response.write(_BOUNDARY)
            number = 0
            while True:
                shown = await self._hub.after(number)
                number = shown.number
                data = await self._hub.jpeg(shown, view)
                if data is not None:
                    # The boundary after a picture lets the browser show it now, not when the next one comes.
                    head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
                    await response.write(head + data + b"\r\n" + _BOUNDARY)
        except (Closed, ConnectionError):
            return response
        finally:
            self._hub.viewers -= 1

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self._admit()
        # JPEG cannot be compressed any more.
        socket = web.WebSocketResponse(heartbeat=10.0, timeout=SHUTDOWN_S, compress=False, max_msg_size=4096)
        self._hub.viewers += 1
        self._sockets.add(socket)
        try:
            await socket.prepare(request)
            await serve_viewer(socket, self._hub, lambda: status(self._state(), self._hub))
            return socket
        finally:
            self._sockets.discard(socket)
            self._hub.viewers -= 1

    def _admit(self) -> None:
        if self._hub.viewers >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_VIEWERS} viewers are here already\n")


def _check_text(request: web.Request) -> None:
    """Raises HTTPBadRequest for headers that are not UTF-8, which aiohttp could not repeat in its own refusals."""
    try:
        for value in request.headers.values():
            value.encode()
    except UnicodeEncodeError:
        raise web.HTTPBadRequest(text="headers must be text\n") from None


async def _page(request: web.Request) -> web.Response:
    return web.Response(text=page(), content_type="text/html")


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="alive\n")


def _view(request: web.Request) -> View:
    """The view that is asked for; raises HTTPBadRequest."""
    try:
        return View(request.query.get("view", View.FUSED))
    except ValueError:
        raise web.HTTPBadRequest(text=f"there is no such view: use {', '.join(View)}\n") from None
