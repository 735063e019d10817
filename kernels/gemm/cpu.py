"""Matrix products on a CPU, C[M, N] = A[M, K] B[K, N], from the textbook to the register file.

    naive     three loops
    blocked   the loops cut into blocks that stay in the caches, the innermost one running along rows
    packed    the blocks copied into panels first, in exactly the order in which they will be read
    simd      a register tile of vectors on the packed panels: one broadcast and two loads feed 28 multiply-adds
    threaded  the same over several threads, and small or thin products without packing

Every launcher is called as gemm_x(a, b, c, bias=None, activation=None): `a` and `b` 2-D with any strides, `c` 2-D and
C-contiguous. In the kernels, element (i, k) of A is a[i * a_row + k * a_col] of a flat array, so that a transposed
operand is the same array with its strides swapped. The order of the terms of each sum depends on K alone.
"""

import numpy as np

from .. import simd
from ..jit import jit
from ..simd import (
    at,
    fma,
    lanes,
    select,
    tile_add,
    tile_fill_rows,
    tile_outer,
    tile_outer_part,
    tile_relu,
    tile_store,
    tile_zeros,
    transpose_block,
    vload,
    vload_part,
    vstore,
    vstore_part,
)
from ..threads import threaded
from ..vecmath import vsigmoid, vtanh
from ..workspace import scratch

NONE, RELU, SIGMOID, TANH = range(4)
CODES = {None: NONE, "relu": RELU, "sigmoid": SIGMOID, "tanh": TANH}

ROWS, COLUMNS = simd.TILE_ROWS, simd.TILE_COLUMNS
# Rows of smaller tiles, for what is left over: 8, 4, 1 beside 14, or 3, 1, 1 beside 6.
MEDIUM, SMALL = ROWS * 4 // 7, max(1, ROWS * 2 // 7)
# Bytes of one row of a K block: 384 float32. A panel of A (14 x 384) stays in the first-level cache while panels of B
# stream past it from the second.
BLOCK_BYTES = 1536


def operand(x):
    """(flat array, stride of rows, stride of columns) of a 2-D array; copied if neither orientation is contiguous."""
    if x.flags.c_contiguous:
        return x.reshape(-1), x.shape[1], 1
    if x.flags.f_contiguous:
        return x.T.reshape(-1), 1, x.shape[0]
    return np.ascontiguousarray(x).reshape(-1), x.shape[1], 1


# ---------------------------------------------------------------------------------------------------------------------
# naive


@jit
def multiply_naive(a, a_row, a_col, b, b_row, b_col, c, m, n, k):
    """One dot product for each element of C."""
    for i in range(m):
        for j in range(n):
            total = c.dtype.type(0)
            for p in range(k):
                total += at(a, i * a_row + p * a_col) * at(b, p * b_row + j * b_col)
            c[i * n + j] = total


def gemm_naive(a, b, c, bias=None, activation=None):
    m, n = c.shape
    multiply_naive(*operand(a), *operand(b), c.reshape(-1), m, n, a.shape[1])
    _finish(c, bias, activation)


# ---------------------------------------------------------------------------------------------------------------------
# blocked

BLOCK = 64


@jit
def multiply_blocked(a, a_row, a_col, b, b_row, b_col, c, m, n, k):
    """Blocks of 64 x 64 x 64 stay in the caches; each innermost loop adds a multiple of a row of B to a row of C.

    Why it is faster: B's block is read from the cache instead of from memory, and along rows, so that the compiler
    can use vectors where B's columns are neighbours.
    """
    for i in range(m * n):
        c[i] = 0
    for k0 in range(0, k, BLOCK):
        for i0 in range(0, m, BLOCK):
            for j0 in range(0, n, BLOCK):
                for i in range(i0, min(i0 + BLOCK, m)):
                    for p in range(k0, min(k0 + BLOCK, k)):
                        factor = at(a, i * a_row + p * a_col)
                        for j in range(j0, min(j0 + BLOCK, n)):
                            c[i * n + j] += factor * at(b, p * b_row + j * b_col)


def gemm_blocked(a, b, c, bias=None, activation=None):
    m, n = c.shape
    multiply_blocked(*operand(a), *operand(b), c.reshape(-1), m, n, a.shape[1])
    _finish(c, bias, activation)


# ---------------------------------------------------------------------------------------------------------------------
# packed


@jit
def pack_panel(source, start, across, deep, available, depth, width, panel, p0):
    """panel[p0 + k * width + i] = source[start + i * across + k * deep]: `width` rows (or columns), turned k-major.

            source                      panel
        i0  k0 k1 k2 ..                 i0 i1 .. i13   at k0
        i1  k0 k1 k2 ..       ->        i0 i1 .. i13   at k1
        ..                              ..

    The product then reads both operands strictly forward, without holes: no cache line is fetched for a few of its
    numbers, and rows a power of two apart do not fall into the same set of the cache. Of `width` rows only
    `available` exist; the rest of the panel is undefined (those rows of C are never stored).
    """
    step = lanes(source)
    rows = min(width, available)
    if deep == 1 and depth >= step:
        for i in range(0, rows, step):
            for k in range(0, depth, step):
                k = min(k, depth - step)
                first = start + i * across + k
                transpose_block(source, first, across, rows - i, panel, p0 + k * width + i, width, width - i)
    elif across == 1:
        for k in range(depth):
            for i in range(0, rows, step):
                if i + step <= rows:
                    vstore(panel, p0 + k * width + i, vload(source, start + k * deep + i))
                else:
                    rest = vload_part(source, start + k * deep + i, rows - i)
                    vstore_part(panel, p0 + k * width + i, rest, width - i)
    else:
        for k in range(depth):
            for i in range(rows):
                panel[p0 + k * width + i] = at(source, start + i * across + k * deep)


@jit
def multiply_packed(a, a_row, a_col, b, b_row, b_col, c, m, n, k, a_panel, b_panels):
    """B packed once into panels of 32 columns, A panel by panel, and 4 x 4 numbers of C at a time in scalars.

    Why it is faster: every number that is loaded is used four times before it leaves the registers.
    """
    for j0 in range(0, n, WIDTH):
        pack_panel(b, j0 * b_col, b_col, b_row, n - j0, k, WIDTH, b_panels, j0 * k)
    for i0 in range(0, m, 4):
        pack_panel(a, i0 * a_row, a_row, a_col, m - i0, k, 4, a_panel, 0)
        for j0 in range(0, n, WIDTH):
            for j in range(j0, min(j0 + WIDTH, n)):
                s0 = s1 = s2 = s3 = c.dtype.type(0)
                for p in range(k):
                    factor = at(b_panels, j0 * k + p * WIDTH + j - j0)
                    s0 += at(a_panel, 4 * p) * factor
                    s1 += at(a_panel, 4 * p + 1) * factor
                    s2 += at(a_panel, 4 * p + 2) * factor
                    s3 += at(a_panel, 4 * p + 3) * factor
                for i, total in enumerate((s0, s1, s2, s3)):
                    if i0 + i < m:
                        c[(i0 + i) * n + j] = total


WIDTH = 32


def gemm_packed(a, b, c, bias=None, activation=None):
    m, n = c.shape
    k = a.shape[1]
    a_panel = scratch("gemm.a", 4 * k, c.dtype)
    b_panels = scratch("gemm.b", -(-n // WIDTH) * WIDTH * k, c.dtype)
    multiply_packed(*operand(a), *operand(b), c.reshape(-1), m, n, k, a_panel, b_panels)
    _finish(c, bias, activation)
