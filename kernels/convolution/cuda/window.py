"""Where the numbers lie that a convolution multiplies: sizes for the kernels, and counters that spare them divisions.

The forward pass and the data gradient are one computation. For each pixel (i, j) of a grid, and each tap (th, tw) of a
window, the kernels read the source at

    (start_h + i * step_h + th * tap_h, start_w + j * step_w + tw * tap_w)        zeros outside

and multiply its channels with the tap's matrix. Forward, the grid is y, the source x, and a step a stride. The data
gradient with strides SH, SW falls into SH * SW phases: the cells (h, w) of dx with the same h % SH and w % SW see the
same taps, each of them at whole cells of dz. A phase is the convolution of dz with those taps turned around.
"""

from math import gcd
from typing import NamedTuple

from numba import cuda, int32

from ...gemm.cuda import split

# Pixels of a call, less than 2^31 by what a block may count beyond.
MOST_PIXELS = (1 << 31) - (1 << 10)


class Window(NamedTuple):
    """The sizes of one such computation, in the order in which all kernels take them."""

    height: int  # of the source
    width: int
    channels: int
    depth: int  # channels of a group
    rows_h: int  # of the grid
    rows_w: int
    start_h: int
    start_w: int
    step_h: int
    step_w: int
    taps_h: int  # of the window
    taps_w: int
    tap_h: int  # distance of taps
    tap_w: int
    pixels: int  # of all images' grids
    filters: int  # columns of the result
    columns: int  # of them in a group


def forward_window(g):
    """y from x, and the pixels that are added up in dw."""
    if max(g.H * g.W, g.OH * g.OW) * g.N > MOST_PIXELS:
        raise ValueError(
            f"conv2d: x has {g.N * g.H * g.W} pixels and y {g.N * g.OH * g.OW}: on a GPU neither may have more than "
            f"{MOST_PIXELS}: pass fewer images at once"
        )
    (top, _), (left, _) = g.padding
    return Window(
        g.H, g.W, g.C, g.C // g.groups, g.OH, g.OW, -top, -left, *g.strides, g.KH, g.KW, *g.dilation,
        g.N * g.OH * g.OW, g.F, g.F // g.groups,
    )  # fmt: skip


def terms_of(window):
    """Terms of a sum for y, which are as many as dw has rows."""
    return window.taps_h * window.taps_w * window.depth


class Phase(NamedTuple):
    """The cells first, first + stride ... of dx along one axis, and the taps that reach them."""

    first: int
    rows: int
    start: int  # the cell of dz that the first tap meets at the first row
    taps: range  # in w
    apart: int  # cells of dz from a tap to the next


def _phase(first, size, window, stride, step, before):
    # Tap t meets cell `first` of dx at cell (first + before - t * step) / stride of dz.
    every = stride // gcd(stride, step)
    taps = [tap for tap in range(window) if (first + before - tap * step) % stride == 0]
    taps = range(taps[0], window, every) if taps else range(0)
    start = (first + before - taps[0] * step) // stride if taps else 0
    return Phase(first, -(-(size - first) // stride), start, taps, -(every * step // stride))


def phases(g):
    """All phases of dx, (along the height, along the width)."""
    axes = zip((g.H, g.W), (g.KH, g.KW), g.strides, g.dilation, g.padding)
    down, across = (
        [_phase(first, size, window, stride, step, before) for first in range(min(stride, size))]
        for size, window, stride, step, (before, _) in axes
    )
    return [(h, w) for h in down for w in across]


def backward_window(g, h, w):
    """One phase of dx from dz. No taps at all are no rows of taps: kernels divide by the number of those in a row."""
    return Window(
        g.OH, g.OW, g.F, g.F // g.groups, h.rows, w.rows, h.start, w.start, 1, 1, len(h.taps) if w.taps else 0,
        len(w.taps) or 1, h.apart, w.apart, g.N * h.rows * w.rows, g.C, g.C // g.groups,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# For kernels. A position has three digits: (channel, tw, th) in the window, (j, i, image) in the grids. Pixels are
# numbered in 32 bits, because a division of 64 takes several times as long.


@cuda.jit(device=True, forceinline=True)
def set_digits(digits, number, low, middle):
    """The digits of a number, of which the lowest counts to `low` and the next to `middle`."""
    rest, digits[0] = split(number, low)
    digits[2], digits[1] = split(rest, middle)


@cuda.jit(device=True, forceinline=True)
def count_on(digits, by, low, middle):
    """The digits of a number `by` further on."""
    digits[0] += by
    while digits[0] >= low:
        digits[0] -= low
        digits[1] += 1
        if digits[1] == middle:
            digits[1] = 0
            digits[2] += 1


@cuda.jit(device=True, forceinline=True)
def count_one(digits, low, middle):
    """The digits of the next number."""
    digits[0] += 1
    if digits[0] == low:
        digits[0] = 0
        digits[1] += 1
        if digits[1] == middle:
            digits[1] = 0
            digits[2] += 1


@cuda.jit(device=True, forceinline=True)
def column_of(place, columns, block_columns):
    """(group, first column in it) of the block's place along a row of the result."""
    group, block = split(place, (columns + block_columns - 1) // block_columns)
    return group, int32(block * block_columns)


@cuda.jit(device=True, forceinline=True)
def blocks_across(filters, columns, block_columns):
    """Blocks along a row of the result: of each group, so many that its columns fit."""
    groups, _ = split(filters, columns)
    return groups * ((columns + block_columns - 1) // block_columns)
