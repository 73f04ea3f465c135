"""A bound ZeroMQ socket that publishes any number of streams of this process.

A new subscriber is sent the last frame of its streams at once.  Nothing is encoded while nobody subscribes.  A slow
subscriber loses frames and does not delay others; the queue to each is short, so its frames are recent.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import zmq

from streamfuse.errors import OutputError, StreamfuseError, UsageError
from streamfuse.support.files import reason
from streamfuse.support.urls import redact
from streamfuse.zeromq.curve import ServerKeys, is_allowed
from streamfuse.zeromq.endpoint import check_url, is_private
from streamfuse.zeromq.link import KEEPALIVE, SOCKET_BYTES
from streamfuse.zeromq.wire import Buffer, topic_of

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

log = logging.getLogger("streamfuse")

QUEUE = 4
"""Frames queued for one subscriber before it loses some: 160 ms at 25 fps."""
LINGER_MS = 1000
"""Time to send the remaining frames when the publisher is closed."""
MAX_SUBSCRIPTION_BYTES = 4096
"""Size limit of a message from a subscriber; subscribers send only topics."""
SUBSCRIPTIONS_AT_ONCE = 100
"""Subscriptions that are processed before the next frame is sent."""
MAX_SUBSCRIPTIONS = 1000
"""Subscriptions that are stored, to bound memory; with more, every frame is sent as if it had a subscriber."""
PAUSE_S = 0.01
"""Pause between two reads of subscriptions: the socket also becomes readable whenever a subscriber takes a frame."""
DOMAIN = b"global"

NOBODY = "nobody subscribed"
FULL = "a subscriber fell behind"
"""Drop reason, counted once each time a queue becomes full; each subscriber counts the frames it missed."""


class Message(Protocol):
    """A frame that is encoded on demand."""

    def parts(self, *, resent: bool) -> tuple[bytes, *tuple[Buffer, ...]]:
        """Return the header and the parts after it, which are encoded once, and never written to afterwards."""


class Topic:
    """A published stream."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.name = topic_of(stream)
        self.last: Message | None = None
        """The newest frame, kept for new subscribers."""
        self.sent = False
        """True once `last` has been sent."""


_shared: dict[str, Publisher] = {}
_shared_lock = threading.Lock()


class Publisher:
    """A bound socket and its streams; made by `join`, used from any thread."""

    def __init__(self, url: str, keys: ServerKeys | None = None) -> None:
        self.name = redact(url)
        self.keys = keys
        self._url = url
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}
        self._subscriptions: set[bytes] = set()
        self._overflowed = False
        """True once there are more subscriptions than are stored."""
        self._new: set[bytes] = set()
        self._closed = threading.Event()
        # inproc peers must share a context; the others have their own, because a context has one authenticator.
        self._own_context = not url.startswith("inproc:")
        self._context = zmq.Context() if self._own_context else zmq.Context.instance()
        with contextlib.ExitStack() as opened:
            if self._own_context:
                opened.callback(self._context.term)
            self._authenticator = self._authenticate(keys) if keys is not None else None
            if self._authenticator is not None:
                opened.callback(self._authenticator.stop)
            self._socket: zmq.Socket[bytes] = opened.enter_context(self._context.socket(zmq.XPUB))
            self._bind(url, keys)
            self._wake, self._woken = socket.socketpair()
            opened.callback(self._wake.close)
            opened.callback(self._woken.close)
            self._wake.setblocking(False)
            self._watcher = threading.Thread(target=self._watch, name=f"streamfuse publish {self.name}", daemon=True)
            self._watcher.start()
            self._opened = opened.pop_all()

    def _authenticate(self, keys: ServerKeys) -> ThreadAuthenticator:
        from zmq.auth.thread import ThreadAuthenticator

        class Clients:
            @staticmethod
            def callback(domain: str, key: bytes) -> bool:
                return is_allowed(keys.clients, key)

        authenticator = ThreadAuthenticator(self._context)
        authenticator.start()
        authenticator.configure_curve_callback(domain=DOMAIN.decode(), credentials_provider=Clients())
        return authenticator

    def _bind(self, url: str, keys: ServerKeys | None) -> None:
        for option, value in (
            (zmq.LINGER, LINGER_MS),
            (zmq.SNDHWM, QUEUE),
            (zmq.SNDBUF, SOCKET_BYTES),
            (zmq.XPUB_VERBOSE, 1),
            (zmq.XPUB_NODROP, 1),
            (zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES),
            (zmq.IPV6, int("[" in url)),
            *KEEPALIVE.items(),
        ):
            self._socket.setsockopt(option, value)
        if keys is not None:
            self._socket.setsockopt(zmq.CURVE_SERVER, 1)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.pair.secret)
            self._socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        if url.startswith("ipc://"):
            _check_path(url.removeprefix("ipc://"))
        try:
            self._socket.bind(url)
        except zmq.ZMQError as error:
            raise OutputError(
                f"cannot publish on {self.name}: {reason(error.errno, str(error))}; choose another address"
            ) from None

    @property
    def address(self) -> str:
        """URL for subscribers, with the actual port where the given URL asks for a free one."""
        return bytes(self._socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()

    def add(self, stream: str) -> Topic:
        """Add a stream; raises UsageError if the name is taken."""
        with self._lock:
            if stream in self._topics:
                raise UsageError(f"{self.name} already has a stream {stream!r}: give another name with --stream")
            self._topics[stream] = Topic(stream)
            return self._topics[stream]

    def leave(self, topic: Topic) -> None:
        """Remove a stream; the socket is closed with the last one."""
        with _shared_lock:
            with self._lock:
                del self._topics[topic.stream]
                topic.last = None
            if not self._topics:
                _shared.pop(self._url, None)
                self._close()

    def offer(self, topic: Topic, message: Message) -> str | None:
        """Send a frame to its subscribers and keep it for new ones; return the reason if a subscriber misses it."""
        with self._lock:
            topic.last, topic.sent = message, False
            has_subscriber = self._has_subscriber(topic)
        if not has_subscriber:
            return NOBODY
        parts = message.parts(resent=False)
        with self._lock:
            complete = self._send(topic, *parts)
            topic.sent = True
            self._process_subscriptions()
        return None if complete else FULL

    def _has_subscriber(self, topic: Topic) -> bool:
        return self._overflowed or any(topic.name.startswith(prefix) for prefix in self._subscriptions)

    def _send(self, topic: Topic, header: bytes, *payloads: Buffer) -> bool:
        """Send to all subscribers; False if the queue of one was full, so that it missed this frame."""
        complete = True
        try:
            self._socket.send(topic.name, zmq.SNDMORE | zmq.NOBLOCK)
        except zmq.Again:  # a queue is full (XPUB_NODROP reports it): drop for that subscriber, send to the others
            complete = False
            self._socket.setsockopt(zmq.XPUB_NODROP, 0)
            self._socket.send(topic.name, zmq.SNDMORE | zmq.NOBLOCK)
        try:
            self._socket.send(header, zmq.SNDMORE)
            for payload in payloads[:-1]:
                self._socket.send(payload, zmq.SNDMORE, copy=False)
            self._socket.send(payloads[-1], copy=False)
        finally:
            if not complete:
                self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        return complete

    def _process_subscriptions(self) -> bool:
        """Process subscriptions; True if there may be more.  The caller holds the lock."""
        before, more = len(self._new), False
        for _ in range(SUBSCRIPTIONS_AT_ONCE):
            if not int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                break
            message = self._socket.recv(zmq.NOBLOCK)
            kind, prefix = message[:1], message[1:]
            if kind == b"\x01":
                self._overflowed = self._overflowed or len(self._subscriptions) >= MAX_SUBSCRIPTIONS
                if not self._overflowed:
                    self._subscriptions.add(prefix)
                if any(topic.name.startswith(prefix) for topic in self._topics.values()):
                    self._new.add(prefix)
            elif kind == b"\x00":  # the last subscription of this topic has ended
                self._subscriptions.discard(prefix)
            # Other messages are ignored.
        else:
            more = True
        if (more or len(self._new) > before) and threading.current_thread() is not self._watcher:
            self._wake_watcher()
        return more

    def _wake_watcher(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a wake-up is pending already
            self._wake.send(b"\0")

    # The watcher thread: subscriptions must be processed while no frames are published, too.

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(int(self._socket.getsockopt(zmq.FD)), selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            more = True  # subscriptions may have arrived before the descriptor was registered
            while True:
                # The descriptor is edge-triggered: all pending messages must be read after every use of the socket.
                ready = selector.select(0 if more else None)
                self._closed.wait(PAUSE_S)
                if any(key.fileobj is self._woken for key, _ in ready):
                    self._woken.recv(4096)
                with self._lock:
                    if self._closed.is_set():
                        return
                    more = self._process_subscriptions()
                    new, self._new = self._new, set()
                    topics = [t for t in self._topics.values() if any(t.name.startswith(b) for b in new)]
                for topic in topics:
                    # The publishing thread meets the same error, and reports it.
                    with contextlib.suppress(StreamfuseError):
                        self._resend(topic)

    def _resend(self, topic: Topic) -> None:
        while (message := topic.last) is not None:
            parts = message.parts(resent=True)
            with self._lock:
                if self._closed.is_set() or (topic.last is not message and topic.sent):
                    return  # the new subscriber was sent a newer frame
                if topic.last is message:
                    self._send(topic, *parts)
                    return

    def _close(self) -> None:
        self._closed.set()
        self._wake_watcher()
        self._watcher.join()
        self._opened.close()


def join(url: str, stream: str, keys: ServerKeys | None = None, *, insecure: bool = False) -> tuple[Publisher, Topic]:
    """Add a stream to the publisher of a URL, which all streams of this process share; it is made if necessary.

    Raises UsageError for an invalid URL, for one that other machines can reach without `keys` and `insecure`, for keys
    that differ from those in use, and for a stream that exists; OutputError if the address cannot be bound.
    """
    check_url(url)
    if keys is None and not insecure and not is_private(url):
        raise UsageError(
            f"{redact(url)} can be reached from other machines, so anybody could watch: "
            "give --publish-keys (`streamfuse keys new DIR` makes them), or --insecure to allow that"
        )
    with _shared_lock:
        publisher = _shared.get(url)
        if publisher is None:
            publisher = Publisher(url, keys)
            if "*" not in url:  # with a free port, each publisher has its own
                _shared[url] = publisher
        elif publisher.keys != keys:
            raise UsageError(f"{redact(url)} is in use with other keys: give the same keys to all its streams")
        return publisher, publisher.add(stream)


def _check_path(path: str) -> None:
    """Raise OutputError if the path is in use: ZeroMQ would remove any file at this path."""
    if path.startswith(("@", "*")):
        return
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise OutputError(f"{path} exists and is not a socket: choose another path")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except OSError:
        return  # the path does not exist, or is a stale socket
    raise OutputError(f"{path} is in use by another publisher: choose another path")
