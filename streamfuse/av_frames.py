"""Conversion of planes to FFmpeg's frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from streamfuse.color import Plane

if TYPE_CHECKING:
    from av import VideoFrame


def to_av(width: int, height: int, pixel_format: str, planes: Sequence[Plane]) -> VideoFrame:
    """Make a frame of 8-bit planes; where it is larger than the planes, their last rows and columns are repeated."""
    import av

    picture = av.VideoFrame(width, height, pixel_format)
    for plane, values in zip(picture.planes, planes, strict=True):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        filled_rows, filled_columns = values.shape
        rows[:filled_rows, :filled_columns] = values
        rows[filled_rows:, :filled_columns] = values[-1:]
        rows[:, filled_columns : plane.width] = rows[:, filled_columns - 1 : filled_columns]
    return picture
