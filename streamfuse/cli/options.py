"""Options that several commands share."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import Any, cast

import click

from streamfuse.cli.config import SOURCE as SOURCE
from streamfuse.cli.config import config as config
from streamfuse.cli.config import print_config as print_config
from streamfuse.cli.decorators import F, together, with_home
from streamfuse.cli.engine import engine as engine
from streamfuse.cli.logs import log_json as log_json
from streamfuse.cli.logs import show_notes as show_notes
from streamfuse.cli.logs import silence_notes as silence_notes
from streamfuse.cli.preview import Preview as Preview
from streamfuse.cli.preview import preview as preview
from streamfuse.cli.publish import publish as publish
from streamfuse.cli.thermal import thermal as thermal
from streamfuse.errors import UsageError
from streamfuse.options import EngineChoice as EngineChoice
from streamfuse.options import FusionOptions as FusionOptions
from streamfuse.sinks.video_format import VideoFormat
from streamfuse.sources.limits import MAX_PIXELS
from streamfuse.sources.options import SourceOptions as SourceOptions


class FiniteRange(click.FloatRange):
    """A range without NaN and infinity."""

    def _describe_range(self) -> str:
        """Return the range as click does, with short bounds: 1e+12 instead of 1000000000000.0."""
        return re.sub(r"\d+\.\d+", lambda bound: f"{float(bound[0]):.7g}", super()._describe_range())

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


RATE = FiniteRange(0.001, 10_000)
"""Frames per second of images that form a stream."""

common = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
"""Read by `streamfuse.cli.main`, which must know it even when parsing fails."""

force = click.option("--force", is_flag=True, help="Replace an output that exists.")

vot = click.option("--vot", type=click.Path(path_type=Path), help="A VOT-RGBT sequence, for both channels.")

bag = click.option("--bag", type=click.Path(path_type=Path), help="A bag with both cameras; its topics are found.")

_video = together(
    click.option(
        "--codec",
        default="h264",
        show_default=True,
        help="h264, hevc, ffv1 (lossless, only in .mkv) or jpeg (only in .mcap).",
    ),
    click.option("--crf", type=int, default=20, show_default=True, help="Quality of h264 and hevc: 0 (best) to 51."),
    click.option(
        "--encoder-preset",
        default="auto",
        show_default=True,
        help="FFmpeg's encoder preset, ultrafast to veryslow: slower encoding makes smaller files.  auto: veryfast, "
        "and for live sources a faster one where veryfast does not keep up.",
    ),
    click.option(
        "--tone",
        default="smooth",
        show_default=True,
        help="Range and brightness of the output over time: per-frame, smooth (no flicker) or fixed:LO,HI.",
    ),
)
"""--codec, --crf, --encoder-preset and --tone."""

_hardware = together(
    click.option("--hw-decode", is_flag=True, help="Decode video files on the NVIDIA GPU if possible."),
    click.option("--hw-encode", is_flag=True, help="Encode h264 and hevc on the NVIDIA GPU if possible."),
)
"""--hw-decode and --hw-encode."""


def _check_agc(ctx: click.Context, param: click.Parameter, text: str) -> str:
    """Raise UsageError for an unknown gain control."""
    if text not in ("percentile", "plateau"):  # the others are known without loading OpenCV
        from streamfuse.sources.agc import make_agc

        make_agc(text)
    return text


_pairing = together(
    click.option("--fps", type=RATE, help="Frame rate of images; default: that of the sequence, else 25."),
    click.option(
        "--agc",
        metavar="percentile|plateau|temperature:LO..HI",
        default="percentile",
        show_default=True,
        callback=_check_agc,
        help="Conversion of 16-bit infrared to 8 bits: percentile is linear; plateau equalises the histogram, which "
        "shows more detail and more noise; temperature:10C..40C is a fixed span, for sources with temperatures.",
    ),
    click.option(
        "--ir-offset-ms", type=FiniteRange(-1e12, 1e12), default=0.0, help="Offset added to every infrared time stamp."
    ),
    click.option(
        "--tolerance-ms",
        type=FiniteRange(0, 1e12),
        help="Largest time difference within a pair; default: half the frame interval of the slower stream.",
    ),
)
"""--fps, --agc, --ir-offset-ms and --tolerance-ms: how two streams are read and paired."""

live = together(
    click.option(
        "--max-age-ms",
        type=FiniteRange(1, 60_000),
        default=500.0,
        show_default=True,
        help="Live sources: time after which a frame that waits for its partner or the engine is dropped.",
    ),
    click.option(
        "--policy",
        type=click.Choice(["latest", "ordered"]),
        default="latest",
        show_default=True,
        help="Live sources: fuse the newest pair, or every pair in order unless it is older than --max-age-ms.",
    ),
    click.option(
        "--on-loss",
        type=click.Choice(["wait", "passthrough"]),
        default="wait",
        show_default=True,
        help="Live sources, while one stream is away: output nothing, or the other stream without fusion.",
    ),
)
"""--max-age-ms, --policy and --on-loss: of live sources only."""

calibration = together(
    click.option(
        "--calib",
        type=click.Path(path_type=Path),
        callback=with_home,
        help="Calibration file made by `streamfuse calibrate`; infrared is warped onto the visible picture.",
    ),
    click.option("--crop", type=click.Choice(["overlap"]), help="Crop the result to the area that both cameras see."),
    click.option(
        "--distance-m",
        metavar="METRES|far|auto|auto-plane",
        help="Distance of what must coincide, for a calibration with parallax: metres, far, or auto, that of most of "
        "the scene at any time, and for warm things that stand before it their own; auto-plane: without the latter.  "
        "Default: that of the calibration.",
    ),
)
"""--calib, --crop and --distance-m."""

_camera_info = click.option(
    "--ignore-camera-info", is_flag=True, help="Bags: do not use the calibration in camera_info and /tf_static."
)


max_pixels = click.option(
    "--max-pixels",
    type=click.IntRange(1, 1 << 32),
    default=MAX_PIXELS,
    show_default=True,
    metavar="N",
    help="Refuse pictures with more pixels than this, before memory is allocated for them.",
)


def fusion(function: F) -> F:
    """Add the options that `run` and `batch` share, passed to the command as one `fusion`, a FusionOptions."""

    @together(_video, engine, _hardware, calibration, _camera_info, _pairing, max_pixels)
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        codec: str,
        crf: int,
        encoder_preset: str,
        tone: str,
        engine: EngineChoice,
        hw_decode: bool,
        hw_encode: bool,
        calib: Path | None,
        crop: str | None,
        distance_m: str | None,
        ignore_camera_info: bool,
        fps: float | None,
        agc: str,
        ir_offset_ms: float,
        tolerance_ms: float | None,
        max_pixels: int,
        **kwargs: Any,
    ) -> Any:
        gpu = None
        if hw_decode:
            from streamfuse.engines.base import gpu_of

            gpu = gpu_of(engine.device)
        fusion = FusionOptions(
            engine,
            SourceOptions(fps, agc, gpu, max_pixels),
            VideoFormat(codec, crf, encoder_preset, hw_encode),
            tone,
            calib,
            crop == "overlap",
            distance_m,
            ignore_camera_info,
            ir_offset_ms,
            tolerance_ms,
        )
        return function(*args, fusion=fusion, **kwargs)

    return cast(F, wrapper)


MAX_SIDE = 4096


def parse_size(ctx: click.Context, param: click.Parameter, text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT to (height, width)."""
    width, _, height = text.partition("x")
    sides = [int(side) if side.isdecimal() else 0 for side in (width, height)]
    if not all(32 <= side <= MAX_SIDE for side in sides):
        raise UsageError(f"--size {text!r}: give WIDTHxHEIGHT, 32 to {MAX_SIDE} pixels a side")
    return int(height), int(width)


size = click.option("--size", default="640x480", show_default=True, callback=parse_size, help="WIDTHxHEIGHT.")


def two_sources(ir: str | None, vis: str | None, vot: Path | None) -> tuple[str, str]:
    """Return --ir and --vis, which are both needed; empty with --vot, which names both.  Raises UsageError."""
    if vot is not None:
        if ir is not None or vis is not None:
            raise UsageError("--vot names both channels: leave out --ir and --vis")
        return "", ""
    if ir is None or vis is None:
        missing = " and ".join(flag for flag, value in (("--ir", ir), ("--vis", vis)) if value is None)
        raise UsageError(f"{missing} missing: give two sources, such as --ir ir.mp4 --vis vis.mp4, or --vot DIR")
    return ir, vis
