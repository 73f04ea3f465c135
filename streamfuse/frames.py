"""The data that travels from thread to thread: frames, pairs of frames, fused frames.

Video stays in YUV from end to end.  Luma is full range (0..255) everywhere in the program: a source
that reads limited range (16..235) widens it once, a sink that writes limited range narrows it once.
Chroma is passed on as the decoder gave it; nothing computes with it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamfuse.color import Chroma, Plane, check_plane

DEFAULT_PERIOD_NS = 40_000_000
"""Frame interval of a stream that does not tell its rate: 25 fps."""


class Role(enum.StrEnum):
    """One of the two streams, to which a frame, a source or a count belongs."""

    IR = "ir"
    VIS = "vis"

    @property
    def other(self) -> Role:
        return Role.VIS if self is Role.IR else Role.IR

    @property
    def label(self) -> str:
        """The name in messages, metrics and pictures: "infrared" or "visible"."""
        return "infrared" if self is Role.IR else "visible"


class Clock(enum.StrEnum):
    """The origin of a time stamp, and how it is known.

    Only stamps of one kind may be compared: those of recordings, those of senders (since 1970, by the sender's
    clock), those of this machine (its monotonic clock).
    """

    MEDIA = "media"
    """The recording's own time line."""
    SENDER = "sender"
    """The sender's clock, from the reference times that come beside the frames (RTCP reports, prft)."""
    SENDER_START = "sender start"
    """The sender's clock, from one reference time for the whole connection."""
    SENDER_DELAY = "sender delay"
    """The sender's clock, from the arrival less the delay that was measured before the connection broke."""
    KERNEL = "kernel"
    """This machine's monotonic clock when the camera's driver had the frame."""
    ARRIVAL = "arrival"
    """This machine's monotonic clock when the frame arrived, without the jitter of the network."""

    @property
    def of_sender(self) -> bool:
        return self in (Clock.SENDER, Clock.SENDER_START, Clock.SENDER_DELAY)


class Content(enum.StrEnum):
    """The content of a picture."""

    FUSED = "fused"
    INFRARED = "infrared"
    """Infrared passed through without fusion: the visible stream is away."""
    VISIBLE = "visible"
    """Visible passed through without fusion: the infrared stream is away."""


@dataclass(frozen=True, slots=True, repr=False)
class Frame:
    """One picture of one stream."""

    luma: Plane
    """(H, W) uint8, full range 0..255."""
    chroma: Chroma | None
    """None for a grey picture."""
    stamp_ns: int
    """Capture time in nanoseconds of `clock`."""
    clock: Clock
    index: int
    """Position in its stream, from 0; frames that could not be read are counted too."""
    source: str
    """Name of its source; safe to show."""
    arrival_ns: int = 0
    """`time.monotonic_ns()` when the source delivered it."""
    read_ns: int = 0
    """Time taken to read and decode it, ns."""
    tracked_ns: int | None = None
    """Arrival without jitter, as `Clock.ARRIVAL` has it, ns of the monotonic clock; None: use `arrival_ns`."""

    def __post_init__(self) -> None:
        check_plane("Frame", "luma", self.luma)

    def __repr__(self) -> str:
        height, width = self.luma.shape
        kind = "grey" if self.chroma is None else "colour"
        return f"Frame({self.source} #{self.index}, {width}x{height} {kind}, {self.stamp_ns / 1e9:.6f} s {self.clock})"


@dataclass(frozen=True, slots=True)
class FramePair:
    """An infrared and a visible frame of the same moment."""

    ir: Frame
    vis: Frame
    skew_ns: int
    """Infrared minus visible time on their common clock, before any configured offset, ns."""


@dataclass(frozen=True, slots=True, repr=False)
class FusedFrame:
    """The result: fused luma under the visible stream's colour."""

    luma: Plane
    """(H, W) uint8, full range 0..255; H and W are the visible frame's, or the overlap's where it is cropped to."""
    chroma: Chroma | None
    """The chroma of the visible frame, cut as the luma is."""
    index: int
    """Position among the fused frames, from 0."""
    time_ns: int
    """Time on the time line of the run: the visible stamp for recordings; for live streams from 0, without jumps."""
    ir_stamp_ns: int | None = None
    """None if the picture has no infrared content."""
    vis_stamp_ns: int | None = None
    ir_clock: Clock | None = None
    vis_clock: Clock | None = None
    skew_ns: int = 0
    """As in `FramePair`."""
    content: Content = Content.FUSED
    infrared: Plane | None = None
    """Infrared input, aligned and of the shape of `luma`; None while that stream is away."""
    visible: Plane | None = None
    """Visible input, of the shape of `luma`; None while that stream is away."""
    arrival_ns: int = 0
    """`time.monotonic_ns()` when the earlier frame of the pair arrived; the age of the picture counts from it."""
    timings_ns: Mapping[str, int] = field(default_factory=dict)
    """Stage name to its duration for this frame, ns."""

    def __post_init__(self) -> None:
        check_plane("FusedFrame", "luma", self.luma)

    def __repr__(self) -> str:
        height, width = self.luma.shape
        return f"FusedFrame(#{self.index}, {width}x{height}, {self.content}, {self.time_ns / 1e9:.6f} s)"

    @property
    def live(self) -> bool:
        """True unless it is from recordings."""
        return any(clock not in (None, Clock.MEDIA) for clock in (self.ir_clock, self.vis_clock))

    def to_bgr(self) -> npt.NDArray[np.uint8]:
        """Return the picture as OpenCV has it: (H, W, 3) uint8 BGR, grey if there is no chroma."""
        from streamfuse.color_conversion import to_bgr  # OpenCV loads only where a picture is converted

        return to_bgr(self.luma, self.chroma)
