"""Reading of bags record by record, from files that may be cut off anywhere or claim any size."""

from __future__ import annotations

import bz2
from pathlib import Path
from typing import BinaryIO

LARGEST = 1 << 29
"""Largest record and largest unpacked chunk, bytes: 67 million pixels of four channels, and some."""


class Damaged(Exception):
    """A record that cannot be read; the text says what is wrong with it."""


class Input:
    """A file whose `read` returns at most what the file has, and allocates no more, whatever size is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("rb")
        self.size = path.stat().st_size
        self.at = 0
        """Offset of the next byte."""

    @property
    def left(self) -> int:
        return max(self.size - self.at, 0)

    def read(self, count: int) -> bytes:
        data = self._file.read(min(count, self.left))
        self.at += len(data)
        return data

    def seek(self, offset: int) -> None:
        """Go to an offset; one behind the end of the file is that end."""
        self.at = min(offset, self.size)
        self._file.seek(self.at)

    def skip(self, count: int) -> None:
        self.seek(self.at + count)

    def close(self) -> None:
        self._file.close()


def unpack(data: bytes, compression: str, size: int) -> bytes:
    """Decompress a chunk; of one that is cut off, what can be had.

    `compression`: none, bz2, lz4 or zstd; `size`: what the chunk says, bytes.  Raises Damaged.
    """
    if compression in ("", "none"):
        return data
    if size > LARGEST:
        raise Damaged(f"a chunk of {size:,} bytes, and at most {LARGEST:,} are read")
    try:
        if compression == "bz2":
            return bz2.BZ2Decompressor().decompress(data, size)
        if compression == "lz4":
            from lz4.frame import LZ4FrameDecompressor

            return bytes(LZ4FrameDecompressor().decompress(data, size))
        if compression == "zstd":
            from zstandard import ZstdDecompressor

            with ZstdDecompressor(max_window_size=LARGEST).stream_reader(data) as reader:
                return reader.read(size)
    except (OSError, RuntimeError, EOFError, ValueError, _zstd_error()) as error:
        raise Damaged(f"a chunk that {compression} cannot unpack ({error})") from None
    raise Damaged(f"a chunk with the compression {compression!r}, which is not read")


def _zstd_error() -> type[Exception]:
    from zstandard import ZstdError

    return ZstdError
