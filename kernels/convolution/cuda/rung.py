"""What every rung offers, and what all of them have in common around their two kernels."""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from numba import cuda, int32, int64

from ...arrays import namespace
from ...gemm.cuda import CODES, activate, add_rows
from ...launch import element_of, kernel, pointer
from ...ptx import load, store
from .window import backward_window, forward_window, phases

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


def make_rung(convolve, correlate, parts_of):
    """A rung from its launchers; all their arrays are flat, `window` says what they compute (window.py).

    convolve(window, x, w, bias, y, image_step, row_step, pixel_step, has_bias, floor)    where y's pixels lie
    correlate(window, x, dz, partial, share, parts)    dw for each part, `share` pixels
    parts_of(window, T)    how many parts there should be
    """

    def forward(x, w, b, y, g, activation):
        flat, w = y.reshape(-1), w.reshape(-1)
        floor = 0.0 if activation == "relu" else -math.inf
        steps = g.OH * g.OW * g.F, g.OW * g.F, g.F
        some = w if b is None else b
        convolve(forward_window(g), x.reshape(-1), w, some, flat, *steps, b is not None, floor)
        if activation in ("sigmoid", "tanh"):
            activate(element_of(y))((-(-y.size // 256),), flat, y.size, CODES[activation])

    def data_gradient(dz, w, dx, g):
        dz, w, flat = dz.reshape(-1), w.reshape(-1), dx.reshape(-1)
        turned = namespace(w).empty(w.shape, w.dtype)
        (stride_h, stride_w), used = g.strides, 0
        for h, v in phases(g):
            window = backward_window(g, h, v)
            size = window.taps_h * window.taps_w * window.depth * g.C
            matrix = turned[used : used + size]
            used += size
            taps = [number for axis in (h, v) for number in (axis.taps.start, axis.taps.step)]
            turn(element_of(w))(
                (-(-size // 256),), w, matrix, window.taps_w, *taps, g.KW, g.C // g.groups, g.F, g.C, size
            )
            steps = g.H * g.W * g.C, stride_h * g.W * g.C, stride_w * g.C
            convolve(window, dz, matrix, matrix, flat[(h.first * g.W + v.first) * g.C :], *steps, False, -math.inf)

    def weight_gradient(x, dz, dw, g):
        window, T, xp, flat = forward_window(g), element_of(x), namespace(x), dw.reshape(-1)
        wanted = max(parts_of(window, T), 1)
        share = -(-window.pixels // (wanted * GRAIN)) * GRAIN
        parts = -(-window.pixels // share)
        partial = flat if parts == 1 else xp.empty((parts * dw.size,), dw.dtype)
        correlate(window, x.reshape(-1), dz.reshape(-1), partial, share, parts)
        if parts > 1:
            add_rows(T)((-(-dw.size // 256),), partial, parts, dw.size, flat)

    return Rung(forward, data_gradient, weight_gradient)
