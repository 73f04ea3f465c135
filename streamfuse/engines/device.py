"""Streams, events and memory of a GPU: all that engines ask of CUDA.  No engine uses `torch.cuda` itself.

`Device` is what the ring of `streamfuse.engines.cuda_streams` is written against, so that its order of work can be
tested where there is no GPU.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from streamfuse.engines.base import first_line, read_cpu
from streamfuse.errors import EngineUnavailable

Work: TypeAlias = Callable[[], None]
"""Calls that put work on a stream and return."""

WARM_UP = 3
"""Runs before a CUDA graph is captured: libraries choose kernels and take memory in the first ones."""


class Event(Protocol):
    """A place in a stream.  One that was never recorded counts as reached."""

    def record(self, stream: Any) -> None:
        """From now on it is the place that `stream` has been given work up to."""

    def synchronize(self) -> None:
        """Hold the caller until the place is reached."""


class Stream(Protocol):
    """A queue of work that is done in order."""

    def wait_event(self, event: Any) -> None:
        """What is put on this stream later begins only when the event, as recorded by now, is reached."""

    def synchronize(self) -> None:
        """Hold the caller until all work is done."""


class Device(Protocol):
    name: str
    """For people."""

    def stream(self) -> Stream: ...

    def event(self) -> Event: ...

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros on the host, for copies that go on while the host does other things."""

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros on the device."""

    def run(self, stream: Any, work: Work) -> None:
        """Put on `stream` what `work` does."""

    def time(self, stream: Any, work: Work, runs: int) -> list[float]:
        """Milliseconds that each of `runs` of `work` takes on `stream`, by the device's clock."""


class ComputeDevice(Device, Protocol):
    """A device that PyTorch computes on."""

    torch: torch.device

    @property
    def index(self) -> int | None:
        """The number of the CUDA GPU, None for the CPU."""

    def active(self) -> AbstractContextManager[object]:
        """Within it this is the device that libraries use."""

    def synchronize(self) -> None:
        """Hold the caller until the device has nothing left to do."""

    def graph(self, work: Work) -> Work:
        """`work`, run some times and then ready to be run with the least overhead.

        It must use the same memory every time and allocate none that outlives it.
        """

    def allocations(self) -> int:
        """How often memory was taken on the device since the start."""


def gpu_names() -> list[str]:
    """Of every CUDA GPU, cuda:0 first.  Raises EngineUnavailable where PyTorch can use none, with its reason."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (AssertionError, RuntimeError) as error:
        reason = first_line(error).split(". ")[0].rstrip(".")
        raise EngineUnavailable(f"no GPU that PyTorch can use ({reason}); use --device cpu") from error
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


class CudaDevice:
    """One CUDA GPU.  It is a `Device`."""

    def __init__(self, index: int = 0) -> None:
        """Raises EngineUnavailable where PyTorch has no such GPU, with PyTorch's reason."""
        names = gpu_names()
        if index >= len(names):
            known = ", ".join(f"cuda:{number} {name}" for number, name in enumerate(names)) or "none"
            raise EngineUnavailable(f"there is no GPU cuda:{index} here; there is: {known}")
        self.index = index
        self.torch = torch.device("cuda", index)
        self.name = f"CUDA GPU {names[index]}"

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability, as (8, 9)."""
        return torch.cuda.get_device_capability(self.index)

    def active(self) -> AbstractContextManager[object]:
        """Within it this is the GPU that libraries use."""
        return torch.cuda.device(self.index)

    def stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.torch)  # type: ignore[no-untyped-call]

    def event(self) -> torch.cuda.Event:
        return torch.cuda.Event()  # type: ignore[no-untyped-call]

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        with self.active():
            return torch.zeros(shape, dtype=dtype, pin_memory=True)

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.torch)

    def run(self, stream: Any, work: Work) -> None:
        with torch.cuda.stream(stream):
            work()

    def current_stream(self) -> int:
        """The handle of the stream that work goes to just now, for libraries beside PyTorch."""
        return int(torch.cuda.current_stream(self.torch).cuda_stream)

    def synchronize(self) -> None:
        """Hold the caller until the GPU has nothing left to do."""
        torch.cuda.synchronize(self.torch)

    def graph(self, work: Work) -> Work:
        """`work` captured as a CUDA graph: what it returns replays it, on whatever stream is current then.

        `work` must use the same memory every time and allocate none that outlives it.
        """
        with self.active():
            warm = self.stream()
            self.synchronize()  # what `work` reads may have been written on another stream
            with torch.cuda.stream(warm):
                for _ in range(WARM_UP):
                    work()
            warm.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the GPU meanwhile, such as decoders.
            with torch.cuda.graph(graph, stream=warm, capture_error_mode="thread_local"):
                work()
            return graph.replay

    def time(self, stream: Any, work: Work, runs: int) -> list[float]:
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(2 * runs)]  # type: ignore[no-untyped-call]
        for begin, end in zip(marks[::2], marks[1::2], strict=True):
            begin.record(stream)
            self.run(stream, work)
            end.record(stream)
        stream.synchronize()
        return [begin.elapsed_time(end) for begin, end in zip(marks[::2], marks[1::2], strict=True)]

    def allocations(self) -> int:
        return int(torch.cuda.memory_stats(self.torch)["allocation.all.allocated"])


class _HostStream:
    """Work is done when it is given, so that there is nothing to wait for."""

    def wait_event(self, event: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass


class _HostEvent:
    def record(self, stream: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass


class HostDevice:
    """The CPU as a `ComputeDevice`: what is written for a GPU runs on it, one piece of work after the other."""

    index = None

    def __init__(self) -> None:
        self.torch = torch.device("cpu")
        self.name = f"CPU {read_cpu().model}"

    def active(self) -> AbstractContextManager[object]:
        return nullcontext()

    def synchronize(self) -> None:
        pass

    def stream(self) -> _HostStream:
        return _HostStream()

    def event(self) -> _HostEvent:
        return _HostEvent()

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    buffer = pinned

    def run(self, stream: Any, work: Work) -> None:
        work()

    def graph(self, work: Work) -> Work:
        work()
        return work

    def time(self, stream: Any, work: Work, runs: int) -> list[float]:
        marks = [time.perf_counter()]
        for _ in range(runs):
            work()
            marks.append(time.perf_counter())
        return [(end - begin) * 1000 for begin, end in itertools.pairwise(marks)]

    def allocations(self) -> int:
        """Nobody counts them."""
        return 0
