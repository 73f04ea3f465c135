"""The fuzz targets accept their seeds and all earlier findings.  The fuzzer itself is not needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import fuzz_network
import pytest
from fuzz_target import Target
from fuzz_targets import TARGETS

CASES = [
    pytest.param(target, data, id=f"{name}-{kind}-{number}")
    for name, target in TARGETS.items()
    for kind, several in (("seed", target.seeds), ("finding", target.findings))
    for number, data in enumerate(several)
]


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    yield
    fuzz_network.end()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("streamfuse")]


@pytest.mark.parametrize(("target", "data"), CASES)
@pytest.mark.timeout(60)
def test_target_handles_input(target: Target, data: bytes) -> None:
    """Within 2 s."""
    target.run(data)  # includes one-time initialisation
    began = time.process_time()
    target.run(data)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("name", TARGETS)
def test_target_accepts_valid_input(name: str) -> None:
    """Otherwise only the first check of the input would be tested."""
    assert TARGETS[name].run(TARGETS[name].seeds[0])


@pytest.mark.parametrize("name", TARGETS)
def test_target_handles_mutated_seeds(name: str) -> None:
    """Truncated, with a byte changed, and with an inserted bracket."""
    target = TARGETS[name]
    for seed in target.seeds:
        for at in range(0, len(seed), max(1, len(seed) // 20)):
            target.run(seed[:at])
            target.run(seed[:at] + b"\xff" + seed[at + 1 :])
            target.run(seed[:at] + b"[" + seed[at:])
    target.run(b"")
