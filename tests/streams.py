"""Peers on loopback that send live streams: real servers and writers, made with FFmpeg and the standard library."""

from __future__ import annotations

import http.server
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import Any, cast

import av
import cv2
import numpy as np
from media import SIZE, luma_of

PERIOD_S = 0.04


_ports = itertools.count(os.getpid() * 997)


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """Return an unused port of loopback.

    It is below the range from which the system chooses, and each process starts at another port, so that neither an
    outgoing connection nor a test in another process takes it before it is used.
    """
    while True:
        port = 12_000 + next(_ports) % 20_000
        with socket.socket(socket.AF_INET, kind) as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


@contextmanager
def sending(
    url: str, container: str, *, size: tuple[int, int] = SIZE, options: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Send in real time from another process until the end of the block; frame k shows number k."""
    request = json.dumps({"url": url, "container": container, "size": size, "options": options or {}})
    process = subprocess.Popen(
        [sys.executable, __file__, request], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _send_for_ever(url: str, container: str, size: list[int], options: dict[str, str]) -> None:
    while True:
        try:
            with av.open(url, "w", format=container, options=options) as output:
                _send(output, (size[0], size[1]))
        except (ConnectionRefusedError, BrokenPipeError, av.error.FFmpegError):
            time.sleep(0.05)  # nothing listens yet, or no longer


def _send(output: Any, size: tuple[int, int]) -> None:
    stream = output.add_stream("libx264", rate=25)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, 90_000)
    stream.codec_context.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10", "crf": "10"}
    begin = time.monotonic()
    index = 0
    while True:
        time.sleep(max(begin + index * PERIOD_S - time.monotonic(), 0))
        yuv = av.VideoFrame(size[1], size[0], "yuv444p")
        limited = np.rint(luma_of(index, size) * (219 / 255) + 16).astype(np.uint8)
        for plane, values in zip(yuv.planes, (limited, 128, 128), strict=True):
            np.frombuffer(memoryview(plane), np.uint8).reshape(size[0], plane.line_size)[:, : size[1]] = values
        frame = yuv.reformat(format="yuv420p")
        frame.pts, frame.time_base = round(index * PERIOD_S * 90_000), Fraction(1, 90_000)
        output.mux(stream.encode(frame))
        index += 1


class _Camera(http.server.BaseHTTPRequestHandler):
    """/cam is a camera, /secret needs a password, /page is a web page; other paths are not found."""

    def do_GET(self) -> None:
        if self.path.startswith("/secret"):
            self.send_error(401)
        elif self.path.startswith("/page"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>" + b"hello " * 1000)
        elif self.path.startswith("/cam"):
            self._stream()
        else:
            self.send_error(404)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        index = 0
        try:
            while not cast(Any, self.server).stopping.wait(PERIOD_S):
                data = cv2.imencode(".jpg", luma_of(index))[1].tobytes()
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
                self.wfile.write(b"Content-Length: %d\r\n\r\n%s\r\n" % (len(data), data))
                index += 1
        except OSError:
            pass  # the viewer has gone

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def camera_server(port: int = 0) -> Iterator[int]:
    """Run an HTTP server with an MJPEG camera; yields its port."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True
        stopping = threading.Event()

    with Server(("127.0.0.1", port), _Camera) as server:
        server.stopping.clear()
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join(10)


@contextmanager
def babbling_server() -> Iterator[int]:
    """Run a server that sends garbage instead of a stream; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    caller, _ = listening.accept()
                except OSError:
                    return
                with caller:
                    caller.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 50)

        threading.Thread(target=serve, daemon=True).start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)


@contextmanager
def directory_server(directory: str) -> Iterator[int]:
    """Run a web server for a directory, as used for HLS."""

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=directory)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(10)


if __name__ == "__main__":
    _send_for_ever(**json.loads(sys.argv[1]))
