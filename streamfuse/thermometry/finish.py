"""The last step of a fused frame that has temperatures: colours, figures in the picture, alarms."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from streamfuse.errors import UsageError
from streamfuse.frames import FusedFrame
from streamfuse.thermometry.alarm import Alarm
from streamfuse.thermometry.overlay import Overlay
from streamfuse.thermometry.palette import Palette

log = logging.getLogger("streamfuse")

MOST_ALARMS = 32
"""Every published header may have to list them all."""


class ThermalFinish:
    """Applies the options of a run to its frames, in the order in which they are fused."""

    def __init__(
        self,
        overlay: Sequence[str] = (),
        palette: str | None = None,
        palette_from: str = "30C",
        alarms: Sequence[str] = (),
        unit: str = "C",
    ) -> None:
        """The arguments are the values of --overlay, --palette, --palette-from, --alarm and --degrees.

        Raises UsageError.
        """
        self._palette = Palette(palette, palette_from) if palette is not None else None
        self._overlay = Overlay(tuple(overlay), self._palette, unit) if overlay else None
        if len(alarms) > MOST_ALARMS:
            raise UsageError(f"{len(alarms)} alarms are given, and at most {MOST_ALARMS} are possible")
        self._alarms = [Alarm(text) for text in alarms]
        self.raised: Counter[str] = Counter({alarm.text: 0 for alarm in self._alarms})
        """Times that each alarm was raised; any thread may read it."""
        self._missing = False

    def __call__(self, frame: FusedFrame) -> FusedFrame:
        """Return the frame with colours, figures and the active alarms."""
        if frame.temperature is None and frame.infrared is not None and not self._missing:
            self._missing = True
            log.warning(
                "the infrared stream has no temperatures, which --agc temperature, --overlay, --palette and --alarm "
                "need: add temperature=, such as temperature=kelvin/100, to its address"
            )
        extremes = frame.temperature.extremes() if self._alarms and frame.temperature is not None else None
        if extremes is not None:
            for alarm in self._alarms:
                self.raised[alarm.text] += alarm.update(extremes, frame.time_ns)
        if self._alarms:
            frame = replace(frame, alarms=tuple(alarm.text for alarm in self._alarms if alarm.active))
        if self._palette is not None:
            frame = replace(frame, chroma=self._palette.chroma(frame))
        if self._overlay is not None:
            luma, chroma = self._overlay.draw(frame)
            frame = replace(frame, luma=luma, chroma=chroma)
        return frame
