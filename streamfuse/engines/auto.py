"""Selection of the best engine that works on this machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane, Raw
from streamfuse.engines.base import Collected, Engine, Fused
from streamfuse.errors import EngineError, EngineUnavailable, WeightsError
from streamfuse.network.config import Preset
from streamfuse.support.notes import warn_once

Choice: TypeAlias = tuple[str, Callable[[], Engine]]
"""Name of an engine, and a function that makes it or raises EngineError."""


class AutoEngine(Engine):
    """The first of several engines that works; it falls back to the next when one cannot run here.

    An engine may fail when it is made or when it is first prepared for a size, for example because the driver is too
    old or the compiler fails, and it may lack the preset that is asked for.  Each fallback is logged once per process,
    with the reason.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        """Raises WeightsError, and the last EngineError if none of the choices can be made."""
        self._choices = deque(choices)
        self._chosen: Preset | None = None
        self._make_next()

    def _make_next(self, failed: EngineError | None = None) -> None:
        """Make the next engine that can be made, and log it with the reasons against those before it, `failed` first.

        Raises WeightsError, and the last EngineError if there is none.
        """
        reasons = [] if failed is None else [str(failed)]
        while True:
            name, make = self._choices.popleft()
            try:
                self._engine = make()
                try:
                    if self._chosen is not None:
                        self._engine.use(self._chosen)
                except EngineError:
                    self._engine.close()
                    raise
            except WeightsError:
                raise
            except EngineError as error:
                if not self._choices:
                    raise
                reasons.append(str(error))
            else:
                break
        if reasons:
            warn_once(f"{'; '.join(dict.fromkeys(reasons))}; using {name} instead")
        self.name, self.precision, self.output = self._engine.name, self._engine.precision, self._engine.output
        self.device, self.gpu, self.depth = self._engine.device, self._engine.gpu, self._engine.depth
        self.keeps_builds, self.measures_precision = self._engine.keeps_builds, self._engine.measures_precision
        self.presets, self.preset = self._engine.presets, self._engine.preset

    def use(self, preset: Preset) -> None:
        try:
            self._engine.use(preset)
        except EngineUnavailable as error:
            if not self._choices:
                raise
            self._engine.close()
            self._chosen = preset
            self._make_next(error)
        self.preset = self._chosen = preset

    def prepare(self, height: int, width: int) -> None:
        while True:
            try:
                self._engine.prepare(height, width)
                self.precision = self._engine.precision  # may be chosen for the size
                return
            except EngineUnavailable as error:
                if not self._choices:
                    raise
                self._engine.close()
                self._make_next(error)

    def fuse(self, ir: Plane, vis: Plane) -> Raw:
        self._prepare_for(ir)
        return self._engine.fuse(ir, vis)

    def submit(self, ir: Plane, vis: Plane, tag: Any = None) -> None:
        if not self.pending:
            self._prepare_for(ir)
        self._engine.submit(ir, vis, tag)

    def _prepare_for(self, ir: Plane) -> None:
        if ir.ndim == 2:  # for other shapes the engine raises
            self.prepare(*ir.shape)

    def collect(self) -> Fused:
        return self._engine.collect()

    def collect_picture(self) -> Collected:
        return self._engine.collect_picture()

    @property
    def pending(self) -> int:
        return self._engine.pending

    def time_network(self, ir: Plane, vis: Plane, runs: int) -> npt.NDArray[np.float64]:
        self._prepare_for(ir)
        return self._engine.time_network(ir, vis, runs)

    def close(self) -> None:
        self._engine.close()
