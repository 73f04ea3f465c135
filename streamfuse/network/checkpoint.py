"""Weights files.

A weights file is a safetensors file of tensors, named as the modules of `streamfuse.network.crossfuse` are, in FP16,
FP32, or at 8 bits a value with scales (`streamfuse.network.packed`), with this metadata:

    format        "streamfuse-crossfuse-1"
    depth         "1"
    skip_weights  "signed" | "magnitude"
    output        "minmax" | "direct"
    attention     "re-softmax" | "softmax"      default re-softmax
    fusion        "cam" | "cnn" | "dense"       default cam
    skip_border   "zeros" | "reflect"           default zeros
    shallow, deep, growth   channels            default 32, 128, 64
    skip_power    "1" | "2" | "4" | "8"         default 1
    skip_infrared  0 < factor <= 2              factor of infrared in the shallow skip, default 0.5
    skip_area     "pixel" | "block"             default pixel
    window        "padded" | "fitted"           default padded
    ends          "clipped" | "bent"            default clipped
    veil          "kept" | "lifted"             default kept
    preset        "quality" | "balanced" | "realtime"   the recommended preset, default quality; realtime: the
                                                file is itself a small network, for that preset

NAME-lite.safetensors beside NAME.safetensors is the small network that preset realtime runs.

Reading the header needs neither torch nor the tensors, so an engine that has a compiled copy on disk
starts without either.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamfuse.errors import WeightsError
from streamfuse.network.config import (
    Attention,
    CrossFuseConfig,
    Ends,
    Fusion,
    Output,
    Preset,
    SkipArea,
    SkipBorder,
    SkipWeights,
    Veil,
    Window,
)
from streamfuse.network.packed import SCALE, pack, unpack
from streamfuse.support.files import write_whole

if TYPE_CHECKING:
    from torch import Tensor

    from streamfuse.network.crossfuse import CrossFuse

FORMAT = "streamfuse-crossfuse-1"
MAX_HEADER_BYTES = 10_000_000
_WIDTHS = ("shallow", "deep", "growth")
_LATER = (
    *("attention", "fusion", "skip_border", *_WIDTHS, "skip_power", "skip_infrared", "skip_area", "window", "ends"),
    "veil",
)
"""Optional metadata."""
MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """Metadata, tensor types and digest of a weights file."""

    path: Path
    metadata: Mapping[str, str]
    parameters: int
    dtypes: tuple[str, ...]
    digest: str
    """SHA-256 of the whole file, hex."""

    @property
    def config(self) -> CrossFuseConfig:
        return parse_config(self.metadata, self.path)

    @property
    def preset(self) -> Preset:
        """The recommended preset."""
        return _parse_preset(self.metadata, self.path)

    @property
    def whole_digest(self) -> str:
        """Digest of everything that the presets run: this file and, if there is one, the small network's file."""
        lite = self.lite()
        if lite is None or lite is self:
            return self.digest
        return hashlib.sha256(f"{self.digest} {lite.digest}".encode()).hexdigest()

    def lite(self) -> WeightsInfo | None:
        """The small network beside this one, or None; this one if it is small.  Raises WeightsError for a bad one."""
        if self.preset is Preset.REALTIME:
            return self
        path = self.path.with_name(f"{self.path.stem}-lite{self.path.suffix}")
        if not path.is_file():
            return None
        lite = read_info(path)
        if lite.config.output is not self.config.output:
            raise WeightsError(f"{path} gives {lite.config.output} output and {self.path} {self.config.output}")
        return lite


def default_weights() -> Path:
    """Return the path of the shipped weights: beside the code if installed, under weights/ in a checkout."""
    here = Path(__file__).resolve().parent.parent
    for candidate in (here / "data" / "crossfuse.safetensors", here.parent / "weights" / "crossfuse.safetensors"):
        if candidate.is_file():
            return candidate
    raise WeightsError("the default weights are missing from this installation; name a file with --weights")


def read_info(path: Path) -> WeightsInfo:
    """Read and check the header of a weights file.  Raises WeightsError with the reason."""
    header = _read_header(path)
    declared = header.pop("__metadata__", None)
    metadata = {str(k): str(v) for k, v in declared.items()} if isinstance(declared, dict) else {}
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is not a streamfuse weights file (format {metadata.get('format', 'none')!r}, "
            f"expected {FORMAT!r}); make one with: streamfuse weights import DIR -o FILE.safetensors"
        )
    parse_config(metadata, path)
    _parse_preset(metadata, path)
    if not all(map(_is_tensor, header.values())):
        raise WeightsError(f"{path} is damaged: its header describes no tensors")
    count = sum(math.prod(tensor["shape"]) for name, tensor in header.items() if not name.endswith(SCALE))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return WeightsInfo(path, metadata, count, tuple(sorted({str(t["dtype"]) for t in header.values()})), digest)


def _is_tensor(entry: object) -> bool:
    """Return True for a valid description of a tensor.  Its sides are bounded, because the file is not trusted yet."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape = entry.get("shape")
    return (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(side) is int and 0 <= side < 1 << 32 for side in shape)
    )


def _read_header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= length <= MAX_HEADER_BYTES:
                raise WeightsError(
                    f"{path} is not a safetensors file; published checkpoints: streamfuse weights import"
                )
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise WeightsError(f"there is no weights file {path}") from None
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise WeightsError(f"{path} is not a safetensors file, or it is damaged") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{path} is not a safetensors file, or it is damaged")
    return header


def parse_config(metadata: Mapping[str, str], path: Path) -> CrossFuseConfig:
    usual = CrossFuseConfig()
    values = {key: str(getattr(usual, key)) for key in _LATER} | dict(metadata)
    try:
        return CrossFuseConfig(
            int(values["depth"]),
            SkipWeights(values["skip_weights"]),
            Output(values["output"]),
            Attention(values["attention"]),
            Fusion(values["fusion"]),
            SkipBorder(values["skip_border"]),
            **{key: int(values[key]) for key in _WIDTHS},
            skip_power=int(values["skip_power"]),
            skip_infrared=float(values["skip_infrared"]),
            skip_area=SkipArea(values["skip_area"]),
            window=Window(values["window"]),
            ends=Ends(values["ends"]),
            veil=Veil(values["veil"]),
        )
    except (KeyError, ValueError):
        keys = ("depth", "skip_weights", "output", *_LATER)
        said = ", ".join(f"{key} {values.get(key, '')!r}" for key in keys)
        raise WeightsError(f"{path}: bad metadata: {said}") from None


def _parse_preset(metadata: Mapping[str, str], path: Path) -> Preset:
    try:
        return Preset(metadata.get("preset", Preset.QUALITY))
    except ValueError:
        raise WeightsError(f"{path}: bad metadata: preset {metadata['preset']!r}") from None


def load(path: Path) -> CrossFuse:
    """Load the network of a weights file, FP32, in eval mode.

    Raises WeightsError for missing, unexpected or misshapen tensors and for values that are not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from streamfuse.network.crossfuse import CrossFuse

    config = read_info(path).config
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from None
    with torch.device("meta"):
        network = CrossFuse(config)
    names = network.state_dict()
    state = unpack(tensors, str(path))
    check_keys({k: tuple(v.shape) for k, v in names.items() if not is_counter(k)}, state, str(path))
    check_finite(state, str(path))
    state |= {key: torch.zeros((), dtype=torch.long) for key in names if is_counter(key)}
    network.load_state_dict(state, assign=True)
    return network.eval()


def is_counter(key: str) -> bool:
    """Return True for BatchNorm's counter of batches, which inference does not need and files leave out."""
    return key.endswith("num_batches_tracked")


def check_finite(tensors: Mapping[str, Tensor], label: str) -> None:
    import torch

    if bad := [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]:
        raise WeightsError(f"{label}: not finite (NaN or infinity): {_some(bad)}; the file is unusable")


def check_keys(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor], label: str) -> None:
    problems = []
    if missing := [key for key in expected if key not in found]:
        problems.append(f"missing: {_some(missing)}")
    if extra := [key for key in found if key not in expected]:
        problems.append(f"unexpected: {_some(extra)}")
    wrong = [
        f"{key} is {tuple(found[key].shape)}, not {shape}"
        for key, shape in expected.items()
        if key in found and tuple(found[key].shape) != shape
    ]
    if wrong:
        problems.append(f"wrong shape: {_some(wrong)}")
    if problems:
        raise WeightsError(f"{label} does not contain this network's weights: {'; '.join(problems)}")


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class Storage(enum.StrEnum):
    """How values are stored: by 4, 2 or 1 bytes."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


def save(
    network: CrossFuse, path: Path, *, storage: Storage = Storage.FP16, extra: Mapping[str, str] | None = None
) -> None:
    """Write a weights file atomically; with INT8 the small tensors are FP16.

    Tensors with values beyond the range of FP16 are stored in FP32.  Raises OutputError, and WeightsError for values
    that are not finite.
    """
    from safetensors.torch import save as to_bytes

    config = network.config
    metadata = {
        "format": FORMAT,
        "depth": str(config.depth),
        "skip_weights": str(config.skip_weights),
        "output": str(config.output),
        **{key: str(getattr(config, key)) for key in _LATER},
        **(extra or {}),
    }
    state = {key: value.contiguous() for key, value in network.state_dict().items() if not is_counter(key)}
    check_finite(state, f"cannot store {path}")
    if storage is Storage.INT8:
        state = pack(state)
    if storage is not Storage.FP32:
        state = {
            key: _halved(value) if value.is_floating_point() and not key.endswith(SCALE) else value
            for key, value in state.items()
        }
    write_whole(path, to_bytes(state, metadata), durable=True)


def _halved(value: Tensor) -> Tensor:
    half = value.half()
    return half if half.isfinite().all() else value
