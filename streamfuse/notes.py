"""Warnings that are logged once per process."""

from __future__ import annotations

import logging

log = logging.getLogger("streamfuse")

_said: set[str] = set()


def warn_once(text: str) -> None:
    """Log a warning, unless this process has logged it before."""
    if text not in _said:
        _said.add(text)
        log.warning("%s", text)
