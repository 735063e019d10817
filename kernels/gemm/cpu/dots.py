"""Products with few columns, and of few rows with a transposed B: both operands are read along K.

    few columns    C[i, j] = the sum over k of many[i, k] few[j, k]      many is A, few is B transposed
    few rows       C[j, i] = the sum over k of many[i, k] few[j, k]      many is B transposed, few is A

Memory gives the rows of `many` once, as they lie; those of `few` stay in the caches. Each sum has a vector of its own,
whose lanes are added at the end. In tiles as elsewhere, most lanes would compute columns that do not exist.
"""

import numpy as np

from ...jit import jit
from ...recording import on_host
from ...simd import at, lanes, stack_array, tile_inner, tile_sums, tile_zeros, viewed
from ...threads import threaded
from ...workspace import scratch
from .epilogue import NO_BIAS
from .tile import CODES, NONE, activate, operand
from .ways import PART_BYTES, THIN, is_thin

# Rows of `many` that all tiles of `few` read before the next ones: a multiple of every tile's height.
TOGETHER = 12
# Bytes of the few columns of a small product, whose sums are in one part.
FEW_BYTES = THIN * 2 * PART_BYTES
# Chunks to aim for, so that any number of threads gets about the same.
CHUNKS = 32


def _tile(rows, columns):
    """`rows` of many times `columns` of few: 12 sums, of 16 registers, or as many as one row of few allows."""

    @jit(inner=True, name=f"{__name__}.tile-{rows}-{columns}")
    def tile(many, i0, many_row, left, few, j0, few_row, depth, c, c0, down, across):
        acc = tile_zeros(c, rows, columns)
        whole = depth - depth % lanes(c)
        for k in range(0, whole, lanes(c)):
            tile_inner(acc, many, i0 + k, many_row, left, few, j0 + k, few_row, False, 0)
        if whole < depth:
            tile_inner(acc, many, i0 + whole, many_row, left, few, j0 + whole, few_row, True, depth - whole)
        tile_sums(acc, c, c0, down, across, left)

    return tile


_one, _two, _three = _tile(6, 1), _tile(6, 2), _tile(4, 3)


@jit(inline=True)
def dots(many, many_row, few, few_row, depth, c, down, across, first, end, count):
    """Rows [first, end) of many, `count` of few: C's number (i, j) is c[i * down + j * across]."""
    for block in range(first, end, TOGETHER):
        last, j = min(end, block + TOGETHER), 0
        while j < count:
            rest, j0 = count - j, j * few_row
            if rest == 1:
                for i in range(block, last, 6):
                    c0 = i * down + j * across
                    _one(many, i * many_row, many_row, last - i, few, j0, few_row, depth, c, c0, down, across)
                j += 1
            elif rest == 2 or rest == 4:
                for i in range(block, last, 6):
                    c0 = i * down + j * across
                    _two(many, i * many_row, many_row, last - i, few, j0, few_row, depth, c, c0, down, across)
                j += 2
            else:
                for i in range(block, last, 4):
                    c0 = i * down + j * across
                    _three(many, i * many_row, many_row, last - i, few, j0, few_row, depth, c, c0, down, across)
                j += 3


@jit(inner=True)
def small_dots(a, b, c, m, n, k):
    """The few columns of C, all operands in rows."""
    if n == 1:
        dots(a, k, b, k, k, c, 1, 1, 0, m, 1)
        return
    few = viewed(stack_array(np.uint8, FEW_BYTES), c)
    for j in range(n):
        for i in range(k):
            few[j * k + i] = at(b, i * n + j)
    dots(a, k, few, k, k, c, n, 1, 0, m, n)


@jit(inline=True)
def add_bias(c, down, across, first, end, count, bias, many_bias, few_bias):
    for i in range(first, end):
        for j in range(count):
            c[i * down + j * across] += at(bias, i * many_bias + j * few_bias)


@jit(inner=True)
def multiply_dots(chunk, many, many_row, few, few_row, depth, c, by_rows, rows, total, count, bias, activation):
    """One chunk: up to `rows` of the `total` rows of many. by_rows : they are C's rows, `count` numbers each; otherwise
    they are its columns."""
    first, end = chunk * rows, min(total, (chunk + 1) * rows)
    down, across = (count, 1) if by_rows else (1, total)
    dots(many, many_row, few, few_row, depth, c, down, across, first, end, count)
    if bias.size > 0:
        add_bias(c, down, across, first, end, count, bias, 1 - by_rows, by_rows)
    if activation != NONE:
        if by_rows:
            activate(c, first * count, (end - first) * count, activation)
        else:
            for j in range(count):
                activate(c, first + j * total, end - first, activation)


_multiply_dots = threaded(multiply_dots)


def gemm_dots(a, b, c, bias, activation):
    """Workspace: the few columns, or rows, once more, where they do not lie along K."""
    m, n = c.shape
    k = a.shape[1]
    by_rows = is_thin(n, k, c.itemsize)
    few, many = (b.T, a) if by_rows else (a, b.T)
    count, total = len(few), len(many)
    if few.flags.c_contiguous:
        few = few.reshape(-1)
    else:
        turned = scratch("gemm.turned", few.size, c.dtype)
        on_host(np.copyto, turned.reshape(count, k), few)
        few = turned
    many, many_row, _ = operand(many)
    rows = max(1, -(-total // (CHUNKS * TOGETHER))) * TOGETHER
    _multiply_dots(
        -(-total // rows), 2 * m * n * k,
        many, many_row, few, k, k, c.reshape(-1), int(by_rows), rows, total, count,
        NO_BIAS[c.dtype] if bias is None else bias, CODES[activation],
    )  # fmt: skip
