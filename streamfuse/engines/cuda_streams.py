"""Engines on a GPU that overlap copies with computation.

A pair is uploaded on one stream, computed on a second and downloaded on a third, so that in the best case the GPU
computes without a pause.  Input and device buffers are doubled: one is filled while the other is used.  Results are
kept in separate host buffers until they are collected.

    host      wait up(n-2)                     write pair n into pinned memory
    upload    wait done(n-2)                   pinned memory to device, record up(n)
    compute   wait up(n), wait out(n-2)        the network, record done(n)
    download  wait done(n)                     device to pinned memory, record out(n)
    host      wait out(n)                      read result n
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from streamfuse.color import Plane, Raw
from streamfuse.engines.base import Fused, NetworkEngine, Precision, first_line
from streamfuse.engines.device import Device, Event, Work
from streamfuse.errors import EngineError, EngineUnavailable, is_out_of_memory

Compute: TypeAlias = Callable[[Tensor, Tensor], None]
"""Enqueues the computation from (2, H, W) uint8, infrared and visible, to (H, W) float32, both on the device."""

DEPTH = 3
"""Pairs in flight: one uploaded, one computed, one downloaded."""
PAIRS = 2
"""Number of input and device buffers."""

DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


class _Buffers:
    """Buffers of a pair's input and output, and the events that guard them."""

    def __init__(self, device: Device, height: int, width: int) -> None:
        self.host = device.pinned((2, height, width), torch.uint8)
        self.input = device.buffer((2, height, width), torch.uint8)
        self.output = device.buffer((height, width), torch.float32)
        self.up = device.event()
        """Reached when `host` has been read."""
        self.done = device.event()
        """Reached when `input` has been read and `output` written."""
        self.out = device.event()
        """Reached when `output` has been read; the event of the result that it was copied to."""


class _Result:
    """Host buffer of a pair's result."""

    def __init__(self, device: Device, height: int, width: int) -> None:
        self.host = device.pinned((height, width), torch.float32)
        self.out: Event = device.event()
        """Reached when `host` has been written."""
        self.tag: Any = None
        """The object that was submitted with the pair."""


class Ring:
    """Pairs of one size in flight on a device.  Only one thread at a time may use it; all memory is allocated here."""

    def __init__(self, device: Device, compute: Compute, height: int, width: int, depth: int = DEPTH) -> None:
        """`depth`: largest number of pairs in flight; 1 gives the lowest latency, 3 the highest throughput."""
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.depth = depth
        self._device = device
        self._compute = compute
        self._upload, self.stream, self._download = (device.stream() for _ in range(3))
        self._buffers = [_Buffers(device, height, width) for _ in range(min(PAIRS, depth))]
        self._results = [_Result(device, height, width) for _ in range(depth)]
        self._submitted = self._collected = 0

    @property
    def pending(self) -> int:
        """Number of pairs that were submitted and not collected."""
        return self._submitted - self._collected

    def submit(self, ir: Plane, vis: Plane, tag: Any = None) -> None:
        """Submit a pair, (H, W) uint8 each; the planes may be changed afterwards.  `tag`: returned by `collect`.

        Raises EngineError while `depth` pairs are in flight.
        """
        if self.pending == self.depth:
            raise EngineError(f"{self.depth} pairs are in flight: collect one before the next is submitted")
        buffers = self._buffers[self._submitted % len(self._buffers)]
        result = self._results[self._submitted % self.depth]

        buffers.up.synchronize()
        host = buffers.host.numpy()
        host[0], host[1] = ir, vis

        self._upload.wait_event(buffers.done)
        self._device.run(self._upload, _copying(buffers.host, buffers.input))
        buffers.up.record(self._upload)

        self.stream.wait_event(buffers.up)
        self.stream.wait_event(buffers.out)
        self._device.run(self.stream, lambda: self._compute(buffers.input, buffers.output))
        buffers.done.record(self.stream)

        self._download.wait_event(buffers.done)
        self._device.run(self._download, _copying(buffers.output, result.host))
        result.out.record(self._download)
        buffers.out = result.out

        result.tag = tag
        self._submitted += 1

    def collect(self) -> Fused:
        """Wait for the oldest pair; return its tag and its result, which belongs to the caller.

        Raises EngineError if no pair is in flight.
        """
        if not self.pending:
            raise EngineError("no pair is in flight: submit one first")
        result = self._results[self._collected % self.depth]
        self._collected += 1  # also after an error: the next call returns the next pair
        tag, result.tag = result.tag, None  # do not keep the pair's tag alive
        result.out.synchronize()
        return Fused(np.array(result.host.numpy()), tag)

    def close(self) -> None:
        """Wait for the pairs in flight, as the device still writes to memory that is about to be freed; drop them."""
        for stream in (self._upload, self.stream, self._download):
            with contextlib.suppress(RuntimeError):  # a device that failed has been reported already
                stream.synchronize()
        self._collected = self._submitted
        for result in self._results:
            result.tag = None


def _copying(source: Tensor, target: Tensor) -> Work:
    def work() -> None:
        target.copy_(source, non_blocking=True)

    return work


@dataclass(frozen=True, slots=True)
class Program:
    """A network for pictures of one size, ready to run, with fixed input and output buffers."""

    input: Tensor
    """(2, 1, 1, H, W), infrared and visible, 0..255, in the network's dtype."""
    output: Tensor
    """(1, 1, H, W), in the network's dtype."""
    launch: Work
    """Enqueues the network on the current stream."""

    def run(self, pair: Tensor, raw: Tensor) -> None:
        """Enqueue the copies and the network, as a `Compute`."""
        self.input.copy_(pair[:, None, None], non_blocking=True)
        self.launch()
        raw.copy_(self.output[0, 0], non_blocking=True)


class StreamedEngine(NetworkEngine):
    """An engine that runs a `Program` on a GPU and overlaps copies with computation."""

    def __init__(self, weights: Path | None, device: Device, depth: int = DEPTH) -> None:
        super().__init__(weights)
        self.depth = depth
        self.device = device.name
        self._device = device
        self._program: Program | None = None
        self._ring: Ring | None = None

    @abstractmethod
    def _make_program(self, height: int, width: int) -> Program: ...

    def _build(self, height: int, width: int) -> None:
        self._drop()
        try:
            self._program = self._make_program(height, width)
            self._ring = Ring(self._device, self._program.run, height, width, self.depth)
            nothing = np.zeros((height, width), np.uint8)
            for _ in range(self.depth):  # the first runs are slow
                self._ring.submit(nothing, nothing)
                self._ring.collect()
        except RuntimeError as error:
            self._drop()
            if is_out_of_memory(error):
                raise
            # For example "no kernel image": the library does not support this GPU or driver.
            raise EngineUnavailable(f"{self.name} does not run on {self.device}: {first_line(error)}") from error

    @property
    def pending(self) -> int:
        return self._ring.pending if self._ring is not None else 0

    def submit(self, ir: Plane, vis: Plane, tag: Any = None) -> None:
        height, width = self._check_pair(ir, vis)
        if self.pending and self._shape != (height, width):
            raise EngineError("pairs of another size are in flight: collect them before the size changes")
        self.prepare(height, width)
        with self._explained(height, width):
            self._working().submit(ir, vis, tag)

    def collect(self) -> Fused:
        with self._explained(*(self._shape or (0, 0))):
            fused = self._working().collect()
        return fused._replace(raw=self._checked(fused.raw))

    def _infer(self, ir: Plane, vis: Plane) -> Raw:
        ring = self._working()
        if ring.pending:
            raise EngineError("pairs are in flight: collect them before fusing a single one")
        ring.submit(ir, vis)
        return ring.collect().raw

    def time_network(self, ir: Plane, vis: Plane, runs: int) -> npt.NDArray[np.float64]:
        self.fuse(ir, vis)
        if self._program is None:
            raise RuntimeError("not prepared")
        return np.array(self._device.time(self._working().stream, self._program.launch, runs))

    def _working(self) -> Ring:
        if self._ring is None:
            raise EngineError("no pair is in flight: submit one first")
        return self._ring

    def _drop(self) -> None:
        if self._ring is not None:
            self._ring.close()
        self._ring = self._program = None

    def close(self) -> None:
        super().close()
        self._drop()
