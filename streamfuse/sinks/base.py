"""What every consumer of fused frames promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from streamfuse.frames import FusedFrame

if TYPE_CHECKING:
    from streamfuse.telemetry import Summary


class Sink(ABC):
    """Takes fused frames in its own thread: made in any thread, then used by one only.

    Raises OutputError from every method for what cannot be written.
    """

    name: str
    """Safe to show."""
    waits: bool = True
    """Every frame counts: a full queue holds the pipeline back.  False: a full queue drops its oldest frame."""
    drops: Mapping[str, int] = MappingProxyType({})
    """Frames that it was given and could not pass on, by reason; other threads may read it."""
    onlooker: bool = False
    """It shows what comes and keeps nothing: its frames count neither as written nor as dropped."""

    def attach(self, state: Callable[[], Summary]) -> None:  # noqa: B027 - few sinks look at the run
        """Called once, before the first frame, with what tells the state of the run; any thread may call that."""

    @abstractmethod
    def write(self, frame: FusedFrame) -> None: ...

    @abstractmethod
    def close(self, *, failed: bool = False) -> None:
        """Finish the output so that what was written can be used; called once.

        `failed`: the run ended by an error; an older output must not give way to this one.
        """
