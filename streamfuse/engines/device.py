"""Streams, events and memory of a GPU.  Engines use CUDA only through this module.

The ring of `streamfuse.engines.cuda_streams` uses the interface `Device`, so that its synchronisation can be tested
without a GPU.
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
"""A function that enqueues work on a stream and returns."""

WARM_UP = 3
"""Runs before a CUDA graph is captured: libraries choose kernels and allocate memory in the first ones."""


class Event(Protocol):
    """A point in a stream's queue.  An event that was never recorded counts as reached."""

    def record(self, stream: Any) -> None:
        """Set the event to the current end of the stream's queue."""

    def synchronize(self) -> None:
        """Block until the event is reached."""


class Stream(Protocol):
    """A queue of work that is done in order."""

    def wait_event(self, event: Any) -> None:
        """Make work that is enqueued later wait for the event as it is recorded now."""

    def synchronize(self) -> None:
        """Block until all work is done."""


class Device(Protocol):
    """A GPU, real or simulated."""

    name: str
    """Name, for messages."""

    def stream(self) -> Stream: ...

    def event(self) -> Event: ...

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros in pinned host memory, for asynchronous copies."""

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros on the device."""

    def run(self, stream: Any, work: Work) -> None:
        """Enqueue `work` on `stream`."""

    def time(self, stream: Any, work: Work, runs: int) -> list[float]:
        """Time each of `runs` runs of `work` on `stream`, ms by the device's clock."""


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
        """Return how many blocks of memory were taken on the device since the start."""


def gpu_names() -> list[str]:
    """Return the names of the CUDA GPUs, cuda:0 first.  Raises EngineUnavailable with the reason if there are none."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (AssertionError, RuntimeError) as error:
        reason = first_line(error).split(". ")[0].rstrip(".")
        raise EngineUnavailable(f"no GPU that PyTorch can use ({reason}); use --device cpu") from error
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


class CudaDevice:
    """A CUDA GPU; implements `Device`."""

    def __init__(self, index: int = 0) -> None:
        """`index`: number of the GPU.  Raises EngineUnavailable, with the reason, if PyTorch cannot use it."""
        names = gpu_names()
        if index >= len(names):
            known = ", ".join(f"cuda:{number} {name}" for number, name in enumerate(names)) or "none"
            raise EngineUnavailable(f"there is no GPU cuda:{index}: choose one of: {known}")
        self.index = index
        self.torch = torch.device("cuda", index)
        self.name = f"CUDA GPU {names[index]}"

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability, such as (8, 9)."""
        return torch.cuda.get_device_capability(self.index)

    def active(self) -> AbstractContextManager[object]:
        """Context in which libraries use this GPU."""
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
        """Handle of PyTorch's current stream, for other libraries."""
        return int(torch.cuda.current_stream(self.torch).cuda_stream)

    def synchronize(self) -> None:
        """Block until the GPU is idle."""
        torch.cuda.synchronize(self.torch)

    def graph(self, work: Work) -> Work:
        """Capture `work` as a CUDA graph; return a function that replays it on the stream that is current then.

        `work` must use the same memory every time and must not keep memory that it allocates.
        """
        with self.active():
            warm = self.stream()
            self.synchronize()  # another stream may still write the memory that `work` reads
            with torch.cuda.stream(warm):
                for _ in range(WARM_UP):
                    work()
            warm.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Other threads, such as decoders, may use the GPU meanwhile.
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
        """Return how many blocks of memory PyTorch has taken from the driver since the start, for tests."""
        return int(torch.cuda.memory_stats(self.torch)["segment.all.allocated"])


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
