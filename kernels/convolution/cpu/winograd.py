"""The rung "winograd": windows of 3 x 3 with four times fewer multiplications, where that pays; else "threaded".

A 4 x 4 tile of y is a polynomial product in two dimensions. Evaluated at six points along each axis, it becomes one
product a point, 36 for 16 pixels, where the definition takes 144:

    V = Bᵀ d B      d, 6 x 6 numbers of x, a channel at a time
    U = G g Gᵀ      g, 3 x 3 numbers of w, a channel and a filter at a time
    M[p] = V[p] U[p]       for each of the 36 points p a matrix product: tiles x channels times channels x filters
    Y = Aᵀ M A      Y, 4 x 4 pixels of y, a filter at a time; bias and activation follow at once

    points          0, 1, -1, 2, -2 and infinity
    source          A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016

A block of tiles goes through all four lines before the next, so that V stays in the second-level cache and M close to
it; only U, which all blocks read, is made beforehand. Tiles over the border read zeros outside the image. The gradient
of the data is the same with dz for x, channels for filters, and the window turned. With dilation a tile takes pixels
as far apart as the window's cells, and nothing else changes.

Why it is faster: the direct tiles keep the multiply-add units busy, so only fewer multiplications are left to gain.
Four times fewer are 2.2 to 2.4 x less time with 32 to 128 channels: U, V and Y take additions and trips to the cache.
With many channels on small images U, four times as large as w, is all that counts; `pays` says when.

Rounding: an error of one number of the patch enters all of its tile's pixels, multiplied by up to 2304 where the
definition has 9, if all signs conspire (the absolute values of A, B and G in place of theirs). With random numbers it
is far less; the contract states what the tests hold.
"""

import functools
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ... import simd
from ...gemm.cpu import CODES, NO_BIAS, NONE, RELU, ROWS, activate, pack_panel, tall_padded
from ...jit import jit
from ...simd import (
    TILE_COLUMNS,
    fma,
    lane_numbers,
    lanes,
    select,
    stack_array,
    vfill,
    viewed,
    vload,
    vload_part,
    vstore,
    vstore_as_part,
    vstore_part,
)
from ...threads import threaded
from ...workspace import LINE, scratch
from ..rung import Rung
from .direct import conv2d_threaded

# Edge of a tile of y, of its patch of x, and the number of points.
EDGE, PATCH, POINTS = 4, 6, 36
# Rows of w that are transformed together.
DEPTH = 16
# Bytes of a block's V at most: what a second-level cache holds.
BLOCK_BYTES = 16384 * simd.VECTOR_BYTES
# Tiles of a block: a row of U, once loaded, is used for so many. More of them were no faster.
MOST = 2 * ROWS
# On the stack: DEPTH rows of w, tap by tap; 36 and 18 vectors; a panel of M.
TAPS_BYTES = (9 * DEPTH * TILE_COLUMNS + 1) * simd.VECTOR_BYTES
PATCH_BYTES, HALF_BYTES = POINTS * simd.VECTOR_BYTES, POINTS // 2 * simd.VECTOR_BYTES
M_BYTES = POINTS * MOST * TILE_COLUMNS * simd.VECTOR_BYTES


class Plan(NamedTuple):
    """The sizes of one pass: of what is read, of what is written, and how it is cut."""

    in_height: int
    in_width: int
    depth: int  # numbers of a pixel that is read
    out_height: int
    out_width: int
    outputs: int  # numbers of a pixel that is written
    before_high: int  # the first tile's patch starts so many rows above the image,
    before_wide: int  # and so many columns to the left of it
    apart_high: int  # rows from one of a tile's, or a patch's, to the next: the dilation,
    apart_wide: int  # and columns
    high: int  # tiles of an image
    wide: int
    tiles: int  # of all images
    block: int  # tiles of a chunk
    row: int  # numbers from a tile to the next in V: whole lines
    point_v: int  # numbers from a point to the next, in V
    point_u: int  # and in U; not a power of two, whose lines would share a few sets of the cache
    panels: int
    across: int  # of w: from one output to the next,
    deep: int  # from one row of the sum to the next
    turned: bool  # the window is turned


# ---------------------------------------------------------------------------------------------------------------------
# The transforms, along one axis


@jit(inline=True)
def input_sums(d0, d1, d2, d3, d4, d5):
    """Bᵀ d"""
    a, b = fma(-4.0, d2, d4), fma(-4.0, d1, d3)
    c, e = d4 - d2, 2.0 * (d3 - d1)
    return fma(4.0, d0, fma(-5.0, d2, d4)), a + b, a - b, c + e, c - e, fma(4.0, d1, fma(-5.0, d3, d5))


@jit(inline=True)
def weight_sums(g0, g1, g2):
    """G g"""
    ends, far, middle = (g0 + g2) * (-1 / 6), fma(1 / 6, g2, g0 * (1 / 24)), g1 * (1 / 12)
    return g0 * 0.25, fma(-1 / 6, g1, ends), fma(1 / 6, g1, ends), far + middle, far - middle, g2


@jit(inline=True)
def output_sums(m0, m1, m2, m3, m4, m5):
    """Aᵀ m"""
    s, d, t, u = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return m0 + s + t, fma(2.0, u, d), fma(4.0, t, s), fma(8.0, u, d) + m5


@jit(inline=True)
def load_six(x, start, step):
    """Six vectors, `step` numbers apart."""
    return (
        vload(x, start), vload(x, start + step), vload(x, start + 2 * step),
        vload(x, start + 3 * step), vload(x, start + 4 * step), vload(x, start + 5 * step),
    )  # fmt: skip


@jit(inline=True)
def store_six(x, start, step, six):
    vstore(x, start, six[0])
    vstore(x, start + step, six[1])
    vstore(x, start + 2 * step, six[2])
    vstore(x, start + 3 * step, six[3])
    vstore(x, start + 4 * step, six[4])
    vstore(x, start + 5 * step, six[5])


# ---------------------------------------------------------------------------------------------------------------------
# U


@jit(inner=True)
def transform_weights(chunk, w, u, plan):
    """One chunk: U of one panel, of DEPTH rows of the sum."""
    step, width = lanes(w), TILE_COLUMNS * lanes(w)
    blocks = (plan.depth + DEPTH - 1) // DEPTH
    panel, k0 = chunk // blocks, chunk % blocks * DEPTH
    rows, first = min(DEPTH, plan.depth - k0), panel * width
    taps = viewed(stack_array(np.uint8, TAPS_BYTES), w)
    half = viewed(stack_array(np.uint8, HALF_BYTES), w)
    for tap in range(9):
        start = (8 - tap if plan.turned else tap) * plan.depth * plan.outputs + first * plan.across + k0 * plan.deep
        pack_panel(w, start, plan.across, plan.deep, plan.outputs - first, rows, width, taps, tap * DEPTH * width)
    for row in range(rows):
        for j in range(0, width, step):
            for kw in range(3):
                tap = (kw * DEPTH + row) * width + j
                down = 3 * DEPTH * width
                parts = weight_sums(vload(taps, tap), vload(taps, tap + down), vload(taps, tap + 2 * down))
                store_six(half, kw * step, 3 * step, parts)
            target = panel * POINTS * plan.point_u + (k0 + row) * width + j
            for i in range(PATCH):
                at = 3 * i * step
                parts = weight_sums(vload(half, at), vload(half, at + step), vload(half, at + 2 * step))
                store_six(u, target + PATCH * i * plan.point_u, plan.point_u, parts)


# ---------------------------------------------------------------------------------------------------------------------
# V, M and Y


@jit(inline=True)
def first_pixel(tile, apart):
    """The first row (or column) of y in this row (or column) of tiles. Tiles with pixels `apart` from each other lie
    in one another; some of the last ones may have no pixel."""
    return tile // apart * EDGE * apart + tile % apart


@jit(inline=True)
def gather(x, image, h0, w0, c, plan, patch):
    """A patch of x for a vector of channels, zeros outside the image."""
    step = lanes(x)
    for i in range(PATCH):
        for j in range(PATCH):
            h, w = h0 + i * plan.apart_high, w0 + j * plan.apart_wide
            value = vfill(x, 0.0)
            if 0 <= h < plan.in_height and 0 <= w < plan.in_width:
                pixel = (image * plan.in_height + h) * plan.in_width + w
                value = vload_part(x, pixel * plan.depth + c, plan.depth - c)
            vstore(patch, (PATCH * i + j) * step, value)


@jit(inline=True)
def transform_patch(x, start, down, across, half, v, target, point):
    """V of a patch whose rows are `down` and whose columns are `across` apart, a vector of channels."""
    step = lanes(x)
    for j in range(PATCH):
        store_six(half, j * step, PATCH * step, input_sums(*load_six(x, start + j * across, down)))
    for i in range(PATCH):
        store_six(v, target + PATCH * i * point, point, input_sums(*load_six(half, PATCH * i * step, step)))


@jit(inline=True)
def finish(y, target, z, bias, activation, count):
    z = z + bias
    if activation == RELU:
        z = select(z < 0.0, 0.0, z)
    vstore_part(y, target, z, count)
    if activation > RELU:
        activate(y, target, min(count, lanes(y)), activation)


@jit(inline=True)
def transform_columns(m, start, point, half):
    """The first half of Aᵀ M A: `half` is Aᵀ M, row by row."""
    step = lanes(m)
    for j in range(PATCH):
        y0, y1, y2, y3 = output_sums(*load_six(m, start + j * point, PATCH * point))
        vstore(half, j * step, y0)
        vstore(half, (PATCH + j) * step, y1)
        vstore(half, (2 * PATCH + j) * step, y2)
        vstore(half, (3 * PATCH + j) * step, y3)


@jit(inline=True)
def bias_of(bias, f, like, count):
    if bias.size > 0:
        return vload_part(bias, f, count)
    return vfill(like, 0.0)


@jit(inline=True)
def transform_products(m, start, point, half, bias, f, activation, y, target, down, across, high, wide, outputs):
    """Y of a tile, a vector of filters: `high` x `wide` pixels of it exist, `outputs` - f of the numbers."""
    step, count = lanes(y), outputs - f
    transform_columns(m, start, point, half)
    b = bias_of(bias, f, y, count)
    for i in range(high):
        y0, y1, y2, y3 = output_sums(*load_six(half, PATCH * i * step, step))
        finish(y, target, y0, b, activation, count)
        if wide > 1:
            finish(y, target + across, y1, b, activation, count)
        if wide > 2:
            finish(y, target + 2 * across, y2, b, activation, count)
        if wide > 3:
            finish(y, target + 3 * across, y3, b, activation, count)
        target += down


@jit(inline=True)
def larger(best, offset, value, number):
    """The larger of two pixels and its number; the first one, or NaN, once it is there, stays."""
    better = (best == best) & ~(value <= best)
    return select(better, value, best), select(better, number, offset)


@jit(inline=True)
def largest_of(a, b, c, d):
    """The largest of the four pixels of a window, and which one it is."""
    best, offset = larger(a, vfill(lane_numbers(a), 0), b, 1)
    best, offset = larger(best, offset, c, 2)
    return larger(best, offset, d, 3)


@jit(inline=True)
def store_largest(y, offsets, target, a, b, c, d, bias, activation, count):
    a, b, c, d = a + bias, b + bias, c + bias, d + bias
    if activation == RELU:
        a, b = select(a < 0.0, 0.0, a), select(b < 0.0, 0.0, b)
        c, d = select(c < 0.0, 0.0, c), select(d < 0.0, 0.0, d)
    best, offset = largest_of(a, b, c, d)
    vstore_part(y, target, best, count)
    if offsets.size > 0:
        vstore_as_part(offsets, target, offset, count)


@jit(inline=True)
def pool_products(m, start, point, half, bias, f, activation, y, offsets, target, down, high, wide, outputs):
    """The maxima of the tile's windows of 2 x 2; `high` and `wide` are 2 or 4."""
    step, count = lanes(y), outputs - f
    transform_columns(m, start, point, half)
    b = bias_of(bias, f, y, count)
    for i in range(0, high, 2):
        a0, a1, a2, a3 = output_sums(*load_six(half, PATCH * i * step, step))
        c0, c1, c2, c3 = output_sums(*load_six(half, PATCH * (i + 1) * step, step))
        store_largest(y, offsets, target, a0, a1, c0, c1, b, activation, count)
        if wide > 2:
            store_largest(y, offsets, target + outputs, a2, a3, c2, c3, b, activation, count)
        target += down


@functools.cache
def products(pools):
    """The kernel that takes x and U to y, or, where it `pools`, to the maxima of y's 2 x 2 pixels and their offsets."""

    @jit(inner=True, name=f"{__name__}.multiply_tiles-{pools}")
    def multiply_tiles(chunk, x, u, bias, y, offsets, none, plan, activation):
        """One chunk: one block of tiles, all filters."""
        step, width = lanes(y), TILE_COLUMNS * lanes(y)
        v = viewed(stack_array(np.uint8, BLOCK_BYTES), y)
        m = viewed(stack_array(np.uint8, M_BYTES), y)
        patch = viewed(stack_array(np.uint8, PATCH_BYTES), y)
        half = viewed(stack_array(np.uint8, PATCH_BYTES), y)
        first, end = chunk * plan.block, min(plan.tiles, (chunk + 1) * plan.block)
        down, across = plan.apart_high * plan.in_width * plan.depth, plan.apart_wide * plan.depth
        for t in range(first, end):
            image, place = t // (plan.high * plan.wide), t % (plan.high * plan.wide)
            h0 = first_pixel(place // plan.wide, plan.apart_high) - plan.before_high
            w0 = first_pixel(place % plan.wide, plan.apart_wide) - plan.before_wide
            last_h, last_w = h0 + (PATCH - 1) * plan.apart_high, w0 + (PATCH - 1) * plan.apart_wide
            inside = h0 >= 0 and w0 >= 0 and last_h < plan.in_height and last_w < plan.in_width
            for c in range(0, plan.depth, step):
                target = (t - first) * plan.row + c
                if inside and c + step <= plan.depth:
                    start = ((image * plan.in_height + h0) * plan.in_width + w0) * plan.depth + c
                    transform_patch(x, start, down, across, half, v, target, plan.point_v)
                else:
                    gather(x, image, h0, w0, c, plan, patch)
                    transform_patch(patch, 0, PATCH * step, step, half, v, target, plan.point_v)
        point_m = plan.block * width
        for panel in range(plan.panels):
            for p in range(POINTS):
                for i in range(0, end - first, ROWS):
                    tall_padded(
                        v, p * plan.point_v + i * plan.row, plan.row, 1, u, (panel * POINTS + p) * plan.point_u, width,
                        plan.depth, m, p * point_m + i * width, width, ROWS, width, False, none, 0, NONE,
                    )  # fmt: skip
            for t in range(first, end):
                image, place = t // (plan.high * plan.wide), t % (plan.high * plan.wide)
                h = first_pixel(place // plan.wide, plan.apart_high)
                w = first_pixel(place % plan.wide, plan.apart_wide)
                high = min(EDGE, (plan.out_height - h + plan.apart_high - 1) // plan.apart_high)
                wide = min(EDGE, (plan.out_width - w + plan.apart_wide - 1) // plan.apart_wide)
                if high <= 0 or wide <= 0:
                    continue
                for j in range(0, width, step):
                    f = panel * width + j
                    if f >= plan.outputs:
                        continue
                    start = (t - first) * width + j
                    if pools:
                        place = ((image * plan.out_height + h) // 2 * (plan.out_width // 2) + w // 2) * plan.outputs + f
                        pool_products(
                            m, start, point_m, half, bias, f, activation, y, offsets,
                            place, plan.out_width // 2 * plan.outputs, high, wide, plan.outputs,
                        )  # fmt: skip
                    else:
                        place = ((image * plan.out_height + h) * plan.out_width + w) * plan.outputs + f
                        transform_products(
                            m, start, point_m, half, bias, f, activation,
                            y, place, plan.apart_high * plan.out_width * plan.outputs, plan.apart_wide * plan.outputs,
                            high, wide, plan.outputs,
                        )  # fmt: skip

    return threaded(multiply_tiles)


_transform_weights = threaded(transform_weights)


# ---------------------------------------------------------------------------------------------------------------------


def _tiles(pixels, apart):
    """Rows of tiles, or columns, for so many rows or columns of pixels."""
    return -(-pixels // (EDGE * apart)) * apart


def _bytes_of_v(tiles, row, itemsize):
    return POINTS * (tiles * row * itemsize + LINE)


@lru_cache(maxsize=128)
def _plan(images, source, result, before, apart, across, deep, turned, itemsize):
    """The sizes of a pass from `source` to `result`, both (height, width, channels)."""
    high, wide = map(_tiles, result, apart)
    width, line = TILE_COLUMNS * simd.VECTOR_BYTES // itemsize, LINE // itemsize
    depth, tiles = source[2], images * high * wide
    row = -(-depth // line) * line
    block = MOST if _bytes_of_v(MOST, row, itemsize) <= BLOCK_BYTES else ROWS
    return Plan(
        *source, *result, *before, *apart, high, wide, tiles, block, row, block * row + line, (depth + 1) * width,
        -(-result[2] // width), across, deep, turned,
    )  # fmt: skip


def _convolve(x, w, bias, y, offsets, plan, activation):
    """y, or where there are `offsets` its maxima."""
    none = NO_BIAS[x.dtype]
    u = scratch("convolution.points", plan.panels * POINTS * plan.point_u, w.dtype)
    _transform_weights(plan.panels * -(-plan.depth // DEPTH), 4 * u.size, w.reshape(-1), u, plan)
    products(offsets is not None)(
        -(-plan.tiles // plan.block), 2 * POINTS * plan.tiles * plan.depth * plan.outputs,
        x.reshape(-1), u, none if bias is None else bias, y.reshape(-1),
        none if offsets is None else offsets.reshape(-1), none, plan, CODES[activation],
    )  # fmt: skip


# What it costs, in multiply-adds of the direct tiles, fitted to both on 9 layers with 16 to 512 channels, 4 to 6272
# tiles and two cores of a Zen 3: a tile costs 32 for each channel and filter, and its transforms 480 for each channel
# and 480 for each filter; U costs 2000 for each channel and filter, most of it memory, whose time wider vectors do not
# shorten.
PRODUCT, TRANSFORM, WEIGHT = 32, 480, 2000 * simd.VECTOR_BYTES // 32


@lru_cache(maxsize=512)
def pays(images, height, width, depth, outputs, dilation=(1, 1)):
    """Whether a pass that writes `height` x `width` pixels should take at most 0.9 of the direct tiles' time."""
    tiles = images * _tiles(height, dilation[0]) * _tiles(width, dilation[1])
    here = depth * outputs * (PRODUCT * tiles + WEIGHT) + TRANSFORM * tiles * (depth + outputs)
    return here <= 0.9 * 9 * images * height * width * depth * outputs


def suits(g, images, height, width, depth, outputs, itemsize):
    """Whether a pass can be computed this way, and pays."""
    plain = (g.KH, g.KW, *g.strides, g.groups) == (3, 3, 1, 1, 1)
    line = LINE // itemsize
    fits = _bytes_of_v(ROWS, -(-depth // line) * line, itemsize) <= BLOCK_BYTES
    return plain and fits and pays(images, height, width, depth, outputs, g.dilation)


def _forward(x, w, b, y, g, activation):
    if not suits(g, g.N, g.OH, g.OW, g.C, g.F, x.itemsize):
        conv2d_threaded.forward(x, w, b, y, g, activation)
        return
    _convolve(x, w, b, y, None, _forward_plan(g, g.OH, g.OW, x.itemsize), activation)


def pooled_forward(x, w, b, y, offsets, g, activation):
    """y : the maxima of 2 x 2 pixels after the activation, None or "relu"; `offsets` may be empty."""
    _convolve(x, w, b, y, offsets, _forward_plan(g, g.OH // 2 * 2, g.OW // 2 * 2, x.itemsize), activation)


def _forward_plan(g, height, width, itemsize):
    before = g.padding[0][0], g.padding[1][0]
    return _plan(g.N, (g.H, g.W, g.C), (height, width, g.F), before, g.dilation, 1, g.F, False, itemsize)


def _data_gradient(dz, w, dx, g):
    if not suits(g, g.N, g.H, g.W, g.F, g.C, dz.itemsize):
        conv2d_threaded.data_gradient(dz, w, dx, g)
        return
    before = tuple(2 * apart - zeros for apart, (zeros, _) in zip(g.dilation, g.padding))
    plan = _plan(g.N, (g.OH, g.OW, g.F), (g.H, g.W, g.C), before, g.dilation, g.F, 1, True, dz.itemsize)
    _convolve(dz, w, None, dx, None, plan, None)


conv2d_winograd = Rung(_forward, _data_gradient, conv2d_threaded.weight_gradient)
