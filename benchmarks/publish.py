"""Frame rate of publishing, compared with plain ZeroMQ.

    python benchmarks/publish.py [--seconds 3] [--rounds 5]

Messages of 921,600 bytes (640x480x3) are sent from this process to another one: through `ZeroMQSink` and `Subscriber`,
and through a plain pair of ZeroMQ sockets that sends the same three parts without copies and reads none of them.  Each
round measures one after the other; the table shows the best round of each, because other load on the machine only
slows them down.  The receiver acknowledges each message and at most three are in transit, so that nothing is dropped.
The pixels need no conversion (mono8, 1920x480); the conversion of luma and colour is measured separately.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import zmq

from streamfuse import Subscriber
from streamfuse.color import Chroma
from streamfuse.frames import FusedFrame
from streamfuse.sinks.zeromq import ZeroMQSink
from streamfuse.zeromq.curve import client_keys, new_keys, server_keys
from streamfuse.zeromq.payload import encode
from streamfuse.zeromq.wire import Encoding, pack, unpack

LUMA = np.random.default_rng(0).integers(0, 256, (480, 1920), dtype=np.uint8)
WINDOW = 3
"""Messages in transit: the number that the queues of both ways hold."""


def receive(kind: str, url: str, keys: str, seconds: float) -> None:
    """Body of the receiving process: write a byte to stdout for each message."""
    server, client = (Path(keys) / "server.key", Path(keys) / "client.key_secret") if keys else (None, None)
    with ExitStack() as stack:
        take: Callable[[], object]
        if kind == "ours":
            subscriber = stack.enter_context(Subscriber(url, mode="every", server_key=server, client_key=client))
            frames = iter(subscriber)
            take = lambda: next(frames).luma  # noqa: E731
        else:
            context = stack.enter_context(zmq.Context())
            bare = stack.enter_context(context.socket(zmq.SUB))
            bare.linger = 0
            if server and client:
                found = client_keys(server, client)
                bare.curve_serverkey = found.server
                bare.curve_publickey, bare.curve_secretkey = found.pair.public, found.pair.secret
            bare.subscribe(b"fused/")
            bare.connect(url)
            take = lambda: np.frombuffer(bare.recv_multipart(copy=False)[2].buffer, np.uint8)  # noqa: E731
        end = time.perf_counter() + seconds + 30
        while time.perf_counter() < end:  # the process is killed long before
            take()
            os.write(1, b".")


def measure(kind: str, url: str, keys: Path | None, seconds: float) -> float:
    """Return messages per second received by the other process."""
    frame, header = FusedFrame(LUMA, None, 0, 0), _header()
    with ExitStack() as stack:
        send: Callable[[], object]
        if kind == "ours":
            pair = server_keys(keys / "server.key_secret") if keys else None
            sink = ZeroMQSink(url, encoding=Encoding.MONO8, keys=pair)
            stack.callback(sink.close)
            address = sink.address
            send = lambda: sink.write(frame)  # noqa: E731
        else:
            context = stack.enter_context(zmq.Context())
            bare = stack.enter_context(context.socket(zmq.XPUB))
            bare.linger = 0
            if keys:
                bare.setsockopt(zmq.CURVE_SERVER, 1)
                bare.setsockopt(zmq.CURVE_SECRETKEY, server_keys(keys / "server.key_secret").pair.secret)
            bare.bind(url)
            address = bytes(bare.getsockopt(zmq.LAST_ENDPOINT)).decode().rstrip("\0")
            send = lambda: bare.send_multipart([b"fused/main/", header, LUMA.data], copy=False)  # noqa: E731
        command = [sys.executable, __file__, "--receive", kind, address, str(keys or ""), str(seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as other:
            assert other.stdout is not None
            if kind == "bare":
                bare.recv()  # wait for the subscription; the sink keeps its last frame until then
            send()
            other.stdout.read(1)
            begin, acknowledged, sent = time.perf_counter(), 0, 0
            while (passed := time.perf_counter() - begin) < seconds:
                while sent - acknowledged < WINDOW:
                    send()
                    sent += 1
                acknowledged += len(other.stdout.read(WINDOW) or b"")
            other.kill()
    return acknowledged / passed


def _header() -> bytes:
    """Return the header of a real message, which is between topic and pixels."""
    with Subscriber("inproc://header") as subscriber:
        sink = ZeroMQSink("inproc://header", encoding=Encoding.MONO8)
        sink.write(FusedFrame(LUMA, None, 0, 0))
        header = pack(subscriber.latest().header)
        sink.close()
    unpack([b"fused/main/", header, LUMA.data])
    return header


def encodings() -> None:
    """Time the conversion of a 640x480 frame in colour to each encoding, ms."""
    half = np.full((240, 320), 120, np.uint8)
    scene = np.add.outer(np.arange(480) // 4, np.arange(640) // 6).astype(np.uint8)
    for chroma in (Chroma(half, half), Chroma(half, half, full_range=True)):
        frame = FusedFrame(scene, chroma, 0, 0)
        row = []
        for encoding in Encoding:
            times = []
            for _ in range(30):
                begin = time.perf_counter()
                encode(frame, encoding)
                times.append((time.perf_counter() - begin) * 1e3)
            row.append(f"{encoding} {statistics.median(times):.2f}")
        print(f"encoding, ms, {'full' if chroma.full_range else 'limited'} range colour: {', '.join(row)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--receive", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.receive:
        kind, url, keys, seconds = options.receive
        receive(kind, url, keys, float(seconds))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        new_keys(Path(directory) / "keys")
        cases: dict[str, tuple[str, Path | None]] = {
            "ipc": (f"ipc://{directory}/s", None),
            "tcp": ("tcp://127.0.0.1:*", None),
            "tcp, CURVE": ("tcp://127.0.0.1:*", Path(directory) / "keys"),
        }
        print(f"{'messages/s':<12}{'bare':>8}{'ours':>8}{'ratio':>8}")
        worst = 9.0
        for name, (url, secret) in cases.items():
            rounds = [
                [measure(kind, url, secret, options.seconds) for kind in ("bare", "ours")]
                for _ in range(options.rounds)
            ]
            bare, ours = (max(rates) for rates in zip(*rounds, strict=True))
            ratio = ours / bare
            print(f"{name:<12}{bare:>8.0f}{ours:>8.0f}{ratio:>8.2f}", flush=True)
            if name == "ipc":
                worst = min(ours / 1000, ratio / 0.8)
    encodings()
    return 0 if worst >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
