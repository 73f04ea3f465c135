"""Checks of a run without its engine: files, ZeroMQ and the preview, each on this machine only."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from streamfuse.bench.measure import fuse_files
from streamfuse.color import Plane
from streamfuse.doctor.report import Check, failed, ok
from streamfuse.doctor.sample import load_sample
from streamfuse.errors import NothingReceived
from streamfuse.frames import FusedFrame
from streamfuse.fuser import Fuser
from streamfuse.sinks.preview import PreviewSink
from streamfuse.sinks.video import VideoSink
from streamfuse.sinks.zeromq import ZeroMQSink
from streamfuse.sources.file import VideoFile
from streamfuse.telemetry import Telemetry
from streamfuse.zeromq.subscriber import Subscriber
from streamfuse.zeromq.wire import Encoding

SECONDS, FPS = 2, 25
FRAMES = SECONDS * FPS
PERIOD_NS = 1_000_000_000 // FPS
WAIT_S = 5.0
"""For what passes over loopback in milliseconds."""
PORTS = "a firewall or a full table of sockets is in the way: look at the firewall's rules for the loopback interface"


def check_files(weights: Path | None) -> Iterator[Check]:
    """Two seconds of H.264 files to one, by the engine that `auto` takes."""
    sample = load_sample()
    with tempfile.TemporaryDirectory() as scratch:
        paths = [Path(scratch) / f"{name}.mp4" for name in ("ir", "vis")]
        for path, plane in zip(paths, (sample.ir, sample.vis), strict=True):
            sink = VideoSink(path, period_ns=PERIOD_NS)
            for frame in _moving(plane):
                sink.write(frame)
            sink.close()
        out = Path(scratch) / "fused.mp4"
        with Fuser(weights, tone="smooth") as fuser:
            fuser.prepare(*sample.vis.shape)
            fps = fuse_files(fuser, paths[0], paths[1], FRAMES, out)
            engine = f"{fuser.engine.name} {fuser.engine.precision} {fuser.engine.preset}"
        with VideoFile(out) as source:
            written = sum(1 for _ in source)
    text = f"{written} of {FRAMES} frames of 320x240 written, {fps:.1f} fps with {engine}"
    if written == FRAMES:
        yield ok("files", text, frames=written, fps=fps, engine=engine)
    else:
        yield failed(
            "files", f"{text}: frames are missing; run streamfuse demo and report what it says", frames=written
        )


def check_zeromq() -> Iterator[Check]:
    """A picture that is published and received, byte by byte."""
    frame = next(_moving(load_sample().vis))
    sink = ZeroMQSink("tcp://127.0.0.1:*", encoding=Encoding.MONO8)
    try:
        with Subscriber(sink.address, timeout_s=WAIT_S) as subscriber:
            sink.write(frame)  # the last one is repeated to whoever subscribes later
            begin = time.perf_counter()
            received = subscriber.latest()
            ms = (time.perf_counter() - begin) * 1000
    except NothingReceived:
        yield failed("ZeroMQ", f"nothing arrived within {WAIT_S:.0f} s on {sink.address}: {PORTS}")
        return
    finally:
        sink.close()
    if np.array_equal(received.luma, frame.luma):
        yield ok("ZeroMQ", f"a picture over {sink.address} in {ms:.0f} ms, every byte right", ms=ms)
    else:
        yield failed("ZeroMQ", "the picture that arrived is another one: pip install --force-reinstall pyzmq")


def check_preview() -> Iterator[Check]:
    """The page, the state and a picture, as a browser asks for them."""
    sink = PreviewSink("127.0.0.1:0")
    telemetry = Telemetry()
    sink.attach(telemetry.summary)
    try:
        sink.write(next(_moving(load_sample().vis)))
        base = sink.links["preview"]
        page = _get(base)
        picture = _get(f"{base}snapshot.jpg")
        state = json.loads(_get(f"{base}status"))
    except (OSError, ValueError) as error:
        yield failed("preview", f"it does not answer on {sink.links['preview']} ({error}): {PORTS}")
        return
    finally:
        sink.close()
    if b"<html" in page.lower() and picture.startswith(b"\xff\xd8") and isinstance(state, dict):
        yield ok("preview", f"page, picture and state from {base}", picture_bytes=len(picture))
    else:
        yield failed("preview", "it answers with something else than a page and a picture: install streamfuse again")


def _get(url: str) -> bytes:
    """The answer of a server on this machine; no proxy is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=WAIT_S) as answer:
        body: bytes = answer.read()
    return body


def _moving(plane: Plane) -> Iterator[FusedFrame]:
    """A recording: the picture, moved on by two pixels from frame to frame."""
    for index in range(FRAMES):
        yield FusedFrame(np.roll(plane, 2 * index, axis=1), None, index, index * PERIOD_NS)
