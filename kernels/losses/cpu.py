"""Losses on a CPU: one pass over the data each, forward and backward.

Rounding: a chunk adds up at most a few thousand terms, in blocks, in the dtype of the data; the chunks' sums, each a
part of the mean already, are added in order and in float64. So a float32 mean over millions of elements is as good as
one over hundreds, and the same bits for any number of threads.
"""

import math

import numpy as np

from ..arrays import flat
from ..jit import jit
from ..recording import on_host
from ..rows import ROOM, map_row, map_vectors, row_argmax, row_log_parts, row_sum, rows_of_a_chunk, sum_of
from ..simd import (
    at,
    first_lanes,
    fma,
    lane_numbers,
    select,
    stack_array,
    vabs,
    vfill,
    viewed,
    vload_part,
)
from ..threads import threaded
from ..vecmath import clamp, vexp, vlog, vlog1p, vsigmoid
from ..workspace import past_caches

# Elements of one chunk of an elementwise loss.
CHUNK = 4096
# Probabilities are kept this far from 0 and 1, as Keras does; and so are their logarithms, as 1 - 1e-7 is no float32.
LOWEST, HIGHEST = 1e-7, 1.0 - 1e-7
LOG_LOWEST, LOG_HIGHEST = math.log(LOWEST), math.log(HIGHEST)


@jit
def add_up(partial, result):
    total = 0.0
    for chunk in range(partial.size):
        total += partial[chunk]
    result[0] = total


def _total(partial):
    """The sum of the chunks' parts as an array without dimensions."""
    if partial.size == 1:
        return partial.reshape(())
    result = np.empty(1, partial.dtype)
    on_host(add_up, partial, result)
    return result.reshape(())


# ---------------------------------------------------------------------------------------------------------------------
# Losses of one element: the loss of two vectors, and its slope


@jit(inline=True)
def log_of_clipped(p):
    """log(p), p kept between LOWEST and HIGHEST."""
    y = vlog(select(p < LOWEST, LOWEST, p))
    return select(y > LOG_HIGHEST, LOG_HIGHEST, y)


@jit(inline=True)
def _squared(y, t):
    return (y - t) * (y - t)


@jit(inline=True)
def _squared_slope(y, t):
    return 2.0 * (y - t)


@jit(inline=True)
def _absolute(y, t):
    return vabs(y - t)


@jit(inline=True)
def _absolute_slope(y, t):
    d = y - t
    return select(d > 0.0, 1.0, select(d < 0.0, -1.0, d))


@jit(inline=True)
def _binary(p, t):
    other = clamp(vlog1p(-clamp(p, 0.0, 1.0)), LOG_LOWEST, LOG_HIGHEST)
    return fma(-t, log_of_clipped(p), (t - 1.0) * other)


@jit(inline=True)
def _binary_slope(p, t):
    return select((p < LOWEST) | (p > HIGHEST), 0.0, (p - t) / (p * (1.0 - p)))


@jit(inline=True)
def _logistic(x, t):
    """log(1 + e^x) - x t, without an exponential that overflows."""
    return fma(-x, t, select(x < 0.0, 0.0, x)) + vlog1p(vexp(-vabs(x)))


@jit(inline=True)
def _logistic_slope(x, t):
    return vsigmoid(x) - t


def elementwise(loss, slope, work):
    """Launchers (y, t) -> mean and (scale, y, t, dy) for one of the losses above; one chunk is CHUNK elements."""

    @sum_of
    @jit(inline=True)
    def loss_of(args, i, left):
        y, t = args
        return select(first_lanes(y, left), loss(vload_part(y, i, left), vload_part(t, i, left)), 0.0)

    @jit(inline=True)
    def slope_of(args, i, left):
        y, t, scale = args
        return slope(vload_part(y, i, left), vload_part(t, i, left)) * scale

    @jit(name=f"loss{loss.py_func.__name__}")
    def forward(chunk, y, t, partial, scale):
        partial[chunk] = loss_of((y, t), chunk * CHUNK, min(y.size, (chunk + 1) * CHUNK)) * y.dtype.type(scale)

    def kernel(past):
        slopes = map_vectors(slope_of, past=past)

        @jit(name=f"loss{slope.py_func.__name__}{'_past' * past}")
        def backward(chunk, y, t, dy, scale):
            slopes(dy, (y, t, y.dtype.type(scale)), chunk * CHUNK, min(y.size, (chunk + 1) * CHUNK))

        return threaded(backward)

    run_forward, backward, backward_past = threaded(forward), kernel(False), kernel(True)

    def launch_forward(y, t):
        partial = np.empty(-(-y.size // CHUNK), y.dtype)
        run_forward(partial.size, work * y.size, flat(y), flat(t), partial, 1.0 / y.size)
        return _total(partial)

    def launch_backward(dloss, y, t, dy):
        run = backward_past if past_caches(dy, 3 * dy.nbytes) else backward
        run(-(-y.size // CHUNK), work * y.size, flat(y), flat(t), flat(dy), dloss / y.size)

    launch_forward.kernel, launch_backward.kernel = forward, backward.kernel
    return launch_forward, launch_backward


mean_squared_error, mean_squared_error_backward = elementwise(_squared, _squared_slope, 4)
mean_absolute_error, mean_absolute_error_backward = elementwise(_absolute, _absolute_slope, 4)
binary_cross_entropy, binary_cross_entropy_backward = elementwise(_binary, _binary_slope, 40)
sigmoid_cross_entropy, sigmoid_cross_entropy_backward = elementwise(_logistic, _logistic_slope, 40)


@sum_of
@jit(inline=True)
def _right_answers(args, i, left):
    p, t, threshold = args
    target = vload_part(t, i, left)
    one = vfill(target, 1.0)
    answer = select(vload_part(p, i, left) > threshold, one, 0.0)
    return select(first_lanes(p, left) & (answer == target), one, 0.0)


@jit
def count_binary(chunk, p, t, partial, threshold):
    """How many of a chunk's p are on their t's side: no number, of whatever dtype, is too large for so few."""
    start, end = chunk * CHUNK, min(p.size, (chunk + 1) * CHUNK)
    partial[chunk] = np.int64(_right_answers((p, t, p.dtype.type(threshold)), start, end))


_count_binary = threaded(count_binary)


def count_correct_binary(p, t, threshold):
    """The number of p on their t's side of the threshold."""
    partial = np.empty(-(-p.size // CHUNK), np.int64)
    _count_binary(partial.size, 2 * p.size, flat(p), flat(t), partial, threshold)
    return _total(partial)


# ---------------------------------------------------------------------------------------------------------------------
# Losses of one row. Targets are rows of numbers or one label each; labels become rows of 0 and 1 in registers.
#
# What backward needs is kept in `notes`, of 2 * rows + chunks numbers: one a row, another one a row, one a chunk. The
# last are the chunks' parts of the loss.


@jit(inline=True)
def _given(like, t, row, start, j, left):
    return vload_part(t, j, left)


@jit(inline=True)
def _from_label(like, labels, row, start, j, left):
    return select(lane_numbers(like) == at(labels, row) - (j - start), vfill(like, 1.0), 0.0)


@sum_of
@jit(inline=True)
def _weighted(args, j, left):
    x, t, shift = args
    weight = vload_part(t, j, left)
    # 0 times -Inf: an impossible class that is not asked for costs nothing.
    return select(weight == 0.0, 0.0, weight * (vload_part(x, j, left) - shift))


@jit(inline=True)
def _sums_given(x, t, row, start, end, shift):
    """The sum of t, and that of t (x - shift)."""
    return row_sum((t,), start, end), _weighted((x, t, shift), start, end)


@jit(inline=True)
def _sums_from_label(x, labels, row, start, end, shift):
    return x.dtype.type(1.0), at(x, start + at(labels, row)) - shift


@sum_of
@jit(inline=True)
def _weighted_logarithm(args, j, left):
    total, weight = args
    value = vlog(vload_part(total, j, left)) * vload_part(weight, j, left)
    return select(first_lanes(total, left), value, 0.0)


def softmax_loss(sums, target, name):
    """Kernels for -sum of t log(softmax(x)) = log(sum of exp(x - highest)) sum of t - sum of t (x - highest).

    Noted: the highest logit of each row, and the factor that makes the row's exponentials probabilities (times sum of
    t, which is 1 for a distribution). With them, backward is one pass.
    """

    @map_row
    @jit(inline=True)
    def slopes(args, j, left):
        x, t, row, start, shift, factor, scale = args
        e = vexp(vload_part(x, j, left) - shift)
        return fma(e, factor, -target(e, t, row, start, j, left)) * scale

    @jit(name=f"loss_softmax_{name}")
    def forward(chunk, x, t, notes, rows, width, group):
        first, last = chunk * group, min(rows, (chunk + 1) * group)
        totals, weights = viewed(stack_array(np.uint8, ROOM), x), viewed(stack_array(np.uint8, ROOM), x)
        loss = x.dtype.type(0.0)
        for row in range(first, last):
            start, end = row * width, (row + 1) * width
            shift, total = row_log_parts(x, start, end)
            weight, dot = sums(x, t, row, start, end, shift)
            loss -= dot
            totals[row - first], weights[row - first] = total, weight
            notes[row], notes[rows + row] = shift, weight / total
        loss += _weighted_logarithm((totals, weights), 0, last - first)
        notes[2 * rows + chunk] = loss / x.dtype.type(rows)

    @jit(name=f"loss_softmax_{name}_slope")
    def backward(chunk, x, t, notes, dx, rows, width, group, scale):
        scale = x.dtype.type(scale)
        for row in range(chunk * group, min(rows, (chunk + 1) * group)):
            start, end = row * width, (row + 1) * width
            slopes(dx, (x, t, row, start, at(notes, row), at(notes, rows + row), scale), start, end)

    return forward, backward


def probability_loss(target, name):
    """Kernels for -sum of t log(q), q = p / sum of p, kept between LOWEST and HIGHEST.

    Noted: the sum of p, and the sum of those t whose q was not moved.
    """

    @sum_of
    @jit(inline=True)
    def logarithms(args, j, left):
        p, t, row, start, total = args
        value = vload_part(p, j, left)
        return target(value, t, row, start, j, left) * log_of_clipped(value / total)

    @sum_of
    @jit(inline=True)
    def weights(args, j, left):
        p, t, row, start, total = args
        value = vload_part(p, j, left)
        q = value / total
        return select((q < LOWEST) | (q > HIGHEST), 0.0, target(value, t, row, start, j, left))

    @map_row
    @jit(inline=True)
    def slopes(args, j, left):
        p, t, row, start, total, common, scale = args
        value = vload_part(p, j, left)
        q = value / total
        own = select((q < LOWEST) | (q > HIGHEST), 0.0, target(value, t, row, start, j, left) / value)
        return (common - own) * scale

    @jit(name=f"loss_probability_{name}")
    def forward(chunk, p, t, notes, rows, width, group):
        loss = p.dtype.type(0.0)
        for row in range(chunk * group, min(rows, (chunk + 1) * group)):
            start, end = row * width, (row + 1) * width
            total = row_sum((p,), start, end)
            args = p, t, row, start, total
            loss -= logarithms(args, start, end)
            notes[row], notes[rows + row] = total, weights(args, start, end)
        notes[2 * rows + chunk] = loss / p.dtype.type(rows)

    @jit(name=f"loss_probability_{name}_slope")
    def backward(chunk, p, t, notes, dp, rows, width, group, scale):
        scale = p.dtype.type(scale)
        for row in range(chunk * group, min(rows, (chunk + 1) * group)):
            start, end = row * width, (row + 1) * width
            total = at(notes, row)
            slopes(dp, (p, t, row, start, total, at(notes, rows + row) / total, scale), start, end)

    return forward, backward


def over_rows(kernels):
    """Launchers (y, t) -> mean, notes; and (dloss, y, t, notes, dy)."""
    run_forward, run_backward = map(threaded, kernels)

    def launch_forward(y, t):
        width = y.shape[-1]
        rows, group = y.size // width, rows_of_a_chunk(width)
        chunks = -(-rows // group)
        notes = np.empty(2 * rows + chunks, y.dtype)
        run_forward(chunks, 40 * y.size, flat(y), flat(t), notes, rows, width, group)
        return _total(notes[2 * rows :]), notes

    def launch_backward(dloss, y, t, notes, dy):
        width = y.shape[-1]
        rows, group = y.size // width, rows_of_a_chunk(width)
        run_backward(
            -(-rows // group), 20 * y.size, flat(y), flat(t), notes, flat(dy), rows, width, group, dloss / rows
        )

    launch_forward.kernel, launch_backward.kernel = kernels
    return launch_forward, launch_backward


softmax_cross_entropy, softmax_cross_entropy_backward = over_rows(softmax_loss(_sums_given, _given, "given"))
sparse_softmax_cross_entropy, sparse_softmax_cross_entropy_backward = over_rows(
    softmax_loss(_sums_from_label, _from_label, "label")
)
categorical_cross_entropy, categorical_cross_entropy_backward = over_rows(probability_loss(_given, "given"))
sparse_categorical_cross_entropy, sparse_categorical_cross_entropy_backward = over_rows(
    probability_loss(_from_label, "label")
)

# ---------------------------------------------------------------------------------------------------------------------
# Labels


@jit
def first_outside(labels, classes):
    """Position of the first label that is no class; -1 where all are."""
    for i in range(labels.size):
        if labels[i] < 0 or labels[i] >= classes:
            return i
    return -1


@jit
def count_rows(chunk, p, t, labels, rows, width, group, partial):
    """How many rows have their largest p at their label, or where there are no labels at their largest t."""
    correct = 0
    for row in range(chunk * group, min(rows, (chunk + 1) * group)):
        start, end = row * width, (row + 1) * width
        expected = at(labels, row) if labels.size > 0 else row_argmax(t, start, end)
        correct += row_argmax(p, start, end) == expected
    partial[chunk] = correct


_count_rows = threaded(count_rows)
_NO_LABELS = np.empty(0, np.int64)


def count_correct(p, t, labels=_NO_LABELS):
    """The number of right rows, by t of p's shape or by labels."""
    width = p.shape[-1]
    rows, group = p.size // width, rows_of_a_chunk(width)
    partial = np.empty(-(-rows // group), np.int64)
    _count_rows(partial.size, 2 * p.size, flat(p), flat(t), flat(labels), rows, width, group, partial)
    return _total(partial)
