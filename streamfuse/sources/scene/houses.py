"""The houses of the demo scene, a cafe and the town behind.

Windows are lit for the eye and warm for the infrared camera, but not always both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamfuse.sources.scene.paint import BLACK, FACADE_Y, Bgr, Painter, View

STOREY = 62.0
CAFE_SIGN = (186.0, 212.0, 304.0, 231.0)
"""x0, y0, x1, y1 of the panel, design units."""
CAFE_WINDOW = (184.0, 236.0, 272.0, 290.0)


@dataclass(frozen=True, slots=True)
class _House:
    x0: float
    x1: float
    storeys: int
    wall: Bgr
    heat: int
    gable: bool
    lit: tuple[tuple[int, ...], ...] = ()
    """Lit windows of each upper storey, from the top; random if empty."""

    @property
    def eave(self) -> float:
        return FACADE_Y - 86 - STOREY * (self.storeys - 1)


_MIDDLE = (
    _House(-64, 124, 3, (62, 82, 132), 66, False, ((3,), (2, 4))),
    _House(172, 318, 2, (96, 132, 158), 72, True, ((0, 2),)),
    _House(318, 446, 3, (132, 124, 108), 60, False, ((1,), (0,))),
    _House(446, 606, 2, (72, 100, 140), 69, True, ((3,),)),
    _House(606, 770, 3, (120, 134, 142), 63, False, ((0,), (1, 2))),
)
TOWN_Y = 238.0
"""Where the town behind the houses stands, hidden by them, design y."""
_WALLS: tuple[Bgr, ...] = ((62, 82, 132), (96, 132, 158), (132, 124, 108), (72, 100, 140), (120, 134, 142))
_WARM: tuple[Bgr, ...] = ((88, 172, 244), (104, 190, 250), (72, 150, 226), (150, 205, 245))
_COOL: Bgr = (205, 176, 140)


def paint_houses(painter: Painter, rng: np.random.Generator) -> None:
    """Paint the whole row of houses, from one edge of the picture to the other, without the sky."""
    # Own streams for the middle: its windows must not depend on how much of the street is in view.
    middle = dict(zip(_MIDDLE, rng.spawn(len(_MIDDLE)), strict=True))
    _skyline(painter, rng)
    for house in _row_of_houses(painter.view, rng):
        _house(painter, house, middle.get(house, rng))
    _cafe(painter)


def _row_of_houses(view: View, rng: np.random.Generator) -> list[_House]:
    houses = list(_MIDDLE)
    while houses[0].x0 > view.left:
        houses.insert(0, _any_house(rng, houses[0].x0 - float(rng.uniform(120, 190)), houses[0].x0))
    while houses[-1].x1 < view.right:
        houses.append(_any_house(rng, houses[-1].x1, houses[-1].x1 + float(rng.uniform(120, 190))))
    return houses


def _any_house(rng: np.random.Generator, x0: float, x1: float) -> _House:
    wall = _WALLS[int(rng.integers(len(_WALLS)))]
    storeys = int(rng.integers(2, 4))
    return _House(x0, x1, storeys, wall, int(rng.integers(58, 74)), storeys == 2)


def _skyline(painter: Painter, rng: np.random.Generator) -> None:
    """Paint the town behind, seen through the gap between houses and over low roofs."""
    painter.stand = TOWN_Y
    x = painter.view.left - 20
    while x < painter.view.right:
        width, top = float(rng.uniform(16, 34)), float(rng.uniform(176, 206))
        painter.rect(x, top, x + width, FACADE_Y, (26, 22, 22), 50, glow=(13, 9, 9))
        for row in np.arange(top + 6, FACADE_Y - 8, 9):
            for column in np.arange(x + 4, x + width - 4, 7):
                if rng.random() < 0.2:
                    painter.rect(column, row, column + 2.6, row + 3.6, BLACK, 56, glow=(50, 88, 124))
        x += width + float(rng.uniform(-3, 3))
    painter.stand = FACADE_Y
    # A yard between the first two houses: a wall, and a gate that the cold shines through.
    gap = (_MIDDLE[0].x1, _MIDDLE[1].x0)
    painter.rect(gap[0], 262, gap[1], FACADE_Y, (74, 92, 118), 70)
    painter.rect(gap[0], 259, gap[1], 263, (118, 122, 126), 64)
    painter.rect(gap[0] + 15, 256, gap[1] - 15, FACADE_Y, (26, 26, 28), 54)
    for x in np.arange(gap[0] + 17, gap[1] - 15, 4.0):
        painter.rect(x, 252, x + 1.2, FACADE_Y, (40, 42, 42), 66)
    painter.rect(gap[0] + 15, 268, gap[1] - 15, 270, (40, 42, 42), 66)


def _house(painter: Painter, house: _House, rng: np.random.Generator) -> None:
    eave, middle = house.eave, (house.x0 + house.x1) / 2
    roof: Bgr = (52, 44, 46)
    for at in (0.22, 0.80):  # chimneys; one has a fire below
        x, warm = house.x0 + at * (house.x1 - house.x0), rng.random() < 0.5
        top = eave - (58 if house.gable else 34)
        painter.rect(x - 7, top, x + 7, eave, (46, 54, 80), 96 if warm else 62)
        painter.rect(x - 8.5, top - 3, x + 8.5, top + 1, (40, 46, 66), 128 if warm else 60)
    if house.gable:
        slope = [(house.x0 - 4, eave), (house.x0 + 26, eave - 38), (house.x1 - 26, eave - 38), (house.x1 + 4, eave)]
        painter.polygon(slope, roof, 42)
        for row in range(1, 6):
            y, inset = eave - row * 6.3, 5 * row
            painter.rect(house.x0 + inset, y, house.x1 - inset, y + 0.8, (40, 34, 36), None)
        _dormer(painter, middle, eave - 6, lit=bool(rng.random() < 0.75))
    _wall(painter, house)
    painter.rect(house.x0 - 3, eave - 5, house.x1 + 3, eave + 3, (112, 116, 122), 58)
    columns = max(int((house.x1 - house.x0) / 37), 2)
    pitch = (house.x1 - house.x0) / columns
    for storey in range(house.storeys - 1):
        y = eave + 13 + storey * STOREY
        for column in range(columns):
            x = house.x0 + (column + 0.5) * pitch
            lit = column in house.lit[storey] if house.lit else bool(rng.random() < 0.33)
            _window(painter, x, y, 21, 36, house.wall, lit, rng)
    if house.x0 != _MIDDLE[1].x0:  # there the cafe is
        door = int(rng.integers(columns))
        for column in range(columns):
            x = house.x0 + (column + 0.5) * pitch
            if column == door:
                _door(painter, x)
            else:
                _window(painter, x, 232, 22, 40, house.wall, bool(rng.random() < 0.15), rng)


def _wall(painter: Painter, house: _House) -> None:
    """Paint a wall, which is warmest near the ground."""
    bands = 24
    for band in range(bands):
        y = house.eave + (FACADE_Y - house.eave) * band / bands
        painter.rect(house.x0, y, house.x1, FACADE_Y, house.wall, house.heat + round(10 * band / bands))
    floor = FACADE_Y - 82
    stone: Bgr = (int(house.wall[0] * 0.8), int(house.wall[1] * 0.8), int(house.wall[2] * 0.8))
    painter.rect(house.x0, floor, house.x1, floor + 4, (120, 124, 128), house.heat + 2)
    painter.rect(house.x0, FACADE_Y - 12, house.x1, FACADE_Y, stone, house.heat + 14)
    painter.rect(house.x1 - 1.2, house.eave, house.x1, FACADE_Y, (30, 32, 36), house.heat - 4)


def _window(
    painter: Painter,
    x: float,
    y: float,
    width: float,
    height: float,
    wall: Bgr,
    lit: bool,
    rng: np.random.Generator,
) -> None:
    """Paint a window; a dark one may be warm."""
    half, warm = width / 2, lit or rng.random() < 0.25
    painter.rect(x - half - 3, y - 4, x + half + 3, y + height + 2, (136, 142, 148), 74)
    base = 104 if warm else 82
    light = _COOL if rng.random() < 0.16 else _WARM[int(rng.integers(len(_WARM)))]
    steps = 8
    for step in range(steps):  # brighter and warmer towards the top, where the lamp hangs and warm air is
        top = y + height * step / steps
        share = 1.0 - 0.45 * step / steps
        glow: Bgr = tuple(int(c * share) for c in light) if lit else (15, 10, 8)  # type: ignore[assignment]
        painter.rect(x - half, top, x + half, y + height, (22, 20, 18), round(base + 10 * share), glow)
    if lit:  # curtains
        for side in (-1, 1):
            edge, inner = x + side * half, x + side * half * 0.52
            dim: Bgr = (light[0] // 3, light[1] // 2, int(light[2] * 0.62))
            sheet = [(edge, y), (inner, y), (x + side * half * 0.72, y + height), (edge, y + height)]
            painter.polygon(sheet, (60, 70, 90), None, dim)
    for bar in ((x - 0.7, y, x + 0.7, y + height), (x - half, y + height * 0.36, x + half, y + height * 0.36 + 1.3)):
        painter.rect(*bar, (120, 126, 132), 78)
    painter.rect(x - half - 5, y + height + 1, x + half + 5, y + height + 4, (144, 148, 152), 68)
    if warm:  # the radiator below the sill shows through the wall
        painter.rect(x - half, y + height + 5, x + half, y + height + 13, wall, 88)


def _door(painter: Painter, x: float) -> None:
    painter.rect(x - 15, 228, x + 15, FACADE_Y, (120, 126, 130), 72)
    painter.rect(x - 12, 232, x + 12, FACADE_Y - 1, (52, 40, 34), 84)
    painter.rect(x - 9, 236, x + 9, 250, (20, 18, 16), 92, glow=(26, 46, 62))
    for x0, x1 in ((x - 9, x - 1), (x + 1, x + 9)):
        painter.rect(x0, 256, x1, 292, (44, 34, 28), 81)
    painter.rect(x - 17, FACADE_Y - 4, x + 17, FACADE_Y, (140, 142, 144), 78)


def _dormer(painter: Painter, x: float, y: float, lit: bool) -> None:
    painter.polygon([(x - 17, y - 20), (x, y - 34), (x + 17, y - 20)], (48, 42, 44), 46)
    painter.rect(x - 14, y - 21, x + 14, y, (92, 96, 100), 62)
    painter.rect(x - 9, y - 18, x + 9, y - 2, (22, 20, 18), 96 if lit else 70, (62, 128, 196) if lit else (12, 8, 7))
    painter.rect(x - 0.6, y - 18, x + 0.6, y - 2, (92, 96, 100), 68)


def _cafe(painter: Painter) -> None:
    x0, y0, x1, y1 = CAFE_WINDOW
    wood: Bgr = (44, 62, 48)
    painter.rect(176, 208, 314, FACADE_Y, wood, 78)
    painter.rect(x0 - 3, y0 - 3, x1 + 3, y1 + 3, (58, 82, 64), 80)
    for step in range(12):
        share = 1.0 - 0.5 * step / 12
        y = y0 + (y1 - y0) * step / 12
        glow: Bgr = (int(78 * share), int(150 * share), int(224 * share))
        painter.rect(x0, y, x1, y1, (20, 20, 20), round(98 + 12 * share), glow)
    for x in (x0 + 16, x0 + 44, x0 + 72):  # lamps over the tables
        painter.rect(x - 0.4, y0, x + 0.4, y0 + 9, (20, 30, 40), None, glow=(20, 40, 60))
        painter.polygon([(x - 5, y0 + 14), (x, y0 + 8), (x + 5, y0 + 14)], BLACK, 126, glow=(190, 232, 255))
    for x in (x0 + 22, x0 + 62):  # tables and chairs against the light
        painter.rect(x - 9, y1 - 17, x + 9, y1 - 15, BLACK, None, glow=(16, 32, 50))
        painter.rect(x - 0.8, y1 - 16, x + 0.8, y1, BLACK, None, glow=(16, 32, 50))
        for side in (-14, 13):
            painter.rect(x + side, y1 - 25, x + side + 1.4, y1, BLACK, None, glow=(16, 32, 50))
            painter.rect(x + side + (1 if side < 0 else -6), y1 - 11, x + side + 7, y1 - 9, BLACK, None, (16, 32, 50))
    for x in (x0 + 29.3, x0 + 58.6):
        painter.rect(x - 0.9, y0, x + 0.9, y1, wood, 80)
    painter.rect(281, 235, 307, FACADE_Y, (58, 82, 64), 80)
    painter.rect(284, 239, 304, 280, (20, 20, 20), 106, glow=(62, 122, 186))
    painter.rect(284, 283, 304, FACADE_Y - 2, wood, 82)
    x0, y0, x1, y1 = CAFE_SIGN
    painter.rect(x0, y0, x1, y1, (18, 18, 22), 80)
    end = x0 + 22 + painter.lettering("CAFE", x0 + 22, y0 + 3.2, 12.6, 0.17, (120, 150, 255))
    painter.lettering("24h", end + 13, y0 + 3.2, 12.6, 0.17, (225, 225, 130))
