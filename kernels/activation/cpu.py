"""Activations on a CPU.

Elementwise functions and their derivatives are one line of vector arithmetic each; two factories make the kernels from
them: a loop over whole vectors, the last one masked. They are bound by memory (relu) or by about twenty instructions a
vector (those with an exponential).

Softmax and its logarithm take three passes over a row: the maximum; exponentials and their sum; the quotient.

    naive     the passes of the definition, one number at a time, each exponential a call of the library
    simd      the same passes on whole vectors, the exponential a polynomial in registers
    threaded  the same, some rows at a time, over several threads
"""

import math

import numpy as np

from .. import threads
from ..jit import jit
from ..recording import on_host
from ..rows import (
    ROOM,
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
from ..simd import (
    at,
    constant,
    fma,
    select,
    stack_array,
    vabs,
    vcopysign,
    vfill,
    vhighest,
    viewed,
    vload_part,
    vmax,
    vscale,
)
from ..threads import threaded
from ..vecmath import (
    clamp,
    exp_highest,
    exp_lowest,
    exp_parts,
    normal_parts,
    sum_parts,
    vexp,
    vexpm1,
    vlog,
    vlog1p,
    vsigmoid,
    vtanh,
)

# Elements of one chunk.
CHUNK = 16384

# ---------------------------------------------------------------------------------------------------------------------
# The functions of one vector, f(x, parameter), and their derivatives times dy, d(dy, x or y, parameter)


@jit(inline=True)
def _relu(x, _):
    return select(x < 0.0, 0.0, x)


@jit(inline=True)
def _relu_slope(dy, y, _):
    return select(y == 0.0, 0.0, dy)


@jit(inline=True)
def _leaky_relu(x, negative_slope):
    return select(x < 0.0, x * negative_slope, x)


@jit(inline=True)
def _leaky_relu_slope(dy, x, negative_slope):
    return select(x < 0.0, dy * negative_slope, dy)


@jit(inline=True)
def _elu(x, alpha):
    return select(x < 0.0, vexpm1(x) * alpha, x)


@jit(inline=True)
def _elu_slope(dy, x, alpha):
    return select(x < 0.0, dy * (vexp(x) * alpha), dy)


@jit(inline=True)
def _sigmoid(x, _):
    return vsigmoid(x)


@jit(inline=True)
def _sigmoid_slope(dy, y, _):
    return dy * (y * (1.0 - y))


@jit(inline=True)
def _tanh(x, _):
    return vtanh(x)


@jit(inline=True)
def _tanh_slope(dy, y, _):
    return dy * fma(-y, y, 1.0)


@jit(inline=True)
def _softplus(x, _):
    return select(x < 0.0, 0.0, x) + vlog1p(vexp(-vabs(x)))


@jit(inline=True)
def _softplus_slope(dy, x, _):
    return dy * vsigmoid(x)


@jit(inline=True)
def times_sigmoid(x, z, lost):
    """x / (1 + exp(-z)) for x >= 0, x / (1 + exp(z)) below; z + lost >= 0, `lost` being what rounding took from z.

    Below zero the power of two comes last: exp(-z) alone may be denormal where x exp(-z) is not.
    """
    p, n = exp_parts(-z, -lost)
    y = select(x < 0.0, x * p, x) / (1.0 + vscale(p, n))
    return vscale(y, select(x < 0.0, n, 0.0))


@jit(inline=True)
def _silu(x, _):
    x = select(x < exp_lowest(x), exp_lowest(x), x)
    return times_sigmoid(x, vabs(x), 0.0)


@jit(inline=True)
def _silu_slope(dy, x, _):
    x = clamp(x, exp_lowest(x), exp_highest(x))
    s = vsigmoid(x)
    return dy * (s * fma(x, 1.0 - s, 1.0))


DENSITY = 1.0 / math.sqrt(2.0 * math.pi)


@jit(inline=True)
def _gelu(x, _):
    a, even, odd, below, m, n = normal_parts(x)
    q = fma(a, even, a * a * odd) / below
    beyond = vscale(fma(q, m, q), n)
    return select(x < 0.0, -beyond, x - beyond)


@jit(inline=True)
def _gelu_slope(dy, x, _):
    a, even, odd, below, m, n = normal_parts(x)
    q = fma(a, odd, even) / below
    density, beyond = vscale(fma(m, DENSITY, DENSITY), n), vscale(fma(q, m, q), n)
    return dy * fma(vcopysign(a, x), density, select(x < 0.0, beyond, 1.0 - beyond))


# The other gelu is x sigmoid(z), z = x (c1 + c3 x^2), c1 = sqrt(8 / pi) and c3 = 0.044715 c1. In the tail, exp(z) is
# as sensitive as z is large: so the constants, too, come in two parts.
c1 = constant(1.5957691669464111, 1.5957691216057308)
c1_low = constant(-4.534068042105272e-08, -9.96930880911092e-17)
c3 = constant(0.07135481387376785, 0.07135481627260025)
c3_low = constant(2.3988323959931355e-09, -6.175149918155315e-19)
# From here on, either x sigmoid(z) is x, or it is zero.
gelu_highest = constant(11.0, 22.0)


@jit(inline=True)
def _gelu_tanh(x, _):
    a = clamp(vabs(x), 0.0, gelu_highest(x))
    square = a * a
    cubic = c3(x) * square
    order = cubic > c1(x)
    slope, lost = sum_parts(select(order, cubic, c1(x)), select(order, c1(x), cubic))
    lost = lost + fma(c3(x), square, -cubic) + c3(x) * fma(a, a, -square) + fma(c3_low(x), square, c1_low(x))
    z = a * slope
    return times_sigmoid(select(x < 0.0, -a, x), z, fma(a, slope, -z) + a * lost)


@jit(inline=True)
def _gelu_tanh_slope(dy, x, _):
    at = clamp(x, -gelu_highest(x), gelu_highest(x))
    square = at * at
    s = vsigmoid(at * fma(c3(x), square, c1(x)))
    return dy * (s * fma(at * (1.0 - s), fma(3.0 * c3(x), square, c1(x)), 1.0))


# ---------------------------------------------------------------------------------------------------------------------
# Kernels over arrays


def elementwise(function, slope, work):
    """Launchers (x, y, parameter) and (dy, x or y, dx, parameter) for one of the functions above.

    work : arithmetic operations an element, roughly. One chunk is CHUNK elements.
    """

    @map_vectors
    @jit(inline=True)
    def values(args, i, left):
        x, parameter = args
        return function(vload_part(x, i, left), parameter)

    @map_vectors
    @jit(inline=True)
    def slopes(args, i, left):
        dy, kept, parameter = args
        return slope(vload_part(dy, i, left), vload_part(kept, i, left), parameter)

    @jit(name=f"activation{function.py_func.__name__}")
    def forward(chunk, x, y, parameter):
        values(y, (x, vfill(x, parameter)), chunk * CHUNK, min(x.size, (chunk + 1) * CHUNK))

    @jit(name=f"activation{slope.py_func.__name__}")
    def backward(chunk, dy, kept, dx, parameter):
        slopes(dx, (dy, kept, vfill(dy, parameter)), chunk * CHUNK, min(dy.size, (chunk + 1) * CHUNK))

    run_forward, run_backward = threaded(forward), threaded(backward)

    def launch_forward(x, y, parameter):
        run_forward(-(-x.size // CHUNK), x.size * work, x.ravel(), y.ravel(), float(parameter))

    def launch_backward(dy, kept, dx, parameter):
        run_backward(-(-dy.size // CHUNK), dy.size * work, dy.ravel(), kept.ravel(), dx.ravel(), float(parameter))

    launch_forward.kernel, launch_backward.kernel = forward, backward
    return launch_forward, launch_backward


relu, relu_backward = elementwise(_relu, _relu_slope, 4)
leaky_relu, leaky_relu_backward = elementwise(_leaky_relu, _leaky_relu_slope, 4)
elu, elu_backward = elementwise(_elu, _elu_slope, 20)
sigmoid, sigmoid_backward = elementwise(_sigmoid, _sigmoid_slope, 20)
tanh, tanh_backward = elementwise(_tanh, _tanh_slope, 20)
softplus, softplus_backward = elementwise(_softplus, _softplus_slope, 40)
silu, silu_backward = elementwise(_silu, _silu_slope, 20)
gelu, gelu_backward = elementwise(_gelu, _gelu_slope, 40)
gelu_tanh, gelu_tanh_backward = elementwise(_gelu_tanh, _gelu_tanh_slope, 40)

# ---------------------------------------------------------------------------------------------------------------------
# Softmax, naive: arrays (rows, width)


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
# Softmax, simd and threaded: one chunk is `group` rows


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
            times(y, (y, 1.0 / vfill(x, total)), start, end)


@map_row
@jit(inline=True)
def softmax_slope(args, j, left):
    dy, y, mean = args
    return vload_part(y, j, left) * (vload_part(dy, j, left) - mean)


@jit
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
            softmax_slope(dx, (dy, y, row_dot((dy, y), start, end)), start, end)


@map_vectors
@jit(inline=True)
def logarithms(args, j, left):
    (x,) = args
    return vlog(vload_part(x, j, left))


@map_row
@jit(inline=True)
def log_softmax_value(args, j, left):
    x, highest, log_sum = args
    return fma(1.0, vload_part(x, j, left) - highest, -log_sum)


@jit
def log_softmax_rows(chunk, x, y, rows, width, group):
    """y = (x - highest) - log(sum of exp(x - highest)), in this order: a large `highest` hides the logarithm."""
    first, last = chunk * group, min(rows, (chunk + 1) * group)
    highest, log_sums = viewed(stack_array(np.uint8, ROOM), x), viewed(stack_array(np.uint8, ROOM), x)
    for row in range(first, last):
        highest[row - first], log_sums[row - first] = row_log_parts(x, row * width, (row + 1) * width)
    logarithms(log_sums, (log_sums,), 0, last - first)
    for row in range(first, last):
        args = x, at(highest, row - first), at(log_sums, row - first)
        log_softmax_value(y, args, row * width, (row + 1) * width)


@map_row
@jit(inline=True)
def log_softmax_slope(args, j, left):
    dy, y, total = args
    return fma(vexp(vload_part(y, j, left)), -total, vload_part(dy, j, left))


@jit
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
            log_softmax_slope(dx, (dy, y, row_sum((dy,), start, end)), start, end)


def _over_rows(kernel):
    """Two launchers: one chunk after another, and over several threads."""
    run = threaded(kernel)

    def launch_in_turn(*arrays):
        """Arrays (..., width), the output last."""
        size = arrays[0].size
        if size:
            width = arrays[0].shape[-1]
            rows, group = size // width, rows_of_a_chunk(width)
            run.in_turn(-(-rows // group), *[array.ravel() for array in arrays], rows, width, group)

    def launch(*arrays):
        size = arrays[0].size
        if size:
            width = arrays[0].shape[-1]
            rows, group = size // width, rows_of_a_chunk(width)
            run(-(-rows // group), 24 * size, *[array.ravel() for array in arrays], rows, width, group)

    launch.kernel = kernel
    return launch_in_turn, launch


softmax_simd, softmax = _over_rows(softmax_rows)

# Numbers up to which the checks and the launch take longer than the softmax.
AT_ONCE = 4096
_FLOATS = np.dtype(np.float32), np.dtype(np.float64)


@jit
def small_softmax(x, y, width):
    softmax_rows(0, x, y, x.size // width, width, x.size)


def softmax_at_once(x, axis):
    """The softmax by the shortest way; None where x is not small, or something about it not plain."""
    if x.dtype not in _FLOATS or not 0 < x.size <= AT_ONCE or not x.flags.c_contiguous or threads.recorder is not None:
        return None
    if axis != -1 or not x.ndim:
        return None
    y = np.empty(x.shape, x.dtype)
    small_softmax(x.ravel(), y.ravel(), x.shape[-1])
    return y


softmax_backward_simd, softmax_backward = _over_rows(softmax_rows_backward)
log_softmax_simd, log_softmax = _over_rows(log_softmax_rows)
log_softmax_backward_simd, log_softmax_backward = _over_rows(log_softmax_rows_backward)
