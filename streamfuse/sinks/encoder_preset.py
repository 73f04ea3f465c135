"""Choice of the encoder preset that keeps up with a live source, as `engines.presets` chooses the network's."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np

from streamfuse.color import Plane
from streamfuse.frames import FusedFrame
from streamfuse.sinks.encoder import NVENC, Encoder, why_not
from streamfuse.sinks.video_format import AUTO, VideoFormat
from streamfuse.support.cpus import usable_cpus

log = logging.getLogger("streamfuse")

CANDIDATES = ("veryfast", "superfast", "ultrafast")
"""The best first; the last one is used if none keeps up."""
SHARE = 0.15
"""Share of all cores' time that encoding may take; the rest is for decoding two streams, alignment and the network."""
LONGEST = 0.8
"""Share of the frame interval that encoding a frame may last."""
FRAMES = 4
"""Encoded frames per candidate; the first, a key frame, is not timed."""
SHIFT = 3
"""Pixels by which the picture moves between them, sideways and down."""

Timing = Callable[[VideoFormat, FusedFrame, int], int]
"""Format, frame and period, ns, to the time of one thread that encodes such a frame, ns."""


def keep_up(
    video: VideoFormat, example: FusedFrame, period_ns: int, name: str, timed: Timing | None = None
) -> VideoFormat:
    """Return `video` with the best preset with which this machine encodes a frame in its share of `period_ns`.

    Only `auto` is replaced, of a codec that has presets, on the CPU.  `example`: a frame like those to be encoded.
    `name`: of the output, for messages.  The choice is logged unless it is the best.  Takes half a second at 1080p on
    a slow machine.  FFmpeg's errors are raised unchanged.
    """
    if video.preset != AUTO or video.codec == "ffv1" or (video.hardware and why_not(NVENC[video.codec]) is None):
        return video
    chosen, took_ns = video, 0
    for preset in CANDIDATES:
        chosen = replace(video, preset=preset)
        took_ns = (timed or _time)(chosen, example, period_ns)
        lasts_ns = took_ns / Encoder.threads(*example.luma.shape)
        if took_ns <= SHARE * usable_cpus() * period_ns and lasts_ns <= LONGEST * period_ns:
            break
    if chosen.preset != CANDIDATES[0]:
        log.info(
            "%s: encoder preset %s, a frame takes %.0f ms of one core; --encoder-preset overrides this choice",
            name,
            chosen.preset,
            took_ns / 1e6,
        )
    return chosen


def _time(video: VideoFormat, example: FusedFrame, period_ns: int) -> int:
    """Time the encoding of a moving picture in this thread: the least of several frames, ns."""
    import av

    times_ns = []
    with av.open(os.devnull, "w", format="null") as container:
        encoder = Encoder(container, video, example, name="", period_ns=period_ns, threads=1)
        for index in range(FRAMES):
            shift = (index * SHIFT, index * SHIFT)
            luma = cast(Plane, np.ascontiguousarray(np.roll(example.luma, shift, (0, 1))))
            frame = replace(example, luma=luma, time_ns=index * period_ns)
            begin_ns = time.thread_time_ns()
            encoder.encode(frame)
            times_ns.append(time.thread_time_ns() - begin_ns)
    return min(times_ns[1:])
