"""Functions over rows of a picture, which are kept as planes; see `streamfuse.engines.shallow_kernel`."""
# mypy: ignore-errors
# Loops over slices are what LLVM turns into vector instructions; several indices into one array prevent it.

from __future__ import annotations

import numpy as np
from numba import njit

F = np.float32
OPTIONS = {"fastmath": {"contract", "reassoc", "nsz", "arcp"}, "error_model": "numpy"}
"""Options of every function."""


@njit(**OPTIONS)
def plane(memory, index, stride):
    return memory[index * stride : (index + 1) * stride]


@njit(**OPTIONS)
def reflect(row, size):
    if row < 0:
        row = -row
    if row >= size:
        row = 2 * size - 2 - row
    return row


@njit(**OPTIONS)
def split(row, e, o, width):
    """Split a row of uint8 into planes."""
    n = (width + 1) // 2
    for j in range(width // 2):
        e[j + 1] = F(row[2 * j])
        o[j + 1] = F(row[2 * j + 1])
    if width % 2:
        e[n] = F(row[width - 1])
        o[n] = o[n - 1]
    else:
        e[n + 1] = e[n]
    o[0] = o[1]


@njit(**OPTIONS)
def convolve(e0, o0, e1, o1, e2, o2, k, b, e, o, n):
    """One row of a 3x3 conv of one channel."""
    k0, k1, k2, k3, k4, k5, k6, k7, k8 = k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8]
    for j in range(n):
        upper = k0 * o0[j] + k1 * e0[j + 1] + k2 * o0[j + 1]
        lower = k6 * o2[j] + k7 * e2[j + 1] + k8 * o2[j + 1]
        e[j + 1] = b + upper + k3 * o1[j] + k4 * e1[j + 1] + k5 * o1[j + 1] + lower
        upper = k0 * e0[j + 1] + k1 * o0[j + 1] + k2 * e0[j + 2]
        lower = k6 * e2[j + 1] + k7 * o2[j + 1] + k8 * e2[j + 2]
        o[j + 1] = b + upper + k3 * e1[j + 1] + k4 * o1[j + 1] + k5 * e1[j + 2] + lower


@njit(**OPTIONS)
def pad_sums(e, o, width, zeros):
    """Give a row of sums its elements outside the picture."""
    n = (width + 1) // 2
    if zeros:
        o[0] = F(0)
        if width % 2:
            o[n] = F(0)
        else:
            e[n + 1] = F(0)
    else:
        o[0] = o[1]
        if width % 2:
            o[n] = o[n - 1]
        else:
            e[n + 1] = e[n]


@njit(**OPTIONS)
def average(e0, o0, e1, o1, e2, o2, e, o, n):
    """One row of a 3x3 mean."""
    ninth = F(1 / 9)
    for j in range(n):
        middle = e0[j + 1] + e1[j + 1] + e2[j + 1] + o0[j + 1] + o1[j + 1] + o2[j + 1]
        e[j] = ninth * (middle + (o0[j] + o1[j] + o2[j]))
        o[j] = ninth * (middle + (e0[j + 2] + e1[j + 2] + e2[j + 2]))


@njit(**OPTIONS)
def describe(e0, o0, e1, o1, e2, o2, e3, o3, me0, mo0, me1, mo1, k, b, weight, add, d0, d1, d2, d3, g, below, n):
    """A channel of one source for a row of blocks: its strengths |x - s|, and weight * x, written or added to d.

    Rows 1 and 2 are those of the blocks, m their means s; g gets the sums over the blocks.  `below`: 1, or 0 where the
    lower row of the blocks lies below the picture and the upper one counts twice.
    """
    k0, k1, k2, k3, k4, k5, k6, k7, k8 = k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8]
    above = F(2) - below
    for j in range(n):
        x0 = k0 * o0[j] + k1 * e0[j + 1] + k2 * o0[j + 1] + k3 * o1[j] + k4 * e1[j + 1] + k5 * o1[j + 1]
        x0 += b + k6 * o2[j] + k7 * e2[j + 1] + k8 * o2[j + 1]
        x1 = k0 * e0[j + 1] + k1 * o0[j + 1] + k2 * e0[j + 2] + k3 * e1[j + 1] + k4 * o1[j + 1] + k5 * e1[j + 2]
        x1 += b + k6 * e2[j + 1] + k7 * o2[j + 1] + k8 * e2[j + 2]
        x2 = k0 * o1[j] + k1 * e1[j + 1] + k2 * o1[j + 1] + k3 * o2[j] + k4 * e2[j + 1] + k5 * o2[j + 1]
        x2 += b + k6 * o3[j] + k7 * e3[j + 1] + k8 * o3[j + 1]
        x3 = k0 * e1[j + 1] + k1 * o1[j + 1] + k2 * e1[j + 2] + k3 * e2[j + 1] + k4 * o2[j + 1] + k5 * e2[j + 2]
        x3 += b + k6 * e3[j + 1] + k7 * o3[j + 1] + k8 * e3[j + 2]
        upper, lower = abs(x0 - me0[j]) + abs(x1 - mo0[j]), abs(x2 - me1[j]) + abs(x3 - mo1[j])
        g[j + 1] = above * upper + below * lower
        if add:
            d0[j] += weight * x0
            d1[j] += weight * x1
            d2[j] += weight * x2
            d3[j] += weight * x3
        else:
            d0[j] = weight * x0
            d1[j] = weight * x1
            d2[j] = weight * x2
            d3[j] = weight * x3


@njit(**OPTIONS)
def describe_last(e0, o0, e1, o1, e2, o2, e3, o3, me0, me1, k, b, g, below, n):
    """The last strength of a row of odd width, whose last even pixels count twice."""
    j = n - 1
    x0 = b + k[0] * o0[j] + k[1] * e0[n] + k[2] * o0[n] + k[3] * o1[j] + k[4] * e1[n] + k[5] * o1[n]
    x0 += k[6] * o2[j] + k[7] * e2[n] + k[8] * o2[n]
    x2 = b + k[0] * o1[j] + k[1] * e1[n] + k[2] * o1[n] + k[3] * o2[j] + k[4] * e2[n] + k[5] * o2[n]
    x2 += k[6] * o3[j] + k[7] * e3[n] + k[8] * o3[n]
    g[n] = F(2) * ((F(2) - below) * abs(x0 - me0[j]) + below * abs(x2 - me1[j]))


@njit(**OPTIONS)
def add_rows(a0, a1, a2, b0, b1, b2, a, b, n):
    """Add up three rows of strengths of both sources."""
    for j in range(n + 2):
        a[j] = a0[j] + a1[j] + a2[j]
        b[j] = b0[j] + b1[j] + b2[j]


@njit(**OPTIONS)
def interpolate(upper, lower, share, out, n):
    for j in range(n):
        out[j] = upper[j] + share * (lower[j] - upper[j])


@njit(**OPTIONS)
def enlarge(low, first, second, share, e, o, n):
    """Add a row of the deep picture, enlarged along the row."""
    for j in range(n):
        a = low[first[2 * j]]
        e[j + 1] += a + share[2 * j] * (low[second[2 * j]] - a)
        a = low[first[2 * j + 1]]
        o[j + 1] += a + share[2 * j + 1] * (low[second[2 * j + 1]] - a)
