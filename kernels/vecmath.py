"""Exponentials and their relatives on SIMD vectors: what activations, losses and recurrent cells are made of.

    vexp  vexpm1  vlog  vlog1p  vsigmoid  vtanh        one vector in, one out
    exp_parts  normal_parts                            factors, for results that only their product may round to zero

Library calls work on one number at a time; these are polynomials on whole registers, written once for float32 and
float64 (only coefficients differ). Errors stay below 3 ulp over the whole range: denormal results are denormal, not
flushed to zero; Inf and NaN come out where mathematics has them. Only vexp and vexpm1 end early, at exp_highest: what
kernels take the exponential of is below zero, and a scale that reaches as far up as down costs four more instructions.
Processors without fused multiply-add get the same, but no help from `lost` (what rounding took from an argument of
exp): 1 ulp of it each, times the argument.

The recipe is always the same: reduce the argument to a small interval, evaluate a minimax polynomial there (found
with the Remez algorithm), put the scale back. J.-M. Muller, "Elementary Functions", Birkhäuser (2016).

Kernels are compiled with flags that let LLVM regroup sums. Where the order matters below, an `fma` holds it: LLVM does
not look inside.
"""

import math

from .jit import jit
from .simd import (
    bits_to_float,
    constant,
    float_to_bits,
    fma,
    polynomial,
    power_of_two,
    select,
    to_float,
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

# From here down, even x exp(x) is zero; from here up, exp and expm1 are not computed.
exp_lowest = constant(-110.0, -760.0)
exp_highest = constant(40.0, 345.0)
# From here on, expm1 is -1 and tanh is 1.
expm1_lowest = constant(-18.0, -38.0)
tanh_highest = constant(9.5, 19.5)
# From here on, sigmoid is 1; and an exponent that keeps those of its exponentials, up to 2^1097, within a float's.
sigmoid_highest = constant(40.0, 40.0)
sigmoid_shift = constant(64.0, 512.0)


@jit(inline=True)
def sum_parts(large, small):
    """(sum, what rounding took from it), for |large| >= |small|."""
    total = fma(1.0, large, small)
    return total, fma(1.0, small, -fma(-1.0, large, total))


@jit(inline=True)
def clamp(x, low, high):
    """x, not below `low` and not above `high`; NaN stays NaN."""
    x = select(x < low, low, x)
    return select(x > high, high, x)


@jit(inline=True)
def reduce_exp(x, lost):
    """(n, exp(r) - 1) with x + lost = n ln 2 + r, n a whole number and |r| <= ln(2) / 2."""
    n = vround(x * LOG2_E)
    r = fma(n, -ln2_low(x), fma(n, -ln2_high(x), x)) + lost
    return n, fma(r * r, exp_tail(r), r)


@jit(inline=True)
def exp_parts(x, lost):
    """(p, n) with exp(x + lost) = p * 2^n and p near 1; `lost` is what rounding took from x."""
    n, above_one = reduce_exp(select(x < exp_lowest(x), exp_lowest(x), x), lost)
    return 1.0 + above_one, n


@jit(inline=True)
def vexp(x):
    """exp(x), up to exp_highest."""
    p, n = exp_parts(x, 0.0)
    return vscale(p, n)


@jit(inline=True)
def expm1_parts(x):
    """exp(x) - 1 = 2^n (exp(r) - 1) + (2^n - 1): as many correct digits near zero as elsewhere. 2^n must be normal."""
    n, above_one = reduce_exp(x, 0.0)
    power = power_of_two(n)
    return fma(power, above_one, power - 1.0)


@jit(inline=True)
def vexpm1(x):
    """exp(x) - 1, up to exp_highest."""
    return expm1_parts(select(x < expm1_lowest(x), expm1_lowest(x), x))


@jit(inline=True)
def vsigmoid(x):
    """1 / (1 + exp(-x)), both parts times 2^-shift: exp(-x) does not overflow where the result is denormal."""
    n, above_one = reduce_exp(clamp(-x, -sigmoid_highest(x), -exp_lowest(x)), 0.0)
    power, one = power_of_two(n - sigmoid_shift(x)), vscale(vfill(x, 1.0), vfill(x, -sigmoid_shift(x)))
    return one / (one + fma(power, above_one, power))


@jit(inline=True)
def vtanh(x):
    """(exp(2|x|) - 1) / (exp(2|x|) + 1), with the sign of x."""
    a = vabs(x)
    e = expm1_parts(2.0 * select(a > tanh_highest(x), tanh_highest(x), a))
    return vcopysign(e / (e + 2.0), x)


# The logarithm of 1 + f, between sqrt(1/2) and sqrt(2): with s = f / (2 + f) and z = s^2,
#     log(1 + f) = 2 artanh(s) = 2 s + s z (2/3 + 2/5 z + 2/7 z^2 ...) = f - f^2/2 + s (f^2/2 + z (2/3 + ...))
# This is the sum in the first brackets.
log_tail = polynomial(
    0.666667752930669307, 0.3997764640561706, 0.298693773414596873,
    double=(
        0.666666666666673026, 0.399999999994365653, 0.285714287382480567, 0.22222198948157303, 0.18183546713632558,
        0.153144644289389376, 0.147921013838984006,
    ),
)  # fmt: skip

# How a float is laid out: bits of the mantissa, and the bits of sqrt(1/2).
mantissa_bits = constant(23, 52)
sqrt_half_bits = constant(0x3F3504F3, 0x3FE6A09E667F3BCD)
# Below the first, numbers are denormal; times the second, 2^third, they are not.
smallest_normal = constant(2.0**-126, 2.0**-1022)
denormal_scale = constant(2.0**25, 2.0**54)
denormal_shift = constant(25.0, 54.0)


@jit(inline=True)
def split(x):
    """(k, f) with x = 2^k (1 + f), k a whole number and 1 + f from sqrt(1/2) to sqrt(2), for normal x above zero."""
    bits = float_to_bits(x)
    k = (bits - sqrt_half_bits(x)) >> mantissa_bits(x)
    return to_float(k), bits_to_float(bits - (k << mantissa_bits(x))) - 1.0


@jit(inline=True)
def join_log(x, k, f):
    """log(x) = k ln 2 + log(1 + f); where x is no positive number, -Inf (zero), Inf (Inf) or NaN."""
    s = f / (2.0 + f)
    z = s * s
    half = 0.5 * f * f
    low = fma(-0.5 * f, f, fma(s, fma(z, log_tail(z), half), k * ln2_low(x)))
    y = fma(k, ln2_high(x), fma(1.0, f, low))
    y = select((x > 0.0) & (x < math.inf), y, select(x == 0.0, -math.inf, x))
    return select(x < 0.0, math.nan, y)


@jit(inline=True)
def vlog(x):
    """log(x)"""
    denormal = x < smallest_normal(x)
    k, f = split(select(denormal, x * denormal_scale(x), x))
    return join_log(x, select(denormal, k - denormal_shift(x), k), f)


@jit(inline=True)
def vlog1p(x):
    """log(1 + x): near zero, where 1 + x would lose x's last digits, f is x itself."""
    above_one = 1.0 + x
    k, f = split(above_one)
    return join_log(above_one, k, select(k == 0.0, x, f))


# The area of the normal distribution beyond a >= 0, divided by exp(-a^2 / 2), is a quotient of two polynomials with
# coefficients above zero. Each is even(a^2) + a odd(a^2): added up in this order, fewer roundings meet at a large a.
tail_even = polynomial(
    0.5, 0.1839679479598999, 0.00415316503494978,
    double=(
        0.5, 0.67958073978510764564, 0.13203576371126298586, 0.0071220183294556004495, 0.00010655380238471584755,
        2.2412372653019175981e-7,
    ),
)  # fmt: skip
tail_odd = polynomial(
    0.4392818808555603, 0.04088069871068001,
    double=(
        0.82790637345519517209, 0.35732336600324732163, 0.035664289056935898206, 0.0010395635302836235705,
        6.974462129356488152e-6,
    ),
)  # fmt: skip
below_even = polynomial(
    1.0, 1.2055435180664062, 0.10247884690761566,
    double=(
        1.0, 2.816928678278171833, 0.98003733379122448626, 0.091967950207864038613, 0.0026232817224626138084,
        0.000017482383973818020931,
    ),
)  # fmt: skip
below_odd = polynomial(
    1.6764487028121948, 0.4714054763317108, 0.010410328395664692,
    double=(
        2.4536973077132559098, 2.0013434996985775105, 0.34828826026080344709, 0.018118219692092508036,
        0.00026765256869373698704, 5.6179486993611605765e-7,
    ),
)  # fmt: skip
# Where exp(-a^2 / 2) is zero.
normal_highest = constant(15.0, 39.0)


@jit(inline=True)
def normal_parts(x):
    """(a, even, odd, below, m, n): of the normal distribution, (even + a odd) / below (1 + m) 2^n lies beyond a, and
    its density there is (1 + m) 2^n / sqrt(2 pi).

    a is |x|, but stops where both have become zero.
    """
    a = clamp(vabs(x), 0.0, normal_highest(x))
    square = a * a
    n = vround(square * (-0.5 * LOG2_E))
    r = fma(n, -ln2_low(x), fma(-0.5 * a, a, n * -ln2_high(x)))  # from the exact square
    m = fma(r * r, exp_tail(r), r)
    below = fma(a, below_odd(square), below_even(square))
    return a, tail_even(square), tail_odd(square), below, m, n
