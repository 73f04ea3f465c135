"""Draw docs/rig.png of calib/README.md: `python docs/draw_rig.py`."""

import math
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 1000, 400
VISIBLE, INFRARED = (188, 119, 41), (60, 109, 238)
INK, GREY, PALE, PAPER = (34, 34, 34), (120, 120, 120), (150, 150, 150), (250, 250, 250)
FOCAL_PX, BASELINE_M = 1000, 0.06
MARGIN = 20
"""Nothing is drawn nearer to the border, px."""
PLACES = ((3.0, 545), (10.0, 735), (math.inf, 915))
"""Distances, m, and where they are drawn."""
FONT = cv2.FONT_HERSHEY_DUPLEX

picture = np.full((HEIGHT, WIDTH, 3), PAPER, np.uint8)


def text(
    words: str, x: int, y: int, colour: tuple[int, int, int] = INK, size: float = 0.5, middle: bool = False
) -> None:
    """Write words from x on, or around it; they must fit."""
    width = cv2.getTextSize(words, FONT, size, 1)[0][0]
    left = x - width // 2 if middle else x
    assert MARGIN <= left <= WIDTH - MARGIN - width, f"{words!r} touches the border"
    cv2.putText(picture, words, (left, y), FONT, size, colour, 1, cv2.LINE_AA)


def box(left: int, top: int, right: int, bottom: int, colour: tuple[int, int, int]) -> None:
    assert MARGIN <= left <= right <= WIDTH - MARGIN
    cv2.rectangle(picture, (left, top), (right, bottom), colour, cv2.FILLED)


def dashed(start: tuple[int, int], end: tuple[int, int], colour: tuple[int, int, int]) -> None:
    begin, along = np.array(start, float), np.subtract(end, start).astype(float)
    length = float(np.hypot(*along))
    for at in np.arange(0, length, 19):
        ends = [tuple(np.rint(begin + along * min(s, length) / length).astype(int).tolist()) for s in (at, at + 12)]
        cv2.line(picture, ends[0], ends[1], colour, 2, cv2.LINE_AA)


def from_behind() -> None:
    text("from behind the cameras", 30, 30, GREY)
    box(60, 108, 260, 120, PALE)
    box(150, 120, 160, 370, PALE)
    for name, left, colour in (("visible", 60, VISIBLE), ("infrared", 180, INFRARED)):
        box(left, 60, left + 70, 108, colour)
        text(name, left + 35, 52, colour, 0.45, middle=True)
        cv2.circle(picture, (left + 35, 84), 13, (255, 255, 255), 5, cv2.LINE_AA)
        cv2.line(picture, (left + 35, 132), (left + 35, 148), INK, 2)
    cv2.line(picture, (95, 140), (215, 140), INK, 2)
    text("--baseline-m", 172, 165, size=0.45)
    text("lens to lens, right is +", 172, 186, GREY, 0.45)


def from_above() -> None:
    text("from above", 360, 30, GREY)
    text("6 cm apart, focal length 1000 px: infrared and visible differ by", 360, 70)
    eyes = {VISIBLE: 330, INFRARED: 372}
    for colour, y in eyes.items():
        box(363, y - 11, 393, y + 11, colour)
        box(393, y - 6, 401, y + 6, colour)
    between = sum(eyes.values()) // 2
    for distance, x in PLACES:
        shift = FOCAL_PX * BASELINE_M / distance
        box(x - 22, 230 - round(5 * shift), x + 22, 230, INFRARED if shift else PAPER)
        cv2.line(picture, (x - 40, 230), (x + 40, 230), GREY, 2)
        text(f"{shift:.0f} px", x, 222 - round(5 * shift), middle=True)
        text("far" if distance == math.inf else f"{distance:g} m", x, 300 if shift else 290, middle=True)
        for colour, y in eyes.items():
            dashed((408, y), (x - 10, between if shift else y), colour)
        if shift:
            cv2.circle(picture, (x, between), 8, (60, 60, 60), cv2.FILLED, cv2.LINE_AA)
        else:
            box(x - 9, 302, x + 9, 390, PALE)


from_behind()
from_above()
cv2.imwrite(str(Path(__file__).with_name("rig.png")), picture)
