"""Addresses of live streams, with FFmpeg's options for them: cameras, RTSP, HTTP, UDP, SDP."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict
from urllib.parse import parse_qsl

from streamfuse.errors import UsageError
from streamfuse.urls import redact

SCHEMES = frozenset({"rtsp", "rtsps", "http", "https", "udp", "rtp"})
_CAMERA = re.compile(r"cam(\d{1,3})", re.ASCII)
_SIZE = re.compile(r"[1-9]\d{1,4}x[1-9]\d{1,4}", re.ASCII)
_RATE = re.compile(r"[1-9]\d{0,3}(\.\d{1,6})?(/[1-9]\d{0,6})?", re.ASCII)
_PIXELS = {"y16": "gray16le", "grey": "gray", "gray": "gray", "yuyv": "yuyv422", "mjpg": "mjpeg"}
"""V4L2's name of a format to FFmpeg's; other names are passed on unchanged."""


FIRST_REPORT_S = 5.0
"""Time within which an RTP sender reports its clock, if it ever does (RFC 3550: 2.5 to 5 s)."""


class _Clock(TypedDict):
    sender_clock: bool
    clock_wait_s: float


@dataclass(frozen=True, slots=True)
class Address:
    """Address and FFmpeg options of a live source."""

    url: str = field(repr=False)
    """May hold a password: never shown."""
    name: str
    """Safe to show."""
    format: str | None = None
    """FFmpeg's name of the demuxer or device; None: FFmpeg detects it."""
    options: Mapping[str, str] = field(default_factory=dict)
    has_stamps: bool = True
    """Frames carry stamps; False: only their time of arrival is known."""
    kernel: bool = False
    """The stamps are the driver's."""
    sender_clock: bool = True
    """Use the sender's clock, if it reports it."""
    clock_wait_s: float = 0.0
    """Longest time after connecting to wait for the sender's clock, s."""
    stall_s: float = 1.0
    """Silence after which the source counts as stalled, s."""
    late_s: float = 0.5
    """Delay after which a frame counts as stale, s; longer where frames arrive in segments (HLS)."""
    listens: bool = False
    """The source listens for a sender; after a failure it listens again at once, so that few frames are lost."""
    local: bool = False
    """A device of this machine: if it is missing at the start, that is an error, not an outage."""


def parse_address(text: str, system: str | None = None) -> Address | None:
    """Parse the address of a live stream; None for any other text.  Raises UsageError for unknown options.

        cam0  cam0?size=640x480&fps=30&format=y16  /dev/video2  cam:Integrated Camera
        rtsp://host/path  rtsps://  http(s)://  udp://127.0.0.1:5000  rtp://  stream.sdp

    Our own options follow a network address after #: rtsp://host/path#transport=udp&clock=arrival.
    """
    system = system or platform.system()
    base, _, query = text.partition("?")
    if _CAMERA.fullmatch(base) or base.startswith(("cam:", "/dev/video")):
        return _camera(text, base, query, system)
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme in SCHEMES:
        return _network(text, scheme)
    if Path(text.partition("#")[0]).suffix.lower() == ".sdp":
        path, options = _split(text, text)
        return Address(
            path,
            path,
            "sdp",
            {"protocol_whitelist": "file,udp,rtp", "fflags": "nobuffer"},
            listens=True,
            **_clock(options),
        )
    return None


def _camera(text: str, base: str, query: str, system: str) -> Address:
    values = dict(parse_qsl(query, keep_blank_values=True))
    known = {"size": _SIZE, "fps": _RATE, "format": re.compile(r"[A-Za-z0-9_]{1,20}", re.ASCII)}
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"{text}: a camera has no option {key!r}; it has size, fps and format")
        if not known[key].fullmatch(value):
            raise UsageError(f"{text}: {key}={value} is not possible; write it as in size=640x480, fps=30, format=y16")
    options: dict[str, str] = {}
    if "size" in values:
        options["video_size"] = values["size"]
    if "fps" in values:
        options["framerate"] = values["fps"]
    number = _CAMERA.fullmatch(base)
    name = base.removeprefix("cam:") if base.startswith("cam:") else None
    wanted = values.get("format", "")
    pixels = _PIXELS.get(wanted.lower(), wanted)
    if system == "Linux":
        if pixels:
            options["input_format"] = pixels
        device = f"/dev/video{number[1]}" if number else name or base
        return Address(device, text, "v4l2", options, kernel=True, local=True)
    if pixels:
        options["pixel_format"] = pixels
    if system == "Darwin":
        device = f"{number[1]}:none" if number else f"{name or base}:none"
        return Address(device, text, "avfoundation", options, local=True)
    if number:
        raise UsageError(f"{text}: cameras have names on this system: give cam:NAME, such as 'cam:Integrated Camera'")
    return Address(f"video={name or base}", text, "dshow", options, local=True)


def _network(text: str, scheme: str) -> Address:
    name = redact(text)
    url, options = _split(text, name)
    if scheme in ("rtsp", "rtsps"):
        transport = options.get("transport", "tcp")
        if transport not in ("tcp", "udp"):
            raise UsageError(f"{name}: transport is tcp or udp")
        # The stream description (SDP) has all that a decoder needs: probing takes 1.7 s instead of 0.1.
        flags = {"rtsp_transport": transport, "fflags": "nobuffer", "probesize": "32", "analyzeduration": "0"}
        return Address(url, name, "rtsp", flags, **_clock(options))
    if "transport" in options:
        raise UsageError(f"{name}: transport is for rtsp://")
    path = url.partition("://")[2].partition("?")[0].lower()
    if path.endswith((".m3u8", ".m3u")):
        return Address(url, name, None, {"live_start_index": "-1"}, stall_s=15.0, late_s=30.0)
    if scheme == "rtp":
        return Address(url, name, None, {"fflags": "nobuffer"}, listens=True, **_clock(options))
    flags = {"fflags": "nobuffer", "analyzeduration": "500000"}
    return Address(url, name, None, flags, listens=scheme == "udp")


def _split(text: str, name: str) -> tuple[str, dict[str, str]]:
    """Split an address from our options after #; a # in a password is not a separator."""
    head, at, tail = text.rpartition("@")
    tail, _, fragment = tail.partition("#")
    options = dict(parse_qsl(fragment, keep_blank_values=True))
    if unknown := [key for key in options if key not in ("transport", "clock")]:
        raise UsageError(f"{name}: unknown option {unknown[0]!r} after #; known are transport and clock")
    if options.get("clock", "auto") not in ("auto", "arrival"):
        raise UsageError(f"{name}: clock is auto or arrival")
    return head + at + tail, options


def _clock(options: Mapping[str, str]) -> _Clock:
    believed = options.get("clock") != "arrival"
    return {"sender_clock": believed, "clock_wait_s": FIRST_REPORT_S if believed else 0.0}
