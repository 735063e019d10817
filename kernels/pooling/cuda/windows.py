"""Windows over images: where they lie, which of them cover a cell, and how kernels are launched over them."""

from collections.abc import Callable
from typing import NamedTuple

from numba import cuda, int32, int64, uint32

from ...wide import width_of

THREADS = 256
# Cells of a window from which on a block shares it.
MANY = 32


class Rung(NamedTuple):
    """One variant: forward fills y (and offsets, if they are wanted), backward fills dx. All arrays are flat."""

    forward: Callable
    backward: Callable


@cuda.jit(device=True, forceinline=True)
def cells_of(window, stride, before, size, edge):
    """A window along one axis: where it starts, and the first and the end of its cells that lie in the image."""
    start = window * stride - before
    return start, max(start, 0), min(start + size, edge)


@cuda.jit(device=True, forceinline=True)
def quotient(a, b):
    """a // b, for numbers from 0 to below 2**32: in 64 bits, which Numba would take, a GPU divides by a subroutine."""
    return int64(uint32(a) // uint32(b))


@cuda.jit(device=True, forceinline=True)
def windows_over(cell, stride, size, windows):
    """The first and the end of the windows that cover a cell of the padded image, along one axis."""
    first = int64(0)
    if cell >= size:
        first = quotient(cell - size, stride) + 1
    return first, min(quotient(cell, stride) + 1, windows)


@cuda.jit(device=True, forceinline=True)
def pixel_of(i, vectors, wide, high):
    """(image, row, column, vector of channels) of the i-th vector of images that are high x wide."""
    pixel = i // vectors
    row = pixel // wide
    image = row // high
    return image, int32(row - image * high), int32(pixel - row * wide), int32(i - pixel * vectors)


def lanes_of(channels, *arrays):
    """Channels of one thread: those in 16 bytes, or one where pixels or arrays do not start on that."""
    lanes = width_of(*arrays)
    return 1 if channels % lanes else lanes


def launch_over_cells(launch, cells, lanes, arrays, geometry):
    """Launch with a thread for each vector of all images, each of which has so many cells."""
    size = geometry[0] * cells * (geometry[3] // lanes)
    launch((-(-size // THREADS),), *arrays, size, *_sizes(geometry))


def launch_over_windows(launch, lanes, arrays, geometry):
    """Launch with a block for each window and as many vectors of channels as it can take side by side: 32."""
    n, _, _, channels, *_, out_h, out_w = geometry
    vectors = channels // lanes
    across = min(32, 1 << max(vectors - 1, 0).bit_length())
    launch((n * out_h * out_w * -(-vectors // across),), *arrays, across, *_sizes(geometry))


def _sizes(geometry):
    """What kernels are told. A stride beyond the image is as good as one to its end: there is one window."""
    _, height, width, channels, size_h, size_w, stride_h, stride_w, *rest = geometry
    return height, width, channels, size_h, size_w, min(stride_h, height), min(stride_w, width), *rest
