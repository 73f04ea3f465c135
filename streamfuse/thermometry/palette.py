"""Colours for warm things: `--palette iron --palette-from 30C`.

Only the chroma is replaced, so that the picture keeps the luma of the network, and with it all its detail.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.color import Chroma, Plane
from streamfuse.color_conversion import narrow_chroma
from streamfuse.errors import UsageError
from streamfuse.frames import FusedFrame
from streamfuse.temperature import NONE, OVER, ZERO_CELSIUS_K, Scale, parse_celsius

_MAPS = {
    "iron": cv2.COLORMAP_INFERNO,
    "rainbow": cv2.COLORMAP_JET,
    "hot": cv2.COLORMAP_HOT,
    "turbo": cv2.COLORMAP_TURBO,
    "magma": cv2.COLORMAP_MAGMA,
    "white-hot": None,
}
"""OpenCV's colour maps; None: grey, so that only cool things keep their colours."""
PALETTES = tuple(_MAPS)
SPAN_K = 40.0
"""Default range of temperatures over which the colours change, K."""
EDGE_K = 1.0
"""Range over which the colours begin, so that noise does not flicker, K."""


class Palette:
    """Colours the pixels of a frame that are warmer than a limit."""

    def __init__(self, name: str, span: str) -> None:
        """`name`: one of PALETTES.  `span`: where the colours begin and, if given, end: 30C or 30C..80C.

        Raises UsageError.
        """
        if name not in _MAPS:
            raise UsageError(f"unknown palette {name!r}: use {', '.join(PALETTES)}")
        low, found, high = span.partition("..")
        try:
            self.low_c = parse_celsius(low)
            self.high_c = parse_celsius(high) if found else self.low_c + SPAN_K
        except ValueError as error:
            raise UsageError(f"--palette-from {span}: {error}") from None
        if not self.low_c < self.high_c:
            raise UsageError(f"--palette-from {span}: the temperatures must rise")
        self._colors = _chroma_of(_MAPS[name])
        self._scale: Scale | None = None
        self._table = np.zeros((65_536, 3), np.float32)

    def chroma(self, frame: FusedFrame) -> Chroma:
        """Return the chroma of a frame with the colours of its warm pixels."""
        height, width = frame.luma.shape
        chroma = frame.chroma
        if chroma is None:
            grey = np.full((-(-height // 2), -(-width // 2)), 128, np.uint8)
            chroma = Chroma(grey, grey, full_range=True)
        plane = frame.temperature
        if plane is None:
            return chroma
        rows, columns = chroma.u.shape
        values = plane.values[:: -(-height // rows), :: -(-width // columns)]
        if int(values.max()) == NONE:
            return chroma
        u, v, weight = self._colors_of(plane.scale)[values].transpose(2, 0, 1)
        if not chroma.full_range:
            u, v = ((plane - 128) * np.float32(224 / 255) + 128 for plane in (u, v))
        return Chroma(_mix(chroma.u, u, weight), _mix(chroma.v, v, weight), chroma.full_range, chroma.matrix)

    def scale_bar(self, height: int) -> Chroma:
        """Return the colours from the highest to the lowest, (height, 1), limited range."""
        index = np.rint(np.linspace(255, 0, height)).astype(np.intp)
        u, v = (np.rint(self._colors[index, k]).astype(np.uint8).reshape(-1, 1) for k in (0, 1))
        return narrow_chroma(Chroma(u, v, full_range=True))

    def _colors_of(self, scale: Scale) -> npt.NDArray[np.float32]:
        """Return Cb, Cr and weight for each of the 65,536 values of a scale."""
        if scale != self._scale:
            self._scale = scale
            celsius = np.arange(65_536) * scale.step + scale.offset - ZERO_CELSIUS_K
            place = np.clip((celsius - self.low_c) / (self.high_c - self.low_c), 0, 1)
            self._table[:, :2] = self._colors[np.rint(place * 255).astype(np.intp)]
            self._table[:, 2] = np.clip((celsius - self.low_c) / EDGE_K, 0, 1)
            self._table[NONE, 2] = 0
            self._table[OVER, :2], self._table[OVER, 2] = self._colors[255], 1
        return self._table


def _chroma_of(colormap: int | None) -> npt.NDArray[np.float32]:
    """Full-range Cb and Cr of the 256 colours of a map, (256, 2)."""
    if colormap is None:
        return np.full((256, 2), 128, np.float32)
    colors = cv2.applyColorMap(np.arange(256, dtype=np.uint8).reshape(-1, 1), colormap)
    y_cr_cb = cv2.cvtColor(colors, cv2.COLOR_BGR2YCrCb).reshape(256, 3)
    return y_cr_cb[:, (2, 1)].astype(np.float32)


def _mix(plane: Plane, colour: npt.NDArray[np.float32], weight: npt.NDArray[np.float32]) -> Plane:
    mixed: Plane = np.rint(plane + (colour - plane) * weight).astype(np.uint8)
    return mixed
