"""The shallow path of the network on a CPU, as one pass over the picture by several threads.

The deep path, which is small (`Preset.factor`), is left to the engine: `shrink` gives the pictures for it, `finish`
takes its result.  Exact to the graph of `streamfuse.network.scaled` within 1e-5.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamfuse.color import Plane, Raw
from streamfuse.engines import native
from streamfuse.engines.base import Cpu
from streamfuse.engines.cache import Cache, code_digest, entry_key
from streamfuse.engines.shallow_layout import LINE, memory_size
from streamfuse.network.config import CrossFuseConfig, Ends, SkipArea, SkipBorder
from streamfuse.tone import HostPicture, stretching

SOURCES = [Path(__file__).with_name(f"shallow_{name}.py") for name in ("kernel", "layout", "planes", "rows")]
"""Files of the compiled functions; stored code of other contents is not used."""
STRIPS = 2
"""Strips of the picture per thread: with one, the slowest thread, which shares its core, would decide."""
LEAST_ROWS = 16
"""Least height of a strip in blocks of 2x2 pixels; each strip computes two of its neighbours' again."""
log = logging.getLogger("streamfuse")

Function = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Functions:
    """The compiled functions; see `streamfuse.engines.shallow_kernel`."""

    shallow_pass: Function
    shrink: Function
    stretch: Function


def load_functions(config: CrossFuseConfig, cpu: Cpu, cache: Cache) -> Functions:
    """Load the functions for a network from `cache`, or compile them, which takes seconds, and store them."""
    form = config.skip_power, config.skip_area is SkipArea.BLOCK, config.ends is Ends.BENT
    key = entry_key(
        engine="shallow",
        version=native.VERSION,
        config=repr(form),
        device=f"{cpu.model}: {' '.join(sorted(cpu.flags))}",
        code="".join(code_digest(path) for path in (Path(native.__file__), *SOURCES)),
    )
    if key in _loaded:
        functions, code = _loaded[key]
        if cache.load(key) is None:
            cache.store(key, code)
        return functions
    made = cache.load(key)
    if made is not None:
        try:
            functions = Functions(*native.load(made))
        except (ValueError, KeyError, RuntimeError) as error:
            cache.discard(key, str(error))
            made = None
    if made is None:
        log.info("compiling the shallow path for this CPU, once: seconds")
        made = memoryview(native.compile_numba(lambda: _make(*form)))
        cache.store(key, made)
        functions = Functions(*native.load(made))
    _loaded[key] = functions, bytes(made)
    return functions


_loaded: dict[str, tuple[Functions, bytes]] = {}
"""Functions of this process, and their object code."""


def _make(power: int, in_blocks: bool, bent: bool) -> list[Any]:
    from streamfuse.engines import shallow_kernel

    return list(shallow_kernel.make(power, in_blocks, bent))


def shallow_weights(network: Any) -> npt.NDArray[np.float32]:
    """Return what the pass needs of a `CrossFuse`, in the order that its function reads.

    For pixels of 0..255: kernels (2, C, 9) of infrared and visible, their biases (2, C); kernels and biases of the sums
    over the channels, and of the visible channels' effect on the output; the effect of each channel, and the factor of
    infrared.
    """
    from streamfuse.network.folding import FoldedDecoder

    convs = network.encoder_ir.conv, network.encoder_vis.conv
    kernels = [conv.weight.detach().double().numpy().reshape(-1, 9) / 255 for conv in convs]
    biases = [conv.bias.detach().double().numpy() for conv in convs]
    mix = FoldedDecoder(network.decoder).skip_weight.double().numpy()[0, :, 0, 0]
    parts = [
        *(kernel.ravel() for kernel in kernels),
        *biases,
        *(kernel.sum(0) for kernel in kernels),
        mix @ kernels[1],
        [biases[0].sum(), biases[1].sum(), mix @ biases[1]],
        mix,
        [network.config.skip_infrared],
    ]
    return np.concatenate(parts).astype(np.float32)


class ShallowPass:
    """The shallow path for pictures of one size.  One thread at a time may use it."""

    def __init__(
        self,
        functions: Functions,
        config: CrossFuseConfig,
        weights: npt.NDArray[np.float32],
        shape: tuple[int, int],
        factor: int,
        deep: tuple[int, int],
        threads: int,
    ) -> None:
        """`shape`: (H, W) of the pictures.  `deep`: that of the deep path's result.  `factor`: see `Preset.factor`."""
        self._functions, self._weights = functions, np.ascontiguousarray(weights)
        height, width = shape
        self.shape, self._factor, self._threads = shape, factor, threads
        blocks = -(-height // 2)
        strips = max(1, min(STRIPS * threads, blocks // LEAST_ROWS))
        ends = [blocks * strip // strips for strip in range(strips + 1)]
        size = memory_size(width, config.shallow, deep[1])
        self._memory = _aligned(strips, size)
        self._raw: Raw = np.zeros(shape, np.float32)
        self._sums = np.zeros((strips, 2))
        zeros = config.skip_border is SkipBorder.ZEROS
        self._dims = np.array(
            [
                [height, width, *deep, config.shallow, top, end, zeros, self._weights.size, size]
                for top, end in itertools.pairwise(ends)
            ],
            np.int64,
        )
        places = [enlargement(side, small, factor) for side, small in zip(shape, deep, strict=True)]
        self._first, self._second, self._share = (np.concatenate(both) for both in zip(*places, strict=True))
        self._small = np.zeros((2, -(-height // factor), -(-width // factor)), np.float32)
        self._columns = np.zeros((2, width), np.int32)
        self._shrinking = np.array([height, width, factor, 0, self._small.shape[1]], np.int64)
        self._pool = ThreadPoolExecutor(threads - 1, "shallow") if threads > 1 else None

    def shrink(self, ir: Plane, vis: Plane) -> npt.NDArray[np.float32]:
        """Return both pictures, smaller by the factor, (2, h, w) in 0..1, valid until the next call."""
        pictures = [np.ascontiguousarray(plane) for plane in (ir, vis)]
        self._share_out(
            [
                (self._functions.shrink, picture, self._small[source], self._columns[source], self._shrinking)
                for source, picture in enumerate(pictures)
            ]
        )
        return self._small

    def finish(self, ir: Plane, vis: Plane, deep: npt.NDArray[np.float32]) -> PassPicture:
        """Return the network's output for two (H, W) uint8 and the deep path's result, valid until the next call."""
        raw = self._raw
        shared = (np.ascontiguousarray(ir), np.ascontiguousarray(vis), np.ascontiguousarray(deep), raw)
        tables = self._weights, self._first, self._second, self._share
        function = self._functions.shallow_pass
        self._share_out(
            [(function, *shared, *tables, *own) for own in zip(self._memory, self._sums, self._dims, strict=True)]
        )
        total, level = self._sums.sum(axis=0)
        return PassPicture(raw, self, math.isfinite(total), float(level / raw.size))

    def stretch(self, raw: Raw, scale: np.float32, shift: np.float32) -> Plane:
        """Return raw * scale + shift, limited to 0..255 and truncated to uint8."""
        out = np.empty(raw.shape, np.uint8)
        numbers = np.array([scale, shift], np.float32)
        ends = [raw.size * part // self._threads for part in range(self._threads + 1)]
        bounds = [np.array(pair, np.int64) for pair in itertools.pairwise(ends)]
        self._share_out([(self._functions.stretch, raw, out, numbers, bound) for bound in bounds])
        return out

    def _share_out(self, calls: list[tuple[Any, ...]]) -> None:
        """Run calls of compiled functions, each with arrays as its arguments, on all threads."""
        waiting = iter(calls)
        if self._pool is None or len(calls) == 1:
            _run(waiting)
            return
        helpers = [self._pool.submit(_run, waiting) for _ in range(min(self._threads, len(calls)) - 1)]
        _run(waiting)
        for helper in helpers:
            helper.result()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def _aligned(strips: int, size: int) -> npt.NDArray[np.float32]:
    """Return zeros, (strips, size), of which value 1 of each plane, its first pixel, begins a cache line."""
    memory = np.zeros(strips * size + LINE, np.float32)
    begin = (-memory.ctypes.data // memory.itemsize - 1) % LINE
    return memory[begin : begin + strips * size].reshape(strips, size)


class PassPicture(HostPicture):
    """Output of a `ShallowPass`, in its memory; its level is known, and it is stretched by all threads."""

    def __init__(self, raw: Raw, made_by: ShallowPass, finite: bool, level: float) -> None:
        super().__init__(raw)
        self._output, self._made_by = raw, made_by
        self._finite, self._level = finite, level

    def numpy(self) -> Raw:
        return self._output.copy()

    def finite(self) -> bool:
        return self._finite

    def level(self) -> float:
        return self._level

    def stretch(self, low: float, high: float, guard: float = 0.0) -> Plane:
        return self._made_by.stretch(self._output, *stretching(low, high, guard))


def _run(calls: Iterator[tuple[Any, ...]]) -> None:
    """Run calls until there are none left; several threads may share the iterator."""
    for function, *arrays in calls:
        function(*[array.ctypes.data_as(_POINTER) for array in arrays])


_POINTER = native.POINTER


def smaller(picture: Plane, factor: int) -> npt.NDArray[np.float32]:
    """Return means over factor x factor pixels in 0..1; sides are rounded up by repeating the last pixels."""
    rows, columns = (-side % factor for side in picture.shape)
    padded = np.pad(picture, ((0, rows), (0, columns)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor)
    means: npt.NDArray[np.float32] = (blocks.mean(axis=(1, 3)) / 255).astype(np.float32)
    return means


def enlargement(
    side: int, small: int, factor: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return for each of `side` + 1 pixels the two pixels of `small` between which it lies, and the second's share.

    Bilinear, without alignment of the corners, for a picture that is smaller by `factor` and, since pooling dropped odd
    pixels, lacks some at both ends: those at its ends are repeated.
    """
    whole = -(-side // factor)
    at = np.maximum((np.arange(side + 1) + 0.5) / factor - 0.5, 0)
    before = (whole - small) // 2
    low = np.floor(at).astype(np.int64)
    first, second = (np.clip(np.minimum(one, whole - 1) - before, 0, small - 1) for one in (low, low + 1))
    return first.astype(np.int32), second.astype(np.int32), (at - low).astype(np.float32)
