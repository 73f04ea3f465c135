"""The passes over whole pictures around the shallow path, written for Numba; imported only to be compiled."""
# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numba import carray, cfunc, types

from streamfuse.engines.shallow_rows import OPTIONS, F


def make_shrink():
    """Compile the mean over blocks of factor x factor pixels, for rows `top` to `end` of the result.

    Arguments: pointers to `picture`, (H, W) uint8; `out`, (h, w) float32, 0..1; `memory`, W int32; and `dims`: H, W,
    factor, top, end.  Where the last blocks go beyond the picture, its last row and column are repeated.
    """

    @cfunc(
        types.void(
            types.CPointer(types.uint8),
            types.CPointer(types.float32),
            types.CPointer(types.int32),
            types.CPointer(types.int64),
        ),
        **OPTIONS,
    )
    def shrink(picture, out, memory, dims):
        d = carray(dims, 5)
        height, width, factor = d[0], d[1], d[2]
        columns = -(-width // factor)
        source, sums = carray(picture, (height, width)), carray(memory, width)
        target = carray(out, (-(-height // factor), columns))
        scale = F(1) / F(255 * factor * factor)
        whole = width // factor
        for y in range(d[3], d[4]):
            sums[:] = np.int32(0)
            for i in range(factor):
                row = source[min(y * factor + i, height - 1)]
                for x in range(width):
                    sums[x] += np.int32(row[x])
            for x in range(whole):
                total = np.int32(0)
                for i in range(factor):
                    total += sums[x * factor + i]
                target[y, x] = F(total) * scale
            if whole < columns:
                total = np.int32(0)
                for i in range(factor):
                    total += sums[min(whole * factor + i, width - 1)]
                target[y, whole] = F(total) * scale

    return shrink


def make_stretch():
    """Compile uint8(limit(raw * scale + shift, 0, 255)), which truncates.

    Arguments: pointers to `raw`, float32; `out`, uint8; `numbers`: scale and shift; and `dims`: first and last index.
    """

    @cfunc(
        types.void(
            types.CPointer(types.float32),
            types.CPointer(types.uint8),
            types.CPointer(types.float32),
            types.CPointer(types.int64),
        ),
        **OPTIONS,
    )
    def stretch(raw, out, numbers, dims):
        d = carray(dims, 2)
        source, target = carray(raw, d[1])[d[0] :], carray(out, d[1])[d[0] :]
        scale, shift = carray(numbers, 2)
        for i in range(d[1] - d[0]):
            target[i] = np.uint8(np.int32(min(max(source[i] * scale + shift, F(0)), F(255))))

    return stretch
