"""Losses on a CPU: one pass over the data each, forward and backward.

Rounding: a chunk adds up at most a few thousand terms, in blocks, in the dtype of the data; the chunks' sums, each a
part of the mean already, are added in order and in float64. So a float32 mean over millions of elements is as good as
one over hundreds, and the same bits for any number of threads.
"""

import math

import numpy as np

from ..jit import jit
from ..recording import on_host
from ..rows import BLOCK, row_argmax, row_exp_sum, row_highest, row_sum, rows_of_a_chunk
from ..simd import at, first_lanes, fma, lane_numbers, lanes, select, vabs, vfill, vload_part, vstore_part, vsum
from ..threads import threaded
from ..vecmath import clamp, vexp, vlog, vlog1p, vsigmoid

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

    @jit(name=f"loss{loss.py_func.__name__}")
    def forward(chunk, y, t, partial, scale):
        step = lanes(y)
        end = min(y.size, (chunk + 1) * CHUNK)
        total = vfill(y, 0.0)
        for block in range(chunk * CHUNK, end, BLOCK * step):
            part = vfill(y, 0.0)
            for i in range(block, min(end, block + BLOCK * step), step):
                value = loss(vload_part(y, i, end - i), vload_part(t, i, end - i))
                part = part + select(first_lanes(y, end - i), value, 0.0)
            total = total + part
        partial[chunk] = vsum(total) * y.dtype.type(scale)

    @jit(name=f"loss{slope.py_func.__name__}")
    def backward(chunk, y, t, dy, scale):
        scale = vfill(y, scale)
        end = min(y.size, (chunk + 1) * CHUNK)
        for i in range(chunk * CHUNK, end, lanes(y)):
            value = slope(vload_part(y, i, end - i), vload_part(t, i, end - i))
            vstore_part(dy, i, value * scale, end - i)

    run_forward, run_backward = threaded(forward), threaded(backward)

    def launch_forward(y, t):
        partial = np.empty(-(-y.size // CHUNK), y.dtype)
        run_forward(partial.size, work * y.size, y.ravel(), t.ravel(), partial, 1.0 / y.size)
        return _total(partial)

    def launch_backward(dloss, y, t, dy):
        run_backward(-(-y.size // CHUNK), work * y.size, y.ravel(), t.ravel(), dy.ravel(), dloss / y.size)

    launch_forward.kernel, launch_backward.kernel = forward, backward
    return launch_forward, launch_backward


mean_squared_error, mean_squared_error_backward = elementwise(_squared, _squared_slope, 4)
mean_absolute_error, mean_absolute_error_backward = elementwise(_absolute, _absolute_slope, 4)
binary_cross_entropy, binary_cross_entropy_backward = elementwise(_binary, _binary_slope, 40)
sigmoid_cross_entropy, sigmoid_cross_entropy_backward = elementwise(_logistic, _logistic_slope, 40)

# ---------------------------------------------------------------------------------------------------------------------
# Losses of one row. Targets are rows of numbers or one label each; labels become rows of 0 and 1 in registers.
#
# What backward needs is kept in `notes`, of 2 * rows + chunks numbers: one a row, another one a row, one a chunk. The
# last are the chunks' parts of the loss.


@jit(inline=True)
def _given(like, t, row, j, width):
    return vload_part(t, row * width + j, width - j)


@jit(inline=True)
def _from_label(like, labels, row, j, width):
    return select(lane_numbers(like) == at(labels, row) - j, vfill(like, 1.0), 0.0)


def softmax_loss(target, name):
    """Kernels for -sum of t log(softmax(x)) = log(sum of exp(x - highest)) sum of t - sum of t (x - highest).

    Noted: the highest logit of each row, and the factor that makes the row's exponentials probabilities (times sum of
    t, which is 1 for a distribution). With them, backward is one pass.
    """

    @jit(name=f"loss_softmax_{name}")
    def forward(chunk, x, t, notes, rows, width, group):
        loss = x.dtype.type(0.0)
        for row in range(chunk * group, min(rows, (chunk + 1) * group)):
            start, end = row * width, (row + 1) * width
            shift = row_highest(x, start, end)
            total = row_exp_sum(x, start, end, shift)
            weights, dot = vfill(x, 0.0), vfill(x, 0.0)
            for j in range(0, width, lanes(x)):
                weight = target(x, t, row, j, width)
                weights = weights + weight
                # 0 times -Inf: an impossible class that is not asked for costs nothing.
                dot = dot + select(weight == 0.0, 0.0, weight * (vload_part(x, start + j, width - j) - shift))
            weight = vsum(weights)
            loss += math.log(total) * weight - vsum(dot)
            notes[row], notes[rows + row] = shift, weight / total
        notes[2 * rows + chunk] = loss / x.dtype.type(rows)

    @jit(name=f"loss_softmax_{name}_slope")
    def backward(chunk, x, t, notes, dx, rows, width, group, scale):
        scale = vfill(x, scale)
        for row in range(chunk * group, min(rows, (chunk + 1) * group)):
            shift, factor = at(notes, row), at(notes, rows + row)
            for j in range(0, width, lanes(x)):
                e = vexp(vload_part(x, row * width + j, width - j) - shift)
                value = fma(e, factor, -target(x, t, row, j, width)) * scale
                vstore_part(dx, row * width + j, value, width - j)

    return forward, backward


def probability_loss(target, name):
    """Kernels for -sum of t log(q), q = p / sum of p, kept between LOWEST and HIGHEST.

    Noted: the sum of p, and the sum of those t whose q was not moved.
    """

    @jit(name=f"loss_probability_{name}")
    def forward(chunk, p, t, notes, rows, width, group):
        loss = p.dtype.type(0.0)
        for row in range(chunk * group, min(rows, (chunk + 1) * group)):
            start, end = row * width, (row + 1) * width
            total = row_sum(p, start, end)
            weights, dot = vfill(p, 0.0), vfill(p, 0.0)
            for j in range(0, width, lanes(p)):
                weight = target(p, t, row, j, width)
                q = vload_part(p, start + j, width - j) / total
                dot = fma(weight, log_of_clipped(q), dot)
                weights = weights + select((q < LOWEST) | (q > HIGHEST), 0.0, weight)
            loss -= vsum(dot)
            notes[row], notes[rows + row] = total, vsum(weights)
        notes[2 * rows + chunk] = loss / p.dtype.type(rows)

    @jit(name=f"loss_probability_{name}_slope")
    def backward(chunk, p, t, notes, dp, rows, width, group, scale):
        scale = vfill(p, scale)
        for row in range(chunk * group, min(rows, (chunk + 1) * group)):
            total, common = at(notes, row), at(notes, rows + row) / at(notes, row)
            for j in range(0, width, lanes(p)):
                value = vload_part(p, row * width + j, width - j)
                q = value / total
                own = select((q < LOWEST) | (q > HIGHEST), 0.0, target(p, t, row, j, width) / value)
                vstore_part(dp, row * width + j, (common - own) * scale, width - j)

    return forward, backward


def over_rows(kernels):
    """Launchers (y, t) -> mean, notes; and (dloss, y, t, notes, dy)."""
    run_forward, run_backward = map(threaded, kernels)

    def launch_forward(y, t):
        width = y.shape[-1]
        rows, group = y.size // width, rows_of_a_chunk(width)
        chunks = -(-rows // group)
        notes = np.empty(2 * rows + chunks, y.dtype)
        run_forward(chunks, 40 * y.size, y.ravel(), t.ravel(), notes, rows, width, group)
        return _total(notes[2 * rows :]), notes

    def launch_backward(dloss, y, t, notes, dy):
        width = y.shape[-1]
        rows, group = y.size // width, rows_of_a_chunk(width)
        run_backward(
            -(-rows // group), 20 * y.size, y.ravel(), t.ravel(), notes, dy.ravel(), rows, width, group, dloss / rows
        )

    launch_forward.kernel, launch_backward.kernel = kernels
    return launch_forward, launch_backward


softmax_cross_entropy, softmax_cross_entropy_backward = over_rows(softmax_loss(_given, "given"))
sparse_softmax_cross_entropy, sparse_softmax_cross_entropy_backward = over_rows(softmax_loss(_from_label, "label"))
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
    _count_rows(partial.size, 2 * p.size, p.ravel(), t.ravel(), labels.ravel(), rows, width, group, partial)
    return int(partial[0] if partial.size == 1 else partial.sum())
