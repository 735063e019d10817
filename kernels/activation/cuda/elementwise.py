"""Activations of one number at a time, and their derivatives: a line of arithmetic each, and two factories that make
kernels from them.

A thread takes 16 bytes, or one number where an array starts between; each number is read and written once. The losses
use those functions too that have no underscore.
"""

import math
from functools import cache

from numba import cuda, int64

from ...arrays import contiguous
from ...launch import element_of, kernel, pointer
from ...ptx import erfc, exp, expm1, log1p
from ...ptx import tanh as hyperbolic_tangent
from ...reductions import device
from ...wide import accesses, width_of

THREADS = 256

# ---------------------------------------------------------------------------------------------------------------------
# The functions of one number, f(x, parameter), and their derivatives times dy, d(dy, x or y, parameter)


@device
def _relu(x, _):
    return type(x)(0) if x < type(x)(0) else x


@device
def _relu_slope(dy, y, _):
    return type(y)(0) if y == type(y)(0) else dy


@device
def _leaky_relu(x, negative_slope):
    return x * negative_slope if x < type(x)(0) else x


@device
def _leaky_relu_slope(dy, x, negative_slope):
    return dy * negative_slope if x < type(x)(0) else dy


@device
def _elu(x, alpha):
    return expm1(x) * alpha if x < type(x)(0) else x


@device
def _elu_slope(dy, x, alpha):
    return dy * (exp(x) * alpha) if x < type(x)(0) else dy


@device
def sigmoid_of(x):
    """1 / (1 + exp(-x)), or exp(x) / (1 + exp(x)) below zero: the exponential never overflows."""
    T = type(x)
    e = exp(-abs(x))
    return (e if x < T(0) else T(1)) / (T(1) + e)


@device
def _sigmoid(x, _):
    return sigmoid_of(x)


@device
def _sigmoid_slope(dy, y, _):
    return dy * (y * (type(y)(1) - y))


@device
def _tanh(x, _):
    return hyperbolic_tangent(x)


@device
def _tanh_slope(dy, y, _):
    return dy * (type(y)(1) - y * y)


@device
def softplus_of(x):
    """log(1 + exp(x)), without an exponential that overflows."""
    T = type(x)
    return (T(0) if x < T(0) else x) + log1p(exp(-abs(x)))


@device
def _softplus(x, _):
    return softplus_of(x)


@device
def _softplus_slope(dy, x, _):
    return dy * sigmoid_of(x)


# Beyond these numbers, in float32 as in float64, the functions below have reached their limits; they stop here, as Inf
# times zero would be NaN.
EXP_LOWEST, EXP_HIGHEST, NORMAL_HIGHEST, TANH_HIGHEST = -760.0, 710.0, 39.0, 22.0


@device
def clamp(x, low, high):
    """x, not below `low` and not above `high`; NaN stays NaN."""
    T = type(x)
    x = T(low) if x < T(low) else x
    return T(high) if x > T(high) else x


@device
def at_least(x, low):
    """x, not below `low`; NaN stays NaN."""
    return type(x)(low) if x < type(x)(low) else x


@device
def times_sigmoid(x, z):
    """x / (1 + exp(-z)) for x >= 0, x / (1 + exp(z)) below; z >= 0.

    The square root of exp(-z) is multiplied twice: exp(-z) alone may be denormal where x exp(-z) is not.
    """
    T = type(x)
    root = exp(T(-0.5) * z)
    return (x * root * root if x < T(0) else x) / (T(1) + root * root)


@device
def _silu(x, _):
    x = at_least(x, EXP_LOWEST)
    return times_sigmoid(x, abs(x))


@device
def _silu_slope(dy, x, _):
    T = type(x)
    x = clamp(x, EXP_LOWEST, EXP_HIGHEST)
    s = sigmoid_of(x)
    return dy * (s * (T(1) + x * (T(1) - s)))


ROOT_HALF, DENSITY = math.sqrt(0.5), 1.0 / math.sqrt(2.0 * math.pi)


@device
def _gelu(x, _):
    T = type(x)
    x = at_least(x, -NORMAL_HIGHEST)
    return T(0.5) * x * erfc(-T(ROOT_HALF) * x)


@device
def _gelu_slope(dy, x, _):
    T = type(x)
    x = clamp(x, -NORMAL_HIGHEST, NORMAL_HIGHEST)
    return dy * (T(0.5) * erfc(-T(ROOT_HALF) * x) + x * (T(DENSITY) * exp(T(-0.5) * x * x)))


# The other gelu is x sigmoid(z), z = x (C1 + C3 x^2).
C1 = math.sqrt(8.0 / math.pi)
C3 = 0.044715 * C1


@device
def _gelu_tanh(x, _):
    T = type(x)
    x = at_least(x, -TANH_HIGHEST)
    return times_sigmoid(x, abs(x) * (T(C1) + T(C3) * x * x))


@device
def _gelu_tanh_slope(dy, x, _):
    T = type(x)
    x = clamp(x, -TANH_HIGHEST, TANH_HIGHEST)
    s = sigmoid_of(x * (T(C1) + T(C3) * x * x))
    return dy * (s * (T(1) + x * (T(1) - s) * (T(C1) + T(3.0 * C3) * x * x)))


# ---------------------------------------------------------------------------------------------------------------------
# Kernels over arrays


@cache
def apply(function, T, width):
    fetch, put = accesses(T, width, width)

    @kernel(threads=THREADS)
    def apply_function(x: pointer(T), y: pointer(T), size: int64, parameter: T):
        """One thread: `width` neighbouring numbers."""
        numbers = cuda.local.array(width, T)
        first = (int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x) * width
        fetch(x, first, size - first, numbers)
        for v in range(width):
            numbers[v] = function(numbers[v], parameter)
        put(y, first, size - first, numbers)

    return apply_function


@cache
def apply_slope(slope, T, width):
    fetch, put = accesses(T, width, width)

    @kernel(threads=THREADS)
    def multiply_by_slope(dy: pointer(T), kept: pointer(T), dx: pointer(T), size: int64, parameter: T):
        """One thread: `width` neighbouring numbers of dx. `kept` is x or y."""
        gradients = cuda.local.array(width, T)
        numbers = cuda.local.array(width, T)
        first = (int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x) * width
        fetch(dy, first, size - first, gradients)
        fetch(kept, first, size - first, numbers)
        for v in range(width):
            gradients[v] = slope(gradients[v], numbers[v], parameter)
        put(dx, first, size - first, gradients)

    return multiply_by_slope


def elementwise(function, slope):
    """Launchers (x, y, parameter) and (dy, x or y, dx, parameter) for one of the functions above."""

    def launch_forward(x, y, parameter):
        x, y = contiguous(x), contiguous(y)
        width = width_of(x, y)
        blocks = -(-x.size // (THREADS * width))
        apply(function, element_of(x), width)((blocks,), x, y, x.size, parameter)

    def launch_backward(dy, kept, dx, parameter):
        dy, kept, dx = contiguous(dy), contiguous(kept), contiguous(dx)
        width = width_of(dy, kept, dx)
        blocks = -(-dy.size // (THREADS * width))
        apply_slope(slope, element_of(dy), width)((blocks,), dy, kept, dx, dy.size, parameter)

    return launch_forward, launch_backward


relu, relu_backward = elementwise(_relu, _relu_slope)
leaky_relu, leaky_relu_backward = elementwise(_leaky_relu, _leaky_relu_slope)
elu, elu_backward = elementwise(_elu, _elu_slope)
sigmoid, sigmoid_backward = elementwise(_sigmoid, _sigmoid_slope)
tanh, tanh_backward = elementwise(_tanh, _tanh_slope)
softplus, softplus_backward = elementwise(_softplus, _softplus_slope)
silu, silu_backward = elementwise(_silu, _silu_slope)
gelu, gelu_backward = elementwise(_gelu, _gelu_slope)
gelu_tanh, gelu_tanh_backward = elementwise(_gelu_tanh, _gelu_tanh_slope)
