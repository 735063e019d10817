"""Loops over vectors: over one row, x[start:end] of a flat array, or over a chunk. Softmax, activations and losses are
made of them.

    map_vectors(value)  a function (y, args, start, end): y = value(args, j, left) at every vector, j its position
    map_row(value)      the same, but the last vector ends where the row does: some lanes are computed twice
    sum_of(term)        a function (args, start, end): the sum of term(args, j, left)

`left` is how many lanes count. For all vectors but a last, partial one it is `lanes`, a constant to the compiler, and
the partial one gets code of its own: a mask or a branch at every vector took nearly half of softmax's time. With AVX2,
stores with masks are slow, which is much for a row of ten numbers.

Most often `left` is WIDE vectors, computed side by side. One of them is a long chain of operations that wait for each
other, and the processor looks too few instructions ahead to begin the next one meanwhile. Against two at a time that
follow each other in the program, on a Zen 1: 1.3 times as fast for silu and softplus, 1.2 for a cross-entropy of a
thousand classes, 1.1 for tanh; 0.95 for rows of 50, where more vectors are left over.

A map with `past` writes y past the caches (`past_caches` says when). It belongs in a kernel of its own, which most
programs never compile.

Sums add up BLOCK vectors before they are added to the total, so that rounding errors grow with the root of a long row
and not with its length. The order is fixed by the row's length and the processor's vector width.
"""

import math

import numpy as np

from .jit import jit
from .simd import (
    FREE_MASKS,
    any_lane,
    first_lane,
    first_lanes,
    join_max,
    join_sum,
    lanes,
    select,
    vectors,
    vfill,
    vhighest,
    vload,
    vload_part,
    vmax,
    vstore,
    vstore_part,
    vstream,
    vsum,
)
from .vecmath import vexp

BLOCK = 32
WIDE = 4
# Rows of one chunk, at most: adding up one number of each is still exact enough.
ROWS = 64
# Bytes for a number of each of them.
ROOM = 8 * ROWS


def rows_of_a_chunk(width: int) -> int:
    """Rows that one chunk of work takes: about 8192 elements."""
    return min(ROWS, max(1, 8192 // width))


def _map_whole(value, several, past):
    """The whole vectors of a map, `several` side by side; a function that returns where they end."""
    store = vstream if past else vstore

    @jit(inline=True, name=f"map_whole.{value.py_func.__name__}.{past}")
    def run(y, args, start, end):
        step = lanes(y)
        if past:
            head = min(-np.intp(y.ctypes.data) // y.itemsize - start & step - 1, end - start)
            vstore_part(y, start, value(args, start, head), head)
            start += head
        wide, whole = end - (end - start) % (several * step), end - (end - start) % step
        for j in range(start, wide, several * step):
            store(y, j, value(args, j, vectors(several)))
        for j in range(wide, whole, step):
            vstore(y, j, value(args, j, step))
        return whole

    return run


def map_vectors(value, several=WIDE, past=False):
    """See above; y may be among args."""
    map_whole = _map_whole(value, several, past)

    @jit(inline=True, name=f"map_vectors.{value.py_func.__name__}.{past}")
    def run(y, args, start, end):
        whole = map_whole(y, args, start, end)
        if whole < end:
            vstore_part(y, whole, value(args, whole, end - whole), end - whole)

    return run


def map_row(value, past=False):
    """See above; y may not be among args."""
    map_whole = _map_whole(value, WIDE, past)

    @jit(inline=True, name=f"map_row.{value.py_func.__name__}.{past}")
    def run(y, args, start, end):
        whole, other = map_whole(y, args, start, end), end - lanes(y)
        if whole < end:
            if FREE_MASKS or other < start:
                vstore_part(y, whole, value(args, whole, end - whole), end - whole)
            else:
                vstore(y, other, value(args, other, lanes(y)))

    return run


def sum_of(term):
    """See above; args[0] is an array of the vectors' dtype. Lanes of the last vector that do not count must be 0."""

    @jit(inline=True, name=f"sum_of.{term.py_func.__name__}")
    def run(args, start, end):
        step = lanes(args[0])
        whole = end - (end - start) % step
        total = vfill(args[0], 0.0)
        for block in range(start, whole, BLOCK * step):
            stop = min(whole, block + BLOCK * step)
            wide = stop - (stop - block) % (WIDE * step)
            if block < wide:
                several = term(args, block, vectors(WIDE))
                for j in range(block + WIDE * step, wide, WIDE * step):
                    several = several + term(args, j, vectors(WIDE))
                total = total + join_sum(several)
            for j in range(wide, stop, step):
                total = total + term(args, j, step)
        if whole < end:
            total = total + term(args, whole, end - whole)
        return vsum(total)

    return run


@jit(inline=True)
def row_highest(x, start, end):
    """The largest number of the row; NaN is passed over."""
    step = lanes(x)
    wide, whole = end - (end - start) % (WIDE * step), end - (end - start) % step
    highest = vfill(x, -math.inf)
    if start < wide:
        several = vload_part(x, start, vectors(WIDE))
        several = vmax(several, vfill(several, -math.inf))
        for j in range(start + WIDE * step, wide, WIDE * step):
            several = vmax(vload_part(x, j, vectors(WIDE)), several)
        highest = join_max(several)
    for j in range(wide, whole, step):
        highest = vmax(vload_part(x, j, step), highest)
    if whole < end:
        highest = vmax(select(first_lanes(x, end - whole), vload_part(x, whole, end - whole), -math.inf), highest)
    return vhighest(highest)


@jit(inline=True)
def _value(args, j, left):
    return vload_part(args[0], j, left)


@jit(inline=True)
def _product(args, j, left):
    x, y = args
    return vload_part(x, j, left) * vload_part(y, j, left)


@jit(inline=True)
def _exp(args, j, left):
    x, highest = args
    return select(first_lanes(x, left), vexp(vload_part(x, j, left) - highest), 0.0)


# The sum of (x,), that of the products of (x, y), and that of exp(x - highest) of (x, highest).
row_sum, row_dot, row_exp_sum = map(sum_of, (_value, _product, _exp))


@jit(inline=True)
def row_exp(x, y, start, end, highest):
    """y = exp(x - highest), and the sum of it."""
    step = lanes(x)
    wide = end - (end - start) % (WIDE * step)
    total = vfill(x, 0.0)
    for block in range(start, wide, BLOCK * step):
        several = vexp(vload_part(x, block, vectors(WIDE)) - highest)
        vstore(y, block, several)
        for j in range(block + WIDE * step, min(wide, block + BLOCK * step), WIDE * step):
            e = vexp(vload_part(x, j, vectors(WIDE)) - highest)
            vstore(y, j, e)
            several = several + e
        total = total + join_sum(several)
    for j in range(wide, end, step):
        e = vexp(vload_part(x, j, end - j) - highest)
        vstore_part(y, j, e, end - j)
        total = total + select(first_lanes(x, end - j), e, 0.0)
    return vsum(total)


# A row of one to two vectors is worked on in registers, as two vectors. The second one ends where the row does, and
# some of its lanes are those of the first again.


@jit(inline=True)
def is_two_vectors(x, width):
    return lanes(x) <= width <= 2 * lanes(x)


@jit(inline=True)
def load_two(x, start, end):
    return vload(x, start), vload(x, end - lanes(x))


@jit(inline=True)
def store_two(y, start, end, a, b):
    vstore(y, start, a)
    vstore(y, end - lanes(y), b)


@jit(inline=True)
def sum_of_two(a, b, width):
    return vsum(a + select(first_lanes(a, 2 * lanes(a) - width), 0.0, b))


@jit(inline=True)
def row_log_parts(x, start, end):
    """(highest, total) of a row whose exponentials add up to total * exp(highest)."""
    if is_two_vectors(x, end - start):
        a, b = load_two(x, start, end)
        highest = vhighest(vmax(a, b))
        return highest, sum_of_two(vexp(a - highest), vexp(b - highest), end - start)
    highest = row_highest(x, start, end)
    return highest, row_exp_sum((x, highest), start, end)


@jit(inner=True)
def row_argmax(x, start, end):
    """Where in the row its largest number stands first, counted from `start`; NaN is the largest."""
    step = lanes(x)
    highest = vfill(x, -math.inf)
    missing = highest != highest
    for j in range(start, end, step):
        part = vload_part(x, j, end - j)
        missing = missing | (part != part)
        highest = vmax(select(first_lanes(x, end - j), part, -math.inf), highest)
    top, none = vhighest(highest), not any_lane(missing)
    for j in range(start, end, step):
        part = vload_part(x, j, end - j)
        found = first_lane(part == top) if none else first_lane(part != part)
        if found < min(step, end - j):
            return j - start + found
    return 0
