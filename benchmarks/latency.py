"""Frame rate, drops and latency of two live streams with a preview that is watched and a file that is written.

    python benchmarks/latency.py [--size 1920x1080] [--fps 30] [--seconds 20] [--preset auto] [--encoder-preset auto]
                                 [--ir FILE --vis FILE] [--json FILE]

Another process sends two recordings as MPEG-TS over UDP on loopback, in real time and without encoding them again, so
that nearly all of the machine is left to streamfuse.  Without files, the demo scene is recorded first.  The age of a
frame is the time since the last byte of the earlier of its two pictures arrived: "written" until the file has it,
"shown" until a client of the preview, a WebSocket as in the page, has the JPEG picture.  Add a camera's exposure and
encoder, and a screen, for the latency from glass to glass.  The first seconds, in which the network is prepared, do not
count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path

import aiohttp
import av

from streamfuse.bench.measure import machine
from streamfuse.bench.recording import record_scene
from streamfuse.engines import create_engine
from streamfuse.frames import FusedFrame
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sinks.base import Sink
from streamfuse.sinks.preview import PreviewSink
from streamfuse.sinks.video import VideoSink
from streamfuse.sinks.video_format import VideoFormat
from streamfuse.telemetry import Summary, each_count

WARM_S = 4.0
"""Time after the first fused frame that does not count."""


def send(path: str, url: str, fps: float) -> None:
    """Send a recording for ever, one packet per frame interval."""
    with av.open(path) as recording, av.open(url, "w", format="mpegts", options={"flush_packets": "1"}) as output:
        source = recording.streams.video[0]
        stream = output.add_stream_from_template(source)
        base = Fraction(1, 90_000)
        begin, number = time.monotonic(), 0
        while True:
            recording.seek(0)
            for packet in recording.demux(source):
                if packet.size == 0:
                    continue
                time.sleep(max(0.0, begin + number / fps - time.monotonic()))
                packet.stream, packet.time_base = stream, base
                packet.pts = packet.dts = round(number / fps / base)
                output.mux(packet)
                number += 1


class Watched(VideoSink):
    """A video file that remembers the age of each frame when it is written."""

    def __init__(self, path: Path, video: VideoFormat) -> None:
        super().__init__(path, video, force=True)
        self.ages: list[tuple[float, float]] = []
        """Time, s, and age, ms."""

    def write(self, frame: FusedFrame) -> None:
        super().write(frame)
        now_ns = time.monotonic_ns()
        self.ages.append((now_ns / 1e9, (now_ns - frame.arrival_ns) / 1e6))


class Watcher(threading.Thread):
    """A client of the preview that asks for the fused picture, as the page does."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.ages: list[tuple[float, float]] = []

    def run(self) -> None:
        asyncio.run(self._watch())

    async def _watch(self) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{self._port}/socket", max_msg_size=0) as socket,
        ):
            await socket.send_json({"views": ["fused"]})
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.BINARY:
                    continue
                length = int.from_bytes(message.data[:4], "big")
                header = json.loads(message.data[4 : 4 + length])
                await socket.send_json({"shown": header["number"]})
                self.ages.append((time.monotonic(), header["age_ms"]))


def measure(args: argparse.Namespace, paths: tuple[Path, Path], directory: Path) -> dict[str, object]:
    urls = [f"udp://127.0.0.1:{port}" for port in (23_456, 23_457)]
    command = [sys.executable, __file__, "--send"]
    senders = [
        subprocess.Popen([*command, str(path), f"{url}?pkt_size=1316", "--fps", str(args.fps)])
        for path, url in zip(paths, urls, strict=True)
    ]
    preview = PreviewSink("127.0.0.1:0")
    file = Watched(directory / "fused.mp4", VideoFormat(preset=args.encoder_preset))
    sinks: list[Sink] = [file, preview]
    try:
        with Fuser(engine=create_engine("openvino", preset=args.preset), tone="smooth") as fuser:
            pipeline = Pipeline(*urls, sinks=sinks, fuser=fuser)
            watcher = Watcher(preview.port)
            states: list[tuple[float, float, Summary]] = []

            def tick(state: Summary) -> None:
                states.append((time.monotonic(), time.process_time(), state))
                if watcher.ident is None and state.fused:
                    watcher.start()
                if state.fused and time.monotonic() - next(t for t, _, s in states if s.fused) > WARM_S + args.seconds:
                    pipeline.stop()

            pipeline.run(tick)
            preset = fuser.engine.preset
    finally:
        for sender in senders:
            sender.kill()
    begin_s = next(t for t, _, s in states if s.fused) + WARM_S
    end_s = begin_s + args.seconds
    inside = [state for state in states if begin_s <= state[0] <= end_s]
    (t0, cpu0, first), (t1, cpu1, last) = inside[0], inside[-1]
    before = {(stream, reason): count for stream, reason, count in each_count(first.drops)}
    drops = {
        f"{stream}: {reason}": count - before.get((stream, reason), 0)
        for stream, reason, count in each_count(last.drops)
        if count > before.get((stream, reason), 0)
    }
    written, shown = ([age for t, age in s.ages if begin_s <= t <= end_s] for s in (file, watcher))
    return {
        "size": args.size,
        "sent_fps": args.fps,
        "preset": str(preset),
        "encoder_preset": file._format.preset,
        "fused_fps": (last.fused - first.fused) / (t1 - t0),
        "written_fps": len(written) / args.seconds,
        "shown_fps": len(shown) / args.seconds,
        "drops": drops,
        "written_age_ms": _spread(written),
        "shown_age_ms": _spread(shown),
        "stages_ms": {name: [stage.p50_ms, stage.p95_ms] for name, stage in last.stages.items()},
        "core_ms_per_frame": (cpu1 - cpu0) * 1e3 / max(last.fused - first.fused, 1),
    }


def _spread(ages_ms: list[float]) -> dict[str, float]:
    if len(ages_ms) < 2:
        return {}
    percentiles = statistics.quantiles(ages_ms, n=100)
    return {"median": statistics.median(ages_ms), "95 %": percentiles[94], "worst": max(ages_ms)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--encoder-preset", default="auto")
    parser.add_argument("--ir", type=Path)
    parser.add_argument("--vis", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--send", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.send:
        path, url = args.send
        send(path, url, args.fps)
    width, height = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paths = (args.ir, args.vis) if args.ir and args.vis else record_scene(directory, (height, width), 250)
        result = {"machine": machine(), **measure(args, paths, directory)}
    print(json.dumps(result, indent=1, default=str))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1, default=str))


if __name__ == "__main__":
    main()
