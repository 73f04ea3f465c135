"""The options of a thermal camera in the address of a source: `layout=` and `temperature=`.

They stand with the other options: after ? for cameras, files and images, after # for network streams and SDP files.
"""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import unquote_plus

from streamfuse.sources.options import DEFAULT, SourceOptions
from streamfuse.support.urls import has_scheme

_OWN = re.compile(r"(layout|temperature)=(.*)", re.DOTALL)


def without_thermal(text: str) -> str:
    """Return an address without these options; raises UsageError for wrong values."""
    return split_thermal(text, DEFAULT)[0]


def split_thermal(text: str, options: SourceOptions) -> tuple[str, SourceOptions]:
    """Return the address without these options, and `options` with them; raises UsageError for wrong values."""
    network = has_scheme(text) and not text.startswith("synthetic:")
    mark = "#" if network or ".sdp#" in text.lower() else "?"
    head, found, tail = text.rpartition(mark)
    if not found or (network and "@" in tail):  # a # in a password
        return text, options
    own: dict[str, str] = {}
    rest = []
    for part in tail.split("&"):
        if match := _OWN.fullmatch(part):
            own[match[1]] = unquote_plus(match[2]) if "%" in match[2] else match[2]
        else:
            rest.append(part)
    if not own:
        return text, options
    given = replace(
        options, layout=own.get("layout", options.layout), temperature=own.get("temperature", options.temperature)
    )
    return head + (mark + "&".join(rest) if rest else ""), given
