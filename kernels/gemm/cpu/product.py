"""The rungs "simd" and "threaded": register tiles over the whole product.

    packed    long sums, or A transposed: both operands are copied into panels, since every number is used many times
    read      many rows: only B is packed; rows of A are read as fast where they are
    turned    few rows times a transposed operand: C transposed = B transposed times A transposed, so that the large
              operand, B, is read along its rows and not copied

Each is a kernel over chunks, and a function that cuts the work into them. ways.py says which of these, or of those in
direct.py, rows.py, dots.py and sums.py, a product takes.
"""

import sys

import numpy as np

from ... import simd
from ...jit import jit
from ...simd import lanes, stack_array, transpose_block, viewed
from ...threads import threaded
from ...workspace import scratch
from . import sums
from .direct import GROUP_BYTES, column_of_tiles, gemm_direct, gemm_stack
from .dots import gemm_dots
from .epilogue import NO_BIAS
from .rows import gemm_columns, gemm_rows
from .tile import (
    CODES,
    COLUMNS,
    NONE,
    ROWS,
    SHORT,
    STRIP,
    operand,
    pack_panels,
    short_padded,
    tall_ahead,
    tall_tile,
)
from .ways import PAGE_BYTES, SHORT_SIDE, TALL, way_of

# read: panels of B that two threads share; with more, each of them has its own half.
SHARED = 16
# Bytes of one row of a K block: 768 float32. Each further block reads and writes all of C once more, and a longer one
# has panels that leave less of the caches to the rest. (With 1024 on two threads of a Zen 1, 2048 x 2048 x 2048 ran at
# 81 % of the multiply-adds and not at 86, 3000 x 3000 x 3000 at 86 and not at 89; with 384, 1600 x 1600 x 1600 lost 4.)
BLOCK_BYTES = 3072
# Bytes of A that a thread packs at a time: a quarter of a second-level cache, which B streams through.
PACKED_BYTES = 4096 * simd.VECTOR_BYTES
# Bytes of B's panels that all groups of rows pass by before the next ones: a part of a third-level cache, which others
# use as well. (1536 x 1600 x 4096, of whose B a block takes 13 MB, took 221 instead of 262 ms on one core of a Zen 3.)
SHARED_BYTES = 1 << 21
STACK_BYTES = PACKED_BYTES + simd.VECTOR_BYTES


def width_of(c):
    """Numbers in a row of the register tile."""
    return COLUMNS * simd.VECTOR_BYTES // c.itemsize


# ---------------------------------------------------------------------------------------------------------------------
# packed


@jit(inner=True)
def pack_block(chunk, b, b_row, b_col, n, panels, k0, depth):
    """One chunk: STRIP panels of B's K block."""
    width = COLUMNS * lanes(b)
    first, count = chunk * STRIP * width, STRIP * width
    pack_panels(
        b, first * b_col + k0 * b_row, b_col, b_row, min(count, n - first), depth, width, panels, first * depth
    )  # fmt: skip


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
    rest = min(m, end * ROWS) - first * ROWS
    pack_panels(a, first * ROWS * a_row + k0 * a_col, a_row, a_col, rest, depth, ROWS, panels, 0)
    pace = max(1, width // (end - first))  # each tile asks for a part of the next panel of B
    for j in range(column_group * columns, min(all_columns, (column_group + 1) * columns)):
        j0 = j * width
        valid = min(width, n - j0)
        for i in range(first, end):
            i0, a0 = i * ROWS, (i - first) * ROWS * depth
            height = min(ROWS, m - i0)
            if height > SHORT:
                tall_ahead(
                    panels, a0, 1, ROWS, b_panels, j0 * depth, width, depth,
                    c, i0 * n + j0, n, height, valid, keep, bias, j0, activation,
                    (j0 + width + (i - first) * pace) * depth, pace,
                )  # fmt: skip
            else:  # the rest of a panel would be multiplied for nothing
                short_padded(
                    panels, a0, 1, ROWS, b_panels, j0 * depth, width, depth,
                    c, i0 * n + j0, n, height, valid, keep, bias, j0, activation,
                )  # fmt: skip


_pack_block = threaded(pack_block)
_multiply_panels = threaded(multiply_panels)


def _shares(panels_a, panels_b, group, panel_bytes):
    """(groups of rows, panels of B a chunk), from the sizes alone.

    All columns with a group of rows, which is then packed once (with two groups of columns, so that each of two threads
    reads its own half of B, products took 1 to 5 % longer), but no more than stay in a third-level cache while the
    groups of rows pass by. Groups of columns also where there are few rows, as long as a chunk uses what it packs of A
    for 8 panels of B.
    """
    row_groups = max(-(-panels_a // group), min(16, panels_a // 4), 1)
    row_groups = min(panels_a, row_groups + row_groups % 2)
    column_groups = max(1, -(-panels_b * panel_bytes // SHARED_BYTES))
    while row_groups * column_groups < 16 and panels_b >= 16 * column_groups:
        column_groups *= 2
    if row_groups * column_groups < 16:
        row_groups = min(panels_a, -(-16 // column_groups))
    return row_groups, -(-panels_b // column_groups)


def _at_once(row_bytes):
    """Rows of C, at most, that a group's tiles write panel by panel: each in a page of its own, if they are long.

    A line of the cache is seldom full before the next panel. Rows a power of two apart share a few sets of it: with
    many rows, half-written lines drive each other out of the second level. (4096 x 32 x 4096, A transposed, took 16 ms
    with 24 rows at once, 18 with 48, 22 with 192 and 30 with all.)
    """
    return TALL // 2 if row_bytes >= PAGE_BYTES else sys.maxsize


def _multiply(a, b, c, bias, activation, pack, multiply):
    """The packed product, one K block after another; `pack` and `multiply` say how the chunks are run.

    Workspace: N * min(K, 768) numbers, half as many with float64, and 128 KB of the stack (256 with AVX-512).
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
    group = min(_at_once(n * c.itemsize) // ROWS, PACKED_BYTES // (ROWS * c.itemsize * max(1, longest)))
    row_groups, columns = _shares(panels_a, panels_b, group, width * longest * c.itemsize)
    a, a_row, a_col = operand(a)
    b, b_row, b_col = operand(b)
    flat = c.reshape(-1)
    bias = NO_BIAS[c.dtype] if bias is None else bias
    for block in range(blocks):
        k0, k1 = block * k // blocks, (block + 1) * k // blocks
        depth, last = k1 - k0, block == blocks - 1
        pack(-(-panels_b // STRIP), n * depth * 4, b, b_row, b_col, n, b_panels, k0, depth)
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


def _turned(a, b, c, bias, activation):
    """Without bias and activation. Workspace: A once more, in panels."""
    m, n = c.shape
    k = a.shape[1]
    width = width_of(c)
    a, a_row, a_col = operand(a)
    a_panels = scratch("gemm.a", -(-m // width) * width * k, c.dtype)
    _pack_block(-(-m // (STRIP * width)), 4 * m * k, a, a_col, a_row, m, a_panels, 0, k)
    _multiply_turned(
        n // TALL, 2 * m * n * k, n // TALL, b.T.reshape(-1), a_panels, k, c.reshape(-1), m, n, NO_BIAS[c.dtype]
    )


# ---------------------------------------------------------------------------------------------------------------------
# read


@jit(inner=True)
def multiply_read(chunk, a, a_row, b_panels, depth, c, m, n, row_groups, columns, bias, activation):
    """One chunk: one group of rows times `columns` columns of C. Its rows of A stay in a second-level cache, a panel of
    B in a first."""
    width, tiles = COLUMNS * lanes(c), (m + ROWS - 1) // ROWS
    group, j_first = chunk % row_groups, chunk // row_groups * columns
    first, end = group * tiles // row_groups * ROWS, min(m, (group + 1) * tiles // row_groups * ROWS)
    for j in range(j_first, min(n, j_first + columns), width):
        column_of_tiles(
            a, 0, a_row, 1, b_panels, j * depth, width, depth,
            c, j, n, first, end, min(width, n - j), False, bias, j, activation,
        )  # fmt: skip


_multiply_read = threaded(multiply_read)


def _read(a, b, c, bias, activation):
    """Workspace: B once more, in panels."""
    m, n = c.shape
    k = a.shape[1]
    width = width_of(c)
    panels, most = -(-n // width), GROUP_BYTES // 2 // (k * c.itemsize)
    if k <= SHORT_SIDE:  # with longer sums C is a small part of the traffic
        most = min(most, _at_once(n * c.itemsize) // 2)  # all of them: 0.96 to 1.17 x as long, 1.08 on average
    b_panels = scratch("gemm.b", panels * width * k, c.dtype)
    (a, a_row, _), (b, b_row, b_col) = operand(a), operand(b)
    # An even number of chunks, and where B is large each of two threads reads a part of its own.
    row_groups = min(-(-m // ROWS), 2 * -(-m // (2 * most)))
    groups = max(2, -(-panels * width * k * c.itemsize // SHARED_BYTES)) if panels > SHARED else 1
    columns = -(-panels // groups) * width
    bias = NO_BIAS[c.dtype] if bias is None else bias
    _pack_block(-(-panels // STRIP), n * k * 4, b, b_row, b_col, n, b_panels, 0, k)
    _multiply_read(
        row_groups * -(-n // columns), 2 * m * n * k,
        a, a_row, b_panels, k, c.reshape(-1), m, n, row_groups, columns, bias, CODES[activation],
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# threaded


def _packed(a, b, c, bias, activation):
    _multiply(a, b, c, bias, activation, _pack_block, _multiply_panels)


WAYS = {
    "rows": gemm_rows,
    "columns": gemm_columns,
    "dots": gemm_dots,
    "sums": sums.gemm_sums,
    "direct": gemm_direct,
    "read": _read,
    "turned": _turned,
    "packed": _packed,
}


def gemm_threaded(a, b, c, bias=None, activation=None):
    """Packing pays when each packed number is used often; small and thin products read the operands where they are."""
    m, n = c.shape
    way = way_of(
        m, n, a.shape[1], c.itemsize, _is_turned(a), _is_turned(b), plain=bias is None and activation is None
    )  # fmt: skip
    WAYS[way](a, b, c, bias, activation)


def _is_turned(x):
    return x.flags.f_contiguous and not x.flags.c_contiguous


gemm_threaded.stack = gemm_stack
