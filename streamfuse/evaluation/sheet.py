"""A contact sheet: frames of a run in rows, infrared, visible and fused side by side."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

_BACKGROUND = (24, 22, 20)
_TEXT = (225, 225, 225)
_GAP = 12
_HEADER = 40
_FONT = cv2.FONT_HERSHEY_DUPLEX


def contact_sheet(rows: Sequence[Sequence[Image]], titles: Sequence[str], labels: Sequence[str]) -> Image:
    """Arrange `rows` of (H, W, 3) BGR pictures of one size; a title for each column, a label in each first picture."""
    height, width = rows[0][0].shape[:2]
    columns = len(titles)
    sheet = np.empty((_HEADER + len(rows) * (height + _GAP), _GAP + columns * (width + _GAP), 3), np.uint8)
    sheet[:] = _BACKGROUND
    for column, title in enumerate(titles):
        x = _GAP + column * (width + _GAP)
        cv2.putText(sheet, title, (x, _HEADER - 13), _FONT, 0.75, _TEXT, 1, cv2.LINE_AA)
    for row, (pictures, label) in enumerate(zip(rows, labels, strict=True)):
        y = _HEADER + row * (height + _GAP)
        for column, picture in enumerate(pictures):
            x = _GAP + column * (width + _GAP)
            sheet[y : y + height, x : x + width] = picture
        _draw_label(sheet, label, _GAP, y + height)
    return sheet


def _draw_label(sheet: Image, label: str, x: int, bottom: int) -> None:
    (width, height), _ = cv2.getTextSize(label, _FONT, 0.5, 1)
    box = sheet[bottom - height - 12 : bottom, x : x + width + 12]
    box[:] = box // 3
    cv2.putText(sheet, label, (x + 6, bottom - 6), _FONT, 0.5, _TEXT, 1, cv2.LINE_AA)
