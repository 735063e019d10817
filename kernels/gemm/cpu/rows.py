"""Products with few rows, or few columns of C transposed: C stays in the caches of a core while the rows of B pass by,
four at a time."""

import numpy as np

from ...jit import jit
from ...recording import on_host
from ...simd import fma, lanes, vfill, vload_part, vsplat, vstore_part
from ...threads import threaded
from ...workspace import scratch
from .epilogue import NO_BIAS, add_parts, finish
from .tile import CODES, NONE, activate, operand
from .ways import PART_BYTES

# Rows of B at a time.
FOUR = 4
# Bytes of a row of C in a chunk. It is read and written more often than B's rows, but those set the pace: 4096 columns
# that memory sends one row after another take two threads 0.7 times as long as in pieces of 1024.
STRIP_BYTES = 16384


@jit(inline=True)
def add_vector(args, j, left):
    """One vector of `add_rows_times`, of which `left` lanes count: `lanes`, known to the compiler, but at the end."""
    p, q, r, s, b, b0, b_row, c, c0, rows = args
    z = fma(p, vload_part(b, b0 + j, left), vload_part(c, c0 + j, left))
    if rows == FOUR:
        z = fma(q, vload_part(b, b0 + b_row + j, left), z)
        other = r * vload_part(b, b0 + 2 * b_row + j, left)
        z = z + fma(s, vload_part(b, b0 + 3 * b_row + j, left), other)
    vstore_part(c, c0 + j, z, left)


@jit(inline=True)
def add_rows_times(factors, first, step, b, b0, b_row, c, c0, count, rows):
    """c[:count] += the sum over `rows` (1 or FOUR) rows of B, each times its factor."""
    p = vsplat(factors, first)
    q, r, s = p, p, p
    if rows == FOUR:
        q, r, s = vsplat(factors, first + step), vsplat(factors, first + 2 * step), vsplat(factors, first + 3 * step)
    args = p, q, r, s, b, b0, b_row, c, c0, rows
    whole = count - count % lanes(c)
    for j in range(0, whole, lanes(c)):
        add_vector(args, j, lanes(c))
    if whole < count:
        add_vector(args, whole, count - whole)


@jit(inner=True)
def multiply_rows(chunk, a, a_row, a_col, b, b_row, depth, c, m, n, columns, parts, bias, activation):
    """One chunk: all rows of C, `columns` columns of them, summed over one part of K, of which C has a copy each.

    Memory gives B once, and in pieces as long as a row, which the hardware sees coming. Tiles would read it in columns
    two vectors wide: every number of a column from another page.
    """
    part, j0, step = chunk % parts, chunk // parts * columns, lanes(c)
    count, c0 = min(columns, n - j0), part * m * n + j0
    k_first, k_end = part * depth // parts, (part + 1) * depth // parts
    k_rest = k_end - (k_end - k_first) % FOUR
    for i in range(m):
        for j in range(0, count, step):
            start = vfill(c, 0.0)
            if bias.size > 0:
                start = vload_part(bias, j0 + j, count - j)
            vstore_part(c, c0 + i * n + j, start, count - j)
    for k in range(k_first, k_rest, FOUR):
        for i in range(m):
            add_rows_times(a, i * a_row + k * a_col, a_col, b, k * b_row + j0, b_row, c, c0 + i * n, count, FOUR)
    for k in range(k_rest, k_end):
        for i in range(m):
            add_rows_times(a, i * a_row + k * a_col, a_col, b, k * b_row + j0, b_row, c, c0 + i * n, count, 1)
    if activation != NONE:
        for i in range(m):
            activate(c, c0 + i * n, count, activation)


_multiply_rows = threaded(multiply_rows)


def gemm_rows(a, b, c, bias, activation):
    """Workspace: a copy of C for each 2 KB of a row of A, 16 at most."""
    m, n = c.shape
    k = a.shape[1]
    parts = max(1, min(16, k * c.itemsize // PART_BYTES))
    columns = min(n, STRIP_BYTES // c.itemsize)
    (a, a_row, a_col), (b, _, _) = operand(a), operand(b)
    flat, bias = c.reshape(-1), NO_BIAS[c.dtype] if bias is None else bias
    chunks, work, code = parts * -(-n // columns), 2 * m * n * k, CODES[activation]
    if parts == 1:
        _multiply_rows(chunks, work, a, a_row, a_col, b, n, k, flat, m, n, columns, 1, bias, code)
    else:
        out, none = scratch("gemm.parts", parts * c.size, c.dtype), NO_BIAS[c.dtype]
        _multiply_rows(chunks, work, a, a_row, a_col, b, n, k, out, m, n, columns, parts, none, NONE)
        add_parts(out, parts, m, n, flat, bias, code)


def gemm_columns(a, b, c, bias, activation):
    """C transposed = B transposed times A transposed. Workspace: that of `gemm_rows`, and where there are several
    columns C transposed."""
    m, n = c.shape
    turned = c.reshape(1, m) if n == 1 else scratch("gemm.turned", c.size, c.dtype).reshape(n, m)
    gemm_rows(b.T, a.T, turned, None, None)
    if n > 1:
        on_host(np.copyto, c, turned.T)
    finish(c, bias, activation)
