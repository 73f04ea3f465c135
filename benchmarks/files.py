"""Frames per second from two video files to one, compared with a blend of the same files by FFmpeg's filter.

    python benchmarks/files.py [--size 640x480] [--preset realtime] [--encoder-preset veryfast] [--frames 200]
                               [--rounds 5] [--ir FILE --vis FILE] [--json FILE]

Both decode with as many threads as FFmpeg chooses, and encode with x264 and the same settings.  The blend averages luma
and takes the visible picture's colour; its filter and its codecs run in threads of their own, as in the ffmpeg program.
Runs are interleaved, and the median of each is shown.  Without files, the demo scene is recorded first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any, cast

import av
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamfuse.bench.measure import fuse_files, machine
from streamfuse.bench.recording import record_scene
from streamfuse.engines import create_engine
from streamfuse.engines.presets import parse_preset
from streamfuse.fuser import Fuser
from streamfuse.sinks.video_format import VideoFormat

WAITING = 8
"""Frames between two threads of the blend."""


def decode(path: Path) -> Iterator[VideoFrame]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        yield from container.decode(stream)


def in_a_thread(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Compute `frames` in a thread of their own."""
    queue: Queue[VideoFrame | None] = Queue(WAITING)

    def work() -> None:
        for frame in frames:
            queue.put(frame)
        queue.put(None)

    Thread(target=work, daemon=True).start()
    while (frame := queue.get()) is not None:
        yield frame


def blended(ir: Path, vis: Path) -> Iterator[VideoFrame]:
    graph, inputs = Graph(), list[FilterContext]()
    pairs = zip(in_a_thread(decode(ir)), in_a_thread(decode(vis)), strict=False)
    for index, pair in enumerate(pairs):
        if not inputs:
            for frame in pair:
                buffer = graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)
                )
                inputs.append(buffer)
            blend = graph.add("blend", "c0_mode=average:c1_mode=normal:c2_mode=normal")
            last = graph.add("buffersink")
            inputs[1].link_to(blend, 0, 0)
            inputs[0].link_to(blend, 0, 1)
            blend.link_to(last)
            graph.configure()
        for buffer, frame in zip(inputs, pair, strict=True):
            frame.pts, frame.time_base = index, Fraction(1, 25)
            buffer.push(frame)
        yield cast(VideoFrame, last.pull())


def blend_files(ir: Path, vis: Path, out: Path, encoder_preset: str) -> int:
    """Blend two files to one; return the number of frames."""
    count = 0
    with av.open(str(out), "w") as container:
        stream: VideoStream | None = None
        for frame in in_a_thread(blended(ir, vis)):
            if stream is None:
                stream = container.add_stream("libx264", 25, options={"preset": encoder_preset, "crf": "20"})
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
                stream.thread_type = "AUTO"
            frame.pict_type = 0
            container.mux(stream.encode(frame))
            count += 1
        if stream is not None:
            container.mux(stream.encode())
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--preset", default="realtime")
    parser.add_argument("--encoder-preset", default="veryfast")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ir", type=Path)
    parser.add_argument("--vis", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        ir, vis = (args.ir, args.vis) if args.ir else record_scene(here, (height, width), args.frames)
        engine = create_engine()
        engine.use(parse_preset(args.preset))
        engine.prepare(height, width)
        settings = VideoFormat(preset=args.encoder_preset)
        fps: dict[str, list[float]] = {"streamfuse": [], "blend": []}
        for _ in range(args.rounds):
            fuser = Fuser(engine=engine, tone="smooth")
            fps["streamfuse"].append(fuse_files(fuser, ir, vis, args.frames, here / "fused.mp4", settings))
            begin = time.perf_counter()
            count = blend_files(ir, vis, here / "blend.mp4", args.encoder_preset)
            fps["blend"].append(count / (time.perf_counter() - begin))
        engine.close()
    medians = {name: statistics.median(each) for name, each in fps.items()}
    result: dict[str, Any] = {
        "machine": machine(),
        "size": args.size,
        "preset": args.preset,
        "precision": engine.precision,
        "encoder_preset": args.encoder_preset,
        "fps": medians,
        "share": medians["streamfuse"] / medians["blend"],
    }
    print(
        f"{args.size}, {args.preset} {engine.precision}, x264 {args.encoder_preset}: {medians['streamfuse']:.1f} fps, "
        f"blend {medians['blend']:.1f} fps, {result['share']:.2f} of it"
    )
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
