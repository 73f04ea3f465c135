"""Synthetic pictures of two cameras: calibration boards, and one structure as infrared and visible show it."""

from __future__ import annotations

from datetime import date

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.calibration.geometry import Lens, Matrix3, Size, corners, project
from streamfuse.calibration.model import Calibration
from streamfuse.color import Plane

VGA: Size = (480, 640)
TILTED = np.array([[0.93, 0.052, 21.0], [-0.047, 0.95, 14.0], [2.1e-5, -3.2e-5, 1.0]])
"""A homography that combines zoom, rotation, shift and perspective."""


def calibration(
    homography: Matrix3 = TILTED,
    ir: Size = VGA,
    vis: Size = VGA,
    lenses: tuple[Lens | None, Lens | None] = (None, None),
) -> Calibration:
    return Calibration(ir, vis, homography, 0.5, None, date(2026, 1, 31), "test", *lenses)


def corner_error(found: Matrix3, truth: Matrix3, size: Size = VGA) -> float:
    """Mean error at the four corners, px."""
    return float(np.linalg.norm(project(found, corners(size)) - project(truth, corners(size)), axis=1).mean())


def lens(focal: float, size: Size = VGA, k1: float = 0.0, k2: float = 0.0) -> Lens:
    matrix = np.array([[focal, 0, size[1] / 2 - 0.5], [0, focal, size[0] / 2 - 0.5], [0, 0, 1.0]])
    return Lens(matrix, np.array([k1, k2, 0, 0, 0.0]))


def structure(seed: int, size: Size = VGA) -> Plane:
    """Draw patches of different grey levels with straight and round edges, spread over the picture."""
    random = np.random.default_rng(seed)
    picture = np.full(size, 120, np.uint8)
    for _ in range(160):
        x, y = random.uniform(0, size[1]), random.uniform(0, size[0])
        wide, tall = random.uniform(15, 90, 2)
        grey = float(random.integers(20, 236))
        if random.random() < 0.5:
            box = cv2.boxPoints(((x, y), (wide, tall), float(random.uniform(0, 90))))
            cv2.fillPoly(picture, [box.astype(np.int32)], grey, cv2.LINE_AA)
        else:
            centre, axes = (int(x), int(y)), (int(wide / 2), int(tall / 2))
            cv2.ellipse(picture, centre, axes, random.uniform(0, 90), 0, 360, grey, -1, cv2.LINE_AA)
    return picture


def infrared_look(picture: Plane, seed: int = 0) -> Plane:
    """Make a picture look like infrared: inverted, another gamma, blurred and noisy."""
    random = np.random.default_rng(seed)
    levels = 255 * (1 - picture / 255) ** 0.6
    blurred = cv2.GaussianBlur(levels, (0, 0), 1.2) + random.normal(0, 3, picture.shape)
    return np.asarray(np.clip(blurred, 0, 255), np.uint8)


def seen(picture: Plane, homography: Matrix3, size: Size = VGA) -> Plane:
    """Camera picture of a flat scene; `homography` maps the scene's pixels to the camera's."""
    moved = cv2.warpPerspective(picture, homography, size[::-1], flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


PITCH = 60
"""Side of a drawn board's square, px."""


def draw_board(kind: str, columns: int, rows: int) -> tuple[Plane, npt.NDArray[np.float64]]:
    """Draw a board, dark on light; also return its (n, 2) points."""
    y, x = np.mgrid[:rows, :columns]
    if kind == "asymmetric-circles":
        x = 2 * x + y % 2
    points = np.stack((x.ravel(), y.ravel()), axis=1) * PITCH + 2.0 * PITCH
    wide, tall = points.max(axis=0) + 2 * PITCH
    board = np.full((int(tall), int(wide)), 230, np.uint8)
    if kind == "checkerboard":
        for row in range(rows + 1):
            for column in range(columns + 1):
                if (row + column) % 2:
                    board[(row + 1) * PITCH : (row + 2) * PITCH, (column + 1) * PITCH : (column + 2) * PITCH] = 20
        return board, points - 0.5
    for centre in points:
        cv2.circle(board, (int(centre[0]), int(centre[1])), PITCH // 3, 20.0, -1, cv2.LINE_AA)
    return board, points


def board_pose(random: np.random.Generator, board: Plane, size: Size = VGA) -> Matrix3:
    """Random homography from board pixels to visible pixels, with the board inside the picture and slightly tilted."""
    height, width = board.shape
    share = random.uniform(0.35, 0.55)
    scale = share * size[1] / width
    left = random.uniform(0.12, 0.88 - share) * size[1]
    top = random.uniform(0.1, max(0.9 - scale * height / size[0], 0.11)) * size[0]
    at = corners((height, width)) * scale + (left, top) + random.uniform(-14, 14, (4, 2))
    found = cv2.getPerspectiveTransform(corners((height, width)).astype(np.float32), at.astype(np.float32))
    return np.asarray(found, np.float64)
