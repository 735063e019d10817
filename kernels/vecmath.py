"""Exponentials and their relatives on SIMD vectors: what activations, losses and recurrent cells are made of.

    vexp  vexpm1  vsigmoid  vtanh

Library calls work on one number at a time; these are polynomials on whole registers, written once for float32 and
float64 (only coefficients differ). Errors stay below 3 ulp, over the whole range: denormal results are
denormal, not flushed to zero; Inf and NaN come out where mathematics has them. Processors without fused multiply-add
lose about one ulp more.

The recipe is always the same: reduce the argument to a small interval, evaluate a minimax polynomial there (found
with the Remez algorithm), put the scale back. J.-M. Muller, "Elementary Functions", Birkhäuser (2016).

Kernels are compiled with flags that let LLVM regroup sums. Where the order matters below, an `fma` holds it: LLVM does
not look inside.
"""

from .jit import jit
from .simd import (
    constant,
    fma,
    polynomial,
    select,
    vabs,
    vcopysign,
    vfill,
    vround,
    vscale,
)

LOG2_E = 1.4426950408889634
# ln 2 in two parts. The upper one has so few digits that its product with an exponent is exact.
ln2_high = constant(0.693359375, 0.6931471803691238)
ln2_low = constant(-2.1219444005469067e-4, 1.9082149292705877e-10)

# (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2
exp_tail = polynomial(
    0.500000006167018071, 0.166665431045809981, 0.0416662827900903835, 0.00836657318641955534, 0.00139464049414886738,
    double=(
        0.500000000000000549, 0.16666666666666686, 0.041666666666574107, 0.00833333333331458281,
        0.00138888889322550529, 0.000198412699030515413, 0.0000248015045701765044, 2.75572279353126127e-6,
        2.76262837148438398e-7, 2.51144787231821455e-8,
    ),
)  # fmt: skip

# Beyond these, exp is zero or Inf.
exp_lowest = constant(-104.0, -746.0)
exp_highest = constant(89.0, 710.0)
# From here on, expm1 is -1 and tanh is 1.
expm1_lowest = constant(-18.0, -38.0)
tanh_highest = constant(9.5, 19.5)


@jit(inline=True)
def clamp(x, low, high):
    """x, not below `low` and not above `high`; NaN stays NaN."""
    x = select(x < low, low, x)
    return select(x > high, high, x)


@jit(inline=True)
def reduce_exp(x):
    """(n, exp(r) - 1) with x = n ln 2 + r, n a whole number and |r| <= ln(2) / 2."""
    n = vround(x * LOG2_E)
    r = fma(n, -ln2_low(x), fma(n, -ln2_high(x), x))
    return n, fma(r * r, exp_tail(r), r)


@jit(inline=True)
def vexp(x):
    """exp(x) = 2^n exp(r)"""
    n, above_one = reduce_exp(clamp(x, exp_lowest(x), exp_highest(x)))
    return vscale(1.0 + above_one, n)


@jit(inline=True)
def vexpm1(x):
    """exp(x) - 1 = 2^n (exp(r) - 1) + (2^n - 1): as many correct digits near zero as elsewhere."""
    n, above_one = reduce_exp(clamp(x, expm1_lowest(x), exp_highest(x)))
    half = vscale(vfill(x, 0.5), n)  # 2^n alone may be beyond the largest number where the result is not
    return 2.0 * fma(half, above_one, half - 0.5)


@jit(inline=True)
def vsigmoid(x):
    """1 / (1 + exp(-x)), or exp(x) / (1 + exp(x)) below zero: the exponential never overflows."""
    e = vexp(-vabs(x))
    return select(x < 0.0, e, 1.0) / (1.0 + e)


@jit(inline=True)
def vtanh(x):
    """(exp(2|x|) - 1) / (exp(2|x|) + 1), with the sign of x."""
    e = vexpm1(2.0 * clamp(vabs(x), 0.0, tanh_highest(x)))
    return vcopysign(e / (e + 2.0), x)
