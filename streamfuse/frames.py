"""The data that is passed between threads: frames, pairs of frames, fused frames.

Video stays in YUV throughout.  Luma is full range (0..255) in the whole program: a source that reads limited
range (16..235) converts it once, a sink that writes limited range converts it back once.  Chroma is copied
unchanged from the decoder.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamfuse.color import Chroma, Plane, check_plane
from streamfuse.temperature import TemperaturePlane

DEFAULT_PERIOD_NS = 40_000_000
"""Frame interval of a stream whose rate is unknown: 25 fps."""


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
    """The clock of a time stamp, and how the stamp was obtained.

    Only stamps of the same group may be compared: recordings, senders (since 1970, by the sender's clock), and this
    machine (its monotonic clock).
    """

    MEDIA = "media"
    """Time in the recording."""
    SENDER = "sender"
    """The sender's clock, from reference times sent with the frames (RTCP reports, prft)."""
    SENDER_START = "sender start"
    """The sender's clock, from one reference time for the whole connection."""
    SENDER_DELAY = "sender delay"
    """The sender's clock, estimated: the arrival minus the delay measured before the connection was lost."""
    KERNEL = "kernel"
    """This machine's monotonic clock when the camera's driver received the frame."""
    ARRIVAL = "arrival"
    """This machine's monotonic clock when the frame arrived, with the network's jitter removed."""

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
    """Index in its stream, from 0; frames that could not be read are counted too."""
    source: str
    """Name of its source; safe to show."""
    arrival_ns: int = 0
    """`time.monotonic_ns()` when the source delivered it."""
    read_ns: int = 0
    """Time taken to read and decode it, ns."""
    tracked_ns: int | None = None
    """Arrival with jitter removed, as in `Clock.ARRIVAL`, ns of the monotonic clock; None: use `arrival_ns`."""
    temperature: TemperaturePlane | None = None
    """Temperatures in the shape of `luma`; None where the source has none."""

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
    """(H, W) uint8, full range 0..255.  H and W are those of the visible frame or, if cropped, of the overlap."""
    chroma: Chroma | None
    """The chroma of the visible frame, cropped like the luma."""
    index: int
    """Index among the fused frames, from 0."""
    time_ns: int
    """Time of the frame in the run, ns: the visible stamp for recordings; for live streams from 0, without jumps."""
    ir_stamp_ns: int | None = None
    """None if the picture has no infrared content."""
    vis_stamp_ns: int | None = None
    ir_clock: Clock | None = None
    vis_clock: Clock | None = None
    skew_ns: int = 0
    """Skew of the pair as in `FramePair`, ns."""
    content: Content = Content.FUSED
    infrared: Plane | None = None
    """Infrared input, aligned, in the shape of `luma`; None while that stream is away."""
    visible: Plane | None = None
    """Visible input in the shape of `luma`; None while that stream is away."""
    temperature: TemperaturePlane | None = None
    """Temperatures, aligned, in the shape of `luma`; without a value where infrared does not cover the picture."""
    alarms: tuple[str, ...] = ()
    """Alarms that are active, in their own words."""
    arrival_ns: int = 0
    """`time.monotonic_ns()` when the earlier frame of the pair arrived; the picture's age counts from here."""
    timings_ns: Mapping[str, int] = field(default_factory=dict)
    """Durations for this frame by stage name, ns."""

    def __post_init__(self) -> None:
        check_plane("FusedFrame", "luma", self.luma)

    def __repr__(self) -> str:
        height, width = self.luma.shape
        return f"FusedFrame(#{self.index}, {width}x{height}, {self.content}, {self.time_ns / 1e9:.6f} s)"

    @property
    def live(self) -> bool:
        """True for live streams, False for recordings."""
        return any(clock not in (None, Clock.MEDIA) for clock in (self.ir_clock, self.vis_clock))

    def to_bgr(self) -> npt.NDArray[np.uint8]:
        """Return the picture in OpenCV's format: (H, W, 3) uint8 BGR, grey if there is no chroma."""
        from streamfuse.color_conversion import to_bgr  # OpenCV is loaded only when a picture is converted

        return to_bgr(self.luma, self.chroma)
