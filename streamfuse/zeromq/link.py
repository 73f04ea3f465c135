"""The connection of a subscriber: it stays up by itself, and knows how it stands.

ZeroMQ connects anew when a publisher dies.  It does not after what it takes for a breach of the protocol, and a
message above the size limit is one: then the socket would be deaf for ever.  That is noticed here by the socket's
events, and mended.
"""

from __future__ import annotations

import contextlib
import enum
import math
import time
from collections.abc import Sequence

import zmq
from zmq.utils.monitor import recv_monitor_message

from streamfuse.backoff import Backoff
from streamfuse.zeromq.curve import ClientKeys
from streamfuse.zeromq.wire import PARTS

QUEUE = 4
"""Frames that wait in this process; with the publisher's queue they bound how old a frame can be."""
SOCKET_BYTES = 256 * 1024
"""The system's buffer on each side, where frames grow old as well; by itself it would grow to megabytes."""
RECONNECT_MS = (100, 1000)
"""From the first attempt to the longest pause between two."""
KEEPALIVE = {zmq.TCP_KEEPALIVE: 1, zmq.TCP_KEEPALIVE_IDLE: 5, zmq.TCP_KEEPALIVE_INTVL: 2, zmq.TCP_KEEPALIVE_CNT: 3}
"""A machine that has vanished from the network is noticed after 11 s.

Not by ZeroMQ's heartbeats: with them it aborts the process when the other side goes while a queue is full (libzmq
4.3.5, issues 3937 and 4767).
"""
TICK_S = 0.1
"""How soon it is noticed that the connection has changed or shall end, while nothing comes."""
MENDING_S = (0.3, 2.0)
"""First and longest delay before this module reconnects because ZeroMQ does not."""

_FAILED = (
    zmq.Event.HANDSHAKE_FAILED_AUTH,
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL,
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL,
)
_GONE = (zmq.Event.DISCONNECTED, *_FAILED)
_TRYING = (zmq.Event.CONNECT_DELAYED, zmq.Event.CONNECT_RETRIED, zmq.Event.CONNECTED)
_ALL = (*_GONE, *_TRYING, zmq.Event.HANDSHAKE_SUCCEEDED, zmq.Event.CLOSED)


class Link(enum.StrEnum):
    """How the connection stands."""

    SEARCHING = "no publisher there"
    REFUSED = "refused by the publisher"
    CONNECTED = "connected"


class Connection:
    """A SUB socket.  Made in any thread, then used by one, but for `interrupt`."""

    def __init__(self, url: str, topic: bytes, keys: ClientKeys | None, max_bytes: int) -> None:
        self.state = Link.SEARCHING
        self.cut = 0
        """Connections that the other side broke by a message above `max_bytes`, or one that is none of ZeroMQ's."""
        self._url = url
        self._backoff = Backoff(MENDING_S[0], jitter=0)
        self._mend_at = math.inf
        self._interrupted = False
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        try:
            self._open(topic, keys, max_bytes)
        except BaseException:
            self._socket.close()
            raise

    def _open(self, topic: bytes, keys: ClientKeys | None, max_bytes: int) -> None:
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.RCVHWM, QUEUE),
            (zmq.RCVBUF, SOCKET_BYTES),
            (zmq.MAXMSGSIZE, max_bytes),
            (zmq.RECONNECT_IVL, RECONNECT_MS[0]),
            (zmq.RECONNECT_IVL_MAX, RECONNECT_MS[1]),
            (zmq.IPV6, int("[" in self._url)),
            *KEEPALIVE.items(),
        ):
            self._socket.setsockopt(option, value)
        if keys is not None:
            self._socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server)
            self._socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.pair.public)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.pair.secret)
        self._socket.subscribe(topic)
        self._monitor: zmq.Socket[bytes] = self._socket.get_monitor_socket(sum(_ALL))
        try:
            self._socket.connect(self._url)
        except BaseException:
            self._socket.disable_monitor()
            self._monitor.close(0)
            raise

    def receive(self, timeout_s: float | None = None) -> Sequence[zmq.Frame] | None:
        """The next message, of which no more than `PARTS` + 1 parts are kept; None if none comes in time, or once it is
        interrupted.
        """
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not self._interrupted:
            wait_s = min(TICK_S, max(end - time.monotonic(), 0))
            self._socket.setsockopt(zmq.RCVTIMEO, math.ceil(wait_s * 1000))
            with contextlib.suppress(zmq.Again):
                return self._read()
            while self._monitor.poll(0):
                self._note(zmq.Event(recv_monitor_message(self._monitor)["event"]))
            now = time.monotonic()
            if now >= self._mend_at:
                self._mend()
            if now >= end:
                break
        return None

    def _read(self) -> Sequence[zmq.Frame]:
        """Raises zmq.Again when none comes."""
        parts = [self._socket.recv(copy=False)]
        self.state = Link.CONNECTED
        self._backoff.succeed()
        while parts[-1].more:
            part = self._socket.recv(copy=False)
            if len(parts) > PARTS:
                parts.pop()
            parts.append(part)
        return parts

    def _note(self, event: zmq.Event) -> None:
        if event in _GONE:
            self._mend_at = time.monotonic() + self._backoff.delay_s(MENDING_S[1])
            if event in _FAILED:
                self.state = Link.REFUSED
        elif event is zmq.Event.HANDSHAKE_SUCCEEDED:
            self.state = Link.CONNECTED
        elif event is zmq.Event.CLOSED:  # nobody listens
            self.state = Link.SEARCHING
        else:
            self._mend_at = math.inf  # ZeroMQ sees to it
            if event is not zmq.Event.CONNECTED and self.state is Link.CONNECTED:
                self.state = Link.SEARCHING

    def _mend(self) -> None:
        if self.state is Link.CONNECTED:
            self.cut += 1
            self.state = Link.SEARCHING
        self._backoff.fail(MENDING_S[1])
        self._mend_at = math.inf
        with contextlib.suppress(zmq.ZMQError):  # it knows of no such connection any more
            self._socket.disconnect(self._url)
        self._socket.connect(self._url)

    def interrupt(self) -> None:
        """End `receive` within `TICK_S`, now and from now on; any thread may call it."""
        self._interrupted = True

    def close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()
