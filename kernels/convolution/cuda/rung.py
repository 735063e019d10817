"""What every rung offers, and what all of them have in common around their two kernels."""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from numba import cuda, int32, int64

from ...arrays import namespace
from ...gemm.cuda import CODES, activate, add_up, share_of
from ...launch import element_of, kernel, pointer
from ...ptx import load, store
from .window import backward_window, forward_window, phases, terms_of

# The sums for dw are cut into parts that begin at a multiple of this many pixels.
GRAIN = 8


class Rung(NamedTuple):
    """One variant of conv2d; all arrays C-contiguous, `geometry` the sizes from the contract."""

    forward: Callable  # (x, w, b or None, y, geometry, activation)
    data_gradient: Callable  # (dz, w, dx, geometry)
    weight_gradient: Callable  # (x, dz, dw, geometry)


@cache
def turn(T):
    @kernel(threads=256)
    def turn_weights(
        w: pointer(T), turned: pointer(T), taps_w: int32, first_h: int32, every_h: int32, first_w: int32,
        every_w: int32, window_w: int32, depth: int32, filters: int32, channels: int32, size: int64,
    ):  # fmt: skip
        """One thread: one number of turned[th, tw, f, channel] = w[kh, kw, c, group's first filter + f], of the taps
        first, first + every ... alone. What a group's filters are to y, its channels are to dx."""
        i = int64(cuda.blockIdx.x) * 256 + cuda.threadIdx.x
        if i < size:
            columns = filters // (channels // depth)
            row, channel = i // channels, int32(i % channels)
            tap, f = int32(row // columns), int32(row % columns)
            kh, kw = first_h + tap // taps_w * every_h, first_w + tap % taps_w * every_w
            group, c = channel // depth, channel % depth
            at = (int64(kh * window_w + kw) * depth + c) * filters + group * columns + f
            store(turned, i, load(w, at))

    return turn_weights


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
            turn(T)((-(-size // 256),), w, matrix, window.taps_w, *taps, g.KW, g.C // g.groups, g.F, g.C, size)
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
