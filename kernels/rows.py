"""Reductions over one row, x[start:end] of a flat array: what softmax and the losses on classes share.

Sums add up BLOCK vectors before they are added to the total, so that rounding errors grow with the root of a long row
and not with its length. The order is fixed by the row's length and the processor's vector width.
"""

import math

from .jit import jit
from .simd import (
    first_lane,
    first_lanes,
    fma,
    lanes,
    select,
    vfill,
    vhighest,
    vload_part,
    vmax,
    vstore_part,
    vsum,
)
from .vecmath import vexp

BLOCK = 32


def rows_of_a_chunk(width: int) -> int:
    """Rows that one chunk of work takes: about 8192 elements, and not so many that adding up a number each is rough."""
    return min(64, max(1, 8192 // width))


@jit(inline=True)
def row_highest(x, start, end):
    """The largest number of the row; NaN if there is one."""
    step = lanes(x)
    highest = vfill(x, -math.inf)
    for j in range(start, end, step):
        part = vload_part(x, j, end - j)
        highest = vmax(highest, select(first_lanes(x, end - j), part, -math.inf))
    return vhighest(highest)


@jit(inline=True)
def row_exp(x, y, start, end, highest):
    """y = exp(x - highest), and the sum of it."""
    step = lanes(x)
    total = vfill(x, 0.0)
    for block in range(start, end, BLOCK * step):
        part = vfill(x, 0.0)
        for j in range(block, min(end, block + BLOCK * step), step):
            e = vexp(vload_part(x, j, end - j) - highest)
            vstore_part(y, j, e, end - j)
            part = part + select(first_lanes(x, end - j), e, 0.0)
        total = total + part
    return vsum(total)


@jit(inline=True)
def row_exp_sum(x, start, end, highest):
    """The sum of exp(x - highest)."""
    step = lanes(x)
    total = vfill(x, 0.0)
    for block in range(start, end, BLOCK * step):
        part = vfill(x, 0.0)
        for j in range(block, min(end, block + BLOCK * step), step):
            e = vexp(vload_part(x, j, end - j) - highest)
            part = part + select(first_lanes(x, end - j), e, 0.0)
        total = total + part
    return vsum(total)


@jit(inline=True)
def row_sum(x, start, end):
    """The sum of the row."""
    step = lanes(x)
    total = vfill(x, 0.0)
    for block in range(start, end, BLOCK * step):
        part = vfill(x, 0.0)
        for j in range(block, min(end, block + BLOCK * step), step):
            part = part + vload_part(x, j, end - j)
        total = total + part
    return vsum(total)


@jit(inline=True)
def row_dot(x, y, start, end):
    """The sum of the products of two rows."""
    step = lanes(x)
    total = vfill(x, 0.0)
    for block in range(start, end, BLOCK * step):
        part = vfill(x, 0.0)
        for j in range(block, min(end, block + BLOCK * step), step):
            part = fma(vload_part(x, j, end - j), vload_part(y, j, end - j), part)
        total = total + part
    return vsum(total)


@jit(inner=True)
def row_argmax(x, start, end):
    """Where in the row its largest number stands first, counted from `start`; NaN is the largest."""
    highest = row_highest(x, start, end)
    for j in range(start, end, lanes(x)):
        part = vload_part(x, j, end - j)
        found = first_lane((part == highest) | (part != part))
        if found < min(lanes(x), end - j):
            return j - start + found
    return 0
