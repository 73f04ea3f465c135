"""Presets: the automatic choice, and the presets of each engine."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import pytest
from media import MS, PassThrough

from streamfuse.color import Plane
from streamfuse.engines import create_engine
from streamfuse.engines.presets import choose_preset
from streamfuse.errors import EngineError, UsageError
from streamfuse.fuser import Fuser
from streamfuse.network.config import Preset


class Timed(PassThrough):
    """An engine that takes 400, 90 or 28 ms by preset, on a simulated clock."""

    presets = tuple(Preset)

    def __init__(self) -> None:
        self.now = 0
        self.prepared: list[Preset] = []

    def clock(self) -> int:
        return self.now

    def prepare(self, height: int, width: int) -> None:
        self.prepared.append(self.preset)

    def fuse(self, ir: Plane, vis: Plane) -> npt.NDArray[np.float32]:
        self.now += {Preset.QUALITY: 400, Preset.BALANCED: 90, Preset.REALTIME: 28}[self.preset] * MS
        return super().fuse(ir, vis)


@pytest.mark.parametrize(
    ("period_ms", "expected"),
    [
        (1000, Preset.QUALITY),
        (111, Preset.REALTIME),
        (113, Preset.BALANCED),
        (40, Preset.REALTIME),
        (1, Preset.REALTIME),
    ],
)
def test_auto_is_the_best_in_real_time(period_ms: int, expected: Preset, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamfuse")
    engine = Timed()
    choose_preset(engine, 48, 64, period_ms * MS, engine.clock)
    assert engine.preset is expected
    assert engine.prepared == list(Preset)[: list(Preset).index(expected) + 1]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (0 if expected is Preset.QUALITY else 1)  # nothing is logged for the best preset
    assert all(f"preset {expected}: the frame interval is {period_ms} ms" in text for text in said)


def test_auto_is_decided_once_and_only_for_live_sources() -> None:
    engine = Timed()
    fuser = Fuser(engine=engine)
    fuser.prepare(48, 64)
    assert engine.preset is Preset.QUALITY
    fuser.prepare(48, 64, period_ns=1)
    assert engine.prepared == [Preset.QUALITY, *Preset, Preset.REALTIME]
    fuser.prepare(48, 64, period_ns=10**12)
    assert engine.prepared[-1] is Preset.REALTIME


def test_single_preset_is_not_timed() -> None:
    engine = Timed()
    engine.use(Preset.REALTIME)
    choose_preset(engine, 48, 64, 1, engine.clock)
    assert (engine.preset, engine.prepared, engine.now) == (Preset.REALTIME, [], 0)


def test_explicit_preset_is_kept() -> None:
    engine = Timed()
    Fuser(engine=engine, preset="balanced").prepare(48, 64, period_ns=1)
    assert engine.prepared == [Preset.BALANCED]


def test_unknown_presets_and_engines_without() -> None:
    with pytest.raises(UsageError, match="unknown preset 'fast': use auto, quality, balanced, realtime"):
        Fuser(engine=Timed(), preset="fast")
    with pytest.raises(EngineError, match="pass-through on none has no preset realtime: use quality"):
        Fuser(engine=PassThrough(), preset="realtime")


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_engines_switch(name: str) -> None:
    rng = np.random.default_rng(0)
    ir, vis = (np.asarray(np.kron(rng.integers(0, 256, (8, 10)), np.ones((16, 16))), np.uint8) for _ in range(2))
    with create_engine(name, precision="fp32") as engine:
        pictures = []
        for preset in (*Preset, Preset.QUALITY):
            engine.use(preset)
            engine.prepare(*ir.shape)
            pictures.append(engine.fuse(ir, vis))
    assert np.array_equal(pictures[0], pictures[3])
    differences = [float(np.abs(pictures[0] - other).mean()) for other in pictures[1:3]]
    assert differences[0] > 0.0005
    assert 0.0005 < differences[1] < 0.2
