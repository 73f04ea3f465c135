"""A bound ZeroMQ socket that any number of streams of this process are published on.

A subscriber that comes late is sent the last frame of its streams at once.  Nothing is encoded while nobody
subscribes.  A subscriber that is slow loses frames and holds nobody up: the queue to each is short, so that what it
gets is not old.
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
from streamfuse.files import reason
from streamfuse.urls import redact
from streamfuse.zeromq.curve import ServerKeys, is_allowed
from streamfuse.zeromq.endpoint import check_url, is_private
from streamfuse.zeromq.link import KEEPALIVE, SOCKET_BYTES
from streamfuse.zeromq.wire import Buffer, topic_of

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

log = logging.getLogger("streamfuse")

QUEUE = 4
"""Frames that wait for one subscriber before it loses some: 160 ms at 25 fps."""
LINGER_MS = 1000
"""How long the last frames may take to be sent when the publisher is closed."""
MAX_HEARD_BYTES = 4096
"""Subscribers send topics and nothing else."""
HEARD_AT_ONCE = 100
"""Subscriptions that are looked at before a frame is sent again."""
MOST_WANTED = 1000
"""Subscriptions that are told apart.  Whoever makes more takes no more memory; every frame counts as wanted then."""
REST_S = 0.01
"""Between two looks at what subscribers say: the socket also stirs whenever one has taken a frame."""
DOMAIN = b"global"

NOBODY = "nobody subscribed"
FULL = "a subscriber fell behind"
"""How often one did; what it missed until it caught up, it counts itself."""


class Message(Protocol):
    def parts(self, *, resent: bool) -> tuple[bytes, Buffer]:
        """Header and payload; the payload is encoded once, and never written to afterwards."""


class Topic:
    """One stream, as the publisher sees it."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.name = topic_of(stream)
        self.last: Message | None = None
        self.sent = False
        """Whether `last` has been."""


_shared: dict[str, Publisher] = {}
_shared_lock = threading.Lock()


class Publisher:
    """Made by `join`; any thread may use it."""

    def __init__(self, url: str, keys: ServerKeys | None = None) -> None:
        self.name = redact(url)
        self.keys = keys
        self._url = url
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}
        self._wanted: set[bytes] = set()
        self._crowded = False
        """More were asked for than are told apart."""
        self._late: set[bytes] = set()
        self._ended = threading.Event()
        # inproc peers must share a context; others get one of their own: it has one authenticator.
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
            (zmq.MAXMSGSIZE, MAX_HEARD_BYTES),
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
        """Where subscribers connect to: the URL with the port that was found, if it asks for a free one."""
        return bytes(self._socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()

    def add(self, stream: str) -> Topic:
        with self._lock:
            if stream in self._topics:
                raise UsageError(f"the stream {stream!r} is on {self.name} already: give another one with --stream")
            self._topics[stream] = Topic(stream)
            return self._topics[stream]

    def leave(self, topic: Topic) -> None:
        """The last to leave closes the socket."""
        with _shared_lock:
            with self._lock:
                del self._topics[topic.stream]
                topic.last = None
            if not self._topics:
                _shared.pop(self._url, None)
                self._close()

    def offer(self, topic: Topic, message: Message) -> str | None:
        """Send to who subscribes, and keep for who will; the reason if somebody does not get it."""
        with self._lock:
            topic.last, topic.sent = message, False
            wanted = self._is_wanted(topic)
        if not wanted:
            return NOBODY
        header, payload = message.parts(resent=False)
        with self._lock:
            room = self._send(topic, header, payload)
            topic.sent = True
            self._hear()
        return None if room else FULL

    def _is_wanted(self, topic: Topic) -> bool:
        return self._crowded or any(topic.name.startswith(beginning) for beginning in self._wanted)

    def _send(self, topic: Topic, header: bytes, payload: Buffer) -> bool:
        """False: the queue of a subscriber is full, and it did not get this."""
        room = True
        try:
            self._socket.send(topic.name, zmq.SNDMORE | zmq.NOBLOCK)
        except zmq.Again:  # it says so instead of dropping; now to the others
            room = False
            self._socket.setsockopt(zmq.XPUB_NODROP, 0)
            self._socket.send(topic.name, zmq.SNDMORE | zmq.NOBLOCK)
        try:
            self._socket.send(header, zmq.SNDMORE)
            self._socket.send(payload, copy=False)
        finally:
            if not room:
                self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        return room

    def _hear(self) -> bool:
        """Take what subscribers say; True if there may be more.  The lock is held."""
        before, more = len(self._late), False
        for _ in range(HEARD_AT_ONCE):
            if not int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                break
            said = self._socket.recv(zmq.NOBLOCK)
            kind, beginning = said[:1], said[1:]
            if kind == b"\x01":
                self._crowded = self._crowded or len(self._wanted) >= MOST_WANTED
                if not self._crowded:
                    self._wanted.add(beginning)
                if any(topic.name.startswith(beginning) for topic in self._topics.values()):
                    self._late.add(beginning)
            elif kind == b"\x00":  # the last one who wanted it has gone
                self._wanted.discard(beginning)
            # Anything else is not for us.
        else:
            more = True
        if (more or len(self._late) > before) and threading.current_thread() is not self._watcher:
            self._rouse()
        return more

    def _rouse(self) -> None:
        with contextlib.suppress(BlockingIOError):  # then it has been roused and has not come to it yet
            self._wake.send(b"\0")

    # The watcher's thread: a subscription must be heard while no frames come, too.

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(int(self._socket.getsockopt(zmq.FD)), selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            more = True  # who waited for us has been heard of already
            while True:
                # The descriptor tells of changes only: whatever uses the socket must take all there is.
                ready = selector.select(0 if more else None)
                self._ended.wait(REST_S)
                if any(key.fileobj is self._woken for key, _ in ready):
                    self._woken.recv(4096)
                with self._lock:
                    if self._ended.is_set():
                        return
                    more = self._hear()
                    late, self._late = self._late, set()
                    topics = [t for t in self._topics.values() if any(t.name.startswith(b) for b in late)]
                for topic in topics:
                    # The thread that publishes meets the same error, and tells.
                    with contextlib.suppress(StreamfuseError):
                        self._resend(topic)

    def _resend(self, topic: Topic) -> None:
        while (message := topic.last) is not None:
            header, payload = message.parts(resent=True)
            with self._lock:
                if self._ended.is_set() or (topic.last is not message and topic.sent):
                    return  # a newer one went to whoever has come
                if topic.last is message:
                    self._send(topic, header, payload)
                    return

    def _close(self) -> None:
        self._ended.set()
        self._rouse()
        self._watcher.join()
        self._opened.close()


def join(url: str, stream: str, keys: ServerKeys | None = None, *, insecure: bool = False) -> tuple[Publisher, Topic]:
    """The publisher of this URL, which all streams of this process on it share, with one more stream.

    Raises UsageError for a URL that is none, for one that others can reach if there are neither `keys` nor `insecure`,
    for other keys than it has already, and for a stream that it has already; OutputError where it cannot be bound.
    """
    check_url(url)
    if keys is None and not insecure and not is_private(url):
        raise UsageError(
            f"{redact(url)} can be reached from other machines, and anybody could watch: "
            "give --publish-keys (`streamfuse keys new DIR` makes them), or --insecure if that is meant"
        )
    with _shared_lock:
        publisher = _shared.get(url)
        if publisher is None:
            publisher = Publisher(url, keys)
            if "*" not in url:  # else every one has a port of its own
                _shared[url] = publisher
        elif publisher.keys != keys:
            raise UsageError(f"{redact(url)} is in use with other keys: give the same to all its streams")
        return publisher, publisher.add(stream)


def _check_path(path: str) -> None:
    """ZeroMQ would remove whatever is at this path."""
    if path.startswith(("@", "*")):
        return
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise OutputError(f"{path} exists and is no socket: choose another path")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except OSError:
        return  # nothing there, or nobody listens any more
    raise OutputError(f"{path} is in use by another publisher: choose another path")
