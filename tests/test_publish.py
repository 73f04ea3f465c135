"""Publishing: delivery to subscribers, keys, and hostile peers."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq
from media import ListSource, PassThrough, frame_at
from publishing import noise, published
from streams import free_port

from streamfuse.errors import OutputError, StreamfuseError, UsageError
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sinks.zeromq import ZeroMQSink
from streamfuse.zeromq.curve import client_keys, new_keys, server_keys
from streamfuse.zeromq.publisher import FULL, NOBODY
from streamfuse.zeromq.wire import Encoding, Header, unpack

ROOT = Path(__file__).parent.parent


@contextmanager
def bare(
    url: str, topic: bytes = b"fused/", *, setup: Callable[[zmq.Socket[bytes]], None] | None = None
) -> Iterator[zmq.Socket[bytes]]:
    """A subscriber that uses ZeroMQ directly."""
    own = not url.startswith("inproc")
    context = zmq.Context() if own else zmq.Context.instance()
    subscriber: zmq.Socket[bytes] = context.socket(zmq.SUB)
    subscriber.setsockopt(zmq.LINGER, 0)
    subscriber.setsockopt(zmq.RCVTIMEO, 5000)
    if setup is not None:
        setup(subscriber)
    subscriber.subscribe(topic)
    subscriber.connect(url)
    try:
        yield subscriber
    finally:
        subscriber.close()
        if own:
            context.term()


@contextmanager
def sink(url: str = "tcp://127.0.0.1:*", **options: object) -> Iterator[ZeroMQSink]:
    made = ZeroMQSink(url, **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


def receive(subscriber: zmq.Socket[bytes], seq: int) -> Header:
    """Receive until frame `seq`; an earlier frame may arrive twice, because it is resent for other subscribers."""
    while (header := unpack(subscriber.recv_multipart())).seq != seq:
        assert header.seq < seq
    return header


def until(reached: Callable[[], bool], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < end, "the condition was not reached in time"
        time.sleep(0.005)


@pytest.fixture(params=["tcp", "ipc", "inproc"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {"tcp": "tcp://127.0.0.1:*", "ipc": f"ipc://{tmp_path}/s", "inproc": f"inproc://{tmp_path}"}[request.param]


def test_message_on_each_transport(url: str) -> None:
    with sink(url, stream="front", calibration="abc123", model="ff" * 32) as out, bare(out.address) as subscriber:
        begin_ns = time.time_ns()
        out.write(published(0))
        topic, text, pixels = subscriber.recv_multipart()
        header = json.loads(text)
        assert (topic, header["stream"], header["seq"]) == (b"fused/front/", "front", 0)
        assert (header["calibration"], header["model"]) == ("abc123", "ff" * 32)
        assert begin_ns <= header["published_ns"] <= time.time_ns()
        assert 20_000_000 <= header["age_ns"] < 5_000_000_000
        picture = np.frombuffer(pixels, np.uint8).reshape(header["height"], header["width"], 3)
        assert np.array_equal(picture, published(0).to_bgr())
        unpack([topic, text, pixels])


@pytest.mark.timed
def test_new_subscriber_gets_the_last_frame_within_100_ms(url: str) -> None:
    """Without another frame, and without any work by the publishing thread."""
    with sink(url, encoding=Encoding.MONO8) as out:
        for k in range(3):
            out.write(published(k))
        assert out.encoded == 0
        seconds = []
        for _ in range(5):
            begin = time.monotonic()
            with bare(out.address) as subscriber:
                _, text, pixels = subscriber.recv_multipart()
                seconds.append(time.monotonic() - begin)
                header = json.loads(text)
                assert (header["seq"], header["resent"]) == (2, True)
                assert np.array_equal(np.frombuffer(pixels, np.uint8).reshape(48, 64), noise(2))
        assert sorted(seconds)[2] < 0.1, seconds  # the median, as the machine may be busy
        assert out.encoded == 1


def test_new_subscriber_gets_only_its_streams() -> None:
    with sink(stream="a", encoding=Encoding.MONO8) as a, sink(stream="b") as other:
        a.write(published(0))
        other.write(published(0))
        with bare(a.address, b"fused/other/") as subscriber:
            assert not subscriber.poll(200)
        with bare(a.address, b"fused/a/") as subscriber:
            assert subscriber.recv_multipart()[0] == b"fused/a/"


def test_streams_of_one_address_share_its_socket(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/s"
    with sink(url, stream="front", encoding=Encoding.MONO8) as front, sink(url, stream="front2") as second:
        assert front.address == second.address
        with bare(url, b"fused/front/") as one, bare(url) as both:
            front.write(published(0))
            second.write(published(0))
            seen: set[bytes] = set()
            while len(seen) < 2:
                seen.add(both.recv_multipart()[0])
            assert seen == {b"fused/front/", b"fused/front2/"}
            assert one.recv_multipart()[0] == b"fused/front/"
            while one.poll(100):
                assert one.recv_multipart()[0] == b"fused/front/"
        with pytest.raises(UsageError, match=r"already has a stream 'front'"):
            ZeroMQSink(url, stream="front")
    with sink(url, stream="front"):  # the address is free again
        pass


def test_nothing_is_encoded_while_nobody_subscribes() -> None:
    with sink(encoding=Encoding.JPEG) as out:
        for k in range(10):
            out.write(published(k))
        assert (out.encoded, dict(out.drops)) == (0, {NOBODY: 10})
        with bare(out.address, b"fused/other/"):
            until(lambda: bool(out._publisher._subscriptions))
            out.write(published(10))
        assert out.encoded == 0
        with bare(out.address) as one, bare(out.address) as two:
            for subscriber in (one, two):
                subscriber.recv_multipart()
            out.write(published(11))
            out.write(published(12))
            for subscriber in (one, two):
                receive(subscriber, 12)
        assert out.encoded == 3  # the last one before and the two since, each once for both subscribers
        until(lambda: not out._publisher._subscriptions)
        out.write(published(13))
        assert out.encoded == 3


@pytest.mark.timed
def test_slow_subscriber_does_not_delay_others() -> None:
    """Two subscribers get 120 of 120 frames; a third one sleeps 0.3 s per frame and gets recent ones."""
    size = (480, 640)
    frames = [published(k, size=size) for k in range(120)]
    got: dict[str, list[int]] = {"one": [], "two": [], "slow": []}
    ready = threading.Barrier(4)
    done = threading.Event()
    with sink(encoding=Encoding.MONO8) as out:
        out.write(frames[0])

        def read(name: str) -> None:
            with bare(out.address, setup=short_queue) as subscriber:
                subscriber.recv_multipart()
                ready.wait(10)
                while not done.is_set():
                    if not subscriber.poll(100):
                        continue
                    seq = json.loads(subscriber.recv_multipart()[1])["seq"]
                    if seq and seq not in got[name]:
                        got[name].append(seq)
                    if name == "slow":
                        done.wait(0.3)
                    elif seq == 120:
                        return

        threads = [threading.Thread(target=read, args=(name,)) for name in got]
        for thread in threads:
            thread.start()
        ready.wait(10)
        for k in range(1, 121):
            out.write(frames[k % 120])
            time.sleep(0.01)
        for thread in threads[:2]:
            thread.join(10)
        done.set()
        threads[2].join(10)
    assert got["one"] == got["two"] == list(range(1, 121))
    assert 2 <= len(got["slow"]) < 60
    assert out.drops[FULL] >= 1
    assert out.drops[NOBODY] == 1


def test_queues_are_short() -> None:
    """A subscriber that does not read for long gets no more than the queues hold."""
    with sink(encoding=Encoding.MONO8) as out:
        out.write(published(0, size=(480, 640)))
        with bare(out.address, setup=short_queue) as subscriber:
            subscriber.recv_multipart()
            for k in range(300):
                out.write(published(k, size=(480, 640), luma=noise(0, (480, 640))))
            queued = 0
            while subscriber.poll(200):
                subscriber.recv_multipart()
                queued += 1
    assert queued < 20


def test_drops_are_in_the_summary_of_a_run() -> None:
    out = ZeroMQSink("tcp://127.0.0.1:*", stream="street")
    frames = [ListSource([frame_at(40 * k, index=k) for k in range(5)]) for _ in range(2)]
    summary = Pipeline(*frames, sinks=[out], fuser=Fuser(engine=PassThrough(), tone="per-frame")).run()
    assert sum(summary.drops[out.name].values()) == 5
    assert out.name == "tcp://127.0.0.1:* (street)"


# Keys


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    new_keys(tmp_path / "keys")
    new_keys(tmp_path / "others")
    return tmp_path / "keys"


def with_keys(server: Path, client: Path) -> Callable[[zmq.Socket[bytes]], None]:
    found = client_keys(server, client)

    def setup(subscriber: zmq.Socket[bytes]) -> None:
        subscriber.setsockopt(zmq.CURVE_SERVERKEY, found.server)
        subscriber.setsockopt(zmq.CURVE_PUBLICKEY, found.pair.public)
        subscriber.setsockopt(zmq.CURVE_SECRETKEY, found.pair.secret)

    return setup


def with_password(subscriber: zmq.Socket[bytes]) -> None:
    subscriber.setsockopt(zmq.PLAIN_USERNAME, b"me")
    subscriber.setsockopt(zmq.PLAIN_PASSWORD, b"secret")


def short_queue(subscriber: zmq.Socket[bytes]) -> None:
    subscriber.setsockopt(zmq.RCVHWM, 4)
    subscriber.setsockopt(zmq.RCVBUF, 2**18)


def test_only_subscribers_with_an_allowed_key_get_frames(keys: Path) -> None:
    others = keys.parent / "others"
    right = with_keys(keys / "server.key", keys / "client.key_secret")
    wrong = {
        "a key that is not in the directory": with_keys(keys / "server.key", others / "client.key_secret"),
        "another publisher's key": with_keys(others / "server.key", keys / "client.key_secret"),
        "no key": None,
        "a name and a password": with_password,
    }
    with sink(keys=server_keys(keys / "server.key_secret"), encoding=Encoding.MONO8) as out:
        out.write(published(0))
        for case, setup in wrong.items():
            with bare(out.address, setup=setup) as subscriber:
                assert not subscriber.poll(400), case
            assert out.encoded == 0, case
        with bare(out.address, setup=right) as subscriber, bare(out.address) as refused:
            assert unpack(subscriber.recv_multipart()).seq == 0
            out.write(published(1))
            receive(subscriber, 1)
            assert not refused.poll(100)


def test_added_client_key_is_valid_at_once(keys: Path) -> None:
    others = keys.parent / "others"
    with sink(keys=server_keys(keys / "server.key_secret")) as out:
        out.write(published(0))
        setup = with_keys(keys / "server.key", others / "client.key_secret")
        with bare(out.address, setup=setup) as subscriber:
            assert not subscriber.poll(300)
        (keys / "clients" / "second.key").write_bytes((others / "clients" / "client.key").read_bytes())
        (keys / "clients" / "notes.key").write_text("no key")
        with bare(out.address, setup=setup) as subscriber:
            assert unpack(subscriber.recv_multipart()).seq == 0


def test_keys_are_secret_and_never_replaced(keys: Path) -> None:
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in keys.rglob("*.key*")}
    assert modes == {"server.key": 0o644, "server.key_secret": 0o600, "client.key": 0o644, "client.key_secret": 0o600}
    before = {file: file.read_bytes() for file in keys.rglob("*.key*")}
    with pytest.raises(OutputError, match=r"server.key exists and keys are never replaced: choose another directory"):
        new_keys(keys)
    assert {file: file.read_bytes() for file in keys.rglob("*.key*")} == before
    found = server_keys(keys / "server.key_secret")
    assert found.pair.secret.decode() not in f"{found!r} {found}"
    assert found.pair.secret not in before[keys / "server.key"]


def test_invalid_keys_are_one_clear_error(keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "text.key_secret").write_text("no key")
    (tmp_path / "short.key_secret").write_text('public-key = "abc"\nsecret-key = "s3cret"\n')
    (tmp_path / "empty").mkdir()
    for words, secret, clients in (
        ("there is no key file", tmp_path / "gone", None),
        ("is not a key file", tmp_path / "text.key_secret", None),
        ("is not a key file", tmp_path / "short.key_secret", None),
        ("has no secret key", keys / "server.key", None),
        ("there is no directory", keys / "server.key_secret", tmp_path / "gone"),
        ("nobody could subscribe", keys / "server.key_secret", tmp_path / "empty"),
    ):
        with pytest.raises(UsageError, match=words) as raised:
            server_keys(secret, clients)
        assert "s3cret" not in str(raised.value)
    (keys / "server.key_secret").chmod(0o644)
    server_keys(keys / "server.key_secret")
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize(
    "url", ["tcp://0.0.0.0:5556", "tcp://*:5556", "tcp://192.0.2.1:5556", "tcp://eth0:5556", "tcp://[::]:5556"]
)
def test_network_address_needs_keys(url: str) -> None:
    with pytest.raises(UsageError, match=r"--publish-keys.*--insecure"):
        ZeroMQSink(url)


def test_network_address_with_keys_or_insecure(keys: Path) -> None:
    with sink("tcp://0.0.0.0:*", keys=server_keys(keys / "server.key_secret")), sink("tcp://0.0.0.0:*", insecure=True):
        pass


def test_unusable_addresses_are_one_clear_error(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")
    with socket.create_server(("127.0.0.1", 0)) as listening, sink(f"ipc://{tmp_path}/used"):
        port = listening.getsockname()[1]
        cases: list[tuple[type[StreamfuseError], str, str]] = [
            (UsageError, "give tcp://", "udp://127.0.0.1:5000"),
            (UsageError, "give tcp://", "127.0.0.1:5556"),
            (UsageError, "give tcp://", "ipc://"),
            (UsageError, "give a port", "tcp://127.0.0.1"),
            (UsageError, "give a port", "tcp://127.0.0.1:99999"),
            (OutputError, "in use", f"tcp://127.0.0.1:{port}"),
            (OutputError, "cannot publish on ipc://", f"ipc://{tmp_path}/gone/s"),
            (OutputError, "exists and is not a socket", f"ipc://{precious}"),
            (OutputError, "too long", f"ipc://{tmp_path}/{'x' * 120}"),
        ]
        for kind, words, url in cases:
            with pytest.raises(kind, match=words) as raised:
                ZeroMQSink(url)
            assert "\n" not in str(raised.value)
        other = f"from streamfuse.sinks.zeromq import ZeroMQSink\nZeroMQSink('ipc://{tmp_path}/used')"
        done = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False, cwd=ROOT)
        assert "is in use by another publisher" in done.stderr
    assert precious.read_text() == "precious"
    with pytest.raises(UsageError, match="invalid stream name 'a/b': use 1 to 64 letters"):
        ZeroMQSink("tcp://127.0.0.1:*", stream="a/b")


def test_stale_socket_of_a_killed_publisher_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with sink(f"ipc://{tmp_path}/s") as out, bare(out.address) as subscriber:
        out.write(published(0))
        assert subscriber.recv_multipart()


# Hostile peers


def test_garbage_is_ignored() -> None:
    """Bytes that are not ZeroMQ's protocol, and messages that no subscriber sends."""
    with sink(f"tcp://127.0.0.1:{free_port()}", encoding=Encoding.MONO8) as out, bare(out.address) as good:
        out.write(published(0))
        good.recv_multipart()
        port = int(out.address.rpartition(":")[2])
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000), b"\xff" + bytes(8) + b"\x7f\x03" + bytes(60), b""):
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(garbage)
        context = zmq.Context()
        peer = context.socket(zmq.XSUB)
        peer.setsockopt(zmq.LINGER, 100)
        peer.connect(out.address)
        for junk in (
            b"",
            b"\x02fused/",
            b"\x01" + os.urandom(3000),
            b"\x00fused/",
            b"\x01" * 100_000,
            *[b"\xee"] * 1000,
        ):
            peer.send(junk)
        for k in range(1, 21):
            out.write(published(k))
            receive(good, k)
            time.sleep(0.005)
        peer.close()
        context.term()
        out.write(published(21))
        receive(good, 21)


def test_subscribers_that_left_are_forgotten() -> None:
    with sink(encoding=Encoding.MONO8) as out:
        out.write(published(0))
        for k in range(30):
            with bare(out.address, b"fused/main/" if k % 2 else b"fused/") as subscriber:
                subscriber.recv_multipart()
        until(lambda: not out._publisher._subscriptions)
        before = out.encoded
        out.write(published(1))
        assert out.encoded == before


def test_failing_encoder_is_an_output_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.imencode", lambda *_: (False, None))
    with sink(encoding=Encoding.JPEG) as out, bare(out.address):
        until(lambda: bool(out._publisher._subscriptions))
        with pytest.raises(OutputError, match="cannot be encoded as JPEG: publish as bgr8"):
            out.write(published(0))
