"""Web preview and metrics as a sink: `--preview`, `--metrics`."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from streamfuse.errors import UsageError
from streamfuse.frames import FusedFrame
from streamfuse.sinks.base import Sink
from streamfuse.telemetry import Summary
from streamfuse.web.address import listen, parse
from streamfuse.web.auth import PARAMETER, Guard, check_token
from streamfuse.web.hub import Hub
from streamfuse.web.server import Server, Site


class PreviewSink(Sink):
    """Serves the newest frame and the run's state over HTTP.

    The constructor binds the addresses, `attach` starts the server, `close` stops it.
    """

    waits = False
    best_effort = True

    def __init__(self, preview: str | None = None, *, metrics: str | None = None, token: str | None = None) -> None:
        """Bind the addresses; at least one is needed.

        preview: HOST:PORT for the page, the pictures, the state and the metrics.
        metrics: HOST:PORT for the state and the metrics only.
        token: secret that clients must show.  None: none on a loopback address; a random one on other addresses.
        Raises UsageError for an invalid address or token, OutputError for an address that cannot be bound.
        """
        if preview is None and metrics is None:
            raise UsageError("nothing to serve: give an address for the preview or the metrics")
        token = None if token is None else check_token(token)
        wanted = {"--preview": preview, "--metrics": metrics}
        addresses = {option: parse(option, text) for option, text in wanted.items() if text is not None}
        self.generated = token is None and not all(address.loopback for address in addresses.values())
        """`links` contain a random token, which the user must be shown."""
        made = secrets.token_urlsafe(24)
        self.hub = Hub()
        self._sites: list[Site] = []
        self._server: Server | None = None
        self._state: Callable[[], Summary] | None = None
        self._links: dict[str, str] = {}
        try:
            for option, address in addresses.items():
                listener = listen(option, address)
                needed = token if token is not None or address.loopback else made
                guard = Guard(address.loopback, listener.address.port, needed)
                self._sites.append(Site(listener, guard, pages=option == "--preview"))
                url = listener.url if option == "--preview" else f"{listener.url}metrics"
                self._links[option.lstrip("-")] = url if needed == token else f"{url}?{PARAMETER}={made}"
        except BaseException:
            self._close_listeners()
            raise
        self.name = f"preview on {self._sites[0].listener.address}"

    @property
    def links(self) -> dict[str, str]:
        """URLs by name, "preview" and "metrics"; they contain the token if it is a random one."""
        return dict(self._links)

    @property
    def port(self) -> int:
        """Port of the first address; the bound one if port 0 was asked for."""
        return self._sites[0].listener.address.port

    def attach(self, state: Callable[[], Summary]) -> None:
        self._state = state
        self._server = Server(self._sites, self.hub, self._now)
        self._server.start()

    def _now(self) -> Summary:
        assert self._state is not None
        return self._state()

    def write(self, frame: FusedFrame) -> None:
        self.hub.publish(frame)

    def close(self, *, failed: bool = False) -> None:
        if self._server is not None:
            self._server.close()
        self._server = self._state = None  # objects of the server that await collection must not keep the run alive
        self.hub.forget()
        self._close_listeners()

    def _close_listeners(self) -> None:
        for site in self._sites:
            site.listener.sock.close()
