"""Small products, and all gradients of a small dense layer, in one short call each."""

import numpy as np

from ... import simd, threads
from ...jit import jit
from ...simd import lanes, viewed
from ...threads import THREADS_PAY, threaded
from ...workspace import scratch
from .direct import STEEP, column_of_tiles, direct_cut, multiply_direct
from .dots import add_bias, small_dots
from .epilogue import NO_BIAS, epilogue_backward
from .rows import multiply_rows
from .tile import CODES, COLUMNS, NONE, ROWS, activate, pack_panel
from .ways import AT_ONCE, PART_BYTES, TALL, is_thin, way_of

_is_thin = jit(inline=True)(is_thin)
_FLOATS = np.dtype(np.float32), np.dtype(np.float64)


@jit(inline=True)
def small(a, b, c, bias, activation):
    (m, k), n = a.shape, b.shape[1]
    a, b, c = viewed(a, a), viewed(b, b), viewed(c, c)
    if _is_thin(n, k, a.itemsize):
        small_dots(a, b, c, m, n, k)
        if bias.size > 0:
            add_bias(c, n, 1, 0, m, n, bias, 0, 1)
        if activation != NONE:
            activate(c, 0, m * n, activation)
    elif m < ROWS:
        multiply_rows(0, a, k, 1, b, n, k, c, m, n, n, 1, bias, activation)
    else:
        width = COLUMNS * lanes(c)
        for j in range(0, n, width):
            valid = min(width, n - j)
            column_of_tiles(a, 0, k, 1, b, j, n, k, c, j, n, 0, m, valid, False, bias, j, activation)


@jit
def small_product(a, b, c):
    """C = A B, all 2-D and C-contiguous. Three arrays and no number: each argument costs a tenth of a microsecond."""
    small(a, b, c, viewed(c, c)[:0], NONE)


@jit
def small_dense(x, w, y, bias, activation):
    """Y = f(X W + bias), all C-contiguous."""
    small(x, w, y, bias, activation)


@jit(inner=True)
def multiply_plain(chunk, a, b, c, rows, columns, bias, activation):
    """One chunk of a direct product, all of whose arrays are C-contiguous: 8 arguments instead of 19."""
    (m, k), n = a.shape, b.shape[1]
    a, b, c = viewed(a, a), viewed(b, b), viewed(c, c)
    multiply_direct(chunk, a, 0, k, 1, b, 0, n, 1, k, c, 0, m, n, rows, columns, 1, bias, activation)


_multiply_plain = threaded(multiply_plain)


def _plain_cut(m, n, k, itemsize):
    """How a product beyond AT_ONCE is cut, if it is a direct one in one part."""
    if way_of(m, n, k, itemsize) != "direct":
        return None
    cut = direct_cut(m, n, k, itemsize)
    return cut if cut.parts == 1 else None


def product_at_once(a, b, bias=None, activation=None, c=None):
    """f(A B + bias) by the shortest way; None where the product is large, or something about the arrays not plain.

    Checks, flat views and the general launch take 6 us, which is longer than 48 x 48 x 48 multiply-adds. The bits are
    those of the general way.
    """
    dtype = a.dtype
    if dtype is not b.dtype or dtype not in _FLOATS or not a.ndim == b.ndim == 2 or threads.recorder is not None:
        return None
    (m, k), (rows, n) = a.shape, b.shape
    if k != rows or not (a.flags.c_contiguous and b.flags.c_contiguous):
        return None
    cut, work = None, m * n * k
    if work > AT_ONCE:
        cut = _plain_cut(m, n, k, dtype.itemsize)
        if cut is None:
            return None
    else:
        in_parts = k * dtype.itemsize >= 2 * PART_BYTES
        in_blocks = k > STEEP and m >= ROWS and not is_thin(n, k, dtype.itemsize)
        if work == 0 or in_parts or in_blocks:
            return None
    if c is None:
        c = np.empty((m, n), dtype)
    elif not (_is_plain(c, (m, n), dtype) and c.flags.writeable and _apart(c, a, b, bias)):
        return None
    if bias is None and activation is None and cut is None:
        small_product(a, b, c)
        return c
    if bias is None:
        bias = NO_BIAS[dtype]
    elif not _is_plain(bias, (n,), dtype):
        return None
    if cut is None:
        small_dense(a, b, c, bias, CODES[activation])
    else:
        _multiply_plain(cut.chunks, 2 * work, a, b, c, cut.rows, cut.columns, bias, CODES[activation])
    return c


def _apart(c, a, b, bias):
    """Whether no other array lies in c: none is c, and all have memory of their own."""
    own = c.base is None and a.base is None and b.base is None and (bias is None or bias.base is None)
    return own and c is not a and c is not b and c is not bias


def _is_plain(x, shape, dtype):
    return type(x) is np.ndarray and x.dtype is dtype and x.shape == shape and x.flags.c_contiguous


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
        multiply_direct(0, dz, 0, n, 1, w_turned, 0, k, 1, n, dx, 0, m, k, m, k, 1, none, NONE)
    if dw.size > 0:
        for part in range((k + TALL - 1) // TALL):
            multiply_direct(part, x, 0, 1, k, dz, 0, n, 1, m, dw, 0, k, n, TALL, n, 1, none, NONE)


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
