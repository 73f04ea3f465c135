"""The interface of engines, and the common part of those that run the network.

An engine is made for one weights file and one precision, and prepared for one picture size at a time.  It returns the
network's raw output; `streamfuse.tone` converts that to luma, because the scaling for a single picture (min-max)
flickers in a video.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import platform
import re
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane, Raw
from streamfuse.engines.seen import as_seen
from streamfuse.errors import EngineError, EngineUnavailable, UsageError, is_out_of_memory
from streamfuse.frames import Role
from streamfuse.network.checkpoint import WeightsInfo, default_weights, read_info
from streamfuse.network.config import MIN_SIDE, Output, Preset
from streamfuse.support.closeable import Closeable
from streamfuse.tone import HostPicture, RawPicture


class Precision(enum.StrEnum):
    """Number format of the computation; sums of skip weights, LayerNorm and softmax are always FP32."""

    AUTO = "auto"
    """FP16 on a GPU; on a CPU with BF16 instructions BF16 or, by `openvino`, the faster of the two; else FP32."""
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    """Quantized layers, the rest as in AUTO; only with openvino, and only after `streamfuse build`."""


class Fused(NamedTuple):
    """The result of one submitted pair."""

    raw: Raw
    tag: Any
    """The object that was passed to `Engine.submit` with the pair."""


class Collected(NamedTuple):
    """The result of one submitted pair, in the memory of the engine's device."""

    picture: RawPicture
    """Valid until the next pair is submitted."""
    tag: Any
    """The object that was passed to `Engine.submit` with the pair."""


class Engine(Closeable):
    """Fuses pictures.  Any thread may use it, but only one at a time."""

    name: str
    """Name for `create_engine`."""
    precision: Precision
    """Number format of the computation; never AUTO."""
    measures_precision = False
    """True if precision auto is decided by measuring, for each size when it is prepared; before, it is a guess."""
    output: Output
    """Meaning of the raw values."""
    device: str
    """Name of the device, for messages."""
    gpu: int | None = None
    """Number of the CUDA GPU, None for a CPU."""
    package = ""
    """Name of the package whose version is the engine's."""
    keeps_builds = False
    """True if `prepare` stores compiled networks on disk for later starts."""
    depth: int = 1
    """Pairs that may be in flight; more than 1 for an engine that works on several at once."""
    presets: tuple[Preset, ...] = (Preset.QUALITY,)
    """Available presets, the slowest first."""
    preset: Preset = Preset.QUALITY
    """The preset in use."""
    lifted: int = 0
    """Visible pictures on which something behind white smoke or glare was drawn; see `streamfuse.engines.veil`."""

    def use(self, preset: Preset) -> None:
        """Switch to another preset; the next `prepare` builds for it.

        Raises EngineUnavailable if this engine does not have it, EngineError if its weights are missing.
        """
        if preset not in self.presets:
            available = ", ".join(self.presets)
            raise EngineUnavailable(f"engine {self.name} on {self.device} has no preset {preset}: use {available}")
        self.preset = preset

    @abstractmethod
    def prepare(self, height: int, width: int) -> None:
        """Build or load the network for pictures of this size; returns at once if it is prepared already.

        Raises EngineError for a side under 16 pixels, and if memory does not suffice for the size.
        """

    @abstractmethod
    def fuse(self, ir: Plane, vis: Plane) -> Raw:
        """Fuse infrared and visible luma, each (H, W) uint8 full range; return new raw output, (H, W) float32.

        Prepares for the size if necessary.  Raises EngineError in the cases that `prepare` does, for shapes that
        differ, and for output that is not finite.
        """

    def submit(self, ir: Plane, vis: Plane, tag: Any = None) -> None:
        """Start to fuse a pair as `fuse` does.  `tag`: any object; `collect` returns it with the result of this pair.

        The planes may be changed afterwards.  Raises EngineError in the cases that `fuse` does, and if `depth` pairs
        are in flight already.
        """
        if self.pending == self.depth:
            raise EngineError(f"{self.depth} pairs are in flight: collect one before the next is submitted")
        self._fused.append(Collected(self.fuse_picture(ir, vis), tag))

    def fuse_picture(self, ir: Plane, vis: Plane) -> RawPicture:
        """Fuse as `fuse` does, and return a picture that is valid until the next call."""
        return HostPicture(self.fuse(ir, vis))

    def collect(self) -> Fused:
        """Wait for the oldest pair in flight and return its tag and its raw output, which belongs to the caller.

        Raises EngineError if no pair is in flight, and for output that is not finite; that pair counts as collected.
        """
        picture, tag = self.collect_picture()
        return Fused(picture.numpy(), tag)

    def collect_picture(self) -> Collected:
        """Wait for the oldest pair in flight as `collect` does, but leave its raw output where it was computed.

        A tone then makes luma of it there: on a GPU that saves three of four bytes of the copy to the host.
        """
        if not self._fused:
            raise EngineError("no pair is in flight: submit one first")
        return self._fused.popleft()

    @property
    def pending(self) -> int:
        """Number of pairs submitted and not collected; `prepare` for another size and `close` may drop them."""
        return len(self._fused)

    @functools.cached_property
    def _fused(self) -> deque[Collected]:
        return deque()

    def time_network(self, ir: Plane, vis: Plane, runs: int) -> npt.NDArray[np.float64]:
        """Time the network, ms for each of `runs` runs.

        On a GPU this is measured by its own clock, without the copies to and from it; here it is the time of `fuse`.
        """
        self.fuse(ir, vis)
        times = np.empty(runs)
        for run in range(runs):
            begin = time.perf_counter_ns()
            self.fuse(ir, vis)
            times[run] = (time.perf_counter_ns() - begin) / 1e6
        return times

    def close(self) -> None:
        """Free the network and its memory and drop the pairs in flight; may be called again.

        A later `prepare` builds again.
        """
        self._fused.clear()


class NetworkEngine(Engine):
    """An engine that runs a weights file; a subclass builds the network for a size and runs it on a pair."""

    def __init__(self, weights: Path | None) -> None:
        """`weights`: None for the shipped file.  Raises WeightsError."""
        self._whole = read_info(weights or default_weights())
        self._lite = self._whole.lite()
        self.output = self._whole.config.output
        if self._lite is None:
            self.presets = tuple(preset for preset in self.presets if preset is not Preset.REALTIME)
        if self._whole.preset in self.presets:
            self.preset = self._whole.preset
        self._shape: tuple[int, int] | None = None

    @property
    def weights(self) -> WeightsInfo:
        """The weights file of the preset in use."""
        return self._lite if self.preset is Preset.REALTIME and self._lite is not None else self._whole

    def use(self, preset: Preset) -> None:
        if preset is Preset.REALTIME and preset in type(self).presets and self._lite is None:
            raise EngineError(
                f"there is no {self._whole.path.stem}-lite.safetensors beside {self._whole.path}, which preset "
                "realtime runs: make it with streamfuse train distill, or use preset balanced"
            )
        if preset is not self.preset:
            super().use(preset)
            self._shape = None

    @abstractmethod
    def _build(self, height: int, width: int) -> None: ...

    @abstractmethod
    def _infer(self, ir: Plane, vis: Plane) -> HostPicture: ...

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
        return self.fuse_picture(ir, vis).numpy()

    def fuse_picture(self, ir: Plane, vis: Plane) -> RawPicture:
        height, width = self._check_pair(ir, vis)
        self.prepare(height, width)
        with self._explained(height, width):
            picture = self._infer(ir, self._seen(ir, vis))
        if not picture.finite():
            self._refuse_nan()
        return picture

    def _seen(self, ir: Plane, vis: Plane) -> Plane:
        """Return the visible picture as the network gets it."""
        seen = as_seen(self.weights.config.veil, ir, vis)
        self.lifted += seen is not vis
        return seen

    def _check_pair(self, ir: Plane, vis: Plane) -> tuple[int, int]:
        """Validate a pair and return its (height, width); raises EngineError."""
        for role, plane in zip(Role, (ir, vis), strict=True):
            if plane.ndim != 2 or plane.dtype != np.uint8:
                raise EngineError(f"the {role.label} picture must be (H, W) uint8, got {plane.shape} {plane.dtype}")
        if ir.shape != vis.shape:
            raise EngineError(
                f"the pictures differ in size: infrared {ir.shape[1]}x{ir.shape[0]}, visible "
                f"{vis.shape[1]}x{vis.shape[0]}; align the infrared one to the visible one first"
            )
        height, width = ir.shape
        return height, width

    def _refuse_nan(self) -> NoReturn:
        cure = "the weights file is unusable" if self.precision is Precision.FP32 else "try precision fp32"
        raise EngineError(f"{self.name} in {self.precision}: the fused picture is not finite (NaN); {cure}")

    def close(self) -> None:
        super().close()
        self._shape = None

    @contextlib.contextmanager
    def _explained(self, height: int, width: int) -> Iterator[None]:
        """Convert errors of the library to EngineError; OpenVINO and PyTorch raise RuntimeError for any failure."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise EngineError(
                    f"{self.name} ran out of memory for pictures of {width}x{height} on {self.device}; use smaller ones"
                ) from error
            raise EngineError(f"{self.name} failed for pictures of {width}x{height}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, without the C++ source file that OpenVINO puts before it."""
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith("Exception from")]
    return next(filter(None, lines), type(error).__name__)


def parse_precision(asked: str) -> Precision:
    """Parse the name of a precision; raises EngineError."""
    try:
        return Precision(asked)
    except ValueError:
        raise EngineError(f"unknown precision {asked!r}: use {', '.join(Precision)}") from None


def pick_precision(asked: str, best: Precision, possible: tuple[Precision, ...], where: str) -> Precision:
    """Return the precision `asked`, or `best` for auto; raises EngineError if `where` does not support it."""
    precision = parse_precision(asked)
    if precision is Precision.AUTO:
        return best
    if precision not in possible:
        raise EngineError(f"{where} does not support precision {precision}: use {', '.join(possible)} or auto")
    return precision


def parse_device(text: str) -> int | None:
    """Parse a device: None for cpu, the number of the GPU for cuda and cuda:N.  Raises UsageError."""
    if text == "cpu":
        return None
    if match := re.fullmatch(r"cuda(?::(\d{1,3}))?", text):
        return int(match[1] or 0)
    raise UsageError(f"unknown device {text!r}: use auto, cpu, cuda or cuda:N")


def gpu_of(device: str) -> int:
    """Return the number of the GPU to decode on for an engine on `device`; 0 for auto and cpu.  Raises UsageError."""
    return (parse_device(device) if device != "auto" else 0) or 0


@dataclass(frozen=True, slots=True)
class Cpu:
    """Model and instruction sets of the CPU."""

    model: str
    flags: frozenset[str]
    """Instruction sets, named as in Linux; empty where the system does not report them."""

    @property
    def has_bf16(self) -> bool:
        """True if the CPU has BF16 instructions; otherwise BF16 is emulated, slower than FP32."""
        return not self.flags.isdisjoint({"avx512_bf16", "amx_bf16"})


@functools.cache
def read_cpu() -> Cpu:
    """Read the description of this machine's CPU."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    model = fields.get("model name") or platform.processor() or platform.machine()
    return Cpu(model, frozenset((fields.get("flags") or fields.get("Features") or "").split()))
