"""The street of the demo scene: its static objects, painted once.

What matters for fusion: the sign says something in the visible picture only (its panel has one
temperature), the parked car is in the dark and shows in the infrared picture only.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from streamfuse.sources.scene.houses import paint_houses
from streamfuse.sources.scene.paint import (
    BEYOND,
    BLACK,
    FACADE_Y,
    HORIZON,
    Bgr,
    Painter,
    Points,
    View,
    ellipse,
    rounded,
    units_per_metre,
)
from streamfuse.sources.scene.smoke import DRAIN

KERB_Y, ROAD_Y, NEAR_KERB_Y, NEAR_Y = 332.0, 338.0, 424.0, 432.0
"""Upper edges of the far kerb, the road, the near kerb and the near pavement, design y."""
LAMPS = (95.0, 340.0)
"""Design x of the lamps that light the middle; the one that should light the car is missing."""
LAMP_SPACING = 245.0
LAMP_HEAD_Y = 124.0
SIGN = (414.0, 146.0, 602.0, 192.0)
"""x0, y0, x1, y1 of the panel, design units."""
SIGN_HEAT = 84
CAR = (400.0, 352.0)
"""Left end (its front) and ground of the car, design units."""
CAR_LENGTH = 212.0


def paint_street(view: View, rng: np.random.Generator, depth: bool = False) -> Painter:
    """Everything from the skyline to the near pavement.  The sky is left empty.  `depth`: as for `Painter`."""
    painter = Painter(view, depth)
    paint_houses(painter, rng)
    painter.stand = None
    _ground(painter)
    _drain(painter)
    painter.stand = KERB_Y + 1
    for x in lamp_positions(view):
        _lamp(painter, x)
    _sign(painter)
    painter.stand = CAR[1]
    _car(painter)
    _cat(painter)
    return painter


def lamp_positions(view: View) -> list[float]:
    """Design x of every lamp that burns, far enough out that their light still reaches the picture."""
    last = LAMPS[1] + LAMP_SPACING  # dark: here stands the car
    left, x = [], LAMPS[0] - LAMP_SPACING
    while x > view.left - LAMP_SPACING:
        left.append(x)
        x -= LAMP_SPACING
    right, x = [], last + LAMP_SPACING
    while x < view.right + LAMP_SPACING:
        right.append(x)
        x += LAMP_SPACING
    return [*reversed(left), *LAMPS, *right]


def _ground(painter: Painter) -> None:
    view = painter.view
    x0, x1 = view.left - BEYOND, view.right + BEYOND
    _bands(painter, FACADE_Y, KERB_Y, (104, 106, 110), 74, 80, wet=20)
    _bands(painter, KERB_Y, ROAD_Y, (84, 86, 90), 70, 71, wet=0)
    painter.rect(x0, KERB_Y, x1, KERB_Y + 1.6, (150, 152, 156), 76)
    _bands(painter, ROAD_Y, NEAR_KERB_Y, (58, 56, 56), 78, 88, wet=150)
    painter.rect(x0, ROAD_Y, x1, ROAD_Y + 3.5, (40, 40, 42), 78, wet=120)
    _bands(painter, NEAR_KERB_Y, max(view.bottom, NEAR_Y) + 4, (96, 98, 104), 72, 77, wet=24)
    painter.rect(x0, NEAR_KERB_Y, x1, NEAR_Y, (126, 128, 134), 71)
    painter.rect(x0, NEAR_KERB_Y - 4, x1, NEAR_KERB_Y, (34, 34, 36), 80, wet=90)
    _paving(painter, FACADE_Y, KERB_Y, (306, 314, 323), 22)
    _paving(painter, NEAR_Y, view.bottom + 4, (441, 454, 471, 494), 22)
    for k in range(-60, 61):  # lane marks, equally long on the road
        y0, y1 = 374.0, 378.5
        a, b = _on_ground(k * 84.0, y0), _on_ground(k * 84.0 + 40, y0)
        if b > x0 and a < x1:
            c, d = _on_ground(k * 84.0 + 40, y1), _on_ground(k * 84.0, y1)
            painter.polygon([(a, y0), (b, y0), (c, y1), (d, y1)], (150, 152, 154), 90, wet=70)


def _bands(painter: Painter, y0: float, y1: float, albedo: Bgr, far: int, close: int, wet: int) -> None:
    count = 16
    for band in range(count):
        heat = round(far + (close - far) * band / count)
        y = y0 + (y1 - y0) * band / count
        painter.rect(painter.view.left - BEYOND, y, painter.view.right + BEYOND, y1, albedo, heat, wet=wet)


def _on_ground(lateral: float, y: float) -> float:
    """Design x of a ground point `lateral` units right of the middle, as seen at the house fronts."""
    return 320 + lateral * (y - HORIZON) / (FACADE_Y - HORIZON)


def _paving(painter: Painter, y0: float, y1: float, rows: tuple[int, ...], pitch: float) -> None:
    joint: Bgr = (74, 76, 80)
    edges = [y0, *[float(row) for row in rows if row < y1], y1]
    for row, (top, bottom) in enumerate(pairwise(edges)):
        thick = 0.5 * units_per_metre(top) / 32
        if row:
            left, right = painter.view.left - BEYOND, painter.view.right + BEYOND
            painter.rect(left, top, right, top + thick, joint, None, wet=10)
        first = int((painter.view.left - 320) / pitch) - 2
        last = int((painter.view.right - 320) / pitch) + 2
        for k in range(first, last):
            lateral = (k + 0.5 * (row % 2)) * pitch
            a, b = _on_ground(lateral, top), _on_ground(lateral, bottom)
            if painter.view.left - BEYOND < a < painter.view.right + BEYOND:
                line = [(a, top), (a + thick, top), (b + thick, bottom), (b, bottom)]
                painter.polygon(line, joint, None, wet=10)


def _drain(painter: Painter) -> None:
    x, y = DRAIN
    painter.polygon(ellipse(x, y, 19, 5.2), (40, 40, 42), 108)
    painter.polygon(ellipse(x, y, 16, 4.1), (70, 70, 72), 120)
    for step in (-2, -1, 0, 1, 2):
        half, row = 11 - abs(step) * 2, y + step * 1.5
        painter.rect(x - half, row - 0.4, x + half, row + 0.4, BLACK, 132)


def _lamp(painter: Painter, x: float) -> None:
    iron: Bgr = (36, 38, 38)
    y, head = KERB_Y + 1, LAMP_HEAD_Y
    painter.polygon([(x - 1.7, head + 10), (x + 1.7, head + 10), (x + 2.4, y), (x - 2.4, y)], iron, 66, near=True)
    painter.rect(x - 5, y - 22, x + 5, y, iron, 68, near=True)
    painter.rect(x - 3.6, y - 38, x + 3.6, y - 22, iron, 67, near=True)
    painter.rect(x - 7, head + 9, x + 7, head + 11, iron, 74, near=True)
    lantern = [(x - 4.6, head + 9), (x + 4.6, head + 9), (x + 8, head - 9), (x - 8, head - 9)]
    painter.polygon(lantern, (60, 66, 70), 168, glow=(150, 214, 255), near=True)
    painter.polygon(ellipse(x, head, 3.4, 6), BLACK, 226, glow=(225, 245, 255), near=True)
    painter.polygon([(x - 9.5, head - 8), (x, head - 18), (x + 9.5, head - 8)], iron, 104, near=True)
    painter.rect(x - 0.8, head - 22, x + 0.8, head - 16, iron, 84, near=True)


def _sign(painter: Painter) -> None:
    """White on blue for the eye, one even temperature for the infrared camera."""
    x0, y0, x1, y1 = SIGN
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    for x in (x0 + 22, x1 - 22):
        painter.rect(x - 2, y0 - 5, x + 2, KERB_Y + 1, (66, 68, 70), 68, near=True)

    def plate(inset: float, albedo: Bgr, heat: int | None, glow: Bgr) -> None:
        radius = 7.0 - inset
        outline = []
        for x, y, start in ((x1, y1, 0.0), (x0, y1, 0.5), (x0, y0, 1.0), (x1, y0, 1.5)):
            cx = x - np.copysign(7.0, x - middle[0])
            cy = y - np.copysign(7.0, y - middle[1])
            for turn in np.pi * (start + np.linspace(0, 0.5, 9)):
                outline.append((float(cx + radius * np.cos(turn)), float(cy + radius * np.sin(turn))))
        painter.polygon(outline, albedo, heat, glow, near=True)

    white: Bgr = (246, 244, 238)
    plate(0.0, (90, 92, 96), SIGN_HEAT, (120, 100, 80))
    plate(1.6, BLACK, None, white)
    plate(3.4, BLACK, None, (168, 82, 22))
    end = x0 + 13 + painter.lettering("STATION", x0 + 13, y0 + 11.0, 24.0, 0.155, white)
    start, tip, y = end + 11, x1 - 13, middle[1]
    arrow = [(start, y - 2.6), (tip - 11, y - 2.6), (tip - 17, y - 10), (tip - 10, y - 10)]
    arrow += [(tip, y), (tip - 10, y + 10), (tip - 17, y + 10), (tip - 11, y + 2.6)]
    painter.polygon([*arrow, (start, y + 2.6)], BLACK, None, white, near=True)


def _car(painter: Painter) -> None:
    left, ground = CAR

    def at(points: Points) -> list[tuple[float, float]]:
        return [(left + x, ground - y) for x, y in points]

    paint: Bgr = (44, 34, 30)
    shadow = ellipse(left + CAR_LENGTH / 2, ground - 1, CAR_LENGTH * 0.5, 7)
    painter.polygon(shadow, (16, 16, 16), 92, near=True)
    painter.rect(left + 20, ground - 22, left + 195, ground - 6, (6, 6, 6), 98, near=True)
    lower = [(1, 15), (0, 31), (4, 40), (22, 46), (60, 51), (72, 54), (184, 55), (206, 52), (211, 44)]
    lower += [(212, 22), (208, 13), (6, 12)]
    painter.polygon(at(rounded(lower, 3)), paint, 104, near=True)
    cabin = [(56, 50), (70, 62), (88, 75), (104, 78), (142, 77), (160, 70), (188, 53), (120, 48)]
    painter.polygon(at(rounded(cabin, 3)), paint, 97, near=True)
    glass: Bgr = (14, 12, 12)
    for window in (
        [(70, 54), (80, 64), (92, 72), (104, 74), (113, 74), (113, 54)],
        [(117, 54), (117, 74), (138, 73), (152, 68), (172, 55)],
    ):
        painter.polygon(at(window), glass, 44, near=True)  # glass mirrors the cold sky
    bonnet = [(5, 39), (22, 45.5), (62, 51), (64, 48), (24, 41), (6, 36)]
    painter.polygon(at(bonnet), paint, 132, near=True)
    for x in (66.0, 114.0, 166.0):
        painter.rect(left + x, ground - 53, left + x + 0.9, ground - 20, (24, 20, 18), 92, near=True)
    painter.rect(left + 4, ground - 25, left + 208, ground - 23.4, (24, 20, 18), 95, near=True)
    painter.polygon(at([(3, 34), (15, 38), (15, 33), (4, 30)]), (70, 70, 70), 92, near=True)
    painter.polygon(at([(203, 45), (211, 42), (211, 37), (204, 38)]), (22, 20, 60), 86, near=True)
    for x in (42.0, 170.0):
        wheel = (left + x, ground - 18.5)
        painter.polygon(ellipse(*wheel, 21.5, 21.5), (10, 10, 10), 82, near=True)
        for radius, albedo, heat in ((18.5, (14, 14, 14), 148), (12.0, (48, 46, 46), 112), (6.5, (40, 38, 38), 186)):
            painter.polygon(ellipse(*wheel, radius, radius), albedo, heat, near=True)
    painter.rect(left + 196, ground - 12, left + 212, ground - 7.5, (30, 30, 30), 236, near=True)


def _cat(painter: Painter) -> None:
    """Paint a cat on the roof of the car, which only infrared shows."""
    x, y = CAR[0] + 128, CAR[1] - 75.5
    fur: Bgr = (20, 20, 22)
    body = rounded([(x - 6, y), (x - 5, y - 10), (x, y - 15), (x + 5, y - 12), (x + 9, y)])
    painter.polygon(body, fur, 196, near=True)
    painter.polygon(ellipse(x - 3, y - 16, 4.6, 4.0), fur, 226, near=True)
    for ear in (-6.6, -1.2):
        painter.polygon([(x + ear, y - 18), (x + ear + 0.8, y - 23), (x + ear + 3.4, y - 19)], fur, 214, near=True)
    tail = [(x + 6, y - 1), (x + 14, y - 1), (x + 19, y - 5), (x + 18, y - 8), (x + 16.6, y - 4.4), (x + 13, y - 3)]
    painter.polygon(rounded([*tail, (x + 6, y - 4)]), fur, 178, near=True)
