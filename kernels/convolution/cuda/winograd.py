"""The rung "winograd": windows of 3 x 3 with four times fewer multiplications, where that pays; else "implicit".

A 4 x 4 tile of y is a polynomial product in two dimensions; ../cpu/winograd.py says how, and where that is from.

    U = G g Gᵀ      transform_weights      a thread: a channel and a filter
    V = Bᵀ d B      transform_patches      a thread: 6 x 6 numbers of x, of one tile and one channel
    M[p] = V[p] U[p]       for each of the 36 points p a matrix product, tiles x channels times channels x filters, all
                           in one launch (gemm/cuda/tiles.py)
    Y = Aᵀ M A      transform_products     a thread: 4 x 4 pixels of y, of one tile and one filter; bias and activation

Neighbouring threads take neighbouring channels, or filters: every access of a warp is whole cache lines, but for those
of w where dx is computed, once a pass. The images go through the last three lines in groups, whose V and M stay in the
second-level cache.

Why it is faster: `implicit` keeps the multiply-add units busy, so only fewer multiplications are left to gain. `pays`
weighs them against the trips to the cache.
"""

import math
from functools import cache, lru_cache

from numba import cuda, int32, int64

from ...arrays import namespace
from ...gemm.cuda import CODES, activate, at_least, gemm_default, split
from ...launch import element_of, kernel, pointer
from ...ptx import load, store
from ..rung import Rung
from .implicit import conv2d_implicit

# Edge of a tile of y, and the number of points.
EDGE, POINTS = 4, 36
# Bytes of a group's V and M: half of what the second-level caches of large GPUs hold.
GROUP_BYTES = 24 << 20
THREADS = 256
# What it costs, in multiply-adds of `implicit`, reckoned for an H100: its second-level cache moves a number of 32 bits
# in the time of 24. A tile costs 36 for each channel and filter; 108 numbers for each channel (x, V twice) and 88 for
# each filter (M twice, y) pass through that cache; and 81 for each channel and filter of the weights (w, U twice).
PRODUCT, CHANNEL, FILTER, WEIGHT = 36, 24 * 108, 24 * 88, 24 * 81


# ---------------------------------------------------------------------------------------------------------------------
# The transforms, along one axis


@cuda.jit(device=True, forceinline=True)
def input_sums(d0, d1, d2, d3, d4, d5):
    """Bᵀ d"""
    T = type(d0)
    a, b = d4 - T(4) * d2, d3 - T(4) * d1
    c, e = d4 - d2, T(2) * (d3 - d1)
    return T(4) * d0 - T(5) * d2 + d4, a + b, a - b, c + e, c - e, T(4) * d1 - T(5) * d3 + d5


@cuda.jit(device=True, forceinline=True)
def weight_sums(g0, g1, g2):
    """G g"""
    T = type(g0)
    ends, far, middle = (g0 + g2) * T(-1 / 6), g2 * T(1 / 6) + g0 * T(1 / 24), g1 * T(1 / 12)
    return g0 * T(0.25), ends - g1 * T(1 / 6), ends + g1 * T(1 / 6), far + middle, far - middle, g2


@cuda.jit(device=True, forceinline=True)
def output_sums(m0, m1, m2, m3, m4, m5):
    """Aᵀ m"""
    T = type(m0)
    s, d, t, u = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return m0 + s + t, d + T(2) * u, s + T(4) * t, d + T(8) * u + m5


@cuda.jit(device=True, forceinline=True)
def store_six(memory, at, step, six):
    store(memory, at, six[0])
    store(memory, at + step, six[1])
    store(memory, at + 2 * step, six[2])
    store(memory, at + 3 * step, six[3])
    store(memory, at + 4 * step, six[4])
    store(memory, at + 5 * step, six[5])


# ---------------------------------------------------------------------------------------------------------------------
# The kernels


@cache
def weights(T):
    @cuda.jit(device=True, forceinline=True)
    def column(w, at, down):
        """One column of the window, transformed; `down` leads to its next row."""
        return weight_sums(load(w, at), load(w, at + down), load(w, at + 2 * down))

    @kernel(threads=THREADS)
    def transform_weights(
        w: pointer(T), u: pointer(T), depth: int32, outputs: int32, across: int32, deep: int32, turned: int32
    ):
        """One thread: 36 numbers U[p, row, column] of a sum's row and a column of its results, from the window whose
        nine numbers begin at w[row * deep + column * across]; from the last to the first where it is `turned`."""
        i = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        tap = int64(depth) * outputs
        if i < tap:
            at, right = i // outputs * deep + i % outputs * across, tap
            if turned:
                at, right = at + 8 * tap, -tap
            down = 3 * right
            left, middle, last = column(w, at, down), column(w, at + right, down), column(w, at + 2 * right, down)
            store_six(u, i, tap, weight_sums(left[0], middle[0], last[0]))
            store_six(u, i + 6 * tap, tap, weight_sums(left[1], middle[1], last[1]))
            store_six(u, i + 12 * tap, tap, weight_sums(left[2], middle[2], last[2]))
            store_six(u, i + 18 * tap, tap, weight_sums(left[3], middle[3], last[3]))
            store_six(u, i + 24 * tap, tap, weight_sums(left[4], middle[4], last[4]))
            store_six(u, i + 30 * tap, tap, weight_sums(left[5], middle[5], last[5]))

    return transform_weights


@cuda.jit(device=True, forceinline=True)
def place_of(i, numbers, high, wide):
    """(image, first row and column of its tile, channel or filter) of thread i, of which each tile has `numbers`."""
    tile = int32(i // numbers)
    rest, across = split(tile, wide)
    image, down = split(rest, high)
    return image, int32(down * EDGE), int32(across * EDGE), int32(i - int64(tile) * numbers)


@cache
def patches(T):
    @cuda.jit(device=True, forceinline=True)
    def number(x, at, w, width, inside):
        value = T(0)
        if inside and w >= 0 and w < width:
            value = load(x, at)
        return value

    @cuda.jit(device=True, forceinline=True)
    def row(x, image, h, w, height, width, channels, c):
        """Six pixels of a row from column w on, transformed; zeros outside the image."""
        inside = h >= 0 and h < height
        at = ((int64(image) * height + h) * width + w) * channels + c
        return input_sums(
            number(x, at, w, width, inside), number(x, at + channels, w + 1, width, inside),
            number(x, at + 2 * channels, w + 2, width, inside), number(x, at + 3 * channels, w + 3, width, inside),
            number(x, at + 4 * channels, w + 4, width, inside), number(x, at + 5 * channels, w + 5, width, inside),
        )  # fmt: skip

    @kernel(threads=THREADS)
    def transform_patches(
        x: pointer(T), v: pointer(T), height: int32, width: int32, channels: int32, high: int32, wide: int32,
        before_h: int32, before_w: int32, tiles: int32,
    ):  # fmt: skip
        """One thread: V[p, tile, channel] for all 36 points, in registers. Its patch begins `before` the tile."""
        i = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        point = int64(tiles) * channels
        if i < point:
            image, h, w, c = place_of(i, channels, high, wide)
            h, w = h - before_h, w - before_w
            r0 = row(x, image, h, w, height, width, channels, c)
            r1 = row(x, image, h + 1, w, height, width, channels, c)
            r2 = row(x, image, h + 2, w, height, width, channels, c)
            r3 = row(x, image, h + 3, w, height, width, channels, c)
            r4 = row(x, image, h + 4, w, height, width, channels, c)
            r5 = row(x, image, h + 5, w, height, width, channels, c)
            down = 6 * point
            store_six(v, i, down, input_sums(r0[0], r1[0], r2[0], r3[0], r4[0], r5[0]))
            store_six(v, i + point, down, input_sums(r0[1], r1[1], r2[1], r3[1], r4[1], r5[1]))
            store_six(v, i + 2 * point, down, input_sums(r0[2], r1[2], r2[2], r3[2], r4[2], r5[2]))
            store_six(v, i + 3 * point, down, input_sums(r0[3], r1[3], r2[3], r3[3], r4[3], r5[3]))
            store_six(v, i + 4 * point, down, input_sums(r0[4], r1[4], r2[4], r3[4], r4[4], r5[4]))
            store_six(v, i + 5 * point, down, input_sums(r0[5], r1[5], r2[5], r3[5], r4[5], r5[5]))

    return transform_patches


@cache
def products(T):
    @cuda.jit(device=True, forceinline=True)
    def row(m, at, step):
        """The six points of a row, taken to four pixels."""
        return output_sums(
            load(m, at), load(m, at + step), load(m, at + 2 * step),
            load(m, at + 3 * step), load(m, at + 4 * step), load(m, at + 5 * step),
        )  # fmt: skip

    @cuda.jit(device=True, forceinline=True)
    def write(y, at, row_step, rows_left, inside, four, start, floor):
        """Four pixels of a column of y, as far as they are in the image."""
        if inside:
            for i in range(4):
                if i < rows_left:
                    store(y, at + i * row_step, at_least(four[i] + start, floor))

    @kernel(threads=THREADS)
    def transform_products(
        m: pointer(T), bias: pointer(T), y: pointer(T), height: int32, width: int32, filters: int32, high: int32,
        wide: int32, tiles: int32, has_bias: int32, floor: T,
    ):  # fmt: skip
        """One thread: up to 4 x 4 pixels of y, of one tile and one filter, from its 36 points."""
        i = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        point = int64(tiles) * filters
        if i < point:
            image, h, w, f = place_of(i, filters, high, wide)
            start = T(0)
            if has_bias:
                start = load(bias, f)
            r0, r1, r2 = row(m, i, point), row(m, i + 6 * point, point), row(m, i + 12 * point, point)
            r3, r4, r5 = row(m, i + 18 * point, point), row(m, i + 24 * point, point), row(m, i + 30 * point, point)
            at, down = ((int64(image) * height + h) * width + w) * filters + f, int64(width) * filters
            rows, columns = height - h, width - w
            write(y, at, down, rows, True, output_sums(r0[0], r1[0], r2[0], r3[0], r4[0], r5[0]), start, floor)
            at += filters
            write(y, at, down, rows, columns > 1, output_sums(r0[1], r1[1], r2[1], r3[1], r4[1], r5[1]), start, floor)
            at += filters
            write(y, at, down, rows, columns > 2, output_sums(r0[2], r1[2], r2[2], r3[2], r4[2], r5[2]), start, floor)
            at += filters
            write(y, at, down, rows, columns > 3, output_sums(r0[3], r1[3], r2[3], r3[3], r4[3], r5[3]), start, floor)

    return transform_products


# ---------------------------------------------------------------------------------------------------------------------
# The launchers


def _blocks(threads):
    return (-(-threads // THREADS),)


def _convolve(x, w, b, y, before, across, deep, turned, activation):
    """y from x: images with `before` zeros above and to the left, and windows as `transform_weights` takes them."""
    (images, *source, depth), (_, *result, outputs) = x.shape, y.shape
    T, xp, floor = element_of(x), namespace(x), 0.0 if activation == "relu" else -math.inf
    u = xp.empty((POINTS, depth, outputs), x.dtype)
    weights(T)(_blocks(depth * outputs), w, u, depth, outputs, across, deep, turned)
    high, wide = (-(-size // EDGE) for size in result)
    group = max(GROUP_BYTES // (POINTS * high * wide * (depth + outputs) * x.itemsize), 1)
    for first in range(0, images, group):
        some, target = x[first : first + group], y[first : first + group]
        tiles = len(some) * high * wide
        v, m = (xp.empty((POINTS, tiles, size), x.dtype) for size in (depth, outputs))
        patches(T)(_blocks(tiles * depth), some, v, *source, depth, high, wide, *before, tiles)
        gemm_default.stack(v, u, m)
        products(T)(
            _blocks(tiles * outputs), m, u if b is None else b, target, *result,
            outputs, high, wide, tiles, b is not None, floor,
        )  # fmt: skip
    if activation in ("sigmoid", "tanh"):
        activate(T)(_blocks(y.size), y, y.size, CODES[activation])


@lru_cache(maxsize=512)
def pays(images, height, width, depth, outputs):
    """Whether a pass that writes `height` x `width` pixels should take at most 0.9 of the time of `implicit`."""
    tiles = images * -(-height // EDGE) * -(-width // EDGE)
    here = depth * outputs * (PRODUCT * tiles + WEIGHT) + tiles * (CHANNEL * depth + FILTER * outputs)
    return here <= 0.9 * 9 * images * height * width * depth * outputs


def suits(g, height, width, depth, outputs):
    """Whether a pass can be computed this way, and pays."""
    plain = (g.KH, g.KW, *g.strides, *g.dilation, g.groups) == (3, 3, 1, 1, 1, 1, 1)
    return plain and pays(g.N, height, width, depth, outputs)


def _forward(x, w, b, y, g, activation):
    if suits(g, g.OH, g.OW, g.C, g.F):
        _convolve(x, w, b, y, (g.padding[0][0], g.padding[1][0]), 1, g.F, False, activation)
    else:
        conv2d_implicit.forward(x, w, b, y, g, activation)


def _data_gradient(dz, w, dx, g):
    if suits(g, g.H, g.W, g.F, g.C):
        dz, before = dz.reshape(g.N, g.OH, g.OW, g.F), tuple(2 - zeros for zeros, _ in g.padding)
        _convolve(dz, w, None, dx, before, g.F, 1, True, None)
    else:
        conv2d_implicit.data_gradient(dz, w, dx, g)


conv2d_winograd = Rung(_forward, _data_gradient, conv2d_implicit.weight_gradient)
