"""Draw docs/rig-distance.jpg of calib/README.md: `python docs/draw_distance.py`.

The drawn scene is fused for far, for most of it, and for that and each person.
"""

from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from streamfuse.alignment import Aligner
from streamfuse.calibration.model import Calibration
from streamfuse.color_conversion import to_bgr
from streamfuse.following import AlignmentWatch
from streamfuse.fuser import Fuser
from streamfuse.sources.synthetic import SyntheticSource

WIDTH, HEIGHT, FPS = 1280, 960, 20
SHOWN_S = 2.4
"""Moment that is drawn, s: somebody walks in front of the others."""
CROP = slice(480, 830), slice(110, 472)
SMALL = 408, 394
BAR = 30

ir = SyntheticSource("ir", width=WIDTH, height=HEIGHT, fps=FPS, baseline_m=0.06, seconds=4)
vis = SyntheticSource("vis", width=WIDTH, height=HEIGHT, fps=FPS, seconds=4)
rig = Calibration(
    (HEIGHT, WIDTH),
    (HEIGHT, WIDTH),
    np.eye(3),
    None,
    None,
    datetime.now(UTC).date(),
    "drawn",
    parallax=np.array([ir.parallax_px_m, 0.0, 0.0]),
)
names = ("far", "auto-plane", "auto")
aligners = {name: Aligner(rig) for name in names}
watches = {
    name: AlignmentWatch(aligners[name], automatic=True, by_object=name == "auto") for name in names if name != "far"
}
panels = []
with Fuser(preset="balanced") as fuser:
    for infrared, visible in zip(ir, vis, strict=True):
        last = infrared.stamp_ns >= SHOWN_S * 1e9
        for name, aligner in aligners.items():
            things = watches[name].offer(infrared.luma, visible.luma, infrared.stamp_ns) if name in watches else None
            aligned, _ = aligner.align(infrared.luma, visible.luma, things)
            if last:
                picture = to_bgr(fuser.fuse(aligned, visible.luma), visible.chroma)[CROP]
                panel = np.full((BAR + SMALL[1], SMALL[0], 3), 24, np.uint8)
                panel[BAR:] = cv2.resize(picture, SMALL, interpolation=cv2.INTER_AREA)
                words = f"--distance-m {name}"
                cv2.putText(panel, words, (8, 20), cv2.FONT_HERSHEY_DUPLEX, 0.5, (240, 240, 240), 1, cv2.LINE_AA)
                panels.append(panel)
        if last:
            break
for watch in watches.values():
    watch.close()
path = Path(__file__).with_name("rig-distance.jpg")
assert cv2.imwrite(str(path), np.hstack(panels), [cv2.IMWRITE_JPEG_QUALITY, 88])
