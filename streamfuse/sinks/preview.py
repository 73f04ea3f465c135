"""Fused frames to browsers, and the run's state to monitoring: `--preview`, `--metrics`."""

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
    """Binds its addresses when it is made, serves them from `attach` on, and ends with the run."""

    waits = False
    best_effort = True

    def __init__(self, preview: str | None = None, *, metrics: str | None = None, token: str | None = None) -> None:
        """`preview`, `metrics`: HOST:PORT to serve everything, or what monitoring asks for, on.

        `token`: what viewers must show.  None: nothing on a loopback address; on others one is made.  Raises
        UsageError for an address or a token that makes no sense, OutputError for an address that cannot be had.
        """
        if preview is None and metrics is None:
            raise UsageError("nothing to serve: give the preview or the metrics an address")
        token = None if token is None else check_token(token)
        wanted = {"--preview": preview, "--metrics": metrics}
        addresses = {option: parse(option, text) for option, text in wanted.items() if text is not None}
        self.generated = token is None and not all(address.loopback for address in addresses.values())
        """Whether `link` holds a token that nobody knows yet."""
        made = secrets.token_urlsafe(24)
        self.hub = Hub()
        self._sites: list[Site] = []
        self._server: Server | None = None
        self._state: Callable[[], Summary] | None = None
        self._links: dict[str, str] = {}
        try:
            for option, address in addresses.items():
                place = listen(option, address)
                needed = token if token is not None or address.loopback else made
                guard = Guard(address.loopback, place.address.port, needed)
                self._sites.append(Site(place, guard, pages=option == "--preview"))
                url = place.url if option == "--preview" else f"{place.url}metrics"
                self._links[option.lstrip("-")] = url if needed == token else f"{url}?{PARAMETER}={made}"
        except BaseException:
            self._let_go()
            raise
        self.name = f"preview on {self._sites[0].place.address}"

    @property
    def links(self) -> dict[str, str]:
        """ "preview" and "metrics" to where they are; with the token where it was made here: to be shown once."""
        return dict(self._links)

    @property
    def port(self) -> int:
        """Of the first address; where 0 was asked for, the one that was free."""
        return self._sites[0].place.address.port

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
        self._server = self._state = None  # what the server leaves to the garbage collector must not hold the run
        self.hub.forget()
        self._let_go()

    def _let_go(self) -> None:
        for site in self._sites:
            site.place.listening.close()
