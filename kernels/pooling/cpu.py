"""Pooling on a CPU.

    naive   the loops of the definition, one number at a time; backward adds to dx wherever a window says so
    simd    a vector of channels at a time, chunk by chunk over several threads; backward goes by rows of dx

Channels lie next to each other in memory, so a vector of them is as many windows at once. A chunk is some rows: of y
forward, of dx backward. A row of dx collects from the windows that cover it, in rising order, so no two threads add
to the same number, windows may overlap as they like, and dx goes to memory once.

`geometry` is the contract's Geometry as a plain tuple: N, H, W, C, KH, KW, SH, SW, top, left, OH, OW.
"""

from collections.abc import Callable
from typing import NamedTuple

from ..jit import jit
from ..simd import lane_numbers, lanes, select, vfill, vload_as_part, vload_part, vstore_as_part, vstore_part
from ..threads import threaded

# Cells that a chunk looks at: long enough to be worth a thread's while, short enough that threads share evenly.
CHUNK = 32768
# What one cell costs in arithmetic operations, memory counted in: it decides between threads and none.
WORK = 4


class Rung(NamedTuple):
    """One variant: forward fills y (and offsets), backward fills dx. All arrays are flat."""

    forward: Callable
    backward: Callable


@jit(inline=True)
def cells_of(window, stride, before, size, edge):
    """A window along one axis: where it starts, and the first and the end of its cells that lie in the image."""
    start = window * stride - before
    return start, max(start, 0), min(start + size, edge)


# ---------------------------------------------------------------------------------------------------------------------
# naive


@jit
def max_forward_naive(x, y, offsets, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    for row in range(n * out_h):
        h0, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
        for ow in range(out_w):
            w0, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            for c in range(channels):
                target = (row * out_w + ow) * channels + c
                found = False
                for h in range(h_first, h_end):
                    for w in range(w_first, w_end):
                        value = x[((row // out_h * height + h) * width + w) * channels + c]
                        best = y[target]
                        if not found or (best == best and not value <= best):
                            y[target], offsets[target], found = value, (h - h0) * size_w + w - w0, True


@jit
def max_backward_naive(dy, offsets, dx, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    dx[:] = 0
    for row in range(n * out_h):
        for ow in range(out_w):
            for c in range(channels):
                source = (row * out_w + ow) * channels + c
                h = row % out_h * stride_h - top + offsets[source] // size_w
                w = ow * stride_w - left + offsets[source] % size_w
                dx[((row // out_h * height + h) * width + w) * channels + c] += dy[source]


@jit
def avg_forward_naive(x, y, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    for row in range(n * out_h):
        _, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
        for ow in range(out_w):
            _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            for c in range(channels):
                total, cells = x.dtype.type(0), x.dtype.type(0)
                for h in range(h_first, h_end):
                    for w in range(w_first, w_end):
                        total += x[((row // out_h * height + h) * width + w) * channels + c]
                        cells += 1
                y[(row * out_w + ow) * channels + c] = total / cells


@jit
def avg_backward_naive(dy, dx, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    dx[:] = 0
    for row in range(n * out_h):
        _, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
        for ow in range(out_w):
            _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            for c in range(channels):
                share = dy[(row * out_w + ow) * channels + c] / ((h_end - h_first) * (w_end - w_first))
                for h in range(h_first, h_end):
                    for w in range(w_first, w_end):
                        dx[((row // out_h * height + h) * width + w) * channels + c] += share


max_naive = Rung(max_forward_naive, max_backward_naive)
avg_naive = Rung(avg_forward_naive, avg_backward_naive)


# ---------------------------------------------------------------------------------------------------------------------
# simd: windows of 2 x 2 cells, by far the most common, take the same lines with constant bounds, which unroll


@jit(inline=True)
def best_of(x, start, line, pixel, rows, columns, size_w, count):
    """The largest of rows x columns vectors, and its number in a window that is size_w wide; both stay in registers."""
    best = vload_part(x, start, count)
    offset = vfill(lane_numbers(x), 0)
    for i in range(rows):
        for j in range(columns):
            value = vload_part(x, start + i * line + j * pixel, count)
            better = (best == best) & ~(value <= best)  # the first NaN wins for good
            best = select(better, value, best)
            offset = select(better, i * size_w + j, offset)
    return best, offset


@jit
def max_forward_chunk(chunk, rows, x, y, offsets, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    for row in range(chunk * rows, min((chunk + 1) * rows, n * out_h)):
        h0, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
        for ow in range(out_w):
            w0, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            high, wide = h_end - h_first, w_end - w_first
            start = ((row // out_h * height + h_first) * width + w_first) * channels
            target = (row * out_w + ow) * channels
            for c in range(0, channels, lanes(x)):
                if high == 2 and wide == 2:
                    best, offset = best_of(x, start + c, width * channels, channels, 2, 2, size_w, channels - c)
                elif high == 3 and wide == 3:
                    best, offset = best_of(x, start + c, width * channels, channels, 3, 3, size_w, channels - c)
                else:
                    best, offset = best_of(x, start + c, width * channels, channels, high, wide, size_w, channels - c)
                offset = offset + ((h_first - h0) * size_w + w_first - w0)
                vstore_part(y, target + c, best, channels - c)
                vstore_as_part(offsets, target + c, offset, channels - c)


@jit(inline=True)
def sum_of(x, start, line, pixel, rows, columns, count):
    """Each row of the window is summed for itself, so that rounding grows with its edges and not with its area."""
    total = vfill(x, 0)
    for i in range(rows):
        across = vfill(x, 0)
        for j in range(columns):
            across = across + vload_part(x, start + i * line + j * pixel, count)
        total = total + across
    return total


@jit
def avg_forward_chunk(chunk, rows, x, y, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    for row in range(chunk * rows, min((chunk + 1) * rows, n * out_h)):
        _, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
        for ow in range(out_w):
            _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            high, wide = h_end - h_first, w_end - w_first
            start = ((row // out_h * height + h_first) * width + w_first) * channels
            for c in range(0, channels, lanes(x)):
                if high == 2 and wide == 2:
                    total = sum_of(x, start + c, width * channels, channels, 2, 2, channels - c)
                elif high == 3 and wide == 3:
                    total = sum_of(x, start + c, width * channels, channels, 3, 3, channels - c)
                else:
                    total = sum_of(x, start + c, width * channels, channels, high, wide, channels - c)
                vstore_part(y, (row * out_w + ow) * channels + c, total / (high * wide), channels - c)


@jit(inline=True)
def windows_over(cell, stride, size, windows):
    """The first and the end of the windows that cover a cell of the padded image, along one axis."""
    return max((cell - size) // stride + 1, 0), min(cell // stride + 1, windows)


@jit(inline=True)
def prepare(dx, row, geometry):
    """True where no two windows share a cell: then they assign what they would otherwise add, which saves reading dx.

    The row of dx starts as zeros, unless assignments will fill it without a gap.
    """
    _, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    apart = stride_h >= size_h and stride_w >= size_w
    oh_first, oh_end = windows_over(row % height + top, stride_h, size_h, out_h)
    if not (apart and stride_w == size_w and out_w * stride_w - left >= width and oh_first < oh_end):
        zero = vfill(dx, 0)
        for i in range(0, width * channels, lanes(dx)):
            vstore_part(dx, row * width * channels + i, zero, width * channels - i)
    return apart


@jit(inline=True)
def spread_to_best(dx, target, pixel, columns, share, offset, cell, apart, count):
    """Give the share to that one of `columns` vectors which holds the maximum; `cell` is the number of the first."""
    for j in range(columns):
        here = select(offset == cell + j, share, 0.0)
        if not apart:
            here = here + vload_part(dx, target + j * pixel, count)
        vstore_part(dx, target + j * pixel, here, count)


@jit
def max_backward_chunk(chunk, rows, dy, offsets, dx, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    for row in range(chunk * rows, min((chunk + 1) * rows, n * height)):
        apart = prepare(dx, row, geometry)
        h = row % height + top
        oh_first, oh_end = windows_over(h, stride_h, size_h, out_h)
        for oh in range(oh_first, oh_end):
            for ow in range(out_w):
                w0, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
                cell, wide = (h - oh * stride_h) * size_w + w_first - w0, w_end - w_first
                source = ((row // height * out_h + oh) * out_w + ow) * channels
                target = (row * width + w_first) * channels
                for c in range(0, channels, lanes(dx)):
                    count = channels - c
                    share, offset = vload_part(dy, source + c, count), vload_as_part(dy, offsets, source + c, count)
                    if apart and wide == 2:
                        spread_to_best(dx, target + c, channels, 2, share, offset, cell, True, count)
                    else:
                        spread_to_best(dx, target + c, channels, wide, share, offset, cell, apart, count)


@jit(inline=True)
def spread_evenly(dx, target, pixel, columns, share, apart, count):
    """Give the share to each of `columns` vectors."""
    for j in range(columns):
        here = share
        if not apart:
            here = here + vload_part(dx, target + j * pixel, count)
        vstore_part(dx, target + j * pixel, here, count)


@jit
def avg_backward_chunk(chunk, rows, dy, dx, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    for row in range(chunk * rows, min((chunk + 1) * rows, n * height)):
        apart = prepare(dx, row, geometry)
        oh_first, oh_end = windows_over(row % height + top, stride_h, size_h, out_h)
        for oh in range(oh_first, oh_end):
            _, h_first, h_end = cells_of(oh, stride_h, top, size_h, height)
            for ow in range(out_w):
                _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
                wide = w_end - w_first
                source = ((row // height * out_h + oh) * out_w + ow) * channels
                target = (row * width + w_first) * channels
                for c in range(0, channels, lanes(dx)):
                    share = vload_part(dy, source + c, channels - c) / ((h_end - h_first) * wide)
                    if apart and wide == 2:
                        spread_evenly(dx, target + c, channels, 2, share, True, channels - c)
                    else:
                        spread_evenly(dx, target + c, channels, wide, share, apart, channels - c)


def _by_rows_of_y(chunk_kernel):
    """A launcher that gives each chunk some rows of y."""
    launch = threaded(chunk_kernel)

    def run(*args):
        n, _, _, channels, size_h, size_w, *_, out_h, out_w = args[-1]
        _launch(launch, n * out_h, out_w * channels * size_h * size_w, args)

    return run


def _by_rows_of_dx(chunk_kernel):
    """A launcher that gives each chunk some rows of dx."""
    launch = threaded(chunk_kernel)

    def run(*args):
        n, height, width, channels, size_h, size_w, stride_h, stride_w, *_ = args[-1]
        windows = -(-size_h // stride_h) * -(-size_w // stride_w)  # that a cell lies in
        _launch(launch, n * height, width * channels * (1 + windows), args)

    return run


def _launch(launch, rows, row_cells, args):
    if rows * row_cells > 0:
        together = max(1, CHUNK // row_cells)
        launch(-(-rows // together), WORK * rows * row_cells, together, *args)


max_simd = Rung(_by_rows_of_y(max_forward_chunk), _by_rows_of_dx(max_backward_chunk))
avg_simd = Rung(_by_rows_of_y(avg_forward_chunk), _by_rows_of_dx(avg_backward_chunk))
