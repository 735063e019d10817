"""What rungs with two kernels, one that convolves and one that correlates, have in common around them."""

import math
from functools import cache, lru_cache
from itertools import chain

from numba import cuda, int32, int64, uint32

from ...arrays import namespace
from ...gemm.cuda import CODES, activate, add_up, share_of
from ...launch import element_of, kernel, pointer
from ...ptx import load, store
from ...quotients import quotient, reciprocal
from ..rung import Rung
from .window import backward_window, forward_window, phases, terms_of

# The sums for dw are cut into parts that begin at a multiple of this many pixels.
GRAIN = 8
# Weights are turned in tiles of so many filters by as many channels, in each of which a warp takes every 8th row.
TILE, THREADS = 32, 256
ROWS = THREADS // TILE


@cache
def turn(T):
    pitch = TILE + 1  # so that rows of the tile begin in other banks
    room = TILE * pitch

    @kernel(threads=THREADS)
    def turn_weights(
        w: pointer(T), turned: pointer(T), first_h: int32, every_h: int32, first_w: int32, every_w: int32,
        window_w: int32, depth: int32, filters: int32, channels: int32, columns: int32, taps_w: int32,
        across: int32, down: int32, across_factor: uint32, across_shift: uint32, down_factor: uint32,
        down_shift: uint32, taps_factor: uint32, taps_shift: uint32, depth_factor: uint32, depth_shift: uint32,
    ):  # fmt: skip
        """turned[th, tw, f, channel] = w[kh, kw, c, group's first filter + f], of the taps first, first + every ...
        alone. What a group's filters (`columns`) are to y, its channels (`depth`) are to dx.

        One block: 32 filters by 32 channels of a tap, of which there are `down` by `across`; one warp reads a channel's
        filters and writes a filter's channels, which lie side by side. 4 KB of shared memory, 8 with float64."""
        tile = cuda.shared.array(room, T)
        block = int32(cuda.blockIdx.x)
        x, y = int32(cuda.threadIdx.x & (TILE - 1)), int32(cuda.threadIdx.x // uint32(TILE))
        rest = quotient(block, across_factor, across_shift)
        tap = quotient(rest, down_factor, down_shift)
        channel0, f0 = int32((block - rest * across) * TILE), int32((rest - tap * down) * TILE)
        th = quotient(tap, taps_factor, taps_shift)
        kh, kw = int32(first_h + th * every_h), int32(first_w + (tap - th * taps_w) * every_w)
        matrix = int64(int32(kh * window_w + kw)) * depth
        for k in range(0, TILE, ROWS):
            channel, f = int32(channel0 + y + k), int32(f0 + x)
            if channel < channels and f < columns:
                group = quotient(channel, depth_factor, depth_shift)
                row = matrix + int32(channel - group * depth)
                store(tile, (y + k) * pitch + x, load(w, row * filters + int32(group * columns + f)))
        cuda.syncthreads()
        for k in range(0, TILE, ROWS):
            channel, f = int32(channel0 + x), int32(f0 + y + k)
            if channel < channels and f < columns:
                store(turned, int64(int32(tap * columns + f)) * channels + channel, load(tile, x * pitch + y + k))

    return turn_weights


@lru_cache(maxsize=256)
def sizes_of_turn(taps, taps_w, depth, filters, channels):
    """(Grid, what the kernel is told from `depth` on)."""
    columns = filters // (channels // depth)
    across, down = -(-channels // TILE), -(-columns // TILE)
    reciprocals = chain(*map(reciprocal, (across, down, taps_w, depth)))
    return (taps * across * down,), (depth, filters, channels, columns, taps_w, across, down, *reciprocals)


def make_rung(convolve, correlate, cut, parts_of):
    """A rung from its launchers; all their arrays are flat, `window` says what they compute (window.py).

    convolve(window, parts, x, w, bias, y, image_step, row_step, pixel_step, has_bias, floor, share, part_step)
        where y's pixels lie; and where its parts, each the sum of a share of the terms
    correlate(window, x, dz, partial, share, parts)    dw for each part, `share` pixels
    cut(window, T)    (parts, share) that there should be of y's sums
    parts_of(window, T)    how many parts there should be of dw's

    Both are from the sizes alone, so that sums are the same on every GPU.
    """

    def forward(x, w, b, y, g, activation):
        window, T = forward_window(g), element_of(x)
        steps = g.OH * g.OW * g.F, g.OW * g.F, g.F
        parts, share = cut(window, T)
        if parts > 1:
            partial = namespace(y).empty((parts * y.size,), y.dtype)
            convolve(window, parts, x, w, w, partial, *steps, False, -math.inf, share, y.size)
            add_up(partial, y, b, activation)
            return
        floor = 0.0 if activation == "relu" else -math.inf
        convolve(window, 1, x, w, w if b is None else b, y, *steps, b is not None, floor, share, 0)
        if activation in ("sigmoid", "tanh"):
            activate(T)((-(-y.size // 256),), y, y.size, CODES[activation])

    def data_gradient(dz, w, dx, g):
        T, flat = element_of(w), dx.reshape(-1)
        turned, used, (stride_h, stride_w) = namespace(w).empty((w.size,), w.dtype), 0, g.strides
        windows = [(h, v, backward_window(g, h, v)) for h, v in phases(g)]
        # All phases, which have not equally many taps, in the same number of parts: these are added up as a whole.
        parts = max(cut(window, T)[0] for _, _, window in windows)
        results = flat if parts == 1 else namespace(dx).empty((parts * dx.size,), dx.dtype)
        for h, v, window in windows:
            size = terms_of(window) * g.C
            matrix = turned[used : used + size]
            used += size
            taps = [number for axis in (h, v) for number in (axis.taps.start, axis.taps.step)]
            if size:
                grid, sizes = sizes_of_turn(len(h.taps) * len(v.taps), window.taps_w, g.C // g.groups, g.F, g.C)
                turn(T)(grid, w, matrix, *taps, g.KW, *sizes)
            steps = g.H * g.W * g.C, stride_h * g.W * g.C, stride_w * g.C
            first, share = (h.first * g.W + v.first) * g.C, share_of(terms_of(window), parts)
            convolve(window, parts, dz, matrix, matrix, results[first:], *steps, False, -math.inf, share, dx.size)
        if parts > 1:
            add_up(results, flat)

    def weight_gradient(x, dz, dw, g):
        window, T = forward_window(g), element_of(x)
        wanted = max(parts_of(window, T), 1)
        share = -(-window.pixels // (wanted * GRAIN)) * GRAIN
        parts = -(-window.pixels // share)
        partial = dw if parts == 1 else namespace(x).empty((parts * dw.size,), dw.dtype)
        correlate(window, x, dz, partial, share, parts)
        if parts > 1:
            add_up(partial, dw)

    return Rung(forward, data_gradient, weight_gradient)
