"""Products whose operands are read where they are: small and thin ones, stacks of them, long sums in parts."""

from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from ... import simd
from ...arrays import contiguous
from ...jit import jit
from ...recording import computed
from ...simd import at, lanes, stack_array, viewed
from ...threads import threaded
from ...workspace import scratch
from .dots import dots, small_dots
from .epilogue import NO_BIAS, add_parts
from .rows import multiply_rows
from .tile import (
    CODES,
    COLUMNS,
    NONE,
    ROWS,
    SHORT,
    operand,
    pack_panel,
    packing_tile,
    short_tile,
    single_tile,
    tall_tile,
)
from .ways import PART_BYTES, TALL, is_thin

# Columns of C in a chunk where there are few rows: long enough pieces of B's rows for memory to be read in a stream.
WIDE = 8
# Bytes of A that a thread holds in its second-level cache while the panels of B stream past them.
GROUP_BYTES = 1 << 18
# Bytes of a first-level cache: 48 KB have 12 places to a set instead of 8.
FIRST_BYTES = 1 << 15
# Numbers of a column of B that are packed at a time, where it is; and from so many rows of C on.
STEEP, WORTH = 256, 2 * ROWS
PANEL_BYTES = STEEP * COLUMNS * simd.VECTOR_BYTES


@jit(inner=True)
def column_of_tiles(
    a, a0, a_row, a_col, b, b0, b_row, depth, c, c0, n, i_first, i_end, valid, keep, bias, j, activation
):  # fmt: skip
    """Rows `i_first` to `i_end` of up to one tile's columns of C.

    The last tile is moved back so that it ends at the last row: a few rows are computed twice, with the same bits. (Not
    where C is added to.)
    """
    i = i_first
    while i < i_end:
        left = i_end - i
        if left >= ROWS or (left > 2 * SHORT and i_end - i_first >= ROWS and not keep):
            i = min(i, i_end - ROWS)
            tall_tile(
                a, a0 + i * a_row, a_row, a_col, b, b0, b_row, depth,
                c, c0 + i * n, n, ROWS, valid, keep, bias, j, activation,
            )  # fmt: skip
            i += ROWS
        elif left >= SHORT or (i_end - i_first >= SHORT and not keep):
            i = min(i, i_end - SHORT)
            short_tile(
                a, a0 + i * a_row, a_row, a_col, b, b0, b_row, depth,
                c, c0 + i * n, n, SHORT, valid, keep, bias, j, activation,
            )  # fmt: skip
            i += SHORT
        else:
            single_tile(
                a, a0 + i * a_row, a_row, a_col, b, b0, b_row, depth,
                c, c0 + i * n, n, 1, valid, keep, bias, j, activation,
            )  # fmt: skip
            i += 1


@jit(inline=True)
def stays(x, rows, stride):
    """Whether so many rows of a panel, read where they are, stay in a first-level cache while a chunk's tiles use them.

    Numbers that are a multiple of 4096 bytes apart share a set of the cache, which has 8 places or more. With rows
    512 bytes apart, the 8 of a page so have room for 64 rows, and of 128 rows each drives out another. Otherwise half
    of the cache is for a panel.
    """
    apart = stride * x.itemsize
    return rows * max(apart & -apart, 2 * COLUMNS * simd.VECTOR_BYTES) <= FIRST_BYTES


@jit(inner=True)
def multiply_direct(
    chunk, a, a0, a_row, a_col, b, b0, b_row, b_col, depth, c, c0, m, n, rows, columns, parts, bias, activation
):  # fmt: skip
    """One chunk is `rows` x `columns` of C, straight from the operands where B's rows are contiguous.

    With several parts, a chunk sums one part of K, and C has a copy for each. Where the numbers of B's columns would
    drive each other out of the cache, the first tile that reads them packs them, a panel at a time on the stack. Where
    the rows of B are not contiguous, or a panel's columns do not all exist, they are packed before: masked loads of
    B's last columns in every tile took twice as long (on a Zen 1; with AVX-512 they cost nothing).
    """
    width = COLUMNS * lanes(c)
    groups = (n + columns - 1) // columns
    part, chunk = chunk % parts, chunk // parts
    i_first, j_first = chunk // groups * rows, chunk % groups * columns
    i_end, j_end = min(m, i_first + rows), min(n, j_first + columns)
    k_first, k_end, c0 = part * depth // parts, (part + 1) * depth // parts, c0 + part * m * n
    ragged = not simd.FREE_MASKS and (j_end - j_first) % width != 0
    if b_col != 1 or (rows >= WORTH and (ragged or not stays(b, k_end - k_first, b_row))):
        panel = viewed(stack_array(np.uint8, PANEL_BYTES), c)
        for j in range(j_first, j_end, width):
            valid, blocks = min(width, j_end - j), max(1, (k_end - k_first + STEEP - 1) // STEEP)
            for block in range(blocks):
                k = k_first + block * (k_end - k_first) // blocks
                steps = k_first + (block + 1) * (k_end - k_first) // blocks - k
                code, start, i = activation if block == blocks - 1 else NONE, b0 + k * b_row + j * b_col, i_first
                if b_col == 1 and valid == width and i_end - i_first >= ROWS:
                    packing_tile(
                        a, a0 + i * a_row + k * a_col, a_row, a_col, b, start, b_row, steps,
                        c, c0 + i * n + j, n, block > 0, bias, j, code, panel, 0,
                    )  # fmt: skip
                    i += ROWS
                else:
                    pack_panel(b, start, b_col, b_row, valid, steps, width, panel, 0)
                column_of_tiles(
                    a, a0 + k * a_col, a_row, a_col, panel, 0, width, steps,
                    c, c0 + j, n, i, i_end, valid, block > 0, bias, j, code,
                )  # fmt: skip
        return
    for j in range(j_first, j_end, width):
        column_of_tiles(
            a, a0 + k_first * a_col, a_row, a_col, b, b0 + k_first * b_row + j, b_row, k_end - k_first,
            c, c0 + j, n, i_first, i_end, min(width, j_end - j), False, bias, j, activation,
        )  # fmt: skip


_multiply_direct = threaded(multiply_direct)


@jit(inner=True)
def multiply_stack(
    chunk, a, a_starts, a_row, a_col, b, b_starts, b_row, b_col, depth, c, m, n, rows, chunks, none
):  # fmt: skip
    """One chunk: one of the `chunks` of matrix i of the stack, whose operands start at a_starts[i] and b_starts[i]."""
    matrix, chunk = chunk // chunks, chunk % chunks
    multiply_direct(
        chunk, a, at(a_starts, matrix), a_row, a_col, b, at(b_starts, matrix), b_row, b_col, depth,
        c, matrix * m * n, m, n, rows, n, 1, none, NONE,
    )  # fmt: skip


@jit(inner=True)
def multiply_thin_stack(matrix, a, a_starts, a_row, a_col, b, b_starts, b_row, b_col, depth, c, m, n, by_rows, none):
    """One chunk: one matrix of the stack, of few columns (`by_rows`) or rows, as dots.py and rows.py compute it."""
    x, y, z = a[at(a_starts, matrix) :], b[at(b_starts, matrix) :], c[matrix * m * n :]
    if by_rows and b_col == 1:
        small_dots(x, y, z, m, n, depth)
    elif by_rows:
        dots(x, a_row, y, b_col, depth, z, n, 1, 0, m, n)
    elif b_col == 1:
        multiply_rows(0, x, a_row, a_col, y, b_row, depth, z, m, n, n, 1, none, NONE)
    else:
        dots(y, b_col, x, a_row, depth, z, 1, n, 0, n, m)


_multiply_stack, _multiply_thin_stack = threaded(multiply_stack), threaded(multiply_thin_stack)


class Product(NamedTuple):
    """C[M, N] = A B, each number of it a sum over K from the first to the last. The rows of B are contiguous."""

    a: np.ndarray
    a_row: int
    a_col: int
    b: np.ndarray
    b_row: int
    m: int
    n: int
    depth: int


class Cut(NamedTuple):
    """How a direct product is cut into chunks."""

    chunks: int
    rows: int
    columns: int
    parts: int


# Multiply-adds of a chunk, at least.
LITTLE = 1 << 18


@lru_cache(maxsize=4096)
def direct_cut(m, n, k, itemsize):
    """The cut of a direct product, from its sizes alone."""
    rows, columns, parts = m, COLUMNS * simd.VECTOR_BYTES // itemsize, 1
    if m <= TALL:
        parts = max(1, min(16, k * itemsize // PART_BYTES))
        columns *= 1 if parts == 1 else WIDE
    else:  # a chunk takes a panel of B, and as many rows of A as stay in a cache until the chunk with the next panel
        panels = max(1, -(-n // columns))
        groups = max(-(-m * k * itemsize // GROUP_BYTES), min(16, m * n * k // LITTLE) // panels, 1)
        if panels * groups % 2 and panels < 16:  # two threads get the same
            groups += 1
        rows = -(-m // (min(groups, m // TALL) * ROWS)) * ROWS
    chunks = -(-m // rows) * -(-n // columns) * parts if m and n else 0
    return Cut(chunks, rows, columns, parts)


def gemm_direct(a, b, c, bias, activation):
    """Workspace: a copy of C for each part; there are several, 16 at most, only where C has few rows."""
    m, n = c.shape
    k = a.shape[1]
    chunks, rows, columns, parts = direct_cut(m, n, k, c.itemsize)
    (a, a_row, a_col), (b, b_row, b_col) = operand(a), operand(b)
    flat, bias = c.reshape(-1), NO_BIAS[c.dtype] if bias is None else bias
    work, code = 2 * m * n * k, CODES[activation]
    if parts == 1:
        _multiply_direct(
            chunks, work, a, 0, a_row, a_col, b, 0, b_row, b_col, k, flat, 0, m, n, rows, columns, 1, bias, code
        )
        if k <= STEEP and b_col == 1 and bias.size == code == 0:
            computed(flat, Product(a, a_row, a_col, b, b_row, m, n, k))
    else:
        out, none = scratch("gemm.parts", parts * c.size, c.dtype), NO_BIAS[c.dtype]
        _multiply_direct(
            chunks, work, a, 0, a_row, a_col, b, 0, b_row, b_col, k, out, 0, m, n, rows, columns, parts, none, NONE
        )
        add_parts(out, parts, m, n, flat, bias, code)


# Edge of B's matrices in a stack, at most: beyond, packing pays.
MOST_IN_A_STACK = 512
# So many that there are chunks enough with one for each.
MANY_MATRICES = 16


@lru_cache(maxsize=256)
def _starts(shape, batch, size):
    """Where the matrices of a stack of this shape begin, each of `size` numbers, for each place of the batch."""
    numbers = np.arange(prod(shape), dtype=np.int64).reshape(shape)
    return np.broadcast_to(numbers, batch).reshape(-1) * size


def _operand(x):
    """`operand` of a stack of matrices."""
    if x.swapaxes(-1, -2).flags.c_contiguous:
        return x.swapaxes(-1, -2).reshape(-1), 1, x.shape[-2]
    return contiguous(x).reshape(-1), x.shape[-1], 1


def gemm_stack(a, b, c):
    """A product for each matrix of stacks that broadcast to C's, in one launch; False where each is better on its own.

    Workspace: a copy of a stack of which neither the matrices nor the transposed ones are contiguous.
    """
    *batch, m, n = c.shape
    k = a.shape[-1]
    if c.size == 0 or max(n, k) > MOST_IN_A_STACK or m * n * k > MOST_IN_A_STACK**2 * TALL:
        return False
    batch = tuple(batch)
    rows = m if prod(batch) >= MANY_MATRICES and m * k * c.itemsize <= GROUP_BYTES else min(m, TALL)
    chunks, none = -(-m // rows), NO_BIAS[c.dtype]
    (x, a_row, a_col), (y, b_row, b_col) = _operand(a), _operand(b)
    operands = (
        x, _starts(a.shape[:-2], batch, m * k), a_row, a_col, y, _starts(b.shape[:-2], batch, k * n), b_row, b_col,
    )  # fmt: skip
    by_rows = a_col == 1 and is_thin(n, k, c.itemsize)
    has_few_rows = m < ROWS if b_col == 1 else a_col == 1 and is_thin(m, k, c.itemsize)
    if by_rows or has_few_rows:
        _multiply_thin_stack(prod(batch), 2 * c.size * k, *operands, k, c.reshape(-1), m, n, by_rows, none)
    else:
        _multiply_stack(prod(batch) * chunks, 2 * c.size * k, *operands, k, c.reshape(-1), m, n, rows, chunks, none)
    return True
