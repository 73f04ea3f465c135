"""Alarms: `--alarm 'max > 60C for 2s'`.

An alarm is a line in the log, a name in the published header and a count in the metrics; nothing more.
"""

from __future__ import annotations

import logging
import re

from streamfuse.errors import UsageError
from streamfuse.temperature import Extremes, parse_celsius

log = logging.getLogger("streamfuse")

_RULE = re.compile(
    r"(min|mean|max)\s*([<>])\s*([+-]?\d[\d.]*\s?[CFK])(?:\s+for\s+(\d{1,6}(?:\.\d{1,3})?)\s*(ms|s|min))?",
    re.ASCII | re.IGNORECASE,
)
_UNITS_NS = {"ms": 1e6, "s": 1e9, "min": 60e9}


class Alarm:
    """One rule, and whether it holds."""

    def __init__(self, text: str) -> None:
        """`text`: min, mean or max, < or >, a temperature and, if it must last, `for` a time.  Raises UsageError."""
        match = _RULE.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"--alarm {text!r} is not understood: write it as in 'max > 60C for 2s' or 'min < 0C'")
        self.text = " ".join(text.split())
        self._what, self._above = match[1].lower(), match[2] == ">"
        try:
            self._limit_c = parse_celsius(match[3])
        except ValueError as error:
            raise UsageError(f"--alarm {text!r}: {error}") from None
        self._lasting_ns = round(float(match[4]) * _UNITS_NS[match[5].lower()]) if match[4] else 0
        self._since_ns: int | None = None
        self.active = False

    def update(self, extremes: Extremes, time_ns: int) -> bool:
        """Take the temperatures of a frame at `time_ns` of the run; return True if the alarm is raised by it."""
        celsius = {"min": extremes.coldest.celsius, "mean": extremes.mean, "max": extremes.hottest.celsius}[self._what]
        if not (celsius > self._limit_c if self._above else celsius < self._limit_c):
            if self.active:
                log.info("alarm %s is over: %.1f degC", self.text, celsius)
            self._since_ns, self.active = None, False
            return False
        self._since_ns = time_ns if self._since_ns is None else self._since_ns
        if self.active or time_ns - self._since_ns < self._lasting_ns:
            return False
        self.active = True
        spot = extremes.coldest if self._what == "min" else extremes.hottest
        place = "" if self._what == "mean" else f" at x {spot.column}, y {spot.row}"
        log.warning("alarm %s: %.1f degC%s", self.text, celsius, place)
        return True
