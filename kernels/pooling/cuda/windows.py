"""Windows over images: where they lie, which of them cover a cell, and how kernels are launched over them.

Numbers are int32, which Numba has to be told at every step: of 64 bits, each costs a GPU twice, and a product four
times. So a launch takes as many images as have less than 2^31 vectors.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from numba import cuda, int32

from ...quotients import LIMIT, quotient, reciprocal
from ...wide import width_of

THREADS = 256
# Vectors of a launch: what is counted in steps of a block at most stays below 2^31.
MOST = LIMIT - THREADS - 1
# Cells of a window from which on a block shares it.
MANY = 32


class Rung(NamedTuple):
    """One variant: forward fills y (and offsets, if they are wanted), backward fills dx."""

    forward: Callable
    backward: Callable


@cuda.jit(device=True, forceinline=True)
def cells_of(window, stride, before, size, edge):
    """A window along one axis: where it starts, and the first and the end of its cells that lie in the image."""
    start = int32(window * stride - before)
    return start, int32(max(start, 0)), int32(min(int32(start + size), edge))


@cuda.jit(device=True, forceinline=True)
def windows_over(cell, size, stride, windows, stride_factor, stride_shift):
    """The first and the end of the windows that cover a cell of the padded image, along one axis."""
    first = quotient(int32(max(int32(cell - size + stride), 0)), stride_factor, stride_shift)
    return first, int32(min(int32(quotient(cell, stride_factor, stride_shift) + 1), windows))


@cuda.jit(device=True, forceinline=True)
def pixel_of(
    i, vectors, vectors_factor, vectors_shift, wide, wide_factor, wide_shift, high, high_factor, high_shift
):  # fmt: skip
    """(image, row, column, vector of channels) of the i-th vector of images that are high x wide."""
    pixel = quotient(i, vectors_factor, vectors_shift)
    row = quotient(pixel, wide_factor, wide_shift)
    image = quotient(row, high_factor, high_shift)
    return image, int32(row - image * high), int32(pixel - row * wide), int32(i - pixel * vectors)


def lanes_of(channels, *arrays):
    """Channels of one thread: those in 16 bytes, or one where pixels or arrays do not start on that."""
    lanes = width_of(*arrays)
    return 1 if channels % lanes else lanes


# Vectors of half a cell, of which the offsets fill sectors of memory (32 bytes).
HALF = 8


def own_of(channels, lanes):
    """How many vectors of a cell a thread of a gradient takes: two have half as many sums of where they are."""
    return 1 if channels // lanes % (2 * HALF) else 2


def launch_over_cells(launch, of_outputs, lanes, arrays, geometry, own=1):
    """Launch with a thread for each `own` vectors of all outputs, or of all cells of the images."""
    for images, parts in _portions(lanes, arrays, geometry):
        size, sizes = _vectors(images, of_outputs, own * lanes, geometry)
        launch((-(-size // THREADS),), *parts, size, *sizes)


def launch_over_windows(launch, lanes, arrays, geometry):
    """Launch with a block for each window and as many vectors of channels as it can take side by side: 32."""
    for images, parts in _portions(lanes, arrays, geometry):
        blocks, sizes = _groups(images, lanes, geometry)
        launch((blocks,), *parts, *sizes)


def _portions(lanes, arrays, geometry):
    """[(how many images, the arrays of these)], each with less than 2^31 vectors of x and of y."""
    n, height, width, channels, *_, out_h, out_w = geometry
    vectors = max(height * width, out_h * out_w) * (channels // lanes)
    if n * vectors <= MOST:
        return [(n, arrays)] if n * vectors else []
    if vectors > MOST:
        raise ValueError(f"pooling: an image has {vectors} times {lanes} numbers: must be {MOST} times at most")
    firsts = range(0, n, MOST // vectors)
    arrays = [array.reshape(n, -1) for array in arrays]
    return [(min(firsts.step, n - first), [array[first : first + firsts.step] for array in arrays]) for first in firsts]


# What kernels are told. A stride beyond the image is as good as one to its end: there is one window.


@lru_cache(maxsize=256)
def _vectors(images, of_outputs, lanes, geometry):
    _, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    vectors, stride_h, stride_w = channels // lanes, min(stride_h, height), min(stride_w, width)
    high, wide = (out_h, out_w) if of_outputs else (height, width)
    sizes = height, width, vectors, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w
    divisors = (vectors, wide, high) if of_outputs else (vectors, wide, high, stride_h, stride_w)
    return images * high * wide * vectors, (*sizes, *chain(*map(reciprocal, divisors)))


@lru_cache(maxsize=256)
def _groups(images, lanes, geometry):
    _, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    vectors, stride_h, stride_w = channels // lanes, min(stride_h, height), min(stride_w, width)
    across_bits = min(5, (vectors - 1).bit_length())
    groups, span = -(-vectors >> across_bits), min(size_w, width)
    sizes = height, width, vectors, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w
    divisors = chain(*map(reciprocal, (groups, out_w, out_h)))
    told = 1 << across_bits, across_bits, groups, *sizes, *divisors, span, *reciprocal(span)
    return images * out_h * out_w * groups, told
