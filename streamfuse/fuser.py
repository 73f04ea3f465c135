"""The fuser: aligner, engine and tone together."""

from __future__ import annotations

import contextlib
import threading
import time
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streamfuse.alignment import AUTO, Aligner, check_distance, need_parallax, parse_distance
from streamfuse.calibration.model import Calibration, load
from streamfuse.color import Chroma, Plane
from streamfuse.color_conversion import split_bgr, to_bgr
from streamfuse.engines import create_engine
from streamfuse.engines.presets import choose_preset, parse_preset
from streamfuse.errors import EngineError, InputError, UsageError
from streamfuse.first_look import FirstLook
from streamfuse.following import Align, AlignmentWatch, Followed
from streamfuse.frames import DEFAULT_PERIOD_NS, Role
from streamfuse.network.config import MIN_SIDE
from streamfuse.support.closeable import Closeable
from streamfuse.temperature import TemperaturePlane
from streamfuse.tone import make_tone

if TYPE_CHECKING:
    from streamfuse.engines.base import Engine

Image = npt.NDArray[np.uint8]
"""(H, W) grey or (H, W, 3) BGR, uint8, as OpenCV reads it."""


class FusedLuma(NamedTuple):
    """Fused luma and its two inputs, planes of one shape."""

    luma: Plane
    infrared: Plane
    """Infrared, aligned to the visible picture."""
    visible: Plane
    timings_ns: dict[str, int]
    """Durations by stage name, ns."""
    tag: Any = None
    """The object that was passed to `Fuser.begin_luma` with the pair."""
    temperature: TemperaturePlane | None = None
    """Temperatures, aligned to the visible picture, if they were passed with the pair."""


class _Begun(NamedTuple):
    """A pair in flight: what the engine returns with its result."""

    infrared: Plane
    visible: Plane
    stamp_ns: int
    align_ns: int
    submitted_ns: int
    tag: Any
    temperature: TemperaturePlane | None


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
        distance_m: float | str | None = None,
        align: str | None = None,
    ) -> None:
        """`weights`: a safetensors file, None for the shipped one.  `engine`: auto, openvino, tensorrt,
        inductor, torch, or an Engine.  `device`: auto, cpu, cuda or cuda:N, where the engine runs.

        `tone`: per-frame, smooth or fixed:LO,HI (see `streamfuse.tone`).  `calibration`: position of infrared in the
        visible picture, or its file; None: only sizes may differ.  `crop`: cut results to what both cameras see.
        `preset`: quality, balanced, realtime, or auto: the one that suits the weights best, or in real time a
        cheaper one if this machine does not keep up.  `distance_m`: distance in metres of what must coincide, or
        "far", for a calibration with parallax, or "auto": that of most of the scene, looked for all the time, and for
        warm things before it their own ("auto-plane": without the latter); None: the calibration's own.  `align`:
        "fixed" tells (`followed`, a warning) when the cameras have moved since the calibration, "follow" also corrects
        it; without a calibration they tell when the streams do not fit each other, and "auto" then makes a calibration
        of the first seconds.  None: it is not looked for.

        The fuser closes `engine` when it is closed; if this fails, only an engine that was made here.  Raises
        EngineError (WeightsError), InputError for the calibration, and UsageError.
        """
        if isinstance(calibration, str | PathLike):
            calibration = load(Path(calibration))
        self._aligner = Aligner(calibration, crop)
        self._watch: AlignmentWatch | None = None
        if distance_m is not None and distance_m not in AUTO:
            self._aligner.set_distance(parse_distance(distance_m), jump=True)
        if distance_m in AUTO:
            need_parallax(calibration)
        self._first: FirstLook | None = None
        if align == "auto" and calibration is not None:
            raise UsageError("align auto makes a calibration: leave the calibration out, or use follow")
        if align is not None and align not in (*Align, "auto"):
            raise UsageError(f"unknown align {align!r}: use auto, {' or '.join(Align)}")
        if align is not None and calibration is None:
            self._first = FirstLook(calibrates=align == "auto")
        if distance_m in AUTO or (align is not None and calibration is not None):
            self._watch = AlignmentWatch(
                self._aligner, automatic=distance_m in AUTO, by_object=distance_m == "auto", align=align
            )
        self._distance_lock = threading.Lock()
        self._waits = True
        """Answers of the watch are waited for: not with sources in real time."""
        self._automatic = preset == "auto"
        self._calls = 0
        with contextlib.ExitStack() as made:
            if isinstance(engine, str):
                path = Path(weights) if weights is not None else None
                engine = made.enter_context(create_engine(engine, weights=path, precision=precision, device=device))
            self.engine = engine
            if not self._automatic:
                engine.use(parse_preset(preset))
            self._tone = make_tone(tone, str(engine.output))
            made.pop_all()

    @property
    def calibration(self) -> Calibration | None:
        """Calibration in use; None: only sizes may differ."""
        return self._aligner.calibration

    def fuse(self, ir: Image, vis: Image) -> Image:
        """Fuse an infrared and a visible picture; the result has the visible one's shape (with `crop`, the overlap's).

        Infrared in three channels is reduced to its luma and, if its size differs, resized; with a calibration it is
        warped.  A colour visible picture keeps its colour.  Raises InputError for arrays of another kind, EngineError
        where the engine fails.
        """
        ir_luma, _ = _split(Role.IR, ir)
        vis_luma, chroma = _split(Role.VIS, vis)
        stamp_ns = self._calls * DEFAULT_PERIOD_NS  # for a smooth tone, single pictures count as successive frames
        self._calls += 1
        luma = self.fuse_luma(ir_luma, vis_luma, stamp_ns).luma
        return luma if vis.ndim == 2 else to_bgr(luma, self.cut_chroma(chroma, *vis_luma.shape))

    def fuse_luma(self, ir: Plane, vis: Plane, stamp_ns: int) -> FusedLuma:
        """Fuse luma planes (h, w) and (H, W); the result has the shape (H, W), or with `crop` the overlap's.

        Raises InputError for pictures under 16 pixels a side and for sizes that the calibration is not for,
        EngineError if the engine fails or pairs are in flight.
        """
        if self.engine.pending:
            raise EngineError("pairs are in flight: finish them before a single one is fused")
        self.begin_luma(ir, vis, stamp_ns)
        return self.finish_luma()

    def begin_luma(
        self, ir: Plane, vis: Plane, stamp_ns: int, tag: Any = None, temperature: TemperaturePlane | None = None
    ) -> None:
        """Start to fuse a pair as `fuse_luma` does; up to `engine.depth` pairs may be in flight, all of one shape.

        The planes must not be changed before the pair is finished.  `tag`: any object; `finish_luma` returns it with
        the result of this pair.  `temperature`: of `ir`, in its shape; it is aligned like it.
        """
        _check_size(*vis.shape)
        begin = time.monotonic_ns()
        things = None if (watch := self._watch) is None else watch.offer(ir, vis, stamp_ns)
        if self._first is not None:
            self._begin_aligned(self._first.offer(ir, vis, stamp_ns))
        shape = vis.shape
        ir, vis = self._aligner.align(ir, vis, things)
        if temperature is not None:  # through the warp of the picture that it belongs to
            temperature = self._aligner.align_temperature(temperature, shape, things)
        aligned = time.monotonic_ns()
        self.engine.submit(ir, vis, _Begun(ir, vis, stamp_ns, aligned - begin, aligned, tag, temperature))

    def _begin_aligned(self, found: Calibration | None) -> None:
        """Use a calibration that was made of the first pictures."""
        if found is not None:
            self._aligner.calibrate(found)
            self._watch = AlignmentWatch(self._aligner, align=Align.FIXED, waits=self._waits)

    def finish_luma(self) -> FusedLuma:
        """Wait for the oldest pair in flight and return it fused.  Raises EngineError if none is in flight."""
        picture, pair = self.engine.collect_picture()
        assert isinstance(pair, _Begun)
        fused = time.monotonic_ns()
        luma = self._aligner.finish(self._tone.render(picture, pair.stamp_ns), pair.visible)
        toned = time.monotonic_ns()
        timings_ns = {"align": pair.align_ns, "fuse": fused - pair.submitted_ns, "tone": toned - fused}
        return FusedLuma(luma, pair.infrared, pair.visible, timings_ns, pair.tag, pair.temperature)

    def use_calibration(self, calibration: Calibration | None, crop: bool = False) -> None:
        """Align the pairs from the next one on by another calibration, as if the fuser had been made with it.

        Raises UsageError for `crop` without a calibration, EngineError if pairs are in flight.
        """
        if self.engine.pending:
            raise EngineError("pairs are in flight: finish them before the calibration changes")
        self._aligner = Aligner(calibration, crop)
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._first = None

    @property
    def distance_m(self) -> float | None:
        """Distance for which infrared was warped last, m, infinity for far; None without parallax."""
        return self._aligner.distance_m

    def set_distance(self, distance_m: float | str) -> None:
        """Warp infrared for another distance, m, "far", "auto" or "auto-plane".  Any thread may call it meanwhile.

        The warp moves there smoothly, by at most half a pixel a frame.  Raises UsageError where the calibration has no
        parallax.
        """
        with self._distance_lock:
            if distance_m in AUTO:
                need_parallax(self._aligner.calibration)
                if self._watch is None:
                    self._watch = AlignmentWatch(self._aligner, waits=self._waits)
                self._watch.follow_distance(True, by_object=distance_m == "auto")
                return
            wanted = parse_distance(distance_m)
            check_distance(self._aligner.calibration, wanted)
            if self._watch is not None:
                self._watch.follow_distance(False)
            self._aligner.set_distance(wanted)

    @property
    def followed(self) -> Followed | None:
        """State of the watch over the alignment: distance "auto" and drift; None without it.

        Any thread may read it.
        """
        watch = self._watch
        return None if watch is None else watch.state

    def place_infrared(self, ir: Plane, shape: tuple[int, int]) -> Plane:
        """Warp infrared (h, w) onto a black visible picture of `shape` (H, W), without fusion."""
        return self._aligner.align(ir, np.zeros(shape, np.uint8))[0]

    def place_temperature(self, temperature: TemperaturePlane, shape: tuple[int, int]) -> TemperaturePlane:
        """Align temperatures (h, w) to a visible picture of `shape` (H, W), without fusion."""
        return self._aligner.align_temperature(temperature, shape)

    def cut_visible(self, vis: Plane) -> Plane:
        """Cut a visible picture as the fused ones are, without fusion."""
        return self._aligner.cut(vis)

    def cut_chroma(self, chroma: Chroma | None, height: int, width: int) -> Chroma | None:
        """Cut the chroma of a visible frame of (height, width) as `fuse_luma` cuts its luma."""
        return self._aligner.cut_chroma(chroma, height, width)

    def prepare(self, height: int, width: int, period_ns: int | None = None) -> None:
        """Build or load the engine for visible pictures of this size; `fuse` does so if needed.

        `period_ns`: frame interval of a source in real time, by which preset auto is decided once.
        """
        _check_size(height, width)
        shape = self._aligner.output_shape(height, width)
        self._waits = period_ns is None
        if self._watch is not None:
            self._watch.waits = self._waits
        if self._automatic and period_ns is not None:
            self._automatic = False
            choose_preset(self.engine, *shape, period_ns)
        self.engine.prepare(*shape)

    def close(self) -> None:
        if self._first is not None:
            self._first.close()
        if self._watch is not None:
            self._watch.close()
        self.engine.close()


def _check_size(height: int, width: int) -> None:
    if min(height, width) < MIN_SIDE:
        raise InputError(f"the visible picture is {width}x{height}: the network needs {MIN_SIDE} pixels a side")


def _split(role: Role, image: Image) -> tuple[Plane, Chroma | None]:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = getattr(image, "dtype", type(image).__name__)
        raise InputError(f"the {role.label} picture must be a uint8 array, got {got}; was the file read?")
    if image.ndim == 2:
        return image, None
    if image.ndim == 3 and image.shape[2] == 3:
        return split_bgr(image)
    raise InputError(f"the {role.label} picture must be (H, W) or (H, W, 3), got {image.shape}")
