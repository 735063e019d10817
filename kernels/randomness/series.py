"""Coefficients of the polynomials behind the normal draws, lowest power first: the same numbers on every device."""

import math

# sin(x) / x and cos(x) in x², up to x = π / 4
SIN = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(9))
COS = tuple((-1) ** k / math.factorial(2 * k) for k in range(10))
# √2 erf⁻¹(v) / v in W_HALF (x + 1) = -ln(1 - v²), for |v| <= erf(√2): interpolated at Chebyshev's points, error 1e-15
W_HALF = 1.21
PROBIT = (
    1.6681850414854422,
    0.4266151863934935,
    0.00576336990939978,
    -0.00570283392405172,
    0.00041603940992647,
    0.00011868444497861,
    -2.197880716358e-05,
    -1.89832030486e-06,
    8.3060472669e-07,
    -1.07299603e-09,
    -2.665018002e-08,
    1.93065169e-09,
    7.3063352e-10,
    -9.931935e-11,
    -1.48326e-11,
)
ERF_SQRT2 = math.erf(math.sqrt(2))
TAU = 2 * math.pi
