"""Detection of a calibration board's corners or circles in a picture.

Infrared cameras see a heated board inverted and with little contrast, so both polarities are searched.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from streamfuse.calibration.geometry import Points, project, resize_matrix
from streamfuse.color import Plane

SMALL_SIDE = 480
"""Pictures with a longer side below this are doubled: their corners are too close together for OpenCV's detector."""


class Kind(enum.StrEnum):
    """Pattern of a board."""

    CHECKERBOARD = "checkerboard"
    CIRCLES = "circles"
    ASYMMETRIC_CIRCLES = "asymmetric-circles"


@dataclass(frozen=True, slots=True)
class Board:
    """Pattern and dimensions of a board."""

    kind: Kind
    columns: int
    """Inner corners, or circles, in a row."""
    rows: int
    """Inner corners, or circles, in a column."""
    square_mm: float | None = None
    """Distance between neighbouring corners or circles; half the distance in a row for asymmetric circles."""

    def points(self) -> np.ndarray:
        """Coordinates in the board's plane, (n, 3) float32, in metres where `square_mm` is given, else in squares."""
        y, x = np.mgrid[: self.rows, : self.columns]
        if self.kind is Kind.ASYMMETRIC_CIRCLES:
            x = 2 * x + y % 2
        flat = np.stack((x.ravel(), y.ravel(), np.zeros(x.size)), axis=1)
        return (flat * ((self.square_mm or 1000) / 1000)).astype(np.float32)

    def orders(self) -> list[np.ndarray]:
        """Orders in which a detector may return the points of the same board: rotated, never mirrored."""
        grid = np.arange(self.rows * self.columns).reshape(self.rows, self.columns)
        turned = [grid, grid[::-1, ::-1]]
        if self.rows == self.columns and self.kind is not Kind.ASYMMETRIC_CIRCLES:
            turned += [np.rot90(grid), np.rot90(grid, 3)]
        return [order.ravel() for order in turned]


def find_board(plane: Plane, board: Board) -> Points | None:
    """Find a board in a plane (H, W) uint8.

    Returns (n, 2) corners or centres with subpixel accuracy, row by row, or None where the board is not found.
    """
    enlarge = max(plane.shape) < SMALL_SIDE
    old = (plane.shape[0], plane.shape[1])
    new = (2 * old[0], 2 * old[1]) if enlarge else old
    if enlarge:
        plane = cast(Plane, cv2.resize(plane, new[::-1], interpolation=cv2.INTER_CUBIC))
    stretched = cast(Plane, cv2.normalize(plane, None, 0, 255, cv2.NORM_MINMAX))  # type: ignore[call-overload]
    for picture in (stretched, 255 - stretched):
        found = _corners(picture, board) if board.kind is Kind.CHECKERBOARD else _circles(picture, board)
        if found is not None:
            return project(resize_matrix(new, old), found)
    return None


def _corners(picture: Plane, board: Board) -> Points | None:
    size = (board.columns, board.rows)
    for flags in (
        cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_ACCURACY,
        cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_ACCURACY | cv2.CALIB_CB_EXHAUSTIVE,
    ):
        done, corners = cv2.findChessboardCornersSB(picture, size, flags=flags)
        if done:
            return np.asarray(corners, np.float64).reshape(-1, 2)
    return None


def _circles(picture: Plane, board: Board) -> Points | None:
    """Find dark circles on a light board."""
    parameters = cv2.SimpleBlobDetector.Params()
    parameters.minThreshold, parameters.maxThreshold, parameters.thresholdStep = 10, 245, 8
    parameters.minArea = 12
    # The circles of a board that fills the picture are half a pitch in diameter.
    parameters.maxArea = picture.size / (board.rows * board.columns)
    parameters.minDistBetweenBlobs = 4
    parameters.minCircularity, parameters.filterByCircularity = 0.6, True
    parameters.minConvexity, parameters.filterByConvexity = 0.85, True
    parameters.minInertiaRatio, parameters.filterByInertia = 0.15, True
    detector = cv2.SimpleBlobDetector.create(parameters)
    kind = cv2.CALIB_CB_ASYMMETRIC_GRID if board.kind is Kind.ASYMMETRIC_CIRCLES else cv2.CALIB_CB_SYMMETRIC_GRID
    for flags in (kind, kind | cv2.CALIB_CB_CLUSTERING):
        done, centres = cv2.findCirclesGrid(picture, (board.columns, board.rows), flags=flags, blobDetector=detector)
        if done:
            return np.asarray(centres, np.float64).reshape(-1, 2)
    return None
