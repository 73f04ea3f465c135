"""The check picture of a calibration: infrared edges drawn over the visible picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.model import Calibration
from streamfuse.calibration.overlap import infrared_coordinates
from streamfuse.color import Plane

EDGE_BGR = (60, 120, 255)
OUTLINE_BGR = (120, 220, 60)
TEXT_BGR = (235, 235, 235)
EDGE_SHARE = 0.06
"""Share of the pixels drawn as edges: enough to recognise the scene, few enough to see the picture beneath."""
MIN_WIDTH = 960
DISTANCES_M = (math.inf, 10.0, 5.0, 3.0)
"""Distances for which a calibration with parallax is drawn."""
FONT = cv2.FONT_HERSHEY_DUPLEX


def draw_check(calibration: Calibration, ir: Plane, vis: Plane) -> npt.NDArray[np.uint8]:
    """Draw infrared edges over a visible picture of the same moment; with parallax, for four distances.

    `ir`, `vis`: (h, w) and (H, W) uint8 luma.  Returns (H', W', 3) BGR with a legend, enlarged to a width of at least
    960; for four distances, two by two.  Raises InputError where the pictures' aspect ratios are not those of the
    calibration.
    """
    if calibration.parallax is None:
        return _labelled(_drawn(calibration, ir, vis), "over the visible picture: edges must be on the same objects")
    names = ["far" if distance_m == math.inf else f"{distance_m:g} m" for distance_m in DISTANCES_M]
    drawn = [(name, calibration.at(distance_m)) for name, distance_m in zip(names, DISTANCES_M, strict=True)]
    meaning = "edges must be on the same objects where these are at the distance that is written there"
    return draw_several(drawn, ir, vis, meaning)


def draw_several(
    drawn: Sequence[tuple[str, Calibration]], ir: Plane, vis: Plane, meaning: str
) -> npt.NDArray[np.uint8]:
    """Draw check pictures of several calibrations, an even number, two by two: (name, calibration), without parallax.

    `meaning`: the last words of the legend.
    """
    panels = []
    for text, calibration in drawn:
        panel = _drawn(calibration, ir, vis)
        for thickness, colour in ((5, (24, 24, 24)), (2, TEXT_BGR)):
            cv2.putText(panel, text, (14, 40), FONT, 1.2, colour, thickness, cv2.LINE_AA)
        panels.append(panel)
    sheet = np.vstack([np.hstack(panels[first : first + 2]) for first in range(0, len(panels), 2)])
    return _labelled(sheet, meaning)


def _drawn(calibration: Calibration, ir: Plane, vis: Plane) -> npt.NDArray[np.uint8]:
    calibration = calibration.for_sizes((ir.shape[0], ir.shape[1]), (vis.shape[0], vis.shape[1]))
    zoom = max(-(-MIN_WIDTH // vis.shape[1]), 1)
    large = (vis.shape[1] * zoom, vis.shape[0] * zoom)
    coordinates, mask = infrared_coordinates(calibration)
    x, y = (axis.reshape(vis.shape).astype(np.float32) for axis in coordinates.T)
    warped = cast(Plane, cv2.remap(ir, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    edges = _edges(cast(Plane, cv2.resize(warped, large, interpolation=cv2.INTER_CUBIC)), zoom)
    inside = cv2.resize(cv2.erode(mask.astype(np.uint8), np.ones((5, 5))), large, interpolation=cv2.INTER_NEAREST)
    base = cv2.createCLAHE(2.0, (8, 8)).apply(cv2.resize(vis, large, interpolation=cv2.INTER_CUBIC))
    picture = cv2.cvtColor((base * 0.6 + 40).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    drawn = cast("npt.NDArray[np.uint8]", picture)
    drawn[(edges > 0) & (np.asarray(inside) > 0)] = EDGE_BGR
    border = cv2.resize(mask.astype(np.uint8), large, interpolation=cv2.INTER_NEAREST)
    framed = cv2.copyMakeBorder(border, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    contours, _ = cv2.findContours(framed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(-1, -1))
    cv2.drawContours(drawn, contours, -1, OUTLINE_BGR, 2)
    return drawn


def _edges(plane: Plane, zoom: int) -> npt.NDArray[np.uint8]:
    smooth = cv2.GaussianBlur(plane, (0, 0), 1.2 * zoom)
    gx, gy = (cv2.Sobel(smooth, cv2.CV_16S, 1 - axis, axis) for axis in (0, 1))
    strength = np.abs(np.asarray(gx, np.int32)) + np.abs(np.asarray(gy, np.int32))
    high = max(float(np.quantile(strength, 1 - EDGE_SHARE)), 8.0)
    return cast("npt.NDArray[np.uint8]", cv2.Canny(np.asarray(gx), np.asarray(gy), high / 2, high))


def _labelled(picture: npt.NDArray[np.uint8], meaning: str) -> npt.NDArray[np.uint8]:
    height, width = picture.shape[:2]
    sheet = np.full((height + 34, width, 3), 24, np.uint8)
    sheet[:height] = picture
    x = 12
    for text, colour in (
        ("infrared edges", EDGE_BGR),
        ("border of infrared", OUTLINE_BGR),
        (meaning, TEXT_BGR),
    ):
        cv2.putText(sheet, text, (x, height + 23), FONT, 0.55, colour, 1, cv2.LINE_AA)
        x += cv2.getTextSize(text, FONT, 0.55, 1)[0][0] + 22
    return sheet
