"""An engine and a tone together: two pictures in, one out."""

from __future__ import annotations

import time
from collections import deque
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from streamfuse.alignment import Aligner
from streamfuse.calibration.model import Calibration, load
from streamfuse.closeable import Closeable
from streamfuse.color import Chroma, Plane
from streamfuse.color_conversion import split_bgr, to_bgr
from streamfuse.engines import create_engine
from streamfuse.engines.presets import choose_preset, parse_preset
from streamfuse.errors import EngineError, InputError
from streamfuse.frames import DEFAULT_PERIOD_NS
from streamfuse.network.config import MIN_SIDE
from streamfuse.tone import make_tone

if TYPE_CHECKING:
    from streamfuse.engines.base import Engine

Image = npt.NDArray[np.uint8]
"""(H, W) grey or (H, W, 3) BGR, uint8, as OpenCV reads it."""


class FusedLuma(NamedTuple):
    """Planes of one shape."""

    luma: Plane
    infrared: Plane
    """As it lies on the visible picture."""
    visible: Plane
    timings_ns: dict[str, int]
    """Stage name to how long it took."""


class _Begun(NamedTuple):
    """A pair that the engine works on."""

    infrared: Plane
    visible: Plane
    stamp_ns: int
    align_ns: int
    submitted_ns: int


class Fuser(Closeable):
    """Fuses pairs of pictures.

    >>> fused = streamfuse.Fuser().fuse(cv2.imread("ir.png"), cv2.imread("vis.png"))
    """

    def __init__(
        self,
        weights: str | PathLike[str] | None = None,
        engine: str | Engine = "auto",
        precision: str = "auto",
        tone: str = "per-frame",
        calibration: Calibration | str | PathLike[str] | None = None,
        crop: bool = False,
        preset: str = "auto",
        device: str = "auto",
    ) -> None:
        """`weights`: a safetensors file, None for the shipped one.  `engine`: auto, openvino, tensorrt, torch, or an
        Engine.  `device`: auto, cpu, cuda or cuda:N, where the engine runs.

        `tone`: per-frame, smooth or fixed:LO,HI (see `streamfuse.tone`).  `calibration`: where infrared lies in the
        visible picture, or the file that says so; None: only sizes may differ.  `crop`: results are cut to what both
        cameras see.  `preset`: quality, balanced, realtime, or auto: what the weights are best run at, or for live
        sources less if this machine does not keep up.  Raises EngineError (WeightsError), InputError for the
        calibration, and UsageError.
        """
        if isinstance(calibration, str | PathLike):
            calibration = load(Path(calibration))
        self._aligner = Aligner(calibration, crop)
        if isinstance(engine, str):
            path = Path(weights) if weights is not None else None
            engine = create_engine(engine, weights=path, precision=precision, device=device)
        self.engine = engine
        self._automatic = preset == "auto"
        if not self._automatic:
            engine.use(parse_preset(preset))
        self._tone = make_tone(tone, str(engine.output))
        self._calls = 0
        self._begun: deque[_Begun] = deque()

    def fuse(self, ir: Image, vis: Image) -> Image:
        """Infrared and visible picture to the fused one, of the visible one's shape (or the overlap's, with `crop`).

        Infrared in three channels is reduced to its luma and, if its size differs, resized; with a calibration it is
        warped.  A colour visible picture keeps its colour.  Raises InputError for arrays of another kind, EngineError
        where the engine fails.
        """
        ir_luma, _ = _split("infrared", ir)
        vis_luma, chroma = _split("visible", vis)
        stamp_ns = self._calls * DEFAULT_PERIOD_NS  # pictures in a row, as far as a smooth tone is concerned
        self._calls += 1
        luma = self.fuse_luma(ir_luma, vis_luma, stamp_ns).luma
        return luma if vis.ndim == 2 else to_bgr(luma, self.cut_chroma(chroma, *vis_luma.shape))

    def fuse_luma(self, ir: Plane, vis: Plane, stamp_ns: int) -> FusedLuma:
        """Luma planes (h, w) and (H, W) to (H, W) or the overlap's shape.

        Raises InputError for pictures under 16 pixels a side and for shapes that the calibration is not for,
        EngineError where the engine fails and while pairs that were begun are not finished.
        """
        if self._begun:
            raise EngineError("pairs are in flight: finish them before a single one is fused")
        self.begin_luma(ir, vis, stamp_ns)
        return self.finish_luma()

    def begin_luma(self, ir: Plane, vis: Plane, stamp_ns: int) -> None:
        """Begin with a pair, as `fuse_luma` would; up to `engine.depth` may be begun before one is finished.

        All that are begun together are of one shape.  The planes must stay as they are until it is finished.
        """
        _check_size(*vis.shape)
        begin = time.monotonic_ns()
        ir, vis = self._aligner.align(ir, vis)
        aligned = time.monotonic_ns()
        self.engine.submit(ir, vis)
        self._begun.append(_Begun(ir, vis, stamp_ns, aligned - begin, aligned))

    def finish_luma(self) -> FusedLuma:
        """The oldest pair that was begun, once it is fused."""
        if not self._begun:
            raise EngineError("no pair is in flight: begin one first")
        pair = self._begun.popleft()
        raw = self.engine.collect().raw
        fused = time.monotonic_ns()
        luma = self._aligner.finish(self._tone.apply(raw, pair.stamp_ns), pair.visible)
        toned = time.monotonic_ns()
        timings_ns = {"align": pair.align_ns, "fuse": fused - pair.submitted_ns, "tone": toned - fused}
        return FusedLuma(luma, pair.infrared, pair.visible, timings_ns)

    def infrared_alone(self, ir: Plane, shape: tuple[int, int]) -> Plane:
        """Infrared (h, w) where it lies on visible pictures of `shape` (H, W), black around it."""
        return self._aligner.align(ir, np.zeros(shape, np.uint8))[0]

    def visible_alone(self, vis: Plane) -> Plane:
        """A visible picture, cut as the fused ones are."""
        return self._aligner.cut(vis)

    def cut_chroma(self, chroma: Chroma | None, height: int, width: int) -> Chroma | None:
        """The colour that belongs to the luma of `fuse_luma`, from that of a visible frame of (height, width)."""
        return self._aligner.cut_chroma(chroma, height, width)

    def prepare(self, height: int, width: int, period_ns: int | None = None) -> None:
        """Build or load the engine for visible pictures of this size; `fuse` does it when it must.

        `period_ns`: a live source sends so often; preset auto is decided by it, once.
        """
        _check_size(height, width)
        shape = self._aligner.output_shape(height, width)
        if self._automatic and period_ns is not None:
            self._automatic = False
            choose_preset(self.engine, *shape, period_ns)
        self.engine.prepare(*shape)

    def close(self) -> None:
        self._begun.clear()
        self.engine.close()


def _check_size(height: int, width: int) -> None:
    if min(height, width) < MIN_SIDE:
        raise InputError(f"the visible picture is {width}x{height}: the network needs {MIN_SIDE} pixels a side")


def _split(role: str, image: Image) -> tuple[Plane, Chroma | None]:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = getattr(image, "dtype", type(image).__name__)
        raise InputError(f"the {role} picture must be a uint8 array, got {got}; was the file read?")
    if image.ndim == 2:
        return image, None
    if image.ndim == 3 and image.shape[2] == 3:
        return split_bgr(image)
    raise InputError(f"the {role} picture must be (H, W) or (H, W, 3), got {image.shape}")
