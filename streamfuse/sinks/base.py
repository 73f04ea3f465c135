"""The interface of sinks, the consumers of fused frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from streamfuse.frames import FusedFrame

if TYPE_CHECKING:
    from streamfuse.telemetry import Summary


class Sink(ABC):
    """A consumer of fused frames, which runs in a thread of its own.

    It may be made in any thread; only one thread uses it.  Every method raises OutputError if the output cannot be
    written.
    """

    name: str
    """Name for messages, without secrets."""
    waits: bool = True
    """True: no frame is dropped, and a full queue blocks the pipeline.  False: a full queue drops its oldest frame."""
    drops: Mapping[str, int] = MappingProxyType({})
    """Frames that the sink received and could not deliver, by reason; other threads may read it."""
    best_effort: bool = False
    """True for a display that keeps nothing: its frames are counted neither as written nor as dropped."""

    def attach(self, state: Callable[[], Summary]) -> None:  # noqa: B027 - few sinks look at the run
        """Receive a function that returns the state of the run; called once, before the first frame.

        Any thread may call the function.
        """

    def prepare(self, example: FusedFrame, period_ns: int) -> None:  # noqa: B027 - few sinks must keep up
        """Receive a frame like those that follow, of a live stream with this interval; called once, before the first.

        A sink that can work faster or better measures here what keeps up.
        """

    @abstractmethod
    def write(self, frame: FusedFrame) -> None:
        """Write the next frame."""

    @abstractmethod
    def close(self, *, failed: bool = False) -> None:
        """Finish the output so that it can be used; called once.

        `failed`: the run ended with an error, so an existing output must not be replaced.
        """
