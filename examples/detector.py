"""Print boxes around moving objects as JSON lines: python examples/detector.py tcp://127.0.0.1:5556

An adaptive background model (MOG2) needs no trained network; replace `Movers.find` with your own detector.  The camera
must not move.
"""

import json
import sys
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from streamfuse import Subscriber

LEAST_SHARE = 0.001
"""Smallest share of the picture that an object covers; anything smaller is noise."""
WARM_UP = 10
"""Frames until the background model is usable."""
HISTORY = 300
"""Frames after which a still object becomes background."""


class Box(NamedTuple):
    x: int
    y: int
    width: int
    height: int


class Movers:
    def __init__(self) -> None:
        self._background = cv2.createBackgroundSubtractorMOG2(history=HISTORY, varThreshold=25, detectShadows=False)
        self._seen = 0

    def find(self, luma: npt.NDArray[np.uint8]) -> list[Box]:
        """Return boxes in pixels, the largest first, for a picture (H, W) uint8."""
        self._seen += 1
        rate = 1 / self._seen if self._seen <= WARM_UP else 1 / HISTORY
        mask = self._background.apply(cv2.GaussianBlur(luma, (5, 5), 0), learningRate=rate)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
        if self._seen <= WARM_UP:
            return []
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        boxes = [Box(*cv2.boundingRect(contour)) for contour in contours]
        large = [box for box in boxes if box.width * box.height >= LEAST_SHARE * luma.size]
        return sorted(large, key=lambda box: -box.width * box.height)


def main(url: str) -> None:
    movers = Movers()
    with Subscriber(url) as subscriber:
        for frame in subscriber:
            header = frame.header
            line = {"seq": header.seq, "vis_stamp_ns": header.vis_stamp_ns, "boxes": movers.find(frame.luma)}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
