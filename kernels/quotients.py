"""Quotients on a GPU by numbers that the host knows: a multiplication and two shifts. The GPU's own division of 32 bits
is a subroutine of some twenty instructions, and that of 64 bits, which Numba takes for all integers, one of a hundred.

    quotient(n, *reciprocal(d)) == n // d          for 0 <= n < 2**31 and 1 <= d < 2**31

With s = ceil(log2 d) and r = floor(2^(31+s) / d) + 1, n r / 2^(31+s) exceeds n / d by n / 2^(31+s) at most, which is
less than 1 / d: too little to reach the next integer (T. Granlund, P. Montgomery, Division by Invariant Integers using
Multiplication, PLDI 1994).
"""

from numba import cuda, int32, uint32

from .ptx import multiply_high, shift_right

# What n must be below.
LIMIT = 2**31


def reciprocal(divisor: int) -> tuple[int, int]:
    """What a kernel is told of a divisor: two uint32."""
    shift = (divisor - 1).bit_length()
    return (1 << 31 + shift) // divisor + 1, shift


@cuda.jit(device=True, forceinline=True)
def quotient(n, factor, shift):
    return int32(shift_right(multiply_high(uint32(uint32(n) + uint32(n)), factor), shift))
