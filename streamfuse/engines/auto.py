"""The best engine that works on this machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane, Raw
from streamfuse.engines.base import Engine, Fused
from streamfuse.errors import EngineError, EngineUnavailable, WeightsError
from streamfuse.network.config import Preset
from streamfuse.notes import warn_once

Choice: TypeAlias = tuple[str, Callable[[], Engine]]
"""What it is called, and what makes it or raises EngineError."""


class AutoEngine(Engine):
    """The first of several engines; the next one where it turns out that one cannot run here.

    That may be when it is made or when it is first prepared for a size: a driver may be too old for what
    was compiled, a compiler may fail.  Each step down is said once in a process, with the reason.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        """Raises WeightsError, and EngineError where none of the choices can be made."""
        self._left = deque(choices)
        self._wanted: Preset | None = None
        self._take()

    def _take(self) -> None:
        while True:
            _, make = self._left.popleft()
            try:
                self._engine = make()
            except WeightsError:
                raise
            except EngineError as error:
                self._step_down(error)
                continue
            try:
                if self._wanted is not None:
                    self._engine.use(self._wanted)
            except EngineError as error:
                self._engine.close()
                self._step_down(error)
            else:
                break
        self.name, self.precision, self.output = self._engine.name, self._engine.precision, self._engine.output
        self.device, self.gpu, self.depth = self._engine.device, self._engine.gpu, self._engine.depth
        self.keeps_builds = self._engine.keeps_builds
        self.presets, self.preset = self._engine.presets, self._engine.preset

    def _step_down(self, error: EngineError) -> None:
        """Say what comes instead; raises `error` if nothing does."""
        if not self._left:
            raise error
        warn_once(f"{error}; using {self._left[0][0]} instead")

    def use(self, preset: Preset) -> None:
        self._engine.use(preset)
        self.preset = self._wanted = preset

    def prepare(self, height: int, width: int) -> None:
        while True:
            try:
                return self._engine.prepare(height, width)
            except EngineUnavailable as error:
                self._step_down(error)
                self._engine.close()
                self._take()

    def fuse(self, ir: Plane, vis: Plane) -> Raw:
        self._prepare_for(ir)
        return self._engine.fuse(ir, vis)

    def submit(self, ir: Plane, vis: Plane, tag: Any = None) -> None:
        if not self.pending:
            self._prepare_for(ir)
        self._engine.submit(ir, vis, tag)

    def _prepare_for(self, ir: Plane) -> None:
        if ir.ndim == 2:  # what is wrong with others, the engine says
            self.prepare(*ir.shape)

    def collect(self) -> Fused:
        return self._engine.collect()

    @property
    def pending(self) -> int:
        return self._engine.pending

    def time_network(self, ir: Plane, vis: Plane, runs: int) -> npt.NDArray[np.float64]:
        self._prepare_for(ir)
        return self._engine.time_network(ir, vis, runs)

    def close(self) -> None:
        self._engine.close()
