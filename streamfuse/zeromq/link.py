"""A subscriber's connection, which reconnects automatically and reports its state.

ZeroMQ reconnects when a publisher dies, but not after a protocol error, and a message above the size limit is one: the
socket would receive nothing from then on.  This is detected here by the socket's events, and the socket is reconnected.
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
"""Frames queued in this process; together with the publisher's queue it bounds the age of a frame."""
SOCKET_BYTES = 256 * 1024
"""The operating system's buffer on each side, which also ages frames; the default would grow to megabytes."""
RECONNECT_MS = (100, 1000)
"""First and longest pause between ZeroMQ's connection attempts."""
KEEPALIVE = {zmq.TCP_KEEPALIVE: 1, zmq.TCP_KEEPALIVE_IDLE: 5, zmq.TCP_KEEPALIVE_INTVL: 2, zmq.TCP_KEEPALIVE_CNT: 3}
"""TCP keepalive, which detects after 11 s that a machine has left the network.

ZeroMQ's heartbeats are not used: with them libzmq 4.3.5 aborts the process when the peer disconnects while a queue is
full (issues 3937 and 4767).
"""
TICK_S = 0.1
"""Interval at which `receive` checks for changes of the connection and for `interrupt`."""
RECONNECT_S = (0.3, 2.0)
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
    """State of the connection."""

    SEARCHING = "no publisher found"
    REFUSED = "refused by the publisher"
    CONNECTED = "connected"


class Connection:
    """A SUB socket.  It may be made in any thread; only one thread may use it, except for `interrupt`."""

    def __init__(self, url: str, topic: bytes, keys: ClientKeys | None, max_bytes: int) -> None:
        self.state = Link.SEARCHING
        self.oversized = 0
        """Connections lost to a message above `max_bytes` or to an error in ZeroMQ's protocol."""
        self._url = url
        self._backoff = Backoff(RECONNECT_S[0], jitter=0)
        self._reconnect_at = math.inf
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
        """Receive the next message; None after `timeout_s` (None: no limit), or once it is interrupted.

        At most `PARTS` + 1 parts of a message are returned.
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
            if now >= self._reconnect_at:
                self._reconnect()
            if now >= end:
                break
        return None

    def _read(self) -> Sequence[zmq.Frame]:
        """Receive one message; raises zmq.Again on timeout."""
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
            self._reconnect_at = time.monotonic() + self._backoff.delay_s(RECONNECT_S[1])
            if event in _FAILED:
                self.state = Link.REFUSED
        elif event is zmq.Event.HANDSHAKE_SUCCEEDED:
            self.state = Link.CONNECTED
        elif event is zmq.Event.CLOSED:  # no publisher at the address
            self.state = Link.SEARCHING
        else:
            self._reconnect_at = math.inf  # ZeroMQ reconnects
            if event is not zmq.Event.CONNECTED and self.state is Link.CONNECTED:
                self.state = Link.SEARCHING

    def _reconnect(self) -> None:
        if self.state is Link.CONNECTED:
            self.oversized += 1
            self.state = Link.SEARCHING
        self._backoff.fail(RECONNECT_S[1])
        self._reconnect_at = math.inf
        with contextlib.suppress(zmq.ZMQError):  # the connection does not exist any more
            self._socket.disconnect(self._url)
        self._socket.connect(self._url)

    def interrupt(self) -> None:
        """Make every current and later `receive` return None within `TICK_S`; any thread may call this."""
        self._interrupted = True

    def close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()
