"""Fuse two recordings in your own loop: python examples/library.py ir.mp4 vis.mp4 fused.mp4

The loop receives every fused frame and draws its time into it.
"""

import sys
from dataclasses import replace

import cv2

from streamfuse import DamagedInput, FusedFrame, Fuser, Pipeline, open_sink


def labelled(frame: FusedFrame) -> FusedFrame:
    """Return the frame with its time in the corner; luma is full range, 0 to 255."""
    luma = frame.luma.copy()
    cv2.putText(luma, f"{frame.time_ns / 1e9:.2f} s", (8, luma.shape[0] - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255)
    return replace(frame, luma=luma)


def main(ir: str, vis: str, output: str) -> None:
    sink = open_sink(output, force=True)
    failed = True
    try:
        with Fuser(tone="smooth") as fuser, Pipeline(ir, vis, fuser=fuser) as pipeline:
            for frame in pipeline:
                sink.write(labelled(frame))
        failed = False
    except DamagedInput as error:  # everything that could be read has been fused
        print(f"note: {error}", file=sys.stderr)
        failed = False
    finally:
        sink.close(failed=failed)
    summary = pipeline.summary()
    print(f"{summary.fused} frames at {summary.fps:.1f} a second, {summary.dropped} dropped")


if __name__ == "__main__":
    main(*sys.argv[1:])
