"""How large a picture may be.

A file of a kilobyte can claim to be a picture of ten thousand million pixels, and a decoder takes the memory that is
asked for.  So every picture's size is read from its header, and held against one limit, before anything decodes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streamfuse.errors import InputError

MAX_PIXELS = 1 << 26
"""67 million: twice an 8K picture."""

_most = MAX_PIXELS


def max_pixels() -> int:
    """The limit of this process, pixels of one picture."""
    return _most


@contextmanager
def allowing(pixels: int) -> Iterator[None]:
    """Another limit for the whole process until the block is left: what `--max-pixels` does."""
    global _most
    before, _most = _most, pixels
    try:
        yield
    finally:
        _most = before


def is_too_large(width: int, height: int) -> bool:
    return width * height > _most


def check_pixels(name: str, width: int, height: int) -> None:
    """Raises InputError for a picture above the limit."""
    if is_too_large(width, height):
        raise InputError(
            f"{name} claims {width}x{height} pixels, and more than {_most:,} are refused: "
            "if that is what it is, raise the limit with --max-pixels"
        )
