"""The people of the demo scene: side views that walk without sliding.

A foot on the ground stays where it is while the body passes over it; hip and ankle then settle the knee.
That, and not the swing of the limbs, is what makes a walk look right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from streamfuse.sources.scene.paint import SHIFT, Bytes, Floats, View, rounded, units_per_metre

STANCE = 0.6
"""Share of a walking cycle during which a foot is on the ground."""
COVERED = 255
"""Full coverage in the canvas's middle channel."""

# Over the walking cycle of one leg, 0 = heel strike: where the ankle is above the ground (in body heights)
# and how the foot points (degrees, toes up positive).  Tuned by eye.
_CYCLE = (0.0, 0.10, 0.40, 0.52, 0.60, 0.72, 0.88, 1.0)
_ANKLE = (0.050, 0.042, 0.045, 0.062, 0.088, 0.108, 0.064, 0.050)
_PITCH = (16.0, 0.0, 0.0, -20.0, -46.0, -38.0, 8.0, 16.0)


@dataclass(frozen=True, slots=True)
class Walker:
    """A person who crosses the picture repeatedly."""

    ground_y: float
    """Design y of the feet: further down is nearer and larger."""
    height_m: float
    speed: float
    """Metres a second, to the right if positive."""
    start: float
    """Position on the path at time 0, 0..1."""
    coat: bool = False
    backpack: bool = False
    hat: bool = False
    clothes_heat: int = 165

    @property
    def near(self) -> bool:
        """The person is on the near pavement, in front of everything else."""
        return self.ground_y > 360

    def body_pixels(self, view: View) -> float:
        """Height in the picture, pixels."""
        return self.height_m * units_per_metre(self.ground_y) * view.scale

    def distance_m(self, view: View, time_s: float) -> tuple[float, float]:
        """Return the distance walked since time 0, m, and the x of the hip, design units."""
        unit = units_per_metre(self.ground_y)
        margin = unit  # a metre: nobody is half as wide, so walkers keep their distances
        span = view.right - view.left + 2 * margin
        walked = self.speed * time_s
        along = (self.start * span + walked * unit) % span
        return walked, view.left - margin + along


def draw(walker: Walker, view: View, time_s: float) -> tuple[Floats, slice, slice] | None:
    """Draw one person as a cut-out, with its rows and columns of the picture; None if outside.

    The cut-out is (h, w, 3) float32 0..255: infrared luma times coverage, coverage, visible reflectance
    times coverage.
    """
    walked, x = walker.distance_m(view, time_s)
    body = walker.body_pixels(view)
    hip_x, ground = view.pixels(view.seen_x(x, walker.ground_y), walker.ground_y)
    c0, r0 = math.floor(hip_x - 0.5 * body) - 2, math.floor(ground - 1.06 * body) - 2
    c1, r1 = math.ceil(hip_x + 0.5 * body) + 2, math.ceil(ground + 0.06 * body) + 2
    rows, columns = slice(max(r0, 0), min(r1, view.height)), slice(max(c0, 0), min(c1, view.width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    factor = 2 if body > 40 else 4
    canvas = np.zeros(((r1 - r0) * factor, (c1 - c0) * factor, 3), np.uint8)
    facing = 1.0 if walker.speed > 0 else -1.0
    pen = _Pen(canvas, (hip_x - c0) * factor, (ground - r0) * factor, body * factor, facing)
    _figure(pen, walker, abs(walked))
    cutout = cv2.resize(canvas, (c1 - c0, r1 - r0), interpolation=cv2.INTER_AREA).astype(np.float32)
    return cutout[rows.start - r0 : rows.stop - r0, columns.start - c0 : columns.stop - c0], rows, columns


class _Pen:
    """Draws in body heights: x forward from the hip, y up from the ground."""

    def __init__(self, canvas: Bytes, hip_x: float, ground: float, body: float, facing: float) -> None:
        self._canvas = canvas
        self._hip_x, self._ground, self._body, self._facing = hip_x, ground, body, facing

    def _fixed(self, x: float, y: float) -> tuple[int, int]:
        one = 1 << SHIFT
        px = self._hip_x + self._facing * x * self._body - 0.5
        py = self._ground - y * self._body - 0.5
        return round(px * one), round(py * one)

    def limb(self, a: tuple[float, float], b: tuple[float, float], ra: float, rb: float, look: tuple[int, int]) -> None:
        """Draw a limb from a to b, round at the ends, with radii ra and rb; `look` is (heat, reflectance)."""
        colour = (look[0], COVERED, look[1])
        for centre, radius in ((a, ra), (b, rb)):
            fixed = round(radius * self._body * (1 << SHIFT))
            cv2.circle(self._canvas, self._fixed(*centre), fixed, colour, cv2.FILLED, cv2.LINE_AA, SHIFT)
        dx, dy = b[0] - a[0], b[1] - a[1]
        length = math.hypot(dx, dy) or 1.0
        nx, ny = -dy / length, dx / length
        self.shape(
            [
                (a[0] + nx * ra, a[1] + ny * ra),
                (b[0] + nx * rb, b[1] + ny * rb),
                (b[0] - nx * rb, b[1] - ny * rb),
                (a[0] - nx * ra, a[1] - ny * ra),
            ],
            look,
        )

    def shape(self, points: list[tuple[float, float]], look: tuple[int, int]) -> None:
        fixed = np.array([self._fixed(*point) for point in points], np.int32)
        cv2.fillPoly(self._canvas, [fixed], (look[0], COVERED, look[1]), cv2.LINE_AA, SHIFT)

    def oval(self, centre: tuple[float, float], rx: float, ry: float, look: tuple[int, int]) -> None:
        turn = np.linspace(0.0, 2 * math.pi, 24, endpoint=False)
        self.shape([(centre[0] + rx * math.cos(t), centre[1] + ry * math.sin(t)) for t in turn], look)


def _figure(pen: _Pen, walker: Walker, walked_m: float) -> None:
    """Draw the whole person, from the far arm to the near one."""
    stride = 0.69 * (abs(walker.speed) / 1.3) ** 0.5  # body heights for a full cycle of two steps
    cycle = walked_m / (stride * walker.height_m) + 7 * walker.start
    clothes = walker.clothes_heat
    trousers, coat, skin = (clothes - 16, 52), (clothes, 74), (214, 150)
    far = -14  # the far limbs are a little cooler to the eye: turned away
    hip = (0.0, 0.515 - 0.015 * math.cos(4 * math.pi * cycle))
    chest = (0.022, hip[1] + 0.285)
    shoulder = (chest[0], chest[1] + 0.022)

    _arm(pen, shoulder, cycle + 0.5, (clothes + far, 60), (skin[0] + far, 120))
    _leg(pen, (hip[0] + 0.004, hip[1] + 0.004), cycle + 0.5, stride, (trousers[0] + far, 42), (112, 30))
    _leg(pen, hip, cycle, stride, trousers, (118, 34))
    if walker.backpack:
        pen.limb((chest[0] - 0.095, chest[1] - 0.005), (hip[0] - 0.095, hip[1] + 0.11), 0.048, 0.058, (98, 46))
    pen.limb((chest[0], chest[1]), (hip[0] + 0.004, hip[1] + 0.06), 0.064, 0.056, coat)
    pen.limb((hip[0] + 0.004, hip[1] + 0.07), (hip[0], hip[1] + 0.005), 0.056, 0.058, coat)
    if walker.coat:
        sway = 0.02 * math.sin(4 * math.pi * cycle)
        pen.shape(
            [
                (hip[0] - 0.058, hip[1] + 0.10),
                (hip[0] + 0.062, hip[1] + 0.10),
                (hip[0] + 0.088 + sway / 2, hip[1] - 0.145),
                (hip[0] - 0.094 + sway / 2, hip[1] - 0.14),
            ],
            coat,
        )
    head = (chest[0] + 0.026, chest[1] + 0.158)
    pen.limb((chest[0] + 0.006, chest[1] + 0.05), (head[0] - 0.008, head[1] - 0.03), 0.034, 0.031, (222, 140))
    _head(pen, head, walker)
    _arm(pen, shoulder, cycle, (clothes + 8, 80), skin)


def _head(pen: _Pen, head: tuple[float, float], walker: Walker) -> None:
    x, y = head
    hair = (172, 26)
    pen.oval((x - 0.006, y + 0.004), 0.056, 0.066, hair)
    # The face is what the hair leaves: from the brow past the ear down to the jaw.
    face = [(0.028, 0.046), (0.047, 0.030), (0.051, 0.008), (0.060, -0.012), (0.050, -0.018), (0.050, -0.038)]
    face += [(0.036, -0.060), (0.008, -0.058), (-0.022, -0.040), (-0.020, -0.008), (0.004, 0.002), (0.012, 0.032)]
    pen.shape(rounded([(x + dx, y + dy) for dx, dy in face]), (244, 165))
    if walker.hat:
        pen.limb((x - 0.034, y + 0.040), (x + 0.032, y + 0.044), 0.034, 0.030, (118, 40))
        pen.limb((x - 0.050, y + 0.022), (x + 0.052, y + 0.030), 0.013, 0.013, (112, 40))


def _leg(
    pen: _Pen,
    hip: tuple[float, float],
    cycle: float,
    stride: float,
    look: tuple[int, int],
    shoe: tuple[int, int],
) -> None:
    phase = cycle % 1.0
    reach = stride * STANCE / 2
    if phase < STANCE:
        ankle_x = reach * (1 - 2 * phase / STANCE)  # still on the ground while the hip moves on
    else:
        # Hermite from behind to before, leaving and landing at the speed of the ground.
        q, slope = (phase - STANCE) / (1 - STANCE), -stride * (1 - STANCE)
        ankle_x = -reach + 2 * reach * q * q * (3 - 2 * q) + slope * q * (1 - q) * (1 - 2 * q)
    ankle_y = float(np.interp(phase, _CYCLE, _ANKLE))
    pitch = math.radians(float(np.interp(phase, _CYCLE, _PITCH)))
    ankle = (ankle_x - 0.01, ankle_y)
    knee = _knee(hip, ankle, 0.247)
    heel = (ankle[0] - 0.022 * math.cos(pitch), ankle[1] - 0.024 - 0.022 * math.sin(pitch))
    toe = (heel[0] + 0.105 * math.cos(pitch), heel[1] + 0.105 * math.sin(pitch) - 0.003)
    pen.limb(heel, toe, 0.020, 0.014, shoe)
    pen.limb(hip, knee, 0.056, 0.039, look)
    pen.limb(knee, ankle, 0.038, 0.024, look)


def _knee(hip: tuple[float, float], ankle: tuple[float, float], bone: float) -> tuple[float, float]:
    """Return the position of the knee between hip and ankle; thigh and shin are equally long."""
    dx, dy = ankle[0] - hip[0], ankle[1] - hip[1]
    apart = math.hypot(dx, dy)
    bend = math.sqrt(max(bone * bone - apart * apart / 4, 0.0))
    return hip[0] + dx / 2 - dy / apart * bend, hip[1] + dy / 2 + dx / apart * bend


def _arm(
    pen: _Pen,
    shoulder: tuple[float, float],
    cycle: float,
    sleeve: tuple[int, int],
    skin: tuple[int, int],
) -> None:
    swing = -0.46 * math.cos(2 * math.pi * cycle)  # against the leg of its side
    bend = 0.30 + 0.22 * (1 + math.sin(swing / 0.46 * math.pi / 2)) / 2
    elbow = (shoulder[0] + 0.165 * math.sin(swing), shoulder[1] - 0.165 * math.cos(swing))
    wrist = (elbow[0] + 0.145 * math.sin(swing + bend), elbow[1] - 0.145 * math.cos(swing + bend))
    hand = (elbow[0] + 0.172 * math.sin(swing + bend), elbow[1] - 0.172 * math.cos(swing + bend))
    pen.limb(wrist, hand, 0.019, 0.021, skin)
    pen.limb(shoulder, elbow, 0.036, 0.029, sleeve)
    pen.limb(elbow, wrist, 0.029, 0.023, sleeve)
