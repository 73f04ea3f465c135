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

QUALITY, BALANCED, REALTIME = Preset


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
        self.now += {QUALITY: 400, BALANCED: 90, REALTIME: 28}[self.preset] * MS
        return super().fuse(ir, vis)


@pytest.mark.parametrize(
    ("gpu", "period_ms", "tried"),
    [
        (0, 1000, [QUALITY]),
        (0, 111, [QUALITY, BALANCED, REALTIME]),
        (0, 113, [QUALITY, BALANCED]),
        (None, 1000, [REALTIME, BALANCED, QUALITY]),
        (None, 129, [REALTIME, BALANCED]),
        (None, 128, [REALTIME, BALANCED]),
        (None, 60, [REALTIME]),  # BALANCED takes at least twice as long: too slow
        (None, 20, [REALTIME]),
    ],
)
def test_auto_is_the_best_in_real_time(
    gpu: int | None, period_ms: int, tried: list[Preset], caplog: pytest.LogCaptureFixture
) -> None:
    """The slowest preset is tried first on a GPU; on a CPU the fastest, so that a slow machine compiles only that."""
    caplog.set_level(logging.INFO, "streamfuse")
    engine = Timed()
    engine.gpu = gpu
    choose_preset(engine, 48, 64, period_ms * MS, engine.clock)
    expected = QUALITY if period_ms == 1000 else BALANCED if period_ms in (113, 129) else REALTIME
    assert engine.preset is expected
    assert engine.prepared == tried
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (0 if expected is QUALITY else 1)  # nothing is logged for the best preset
    assert all(f"the frame interval is {period_ms} ms" in text and f"preset {expected}" in text for text in said)
    assert [record.levelno for record in caplog.records if record.levelno > logging.INFO] == (
        [logging.WARNING] if period_ms == 20 else []
    )


def test_a_machine_on_which_no_preset_keeps_up_is_told_what_to_expect(caplog: pytest.LogCaptureFixture) -> None:
    engine = Timed()
    choose_preset(engine, 48, 64, 20 * MS, engine.clock)
    assert [record.getMessage() for record in caplog.records] == [
        "preset realtime, the fastest, is too slow for every frame: the frame interval is 20 ms, and the network takes "
        "28 ms, so expect about 36 fps"
    ]


def test_auto_is_decided_once_and_only_in_real_time() -> None:
    engine = Timed()
    fuser = Fuser(engine=engine)
    fuser.prepare(48, 64)
    assert engine.preset is QUALITY
    fuser.prepare(48, 64, period_ns=1)
    assert engine.prepared == [QUALITY, REALTIME, REALTIME]
    fuser.prepare(48, 64, period_ns=10**12)
    assert engine.prepared[-1] is REALTIME


def test_single_preset_is_not_timed() -> None:
    engine = Timed()
    engine.use(REALTIME)
    choose_preset(engine, 48, 64, 1, engine.clock)
    assert (engine.preset, engine.prepared, engine.now) == (REALTIME, [], 0)


def test_explicit_preset_is_kept() -> None:
    engine = Timed()
    Fuser(engine=engine, preset="balanced").prepare(48, 64, period_ns=1)
    assert engine.prepared == [BALANCED]


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
        for preset in (*Preset, QUALITY):
            engine.use(preset)
            engine.prepare(*ir.shape)
            pictures.append(engine.fuse(ir, vis))
    assert np.array_equal(pictures[0], pictures[3])
    differences = [float(np.abs(pictures[0] - other).mean()) for other in pictures[1:3]]
    assert differences[0] > 0.0005
    assert 0.0005 < differences[1] < 0.2
