"""The rungs "simd" and "threaded": register tiles over the whole product, in one of three ways.

    packed    large products: both operands are copied into panels, since every number is used many times
    direct    small and thin ones: the operands are read where they are; long sums in parts
    turned    few rows times a transposed operand: C transposed = B transposed times A transposed, so that the large
              operand, B, is read along its rows and not copied

`gemm_threaded` at the end says which. Each is a kernel over chunks, and a function that cuts the work into them.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ... import simd
from ...arrays import contiguous
from ...jit import jit
from ...simd import lanes, stack_array, transpose_block, viewed
from ...threads import THREADS_PAY, threaded
from ...workspace import scratch
from .epilogue import NO_BIAS, add_parts, epilogue_backward
from .tile import (
    CODES,
    COLUMNS,
    NONE,
    ROWS,
    SHORT,
    operand,
    pack_panel,
    short_padded,
    short_tile,
    single_tile,
    tall_padded,
    tall_tile,
)

# Bytes of one row of a K block: 1024 float32. Each further block reads and writes all of C once more.
BLOCK_BYTES = 4096
# Bytes of the panels of A that a thread holds in its second-level cache while the panels of B stream past them.
GROUP_BYTES = 1 << 18
STACK_BYTES = GROUP_BYTES + simd.VECTOR_BYTES


def width_of(c):
    """Numbers in a row of the register tile."""
    return COLUMNS * simd.VECTOR_BYTES // c.itemsize


# ---------------------------------------------------------------------------------------------------------------------
# packed


@jit(inner=True)
def pack_block(panel, b, b_row, b_col, n, panels, k0, depth):
    """One chunk: one panel of B's K block."""
    width = COLUMNS * lanes(b)
    first = panel * width
    pack_panel(b, first * b_col + k0 * b_row, b_col, b_row, n - first, depth, width, panels, first * depth)


@jit(inner=True)
def multiply_panels(chunk, a, a_row, a_col, k0, b_panels, depth, c, m, n, row_groups, keep, bias, activation, columns):
    """One chunk: one group of A's panels times `columns` panels of B; chunks that follow each other share those.

    The panels of A are packed here, on this thread's stack, and stay in its second-level cache. Packed once for all
    threads they would have to travel from one core's cache to the other's in every product: with two threads that
    took longer than packing on one.
    """
    width = COLUMNS * lanes(c)
    panels = viewed(stack_array(np.uint8, STACK_BYTES), c)
    rows, all_columns = (m + ROWS - 1) // ROWS, (n + width - 1) // width
    row_group, column_group = chunk % row_groups, chunk // row_groups
    first, end = row_group * rows // row_groups, (row_group + 1) * rows // row_groups
    for i in range(first, end):
        start = i * ROWS * a_row + k0 * a_col
        pack_panel(a, start, a_row, a_col, m - i * ROWS, depth, ROWS, panels, (i - first) * ROWS * depth)
    for j in range(column_group * columns, min(all_columns, (column_group + 1) * columns)):
        j0 = j * width
        valid = min(width, n - j0)
        for i in range(first, end):
            i0, a0 = i * ROWS, (i - first) * ROWS * depth
            height = min(ROWS, m - i0)
            if height > SHORT:
                tall_padded(
                    panels, a0, 1, ROWS, b_panels, j0 * depth, width, depth,
                    c, i0 * n + j0, n, height, valid, keep, bias, j0, activation,
                )  # fmt: skip
            else:  # the rest of a panel would be multiplied for nothing
                short_padded(
                    panels, a0, 1, ROWS, b_panels, j0 * depth, width, depth,
                    c, i0 * n + j0, n, height, valid, keep, bias, j0, activation,
                )  # fmt: skip


_pack_block = threaded(pack_block)
_multiply_panels = threaded(multiply_panels)


def _shares(panels_a, panels_b, group):
    """(groups of rows, panels of B a chunk), from the sizes alone.

    Two groups of columns, so that each of two threads reads its own half of B. More where there are few rows, as long
    as a chunk uses what it packs of A for 8 panels of B.
    """
    row_groups = -(-panels_a // group)
    column_groups = 2 if panels_b % 2 == 0 or panels_b > 16 else 1
    while row_groups * column_groups < 16 and panels_b >= 16 * column_groups:
        column_groups *= 2
    if row_groups * column_groups < 16:
        row_groups = min(panels_a, -(-16 // column_groups))
    return row_groups, -(-panels_b // column_groups)


def _multiply(a, b, c, bias, activation, pack, multiply):
    """The packed product, one K block after another; `pack` and `multiply` say how the chunks are run.

    Workspace: N * min(K, 1024) numbers, half as many with float64, and 256 KB of each thread's stack.
    """
    if c.size == 0:
        return
    m, n = c.shape
    k = a.shape[1]
    width = width_of(c)
    panels_a, panels_b = -(-m // ROWS), -(-n // width)
    blocks = max(1, -(-k * c.itemsize // BLOCK_BYTES))
    longest = -(-k // blocks)
    b_panels = scratch("gemm.b", panels_b * width * longest, c.dtype)
    row_groups, columns = _shares(panels_a, panels_b, GROUP_BYTES // (ROWS * c.itemsize * max(1, longest)))
    a, a_row, a_col = operand(a)
    b, b_row, b_col = operand(b)
    flat = c.reshape(-1)
    bias = NO_BIAS[c.dtype] if bias is None else bias
    for block in range(blocks):
        k0, k1 = block * k // blocks, (block + 1) * k // blocks
        depth, last = k1 - k0, block == blocks - 1
        pack(panels_b, n * depth * 4, b, b_row, b_col, n, b_panels, k0, depth)
        multiply(
            row_groups * -(-panels_b // columns), 2 * m * n * depth,
            a, a_row, a_col, k0, b_panels, depth, flat, m, n, row_groups,
            block > 0, bias, CODES[activation] if last else NONE, columns,
        )  # fmt: skip


def _one_after_another(launch):
    return lambda chunks, work, *args: launch.in_turn(chunks, *args)


def gemm_simd(a, b, c, bias=None, activation=None):
    _multiply(a, b, c, bias, activation, _one_after_another(_pack_block), _one_after_another(_multiply_panels))


# ---------------------------------------------------------------------------------------------------------------------
# direct

# Rows of C in a chunk where there are many.
TALL = 8 * ROWS
# Columns of C in a chunk where there are few rows: long enough pieces of B's rows for memory to be read in a stream.
WIDE = 8
# Bytes of one row of a part of K: 512 float32.
PART_BYTES = 2048


@jit(inner=True)
def multiply_direct(chunk, a, a_row, a_col, b, b_row, depth, c, m, n, rows, columns, parts, bias, activation):
    """One chunk is `rows` x `columns` of C, straight from the operands: B's rows must be contiguous.

    With several parts, a chunk sums one part of K, and C has a copy for each. The last tile is moved back so that it
    ends at the last row: a few rows are computed twice, with the same bits.
    """
    width = COLUMNS * lanes(c)
    groups = (n + columns - 1) // columns
    part, chunk = chunk % parts, chunk // parts
    i_first, j_first = chunk // groups * rows, chunk % groups * columns
    i_end, j_end = min(m, i_first + rows), min(n, j_first + columns)
    k0, k1, c0 = part * depth // parts, (part + 1) * depth // parts, part * m * n
    i = i_first
    while i < i_end:
        left = i_end - i
        if left > 2 * SHORT and i_end - i_first >= ROWS:
            i = min(i, i_end - ROWS)
            for j in range(j_first, j_end, width):
                tall_tile(
                    a, i * a_row + k0 * a_col, a_row, a_col, b, k0 * b_row + j, b_row, k1 - k0,
                    c, c0 + i * n + j, n, ROWS, min(width, j_end - j), False, bias, j, activation,
                )  # fmt: skip
            i += ROWS
        elif i_end - i_first >= SHORT:
            i = min(i, i_end - SHORT)
            for j in range(j_first, j_end, width):
                short_tile(
                    a, i * a_row + k0 * a_col, a_row, a_col, b, k0 * b_row + j, b_row, k1 - k0,
                    c, c0 + i * n + j, n, SHORT, min(width, j_end - j), False, bias, j, activation,
                )  # fmt: skip
            i += SHORT
        else:
            for j in range(j_first, j_end, width):
                single_tile(
                    a, i * a_row + k0 * a_col, a_row, a_col, b, k0 * b_row + j, b_row, k1 - k0,
                    c, c0 + i * n + j, n, 1, min(width, j_end - j), False, bias, j, activation,
                )  # fmt: skip
            i += 1


_multiply_direct = threaded(multiply_direct)


class Cut(NamedTuple):
    """How a direct product is cut into chunks."""

    chunks: int
    rows: int
    columns: int
    parts: int


@lru_cache(maxsize=4096)
def _direct_cut(m, n, k, itemsize):
    """None where packing pays: where both operands' numbers are used often."""
    if min(m, 2 * n) > 4 * ROWS and k > 128 and m * n * k > 100_000:
        return None
    width, parts, columns = COLUMNS * simd.VECTOR_BYTES // itemsize, 1, n
    if m <= TALL:
        parts = max(1, min(16, k * itemsize // PART_BYTES))
        columns = width if parts == 1 else WIDE * width
    chunks = -(-m // TALL) * -(-n // columns) * parts if m and n else 0
    return Cut(chunks, min(m, TALL), columns, parts)


def _direct(a, b, c, cut, bias, activation):
    """Workspace: a copy of C for each part; there are several, 16 at most, only where C has few rows."""
    m, n = c.shape
    k = a.shape[1]
    chunks, rows, columns, parts = cut
    a, a_row, a_col = operand(a)
    b, flat, bias = b.reshape(-1), c.reshape(-1), NO_BIAS[c.dtype] if bias is None else bias
    work, code = 2 * m * n * k, CODES[activation]
    if parts == 1:
        _multiply_direct(chunks, work, a, a_row, a_col, b, n, k, flat, m, n, rows, columns, 1, bias, code)
    else:
        out, none = scratch("gemm.parts", parts * c.size, c.dtype), NO_BIAS[c.dtype]
        _multiply_direct(chunks, work, a, a_row, a_col, b, n, k, out, m, n, rows, columns, parts, none, NONE)
        add_parts(out, parts, m, n, flat, bias, code)


# ---------------------------------------------------------------------------------------------------------------------
# turned


TURNED_BYTES = 2 * TALL * COLUMNS * simd.VECTOR_BYTES


@jit(inner=True)
def multiply_turned(chunk, chunks, b, a_panels, depth, c, m, n, bias):
    """One chunk: from TALL to 2 TALL columns of C, whose transposed tiles gather on the stack and are turned there.

    `b` is B transposed, (N, K) in rows; `a_panels` holds A transposed, in panels of the tile's width.
    """
    width, square = COLUMNS * lanes(c), lanes(c)
    turned = viewed(stack_array(np.uint8, TURNED_BYTES), c)
    first, end = chunk * n // chunks, (chunk + 1) * n // chunks
    for j in range(0, m, width):
        valid = min(width, m - j)
        for i in range(first, end, ROWS):
            i = min(i, end - ROWS)
            tall_tile(
                b, i * depth, depth, 1, a_panels, j * depth, width, depth,
                turned, (i - first) * width, width, ROWS, valid, False, bias, j, NONE,
            )  # fmt: skip
        for i in range(first, end, square):
            for k in range(0, valid, square):
                start, left = (i - first) * width + k, end - i
                transpose_block(turned, start, width, left, c, (j + k) * n + i, n, min(square, left))


_multiply_turned = threaded(multiply_turned)


def _suits_turning(b, c, bias, activation):
    """Whole vectors of rows, and columns enough for a tile."""
    m, n = c.shape
    whole = m % (simd.VECTOR_BYTES // c.itemsize) == 0 and m <= 2 * width_of(c)
    return b.flags.f_contiguous and whole and n >= TALL and bias is None and activation is None


def _turned(a, b, c):
    """Workspace: A once more, in panels."""
    m, n = c.shape
    k = a.shape[1]
    width = width_of(c)
    a, a_row, a_col = operand(a)
    a_panels = scratch("gemm.a", -(-m // width) * width * k, c.dtype)
    _pack_block(-(-m // width), 4 * m * k, a, a_col, a_row, m, a_panels, 0, k)
    _multiply_turned(
        n // TALL, 2 * m * n * k, n // TALL, b.T.reshape(-1), a_panels, k, c.reshape(-1), m, n, NO_BIAS[c.dtype]
    )


# ---------------------------------------------------------------------------------------------------------------------
# threaded


def gemm_threaded(a, b, c, bias=None, activation=None):
    """Packing pays when each packed number is used often; small and thin products read the operands where they are."""
    if b.size <= 4096:  # to lay it out anew costs less than a second launch for packing
        b = contiguous(b)
    cut = _direct_cut(*c.shape, a.shape[1], c.itemsize)
    if cut and b.flags.c_contiguous:
        _direct(a, b, c, cut, bias, activation)
    elif _suits_turning(b, c, bias, activation):
        _turned(a, b, c)
    else:
        _multiply(a, b, c, bias, activation, _pack_block, _multiply_panels)


# ---------------------------------------------------------------------------------------------------------------------
# All gradients of a small dense layer

# Rows of the batch that one chunk of the epilogue takes.
FEW_ROWS = 64


@jit(inner=True)
def dense_gradients(chunk, dy, y, dz, db, x, dx, w, w_turned, dw, m, n, k, activation, none):
    """The one chunk: dZ and db, then dX = dZ Wᵀ and dW = Xᵀ dZ, in turn; dx and dw may be empty: not wanted."""
    epilogue_backward(0, dy, y, dz, db, m, n, m, activation)
    if dx.size > 0:
        pack_panel(w, 0, n, 1, k, n, k, w_turned, 0)
        multiply_direct(0, dz, n, 1, w_turned, k, n, dx, m, k, m, k, 1, none, NONE)
    if dw.size > 0:
        for part in range((k + TALL - 1) // TALL):
            multiply_direct(part, x, 1, k, dz, n, m, dw, k, n, TALL, n, 1, none, NONE)


_dense_gradients = threaded(dense_gradients)


def dense_backward_at_once(dy, x, w, y, activation, need_x, need_w):
    """(dX, dW, db) in one call; None where the layer is not small, or an array not C-contiguous.

    Several launches would take longer than the arithmetic: a training step of 100-64-10 units, 32 rows, took 75 us with
    them and takes 66. Workspace: W once more, and dZ where there is an activation.
    """
    m, n = dy.shape
    k = w.shape[0]
    if m > FEW_ROWS or 2 * m * n * k >= THREADS_PAY:
        return None
    if not (dy.flags.c_contiguous and x.flags.c_contiguous and w.flags.c_contiguous and y.flags.c_contiguous):
        return None
    dtype = dy.dtype
    none = NO_BIAS[dtype]
    flat, db = dy.reshape(-1), np.empty(n, dtype)
    dz = flat if activation is None else scratch("gemm.dz", m * n, dtype)
    dx = np.empty(m * k, dtype) if need_x else none
    dw = np.empty(k * n, dtype) if need_w else none
    turned = scratch("gemm.turned", n * k + simd.VECTOR_BYTES // dtype.itemsize, dtype) if need_x else none
    _dense_gradients.in_turn(
        1, flat, y.reshape(-1), dz, db, x.reshape(-1), dx, w.reshape(-1), turned, dw, m, n, k, CODES[activation], none
    )
    return dx.reshape(m, k) if need_x else None, dw.reshape(k, n) if need_w else None, db
