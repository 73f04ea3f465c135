"""Engines on a GPU that overlap copies with computation.

A pair is uploaded on one stream, computed on a second and finished on a third, so that in the best case the GPU
computes without a pause.  Input buffers are doubled: one is filled while the other is used.  Every pair in flight has
its own output, which stays on the device: the tone is applied there, and only luma is downloaded.

    host     wait up(n-2)      write pair n into pinned memory
    upload   wait done(n-2)    pinned memory to device, record up(n)
    compute  wait up(n)        the network, its least and largest value to pinned memory, record done(n)
    host     wait done(n)      collect pair n, check that its values are finite
    finish                     measure or stretch output n, the result to pinned memory, record out
    host     wait out          read the result; when the next pair is submitted, output n may be overwritten
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
from streamfuse.engines.base import Collected, Fused, NetworkEngine, Precision, first_line
from streamfuse.engines.device import Device, Event, Work
from streamfuse.errors import EngineError, EngineUnavailable, is_out_of_memory
from streamfuse.tone import HostPicture, quantile_rank, sample_step, stretching

Compute: TypeAlias = Callable[[Tensor, Tensor], None]
"""Enqueues the computation from (2, H, W) uint8, infrared and visible, to (H, W) float32, both on the device."""

DEPTH = 3
"""Pairs in flight: one uploaded, one computed, one downloaded."""
PAIRS = 2
"""Number of input and device buffers."""

DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


class _Input:
    """Buffers of a pair's pictures, and the events that guard them."""

    def __init__(self, device: Device, height: int, width: int) -> None:
        self.host = device.pinned((2, height, width), torch.uint8)
        self.device = device.buffer((2, height, width), torch.uint8)
        self.up = device.event()
        """Reached when `host` has been read."""
        self.done = device.event()
        """Reached when `device` has been read; the event of the output that was computed from it."""


class _Output:
    """Buffers of a pair's raw output."""

    def __init__(self, device: Device, height: int, width: int) -> None:
        self.raw = device.buffer((height, width), torch.float32)
        self.extremes = device.buffer((2,), torch.float32)
        self.host_extremes = device.pinned((2,), torch.float32)
        self.done: Event = device.event()
        """Reached when all of them have been written."""
        self.tag: Any = None
        """The object that was submitted with the pair."""


class DevicePicture:
    """A `streamfuse.tone.RawPicture` on a device: it is measured and stretched there, on a stream of its own.

    The pictures of a ring share its buffers, so that every method waits until its work is done.
    """

    def __init__(self, device: Device, height: int, width: int) -> None:
        self._device = device
        self._stream = device.stream()
        self._out = device.event()
        self._levels = device.buffer((height, width), torch.float32)
        self._luma = device.buffer((height, width), torch.uint8)
        self._numbers = device.buffer((2,), torch.float64)
        self._host_raw = device.pinned((height, width), torch.float32)
        self._host_luma = device.pinned((height, width), torch.uint8)
        self._host_numbers = device.pinned((2,), torch.float64)
        self._output: _Output | None = None

    def show(self, output: _Output | None) -> None:
        """Become the picture of another output, or of none."""
        self._output = output

    def _shown(self) -> _Output:
        if self._output is None:
            raise EngineError("this picture is no longer there: another pair was submitted")
        return self._output

    def _run(self, work: Work) -> None:
        self._device.run(self._stream, work)
        self._out.record(self._stream)
        self._out.synchronize()

    def extremes(self) -> tuple[float, float]:
        low, high = self._shown().host_extremes.tolist()
        return low, high

    def level(self) -> float:
        raw = self._shown().raw

        def work() -> None:
            torch.clamp(raw, 0, 1, out=self._levels)
            self._numbers[0].copy_(self._levels.mean(dtype=torch.float64))
            self._host_numbers.copy_(self._numbers, non_blocking=True)

        self._run(work)
        return float(self._host_numbers[0])

    def quantiles(self, share: float, samples: int) -> tuple[float, float]:
        raw = self._shown().raw
        step = sample_step(raw.numel(), samples)

        def work() -> None:
            ordered = raw[::step, ::step].flatten().sort().values
            rank = quantile_rank(share, len(ordered))
            self._numbers[0].copy_(ordered[rank])
            self._numbers[1].copy_(ordered[len(ordered) - 1 - rank])
            self._host_numbers.copy_(self._numbers, non_blocking=True)

        self._run(work)
        low, high = self._host_numbers.tolist()
        return low, high

    def stretch(self, low: float, high: float, guard: float = 0.0) -> Plane:
        raw = self._shown().raw
        scale, shift = (float(number) for number in stretching(low, high, guard))

        def work() -> None:
            torch.mul(raw, scale, out=self._levels)
            self._levels.add_(shift).clamp_(0, 255)
            self._luma.copy_(self._levels)
            self._host_luma.copy_(self._luma, non_blocking=True)

        self._run(work)
        return np.array(self._host_luma.numpy())

    def numpy(self) -> Raw:
        """Download the raw output, (H, W) float32; it belongs to the caller."""
        self._run(_copying(self._shown().raw, self._host_raw))
        return np.array(self._host_raw.numpy())

    def synchronize(self) -> None:
        """Wait for work that an error left behind."""
        self._stream.synchronize()


class Ring:
    """Pairs of one size in flight on a device.  Only one thread at a time may use it; all memory is allocated here."""

    def __init__(self, device: Device, compute: Compute, height: int, width: int, depth: int = DEPTH) -> None:
        """`depth`: largest number of pairs in flight; 1 gives the lowest latency, 3 the highest throughput."""
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.depth = depth
        self._device = device
        self._compute = compute
        self._upload, self.stream = device.stream(), device.stream()
        self._picture = DevicePicture(device, height, width)
        self._inputs = [_Input(device, height, width) for _ in range(min(PAIRS, depth))]
        self._outputs = [_Output(device, height, width) for _ in range(depth)]
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
        pictures = self._inputs[self._submitted % len(self._inputs)]
        output = self._outputs[self._submitted % self.depth]
        self._picture.show(None)

        pictures.up.synchronize()
        host = pictures.host.numpy()
        host[0], host[1] = ir, vis

        self._upload.wait_event(pictures.done)
        self._device.run(self._upload, _copying(pictures.host, pictures.device))
        pictures.up.record(self._upload)

        def work() -> None:
            self._compute(pictures.device, output.raw)
            torch.aminmax(output.raw, out=(output.extremes[0], output.extremes[1]))
            output.host_extremes.copy_(output.extremes, non_blocking=True)

        self.stream.wait_event(pictures.up)
        self._device.run(self.stream, work)
        output.done.record(self.stream)
        pictures.done = output.done

        output.tag = tag
        self._submitted += 1

    def collect(self) -> tuple[DevicePicture, Any]:
        """Wait for the oldest pair; return its picture, which is valid until the next pair is submitted, and its tag.

        Raises EngineError if no pair is in flight.
        """
        if not self.pending:
            raise EngineError("no pair is in flight: submit one first")
        output = self._outputs[self._collected % self.depth]
        self._collected += 1  # also after an error: the next call returns the next pair
        tag, output.tag = output.tag, None  # do not keep the pair's tag alive
        self._picture.show(None)
        output.done.synchronize()
        self._picture.show(output)
        return self._picture, tag

    def close(self) -> None:
        """Wait for the pairs in flight, as the device still writes to memory that is about to be freed; drop them."""
        self._picture.show(None)
        for stream in (self._upload, self.stream, self._picture):
            with contextlib.suppress(RuntimeError):  # a device that failed has been reported already
                stream.synchronize()
        self._collected = self._submitted
        for output in self._outputs:
            output.tag = None


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
                self._ring.collect()[0].stretch(0, 1)
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
            self._working().submit(ir, self._seen(ir, vis), tag)

    def collect(self) -> Fused:
        with self._explained(*(self._shape or (0, 0))):
            picture, tag = self._working().collect()
            self._check_finite(picture)
            return Fused(picture.numpy(), tag)

    def collect_picture(self) -> Collected:
        with self._explained(*(self._shape or (0, 0))):
            picture, tag = self._working().collect()
        self._check_finite(picture)
        return Collected(picture, tag)

    def _check_finite(self, picture: DevicePicture) -> None:
        if not np.isfinite(picture.extremes()).all():
            self._refuse_nan()

    def _infer(self, ir: Plane, vis: Plane) -> HostPicture:
        ring = self._working()
        if ring.pending:
            raise EngineError("pairs are in flight: collect them before fusing a single one")
        ring.submit(ir, vis)
        return HostPicture(ring.collect()[0].numpy())

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
