"""Softmax and its logarithm: three passes over a row, the maximum; exponentials and their sum; the quotient.

naive     the passes of the definition, one number at a time, each exponential a call of the library
simd      the same passes on whole vectors, the exponential a polynomial in registers
threaded  the same, some rows at a time, over several threads
"""

import math

import numpy as np

from ... import threads
from ...arrays import flat
from ...jit import jit
from ...recording import on_host
from ...rows import (
    ROOM,
    ROWS,
    is_two_vectors,
    load_two,
    map_row,
    map_vectors,
    row_dot,
    row_exp,
    row_highest,
    row_log_parts,
    row_sum,
    rows_of_a_chunk,
    store_two,
    sum_of_two,
)
from ...simd import at, fma, stack_array, vfill, vhighest, viewed, vload_part, vmax
from ...threads import threaded
from ...vecmath import vexp, vlog
from ...workspace import past_caches

# ---------------------------------------------------------------------------------------------------------------------
# naive: arrays (rows, width)


@jit
def softmax_row_by_row(x, y):
    for row in range(len(x)):
        highest, total = x[row, 0], x.dtype.type(0)
        for j in range(x.shape[1]):
            highest = max(highest, x[row, j])
        for j in range(x.shape[1]):
            y[row, j] = math.exp(x[row, j] - highest)
            total += y[row, j]
        for j in range(x.shape[1]):
            y[row, j] /= total


@jit
def softmax_row_by_row_backward(dy, y, dx):
    for row in range(len(dy)):
        mean = dy.dtype.type(0)
        for j in range(dy.shape[1]):
            mean += dy[row, j] * y[row, j]
        for j in range(dy.shape[1]):
            dx[row, j] = y[row, j] * (dy[row, j] - mean)


@jit
def log_softmax_row_by_row(x, y):
    for row in range(len(x)):
        highest, total = x[row, 0], x.dtype.type(0)
        for j in range(x.shape[1]):
            highest = max(highest, x[row, j])
        for j in range(x.shape[1]):
            y[row, j] = x[row, j] - highest  # kept: x - (highest + logarithm) would hide a small logarithm
            total += math.exp(y[row, j])
        log_sum = math.log(total)
        for j in range(x.shape[1]):
            y[row, j] -= log_sum


@jit
def log_softmax_row_by_row_backward(dy, y, dx):
    for row in range(len(dy)):
        total = dy.dtype.type(0)
        for j in range(dy.shape[1]):
            total += dy[row, j]
        for j in range(dy.shape[1]):
            dx[row, j] = dy[row, j] - math.exp(y[row, j]) * total


def _row_by_row(kernel):
    def launch(*arrays):
        """Arrays (..., width), the output last."""
        if arrays[0].size:
            on_host(kernel, *[array.reshape(-1, array.shape[-1]) for array in arrays])

    return launch


softmax_naive, softmax_backward_naive = map(_row_by_row, (softmax_row_by_row, softmax_row_by_row_backward))
log_softmax_naive = _row_by_row(log_softmax_row_by_row)
log_softmax_backward_naive = _row_by_row(log_softmax_row_by_row_backward)

# ---------------------------------------------------------------------------------------------------------------------
# simd and threaded: one chunk is `group` rows


@map_vectors
@jit(inline=True)
def times(args, j, left):
    x, factor = args
    return vload_part(x, j, left) * factor


@jit
def softmax_rows(chunk, x, y, rows, width, group):
    for row in range(chunk * group, min(rows, (chunk + 1) * group)):
        start, end = row * width, (row + 1) * width
        if is_two_vectors(x, width):
            a, b = load_two(x, start, end)
            highest = vhighest(vmax(a, b))
            a, b = vexp(a - highest), vexp(b - highest)
            factor = 1.0 / vfill(x, sum_of_two(a, b, width))
            store_two(y, start, end, a * factor, b * factor)
        else:
            total = row_exp(x, y, start, end, row_highest(x, start, end))
            times(y, (y, x.dtype.type(1.0) / total), start, end)


@jit(inline=True)
def softmax_slope(args, j, left):
    dy, y, mean = args
    return vload_part(y, j, left) * (vload_part(dy, j, left) - mean)


def softmax_backward_kernel(past):
    slopes = map_row(softmax_slope, past)

    @jit(name=f"softmax_rows_backward{'_past' * past}")
    def softmax_rows_backward(chunk, dy, y, dx, rows, width, group):
        """dx = y (dy - sum of dy y)"""
        for row in range(chunk * group, min(rows, (chunk + 1) * group)):
            start, end = row * width, (row + 1) * width
            if is_two_vectors(y, width):
                a, b = load_two(dy, start, end)
                c, d = load_two(y, start, end)
                mean = sum_of_two(a * c, b * d, width)
                store_two(dx, start, end, c * (a - mean), d * (b - mean))
            else:
                slopes(dx, (dy, y, row_dot((dy, y), start, end)), start, end)

    return softmax_rows_backward


@map_vectors
@jit(inline=True)
def logarithms(args, j, left):
    (x,) = args
    return vlog(vload_part(x, j, left))


@jit(inline=True)
def log_softmax_value(args, j, left):
    x, highest, log_sum = args
    return fma(1.0, vload_part(x, j, left) - highest, -log_sum)


def log_softmax_kernel(past):
    values = map_row(log_softmax_value, past)

    @jit(name=f"log_softmax_rows{'_past' * past}")
    def log_softmax_rows(chunk, x, y, rows, width, group):
        """y = (x - highest) - log(sum of exp(x - highest)), in this order: a large `highest` hides the logarithm."""
        first, last = chunk * group, min(rows, (chunk + 1) * group)
        highest, log_sums = viewed(stack_array(np.uint8, ROOM), x), viewed(stack_array(np.uint8, ROOM), x)
        for row in range(first, last):
            highest[row - first], log_sums[row - first] = row_log_parts(x, row * width, (row + 1) * width)
        logarithms(log_sums, (log_sums,), 0, last - first)
        for row in range(first, last):
            args = x, at(highest, row - first), at(log_sums, row - first)
            values(y, args, row * width, (row + 1) * width)

    return log_softmax_rows


@jit(inline=True)
def log_softmax_slope(args, j, left):
    dy, y, total = args
    return fma(vexp(vload_part(y, j, left)), -total, vload_part(dy, j, left))


def log_softmax_backward_kernel(past):
    slopes = map_row(log_softmax_slope, past)

    @jit(name=f"log_softmax_rows_backward{'_past' * past}")
    def log_softmax_rows_backward(chunk, dy, y, dx, rows, width, group):
        """dx = dy - exp(y) sum of dy"""
        for row in range(chunk * group, min(rows, (chunk + 1) * group)):
            start, end = row * width, (row + 1) * width
            if is_two_vectors(y, width):
                a, b = load_two(dy, start, end)
                c, d = load_two(y, start, end)
                total = sum_of_two(a, b, width)
                store_two(dx, start, end, fma(vexp(c), -total, a), fma(vexp(d), -total, b))
            else:
                slopes(dx, (dy, y, row_sum((dy,), start, end)), start, end)

    return log_softmax_rows_backward


def _over_rows(kernel, past_kernel=None):
    """Two launchers: one chunk after another, and over several threads.

    past_kernel : the same, but it writes its output past the caches.
    """
    run, run_past = threaded(kernel), past_kernel and threaded(past_kernel)

    def arguments(arrays):
        """(Chunks, what each gets) for arrays (..., width), the output last."""
        width = arrays[0].shape[-1]
        rows, group = arrays[0].size // width, rows_of_a_chunk(width)
        return -(-rows // group), (*map(flat, arrays), rows, width, group)

    def launch_in_turn(*arrays):
        if arrays[0].size:
            chunks, args = arguments(arrays)
            run.in_turn(chunks, *args)

    def launch(*arrays):
        if arrays[0].size:
            chunks, args = arguments(arrays)
            past = run_past and past_caches(arrays[-1], len(arrays) * arrays[0].nbytes)
            (run_past if past else run)(chunks, 24 * arrays[0].size, *args)

    launch.kernel = kernel
    return launch_in_turn, launch


# Numbers up to which the checks and the launch take longer than the kernel.
AT_ONCE = 4096
_FLOATS = np.dtype(np.float32), np.dtype(np.float64)


def _at_once(kernel):
    """A function of the inputs and the axis: the output by the shortest way; None where the arrays are not small, or
    something about them not plain."""
    name = kernel.py_func.__name__

    @jit(name=f"{name}_of_one_at_once")
    def forward(x, y, width):
        rows = x.size // width
        for chunk in range((rows + ROWS - 1) // ROWS):
            kernel(chunk, x, y, rows, width, ROWS)

    @jit(name=f"{name}_of_two_at_once")
    def backward(dy, y, dx, width):
        rows = y.size // width
        for chunk in range((rows + ROWS - 1) // ROWS):
            kernel(chunk, dy, y, dx, rows, width, ROWS)

    def launch(x, axis, *more):
        if x.dtype not in _FLOATS or not 0 < x.size <= AT_ONCE or not x.flags.c_contiguous or axis != -1 or not x.ndim:
            return None
        for other in more:
            if other.dtype is not x.dtype or other.shape != x.shape or not other.flags.c_contiguous:
                return None
        if threads.recorder is not None:
            return None
        out = np.empty(x.shape, x.dtype)
        if more:
            backward(x.ravel(), more[0].ravel(), out.ravel(), x.shape[-1])
        else:
            forward(x.ravel(), out.ravel(), x.shape[-1])
        return out

    return launch


softmax_backward_rows, softmax_backward_past = map(softmax_backward_kernel, (False, True))
log_softmax_rows, log_softmax_past = map(log_softmax_kernel, (False, True))
log_softmax_backward_rows, log_softmax_backward_past = map(log_softmax_backward_kernel, (False, True))

softmax_simd, softmax = _over_rows(softmax_rows)
softmax_backward_simd, softmax_backward = _over_rows(softmax_backward_rows, softmax_backward_past)
log_softmax_simd, log_softmax = _over_rows(log_softmax_rows, log_softmax_past)
log_softmax_backward_simd, log_softmax_backward = _over_rows(log_softmax_backward_rows, log_softmax_backward_past)

softmax_at_once, softmax_backward_at_once = _at_once(softmax_rows), _at_once(softmax_backward_rows)
log_softmax_at_once, log_softmax_backward_at_once = _at_once(log_softmax_rows), _at_once(log_softmax_backward_rows)
