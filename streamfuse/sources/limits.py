"""Largest picture that is read.

A file of one kilobyte can claim to be a picture of ten thousand million pixels, and a decoder allocates what the header
claims.  So the size of every picture is read from its header and compared with a limit before anything decodes it.  The
limit belongs to the source: `SourceOptions.max_pixels`.
"""

from __future__ import annotations

from streamfuse.errors import InputError

MAX_PIXELS = 1 << 26
"""Default limit, in pixels: 67 million, twice an 8K picture."""


def check_pixels(name: str, width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Raise InputError for a picture of more than `max_pixels` pixels."""
    if width * height > max_pixels:
        raise InputError(
            f"{name} claims {width}x{height} pixels, and more than {max_pixels:,} are refused: "
            "if that is its real size, raise the limit with --max-pixels"
        )
