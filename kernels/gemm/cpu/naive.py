"""The rungs below the register tile: "naive", "blocked" and "packed"."""

from ...jit import jit
from ...simd import VECTOR_BYTES, at
from ...workspace import scratch
from .epilogue import finish
from .tile import operand, pack_panel

# Edge of a cache block, columns of a panel.
BLOCK, WIDTH = 64, 32


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
    finish(c, bias, activation)


# ---------------------------------------------------------------------------------------------------------------------


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
    finish(c, bias, activation)


# ---------------------------------------------------------------------------------------------------------------------


@jit
def multiply_packed(a, a_row, a_col, b, b_row, b_col, c, m, n, k, a_panel, b_panels):
    """B packed once into panels of 32 columns, A panel by panel, and 4 x 1 numbers of C at a time in scalars.

    Why it is faster: a number of B, once loaded, is used four times before it leaves its register, and sums stay in
    theirs: 5 loads for 4 multiply-adds, where "blocked" has 2 loads and a store for each.
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


def gemm_packed(a, b, c, bias=None, activation=None):
    m, n = c.shape
    k = a.shape[1]
    a_panel = scratch("gemm.a", 4 * k + VECTOR_BYTES // c.itemsize, c.dtype)
    b_panels = scratch("gemm.b", -(-n // WIDTH) * WIDTH * k, c.dtype)
    multiply_packed(*operand(a), *operand(b), c.reshape(-1), m, n, k, a_panel, b_panels)
    finish(c, bias, activation)
