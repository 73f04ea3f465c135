"""The ring of pairs in flight and an engine that uses it, on simulated streams."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sim_device import Kind, SimDevice
from torch import Tensor

from streamfuse.color import Plane, Raw
from streamfuse.engines.base import Precision
from streamfuse.engines.cuda_streams import DevicePicture, Program, Ring, StreamedEngine
from streamfuse.engines.torch import TorchEngine
from streamfuse.engines.veil import lift_veil
from streamfuse.errors import EngineError, EngineUnavailable
from streamfuse.network import checkpoint
from streamfuse.network.config import Veil
from streamfuse.network.crossfuse import CrossFuse
from streamfuse.tone import HostPicture, RawPicture, make_tone

SHAPE = (3, 4)
PAIRS = 12
WAITS: list[Kind] = [
    ("host", "upload"),
    ("upload", "compute"),
    ("compute", "upload"),
    ("host", "compute"),
    ("host", "finish"),
]


def compute(pair: Tensor, raw: Tensor) -> None:
    raw.copy_(pair[0].float() * 256 + pair[1])


def pairs_and_results(seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    pairs = np.random.default_rng(seed).integers(0, 256, (PAIRS, 2, *SHAPE), dtype=np.uint8)
    return pairs, pairs[:, 0].astype(np.float32) * 256 + pairs[:, 1]


def results_are_right(device: SimDevice, seed: int, depth: int) -> bool:
    """Return True if all results are correct; the seed determines the order of submitting, collecting and measuring."""
    chance = random.Random(seed)
    ring = Ring(device, compute, *SHAPE, depth)
    pairs, expected = pairs_and_results(seed)
    submitted = collected = wrong = 0
    while collected < PAIRS:
        if submitted < PAIRS and ring.pending < depth and (not ring.pending or chance.random() < 0.7):
            planes = pairs[submitted].copy()
            ring.submit(planes[0], planes[1], tag=submitted)
            planes[:] = 0  # the caller may reuse its memory
            submitted += 1
        else:
            picture, tag = ring.collect()
            assert tag == collected
            wrong += not same(picture, expected[collected], chance)
            collected += 1
    ring.close()
    return not wrong


def same(picture: RawPicture, expected: Raw, chance: random.Random) -> bool:
    """Return True if a picture on the device gives what one in the host's memory gives.

    It is asked for one thing only, most often for the least work: the simulated streams advance while the host waits.
    """
    host = HostPicture(expected)
    asked: list[Callable[[RawPicture], object]] = [
        lambda one: one.extremes(),
        lambda one: one.quantiles(0.1, 4),
        lambda one: one.stretch(1000.0, 60_000.0).tolist(),
        lambda one: (one.numpy() if isinstance(one, DevicePicture) else expected).tolist(),
    ]
    ask = chance.choices(asked, (3, 1, 2, 1))[0]
    return ask(picture) == ask(host)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_results_are_right_and_in_order_under_every_schedule(depth: int) -> None:
    for seed in range(1000):
        assert results_are_right(SimDevice(seed), seed, depth), seed


@pytest.mark.parametrize("wait", WAITS, ids="-for-".join)
def test_every_wait_is_necessary(wait: Kind) -> None:
    wrong = sum(not results_are_right(SimDevice(seed, without=wait), seed, 3) for seed in range(300))
    assert wrong >= 10


def test_list_of_waits_is_complete() -> None:
    device = SimDevice()
    results_are_right(device, 0, 3)
    assert device.kinds == set(WAITS)


def test_ring_allocates_no_memory_after_creation() -> None:
    device = SimDevice()
    ring = Ring(device, compute, *SHAPE)
    made = device.made
    pair = pairs_and_results(0)[0][0]
    for _ in range(50):
        ring.submit(pair[0], pair[1])
        ring.collect()[0].stretch(0, 1)
    assert device.made == made


@pytest.mark.parametrize("name", ["per-frame", "smooth", "fixed:0.2,0.7"])
@pytest.mark.parametrize("output", ["direct", "minmax"])
def test_tones_give_the_same_luma_on_the_device(name: str, output: str) -> None:
    device, shape = SimDevice(), (48, 64)
    ring = Ring(device, lambda pair, raw: (raw.copy_(pair[0] / 200 - pair[1] / 900), None)[1], *shape)
    there, here = make_tone(name, output), make_tone(name, output)
    for k in range(8):
        ir, vis = (np.random.default_rng(2 * k + n).integers(5 * k, 200, shape, dtype=np.uint8) for n in range(2))
        raw = (torch.from_numpy(ir) / 200 - torch.from_numpy(vis) / 900).numpy()
        ring.submit(ir, vis)
        luma = there.render(ring.collect()[0], k * 40_000_000)
        assert luma.dtype == np.uint8
        assert np.array_equal(luma, here.apply(raw, k * 40_000_000)), k


def test_picture_is_gone_after_the_next_pair() -> None:
    ring = Ring(SimDevice(), compute, *SHAPE)
    pairs = pairs_and_results(0)[0]
    ring.submit(*pairs[0])
    picture, _ = ring.collect()
    ring.submit(*pairs[1])
    for use in (picture.extremes, picture.level, picture.numpy, lambda: picture.stretch(0, 1)):
        with pytest.raises(EngineError, match="another pair was submitted"):
            use()


def test_depth_limits_the_pairs_in_flight() -> None:
    ring = Ring(SimDevice(), compute, *SHAPE, depth=2)
    with pytest.raises(EngineError, match="no pair is in flight"):
        ring.collect()
    pair = pairs_and_results(0)[0][0]
    for _ in range(2):
        ring.submit(pair[0], pair[1])
    with pytest.raises(EngineError, match="2 pairs are in flight"):
        ring.submit(pair[0], pair[1])
    assert ring.pending == 2
    with pytest.raises(ValueError, match="at least 1"):
        Ring(SimDevice(), compute, *SHAPE, depth=0)


@pytest.mark.parametrize("refused", range(2), ids=["upload", "compute"])
@pytest.mark.parametrize("seed", range(20))
def test_continues_after_an_error(seed: int, refused: int) -> None:
    """An error that the launch reports at once, and one that the device reports later."""
    device = SimDevice(seed)
    ring = Ring(device, compute, *SHAPE)
    pairs, expected = pairs_and_results(seed)

    def submit(index: int) -> None:
        ir, vis = pairs[index]
        ring.submit(ir, vis, index)

    submit(0)
    device.refuses = refused
    with pytest.raises(RuntimeError, match="too many resources"):
        submit(1)
    submit(2)
    device.fails = 1
    with pytest.raises(RuntimeError, match="illegal memory access"):
        ring.collect()
    submit(3)
    for index in (2, 3):
        picture, tag = ring.collect()
        assert tag == index
        device.refuses = 0
        with pytest.raises(RuntimeError, match="too many resources"):
            picture.stretch(0, 1)
        assert np.array_equal(picture.numpy(), expected[index])
    assert not ring.pending


@pytest.mark.parametrize("seed", range(50))
def test_close_waits_for_pairs_in_flight(seed: int) -> None:
    """Otherwise the device would write to memory that has been freed."""
    device = SimDevice(seed)
    reached = []
    ring = Ring(device, lambda pair, raw: reached.append(int(pair[0, 0, 0])), *SHAPE)
    for level in (1, 2, 3):
        ring.submit(np.full(SHAPE, level, np.uint8), np.zeros(SHAPE, np.uint8))
    ring.close()
    ring.close()
    assert reached == [1, 2, 3]
    assert not ring.pending


# An engine that uses the ring


class SimEngine(StreamedEngine):
    """An engine that runs the network on the CPU, on simulated streams."""

    name = "simulated"
    precision = Precision.FP32

    def _make_program(self, height: int, width: int) -> Program:
        network = checkpoint.load(self.weights.path)
        pair, raw = torch.zeros(2, 1, 1, height, width), torch.zeros(1, 1, height, width)

        def launch() -> None:
            with torch.inference_mode():
                raw.copy_(network(pair[0], pair[1]))

        return Program(pair, raw, launch)


def picture(seed: int, height: int = 32, width: int = 40) -> Plane:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def test_engine_returns_the_output_of_the_network(weights: Path) -> None:
    pairs = [(picture(k), picture(k + 100)) for k in range(5)]
    with TorchEngine(weights, "fp32") as plain:
        expected = [plain.fuse(*pair) for pair in pairs]
    with SimEngine(weights, SimDevice(1)) as engine:
        assert engine.depth == 3
        for index in range(3):
            engine.submit(*pairs[index], index)
        results = [engine.collect()]
        engine.submit(*pairs[3], 3)
        results += [engine.collect() for _ in range(3)]
        assert [fused.tag for fused in results] == [0, 1, 2, 3]
        for fused, raw in zip(results, expected, strict=False):
            assert np.abs(fused.raw - raw).max() < 1e-5
        assert np.abs(engine.fuse(*pairs[4]) - expected[4]).max() < 1e-5
        assert engine.fuse(picture(0, 48, 32), picture(1, 48, 32)).shape == (48, 32)


def test_submitted_pairs_get_what_is_behind_white(weights: Path, tmp_path: Path) -> None:
    network = checkpoint.load(weights)
    lifting = CrossFuse(replace(network.config, veil=Veil.LIFTED))
    lifting.load_state_dict(network.state_dict())
    checkpoint.save(lifting, tmp_path / "w.safetensors", storage=checkpoint.Storage.FP32)
    white = np.full((96, 128), 250, np.uint8)
    body = np.full((96, 128), 70, np.uint8)
    body[40:55, 40:90] = 200
    with SimEngine(tmp_path / "w.safetensors", SimDevice(1)) as engine, TorchEngine(weights, "fp32") as plain:
        engine.submit(body, white)
        wanted = plain.fuse(body, lift_veil(body, white))
        assert np.abs(engine.collect().raw - wanted).max() < 1e-5
        assert np.abs(engine.fuse(body, white) - wanted).max() < 1e-5
        assert np.abs(plain.fuse(body, white) - wanted).max() > 1e-3


def test_engine_with_pairs_in_flight_changes_nothing(weights: Path) -> None:
    with SimEngine(weights, SimDevice(2)) as engine:
        with pytest.raises(EngineError, match="no pair is in flight"):
            engine.collect()
        engine.submit(picture(0), picture(1))
        with pytest.raises(EngineError, match="collect them before fusing a single one"):
            engine.fuse(picture(0), picture(1))
        with pytest.raises(EngineError, match="collect them before the size changes"):
            engine.submit(picture(0, 48, 32), picture(1, 48, 32))
        assert engine.pending == 1
        engine.collect()
    assert not engine.pending


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("CUDA error: no kernel image is available for execution on the device", EngineUnavailable),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", EngineError),
    ],
)
def test_failed_start_allows_a_fallback_unless_out_of_memory(weights: Path, said: str, kind: type[EngineError]) -> None:
    class Failing(SimEngine):
        def _make_program(self, height: int, width: int) -> Program:
            def launch() -> None:
                raise RuntimeError(said)

            return replace(super()._make_program(height, width), launch=launch)

    with Failing(weights, SimDevice(4)) as engine:
        for _ in range(2):
            with pytest.raises(EngineError) as caught:
                engine.prepare(32, 40)
            assert type(caught.value) is kind
        assert not engine.pending


def test_engine_reports_errors_of_the_device(weights: Path) -> None:
    device = SimDevice(3)
    with SimEngine(weights, device) as engine:
        for _ in range(2):
            engine.submit(picture(0), picture(1))
        device.fails = 1
        with pytest.raises(EngineError, match="simulated failed for pictures of 40x32: CUDA error: an illegal"):
            engine.collect()
        assert engine.collect().raw.shape == (32, 40)
