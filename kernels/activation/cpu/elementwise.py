"""Elementwise activations: functions and derivatives are one line of vector arithmetic each.

A factory makes the kernels from them: a loop over whole vectors, the last one masked. They are bound by memory (relu)
or by about twenty instructions a vector (those with an exponential).
"""

import math

from ...arrays import flat
from ...jit import jit
from ...rows import WIDE, map_vectors
from ...simd import constant, fma, select, vabs, vfill, vload_part, vmax, vscale
from ...threads import threaded
from ...vecmath import (
    clamp,
    exp_highest,
    exp_lowest,
    exp_parts,
    normal_parts,
    sum_parts,
    vexp,
    vexpm1,
    vlog1p,
    vsigmoid,
    vtanh,
)
from ...workspace import past_caches

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
    return select(x < 0.0, vscale(y, n), y)


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
    return vmax(vfill(x, -0.0), x) - vscale(fma(q, m, q), n)  # far below zero: -0, with and without a multiply-add


@jit(inline=True)
def _gelu_slope(dy, x, _):
    a, even, odd, below, m, n = normal_parts(x)
    q = fma(a, DENSITY, -fma(a, odd, even) / below)
    change = vscale(fma(q, m, q), n)
    return dy * select(x < 0.0, -change, 1.0 + change)


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


def elementwise(function, slope, work, several=WIDE):
    """Launchers (x, y, parameter) and (dy, x or y, dx, parameter) for one of the functions above.

    work : arithmetic operations an element, roughly. One chunk is CHUNK elements.
    several : vectors to compute side by side.
    """

    @jit(inline=True)
    def value(args, i, left):
        x, parameter = args
        return function(vload_part(x, i, left), parameter)

    @jit(inline=True)
    def slope_times_dy(args, i, left):
        dy, kept, parameter = args
        return slope(vload_part(dy, i, left), vload_part(kept, i, left), parameter)

    def kernels(past):
        values, slopes = map_vectors(value, several, past), map_vectors(slope_times_dy, several, past)

        @jit(name=f"activation{function.py_func.__name__}{'_past' * past}")
        def forward(chunk, x, y, parameter):
            values(y, (x, x.dtype.type(parameter)), chunk * CHUNK, min(x.size, (chunk + 1) * CHUNK))

        @jit(name=f"activation{slope.py_func.__name__}{'_past' * past}")
        def backward(chunk, dy, kept, dx, parameter):
            slopes(dx, (dy, kept, dy.dtype.type(parameter)), chunk * CHUNK, min(dy.size, (chunk + 1) * CHUNK))

        return threaded(forward), threaded(backward)

    (forward, backward), (forward_past, backward_past) = kernels(False), kernels(True)

    def launch_forward(x, y, parameter):
        run = forward_past if past_caches(y, 2 * y.nbytes) else forward
        run(-(-x.size // CHUNK), x.size * work, flat(x), flat(y), float(parameter))

    def launch_backward(dy, kept, dx, parameter):
        run = backward_past if past_caches(dx, 3 * dx.nbytes) else backward
        run(-(-dy.size // CHUNK), dy.size * work, flat(dy), flat(kept), flat(dx), float(parameter))

    launch_forward.kernel, launch_backward.kernel = forward.kernel, backward.kernel
    return launch_forward, launch_backward


relu, relu_backward = elementwise(_relu, _relu_slope, 4)
leaky_relu, leaky_relu_backward = elementwise(_leaky_relu, _leaky_relu_slope, 4)
elu, elu_backward = elementwise(_elu, _elu_slope, 20)
sigmoid, sigmoid_backward = elementwise(_sigmoid, _sigmoid_slope, 20)
tanh, tanh_backward = elementwise(_tanh, _tanh_slope, 20)
softplus, softplus_backward = elementwise(_softplus, _softplus_slope, 40)
silu, silu_backward = elementwise(_silu, _silu_slope, 20)
gelu, gelu_backward = elementwise(_gelu, _gelu_slope, 40, several=2)  # five polynomials: more leave the registers
gelu_tanh, gelu_tanh_backward = elementwise(_gelu_tanh, _gelu_tanh_slope, 40)
