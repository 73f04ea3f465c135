"""What every engine does, and what those that run the network have in common.

An engine is made for one weights file and one precision, and prepared for one picture size at a time.
It gives the network's raw output; `streamfuse.tone` makes luma of it, because what is right for one
picture (min-max) flickers in a video.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import platform
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

from streamfuse.errors import EngineError
from streamfuse.frames import Plane
from streamfuse.network.checkpoint import WeightsInfo, default_weights, read_info
from streamfuse.network.config import MIN_SIDE, Output

Raw: TypeAlias = npt.NDArray[np.float32]
"""(H, W) float32: what the network's last layer gave; `Engine.output` says what it means."""


class Precision(enum.StrEnum):
    """What the network computes in; sums of skip weights, LayerNorm and softmax are FP32 in all of them."""

    AUTO = "auto"
    """FP16 on a GPU, BF16 on a CPU that multiplies it, else FP32."""
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Engine(ABC):
    """Fuses pictures.  One thread at a time may use it, not always the same."""

    name: str
    """As in the registry."""
    precision: Precision
    """What it computes in; never AUTO."""
    output: Output
    """What the raw values mean."""
    device: str
    """Where it runs, for people."""

    @abstractmethod
    def prepare(self, height: int, width: int) -> None:
        """Build or load what fuses pictures of this size; at once if the last call was for the same.

        Raises EngineError for a side under 16 pixels, and where the size is more than memory takes.
        """

    @abstractmethod
    def fuse(self, ir: Plane, vis: Plane) -> Raw:
        """Infrared and visible luma, each (H, W) uint8 full range, to raw output, (H, W) float32, the caller's own.

        Prepares if it must.  Raises EngineError for what `prepare` raises it for, for shapes that differ and
        for output that is not finite.
        """

    def close(self) -> None:  # noqa: B027  # an engine that holds nothing has nothing to let go of
        """Let go of the network and its memory; may be called again.  A later `prepare` builds anew."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NetworkEngine(Engine):
    """An engine that runs a weights file; a subclass says how to build for a size and how to run one pair."""

    def __init__(self, weights: Path | None) -> None:
        """`weights`: None for the shipped file.  Raises WeightsError."""
        self.weights: WeightsInfo = read_info(weights or default_weights())
        self.output = self.weights.config.output
        self._shape: tuple[int, int] | None = None

    @abstractmethod
    def _build(self, height: int, width: int) -> None: ...

    @abstractmethod
    def _infer(self, ir: Plane, vis: Plane) -> Raw: ...

    def prepare(self, height: int, width: int) -> None:
        if self._shape == (height, width):
            return
        if min(height, width) < MIN_SIDE:
            raise EngineError(
                f"pictures of {width}x{height} are too small: the network needs {MIN_SIDE} pixels a side; enlarge them"
            )
        self._shape = None
        with self._explained(height, width):
            self._build(height, width)
        self._shape = (height, width)

    def fuse(self, ir: Plane, vis: Plane) -> Raw:
        for role, plane in (("infrared", ir), ("visible", vis)):
            if plane.ndim != 2 or plane.dtype != np.uint8:
                raise EngineError(f"the {role} picture must be (H, W) uint8 luma, got {plane.shape} {plane.dtype}")
        if ir.shape != vis.shape:
            raise EngineError(
                f"the pictures differ in size: infrared {ir.shape[1]}x{ir.shape[0]}, visible "
                f"{vis.shape[1]}x{vis.shape[0]}; align the infrared one to the visible one first"
            )
        height, width = ir.shape
        self.prepare(height, width)
        with self._explained(height, width):
            raw = self._infer(ir, vis)
        if not np.isfinite(raw).all():
            cure = "the weights file is unusable" if self.precision is Precision.FP32 else "try precision fp32"
            raise EngineError(f"{self.name} in {self.precision}: the fused picture is not finite (NaN); {cure}")
        return raw

    def close(self) -> None:
        self._shape = None

    @contextlib.contextmanager
    def _explained(self, height: int, width: int) -> Iterator[None]:
        """Errors of the library underneath as EngineError; both libraries raise RuntimeError for all they meet."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or any(word in str(error).lower() for word in _OUT_OF_MEMORY):
                raise EngineError(
                    f"{self.name} ran out of memory for pictures of {width}x{height} on {self.device}; use smaller ones"
                ) from error
            raise EngineError(f"{self.name} failed for pictures of {width}x{height}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What an error says, in one line; openvino begins with the C++ file that it comes from."""
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith("Exception from")]
    return next(filter(None, lines), type(error).__name__)


_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "bad alloc")


def pick_precision(asked: str, best: Precision, possible: tuple[Precision, ...], where: str) -> Precision:
    """`asked`, or `best` for auto; raises EngineError for what cannot be on `where`."""
    try:
        precision = Precision(asked)
    except ValueError:
        raise EngineError(f"unknown precision {asked!r}: use {', '.join(Precision)}") from None
    if precision is Precision.AUTO:
        return best
    if precision not in possible:
        raise EngineError(f"precision {precision} is not to be had with {where}: use {', '.join(possible)} or auto")
    return precision


@dataclass(frozen=True, slots=True)
class Cpu:
    model: str
    flags: frozenset[str]
    """Instruction sets as Linux names them; empty on systems that do not tell."""

    @property
    def has_bf16(self) -> bool:
        """It multiplies BF16.  Elsewhere BF16 is emulated, slower than FP32."""
        return not self.flags.isdisjoint({"avx512_bf16", "amx_bf16"})


@functools.cache
def read_cpu() -> Cpu:
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    model = fields.get("model name") or platform.processor() or platform.machine()
    return Cpu(model, frozenset((fields.get("flags") or fields.get("Features") or "").split()))
