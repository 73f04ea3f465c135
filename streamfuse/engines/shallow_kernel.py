"""The shallow path of the network as one pass over the picture, written for Numba; imported only to be compiled.

`make` compiles it, with the two other passes over whole pictures that the engine needs.

As nodes of a graph the shallow path moves the picture through memory dozens of times for some 300 operations a pixel.
Here a strip of the picture is computed two rows at a time, from uint8 to the finished value, and what lies between
stays in the cache.

Rows are kept as two planes, their even and their odd pixels, so that the four pixels of a block of 2x2 lie at one index
and loops over an index need no shuffles.  Of a plane of n pixels, element 0 is the pixel before the first and element
n + 1 the one after the last, by reflection.  Rows are kept in rings: row r is in slot r mod RING.

Names: e, o even and odd plane; s 0 infrared, 1 visible; c channel; y row; q row of blocks.
"""
# mypy: ignore-errors
# Loops over slices are what LLVM turns into vector instructions; several indices into one array prevent it.

from __future__ import annotations

from numba import carray, cfunc, njit, types

from streamfuse.engines.shallow_layout import LINE, PAD, RING
from streamfuse.engines.shallow_planes import make_shrink, make_stretch
from streamfuse.engines.shallow_rows import (
    OPTIONS,
    F,
    add_rows,
    average,
    convolve,
    describe,
    describe_last,
    enlarge,
    interpolate,
    pad_sums,
    plane,
    reflect,
    split,
)

EPS = F(1e-6)
KNEE = F(12 / 255)
STEEP = F(1e4)
"""Ratio of strengths above which infrared has no weight: its eighth power is still finite."""
DIMS = 10
"""Values of the argument `dims` of the pass."""


def make(power: int, in_blocks: bool, bent: bool):
    """Compile the three functions for C: the shallow pass for one form of skip and ends, `shrink` and `stretch`."""
    return make_pass(power, in_blocks, bent), make_shrink(), make_stretch()


def make_pass(power: int, in_blocks: bool, bent: bool):
    """Compile the pass for one form of `ShallowSkip` and of ends; the rest are arguments.

    Returns a function for C: pointers to `ir` and `vis`, (H, W) uint8; `low`, (h, w) float32, the deep picture; `out`,
    (H, W) float32; `weights`; `first` and `second`, indices, and `share`, of rows and columns of `low`, each H + 1 and
    then W + 1 values; `memory`, float32; `sums`, 2 float64 to be set to the sum of the output and that of the output
    limited to 0..1; and `dims`: H, W, h, w, C, first and last row of blocks, 1 for a border of zeros, and the sizes of
    `weights` and `memory`.
    """
    squarings = power.bit_length() - 1

    @njit(**OPTIONS)
    def share_of(g_ir, g_vis, eps):
        """Weight of infrared."""
        ratio = min(g_vis / (g_ir + eps), STEEP)
        for _ in range(squarings):
            ratio *= ratio
        return F(1) / (F(1) + ratio)

    @njit(**OPTIONS)
    def blend_blocks(g_ir, g_vis, d0, d1, d2, d3, x0, x1, x2, x3, n):
        """Add share * d to the four pixels of each block; strengths are sums over three rows of blocks."""
        for j in range(n):
            # Sums of 36 pixels instead of means.
            share = share_of(g_ir[j] + g_ir[j + 1] + g_ir[j + 2], g_vis[j] + g_vis[j + 1] + g_vis[j + 2], F(36) * EPS)
            x0[j + 1] += share * d0[j]
            x1[j + 1] += share * d1[j]
            x2[j + 1] += share * d2[j]
            x3[j + 1] += share * d3[j]

    @njit(**OPTIONS)
    def blend_pixels(ir0, vis0, ir1, vis1, m_ir, m_vis, w_ir0, w_vis0, w_ir1, w_vis1, x, n):
        """Add two channels of both sources to a plane, weighed pixel by pixel."""
        for j in range(n):
            a, b, c, d = ir0[j + 1], vis0[j + 1], ir1[j + 1], vis1[j + 1]
            g_a, g_b, g_c, g_d = abs(a - m_ir[j]), abs(b - m_vis[j]), abs(c - m_ir[j]), abs(d - m_vis[j])
            if squarings:
                first, second = share_of(g_a, g_b, EPS), share_of(g_c, g_d, EPS)
                x[j + 1] += first * (w_ir0 * a) + (F(1) - first) * (w_vis0 * b)
                x[j + 1] += second * (w_ir1 * c) + (F(1) - second) * (w_vis1 * d)
            else:
                # One division for both: a division takes as long as twenty products.
                first, second = g_a + g_b + EPS, g_c + g_d + EPS
                upper = (g_a * (w_ir0 * a) + g_b * (w_vis0 * b)) * second + (
                    g_c * (w_ir1 * c) + g_d * (w_vis1 * d)
                ) * first
                x[j + 1] += upper / (first * second)

    @njit(**OPTIONS)
    def end(x):
        if bent:
            below, above = max(KNEE - x, F(0)), max(x - (F(1) - KNEE), F(0))
            return x + below * below / (KNEE + below) - above * above / (KNEE + above)
        return x

    @njit(**OPTIONS)
    def finish(e, o, out, width, sums):
        """Write a row and add up its values, and its values limited to 0..1."""
        total, level = F(0), F(0)
        for j in range(width // 2):
            left, right = end(e[j + 1]), end(o[j + 1])
            out[2 * j], out[2 * j + 1] = left, right
            total += left + right
            level += min(max(left, F(0)), F(1)) + min(max(right, F(0)), F(1))
        if width % 2:
            last = end(e[width // 2 + 1])
            out[width - 1] = last
            total += last
            level += min(max(last, F(0)), F(1))
        sums[0] += total
        sums[1] += level

    @njit(**OPTIONS)
    def strip(ir, vis, low, out, weights, first, second, share, memory, sums, channels, top, end_, zeros):
        height, width = ir.shape
        n, blocks = (width + 1) // 2, (height + 1) // 2
        stride = (n + PAD + LINE - 1) // LINE * LINE
        # The parts of `weights`
        bias, total, total_bias = 18 * channels, 20 * channels, 20 * channels + 27
        mix = total_bias + 3
        infrared = weights[mix + channels]
        # The parts of `memory`
        at = 0
        pixels = memory[at : at + 2 * RING * 2 * stride]
        at += 2 * RING * 2 * stride
        added = memory[at : at + 2 * 4 * 2 * stride]
        at += 2 * 4 * 2 * stride
        means = memory[at : at + 8 * stride]
        at += 8 * stride
        picture = memory[at : at + 8 * stride]
        at += 8 * stride
        scratch = memory[at : at + 8 * stride]
        at += 8 * stride
        strengths = memory[at : at + 8 * channels * stride]
        at += 8 * channels * stride
        differences = memory[at : at + 8 * channels * stride]
        at += 8 * channels * stride
        row = memory[at : at + low.shape[1]]

        begin = max(top - 1, 0) if in_blocks else top
        last = min(end_, blocks - 1) if in_blocks else end_ - 1
        next_pixel, next_sum = 2 * begin - 2, 2 * begin - 1
        for q in range(begin, last + 2):
            if q <= last:
                y = 2 * q
                for r in range(next_pixel, y + 4):
                    for s in range(2):
                        source = ir if s == 0 else vis
                        at = (s * RING + r % RING) * 2
                        split(
                            source[reflect(reflect(r, height), height)],
                            plane(pixels, at, stride),
                            plane(pixels, at + 1, stride),
                            width,
                        )
                next_pixel = y + 4
                for r in range(next_sum, y + 3):
                    for s in range(2):
                        at = (s * 4 + r % 4) * 2
                        e, o = plane(added, at, stride), plane(added, at + 1, stride)
                        if zeros and (r < 0 or r >= height):
                            e[:] = F(0)
                            o[:] = F(0)
                            continue
                        c = reflect(reflect(r, height), height)
                        a0, a1, a2 = (c - 1) % RING, c % RING, (c + 1) % RING
                        a0, a1, a2 = (s * RING + a0) * 2, (s * RING + a1) * 2, (s * RING + a2) * 2
                        convolve(
                            plane(pixels, a0, stride),
                            plane(pixels, a0 + 1, stride),
                            plane(pixels, a1, stride),
                            plane(pixels, a1 + 1, stride),
                            plane(pixels, a2, stride),
                            plane(pixels, a2 + 1, stride),
                            weights[total + 9 * s : total + 9 * s + 9],
                            weights[total_bias + s],
                            e,
                            o,
                            n,
                        )
                        pad_sums(e, o, width, zeros)
                next_sum = y + 3
                for s in range(2):
                    for i in range(2):
                        a0, a1, a2 = (y + i - 1) % 4, (y + i) % 4, (y + i + 1) % 4
                        a0, a1, a2 = (s * 4 + a0) * 2, (s * 4 + a1) * 2, (s * 4 + a2) * 2
                        at = (s * 2 + i) * 2
                        average(
                            plane(added, a0, stride),
                            plane(added, a0 + 1, stride),
                            plane(added, a1, stride),
                            plane(added, a1 + 1, stride),
                            plane(added, a2, stride),
                            plane(added, a2 + 1, stride),
                            plane(means, at, stride),
                            plane(means, at + 1, stride),
                            n,
                        )
                p0, p1, p2, p3 = (y - 1) % RING * 2, y % RING * 2, (y + 1) % RING * 2, (y + 2) % RING * 2
                now = q % 2 * 4
                if in_blocks:
                    below = F(1) if y + 1 < height else F(0)
                    for c in range(channels):
                        at = (q % 2 * channels + c) * 4
                        d0, d1 = plane(differences, at, stride), plane(differences, at + 1, stride)
                        d2, d3 = plane(differences, at + 2, stride), plane(differences, at + 3, stride)
                        w = weights[mix + c]
                        for s in range(2):
                            at = s * RING * 2
                            e0, o0 = plane(pixels, at + p0, stride), plane(pixels, at + p0 + 1, stride)
                            e1, o1 = plane(pixels, at + p1, stride), plane(pixels, at + p1 + 1, stride)
                            e2, o2 = plane(pixels, at + p2, stride), plane(pixels, at + p2 + 1, stride)
                            e3, o3 = plane(pixels, at + p3, stride), plane(pixels, at + p3 + 1, stride)
                            me0, mo0 = plane(means, 4 * s, stride), plane(means, 4 * s + 1, stride)
                            me1, mo1 = plane(means, 4 * s + 2, stride), plane(means, 4 * s + 3, stride)
                            k = weights[(s * channels + c) * 9 : (s * channels + c) * 9 + 9]
                            b = weights[bias + s * channels + c]
                            g = plane(strengths, (s * 4 + q % 4) * channels + c, stride)
                            if s == 0:
                                describe(
                                    e0,
                                    o0,
                                    e1,
                                    o1,
                                    e2,
                                    o2,
                                    e3,
                                    o3,
                                    me0,
                                    mo0,
                                    me1,
                                    mo1,
                                    k,
                                    b,
                                    infrared * w,
                                    False,
                                    d0,
                                    d1,
                                    d2,
                                    d3,
                                    g,
                                    below,
                                    n,
                                )
                            else:
                                describe(
                                    e0,
                                    o0,
                                    e1,
                                    o1,
                                    e2,
                                    o2,
                                    e3,
                                    o3,
                                    me0,
                                    mo0,
                                    me1,
                                    mo1,
                                    k,
                                    b,
                                    -w,
                                    True,
                                    d0,
                                    d1,
                                    d2,
                                    d3,
                                    g,
                                    below,
                                    n,
                                )
                            if width % 2:
                                describe_last(e0, o0, e1, o1, e2, o2, e3, o3, me0, me1, k, b, g, below, n)
                            g[0], g[n + 1] = g[2], g[n - 1]
                    # The visible source alone, of which the differences are taken: all channels are one conv.
                    at = RING * 2
                    k, b = weights[total + 18 : total + 27], weights[total_bias + 2]
                    e1, o1 = plane(pixels, at + p1, stride), plane(pixels, at + p1 + 1, stride)
                    e2, o2 = plane(pixels, at + p2, stride), plane(pixels, at + p2 + 1, stride)
                    convolve(
                        plane(pixels, at + p0, stride),
                        plane(pixels, at + p0 + 1, stride),
                        e1,
                        o1,
                        e2,
                        o2,
                        k,
                        b,
                        plane(picture, now, stride),
                        plane(picture, now + 1, stride),
                        n,
                    )
                    convolve(
                        e1,
                        o1,
                        e2,
                        o2,
                        plane(pixels, at + p3, stride),
                        plane(pixels, at + p3 + 1, stride),
                        k,
                        b,
                        plane(picture, now + 2, stride),
                        plane(picture, now + 3, stride),
                        n,
                    )
                else:
                    for i in range(2):
                        a0, a1, a2 = (p0, p1, p2) if i == 0 else (p1, p2, p3)
                        for odd in range(2):
                            plane(picture, now + 2 * i + odd, stride)[:] = F(0)
                        for pair in range((channels + 1) // 2):
                            c0 = 2 * pair
                            c1 = min(c0 + 1, channels - 1)  # counts for nothing where their number is odd
                            for s in range(4):
                                c = c0 if s < 2 else c1
                                k = (s % 2 * channels + c) * 9
                                at = s % 2 * RING * 2
                                convolve(
                                    plane(pixels, at + a0, stride),
                                    plane(pixels, at + a0 + 1, stride),
                                    plane(pixels, at + a1, stride),
                                    plane(pixels, at + a1 + 1, stride),
                                    plane(pixels, at + a2, stride),
                                    plane(pixels, at + a2 + 1, stride),
                                    weights[k : k + 9],
                                    weights[bias + s % 2 * channels + c],
                                    plane(scratch, 2 * s, stride),
                                    plane(scratch, 2 * s + 1, stride),
                                    n,
                                )
                            w0, w1 = weights[mix + c0], weights[mix + c1]
                            if c1 == c0:
                                w1 = F(0)
                            for odd in range(2):
                                blend_pixels(
                                    plane(scratch, odd, stride),
                                    plane(scratch, 2 + odd, stride),
                                    plane(scratch, 4 + odd, stride),
                                    plane(scratch, 6 + odd, stride),
                                    plane(means, 2 * i + odd, stride),
                                    plane(means, 4 + 2 * i + odd, stride),
                                    infrared * w0,
                                    w0,
                                    infrared * w1,
                                    w1,
                                    plane(picture, now + 2 * i + odd, stride),
                                    n,
                                )
            done = q - 1 if in_blocks else q  # strengths of the next row of blocks are needed
            if done < top or done >= end_:
                continue
            now = done % 2 * 4
            x0, x1 = plane(picture, now, stride), plane(picture, now + 1, stride)
            x2, x3 = plane(picture, now + 2, stride), plane(picture, now + 3, stride)
            if in_blocks:
                a0, a1, a2 = reflect(done - 1, blocks) % 4, done % 4, reflect(done + 1, blocks) % 4
                g_ir, g_vis = plane(scratch, 2, stride), plane(scratch, 3, stride)
                for c in range(channels):
                    add_rows(
                        plane(strengths, a0 * channels + c, stride),
                        plane(strengths, a1 * channels + c, stride),
                        plane(strengths, a2 * channels + c, stride),
                        plane(strengths, (4 + a0) * channels + c, stride),
                        plane(strengths, (4 + a1) * channels + c, stride),
                        plane(strengths, (4 + a2) * channels + c, stride),
                        g_ir,
                        g_vis,
                        n,
                    )
                    at = (done % 2 * channels + c) * 4
                    blend_blocks(
                        g_ir,
                        g_vis,
                        plane(differences, at, stride),
                        plane(differences, at + 1, stride),
                        plane(differences, at + 2, stride),
                        plane(differences, at + 3, stride),
                        x0,
                        x1,
                        x2,
                        x3,
                        n,
                    )
            for i in range(2):
                y = 2 * done + i
                if y < height:
                    e, o = (x0, x1) if i == 0 else (x2, x3)
                    interpolate(low[first[y]], low[second[y]], share[y], row, low.shape[1])
                    columns = height + 1
                    enlarge(row, first[columns:], second[columns:], share[columns:], e, o, n)
                    finish(e, o, out[y], width, sums)

    pixels, reals, doubles = (types.CPointer(kind) for kind in (types.uint8, types.float32, types.float64))
    indices, sizes = types.CPointer(types.int32), types.CPointer(types.int64)
    signature = types.void(pixels, pixels, reals, reals, reals, indices, indices, reals, reals, doubles, sizes)

    @cfunc(signature, **OPTIONS)
    def shallow_pass(ir, vis, low, out, weights, first, second, share, memory, sums, dims):
        d = carray(dims, DIMS)
        height, width = d[0], d[1]
        points = height + width + 2
        totals = carray(sums, 2)
        totals[0] = totals[1] = 0.0
        strip(
            carray(ir, (height, width)),
            carray(vis, (height, width)),
            carray(low, (d[2], d[3])),
            carray(out, (height, width)),
            carray(weights, d[8]),
            carray(first, points),
            carray(second, points),
            carray(share, points),
            carray(memory, d[9]),
            totals,
            d[4],
            d[5],
            d[6],
            d[7] != 0,
        )

    return shallow_pass
