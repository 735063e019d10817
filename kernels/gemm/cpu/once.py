"""Small products, and all gradients of a small dense layer, in one short call each."""

import numpy as np

from ... import simd, threads
from ...jit import jit
from ...simd import viewed
from ...threads import THREADS_PAY, threaded
from ...workspace import scratch
from .direct import STEEP, direct_cut, multiply_direct
from .dots import add_bias, dots, small_dots
from .epilogue import NO_BIAS, epilogue_backward
from .rows import multiply_rows
from .tile import CODES, NONE, ROWS, activate, pack_panel
from .ways import AT_ONCE, PART_BYTES, TALL, is_thin, way_of

_is_thin = jit(inline=True)(is_thin)
_FLOATS = np.dtype(np.float32), np.dtype(np.float64)


# Which operands of a product are the arrays given, transposed: a sum of these.
TURNED_A, TURNED_B = 1, 2


@jit(inline=True)
def sizes(a, b, turned):
    """(m, k, n), and whether there is a product: k of A is that of B."""
    (m, k), (rows, n) = a.shape, b.shape
    if turned & TURNED_A:
        m, k = k, m
    if turned & TURNED_B:
        rows, n = n, rows
    return m, k, n, k == rows


@jit(inline=True)
def apart(x, y):
    """Whether two contiguous arrays share no memory."""
    x_start, y_start = np.intp(x.ctypes.data), np.intp(y.ctypes.data)  # unsigned, sums with sizes would be floats
    return x_start + x.size * x.itemsize <= y_start or y_start + y.size * y.itemsize <= x_start


@jit(inline=True)
def is_small(a, b, c, bias, turned):
    """Whether the product fits, and the way below has the bits of the general one: no sum is made of parts."""
    m, k, n, fits = sizes(a, b, turned)
    if not fits or c.shape != (m, n) or not 0 < m * n * k <= AT_ONCE or k * a.itemsize >= 2 * PART_BYTES:
        return False
    thin, low = _is_thin(n, k, a.itemsize), turned & TURNED_B and _is_thin(m, k, a.itemsize)
    if turned & TURNED_A and (low or (thin and (n > 1 or m == 1))):
        return False
    by_rows = m < ROWS and not turned & TURNED_B
    if k > STEEP and not (thin or low or by_rows):
        return False
    if bias.size > 0 and not (bias.size == n and apart(bias, c)):
        return False
    return apart(a, c) and apart(b, c)


@jit(inline=True)
def small(a, b, c, bias, activation, turned):
    """C = f(A B + bias); with a bias or an activation, neither is turned."""
    m, k, n, _ = sizes(a, b, turned)
    a_row, a_col = (1, m) if turned & TURNED_A else (k, 1)
    b_row, b_col = (1, k) if turned & TURNED_B else (n, 1)
    thin, size = _is_thin(n, k, a.itemsize), a.itemsize
    a, b, c = viewed(a, a), viewed(b, b), viewed(c, c)
    if thin and turned & TURNED_A:
        multiply_rows(0, b, k, 1, a, m, k, c, 1, m, m, 1, bias, activation)
    elif thin and turned:
        dots(a, k, b, k, k, c, n, 1, 0, m, n)
    elif thin:
        small_dots(a, b, c, m, n, k)
        if bias.size > 0:
            add_bias(c, n, 1, 0, m, n, bias, 0, 1)
        if activation != NONE:
            activate(c, 0, m * n, activation)
    elif turned & TURNED_B and _is_thin(m, k, size):
        dots(b, k, a, k, k, c, 1, n, 0, n, m)
    elif m < ROWS and not turned & TURNED_B:
        multiply_rows(0, a, a_row, a_col, b, n, k, c, m, n, n, 1, bias, activation)
    else:
        multiply_direct(0, a, 0, a_row, a_col, b, 0, b_row, b_col, k, c, 0, m, n, m, n, 1, bias, activation)


@jit
def small_product(a, b, c, turned):
    """C = A B, all 2-D and C-contiguous; whether that was done. Each argument costs a tenth of a microsecond."""
    none = viewed(c, c)[:0]
    if not is_small(a, b, c, none, turned):
        return False
    small(a, b, c, none, NONE, turned)
    return True


@jit
def small_dense(x, w, y, bias, activation):
    """Y = f(X W + bias), all C-contiguous, no bias an empty one; whether that was done."""
    if not is_small(x, w, y, bias, 0):
        return False
    small(x, w, y, bias, activation, 0)
    return True


@jit(inner=True)
def multiply_plain(chunk, a, b, c, turned, rows, columns, bias, activation):
    """One chunk of a direct product of C-contiguous arrays, or these transposed: 9 arguments instead of 19."""
    m, k, n, _ = sizes(a, b, turned)
    a_row, a_col = (1, m) if turned & TURNED_A else (k, 1)
    b_row, b_col = (1, k) if turned & TURNED_B else (n, 1)
    a, b, c = viewed(a, a), viewed(b, b), viewed(c, c)
    multiply_direct(
        chunk, a, 0, a_row, a_col, b, 0, b_row, b_col, k, c, 0, m, n, rows, columns, 1, bias, activation
    )  # fmt: skip


_multiply_plain = threaded(multiply_plain)


@jit
def clash(a, b, c, bias, turned):
    """Whether the arrays of a product do not fit, or C shares memory with another."""
    m, _, n, fits = sizes(a, b, turned)
    return not (fits and c.shape == (m, n) and apart(a, c) and apart(b, c) and apart(bias, c))


def product_at_once(a, b, bias=None, activation=None, c=None, turn_a=False, turn_b=False):
    """f(A B + bias) by the shortest way; None where the product is large, or something about the arrays not plain.

    turn_a, turn_b : A, B is the array given, transposed.

    Checks, flat views and the general launch take 6 us, which is longer than 48 x 48 x 48 multiply-adds. The bits are
    those of the general way.
    """
    dtype = a.dtype
    if dtype is not b.dtype or dtype not in _FLOATS or not a.ndim == b.ndim == 2 or threads.recorder is not None:
        return None
    if not (a.flags.c_contiguous and b.flags.c_contiguous):
        return None
    m, k = a.shape[::-1] if turn_a else a.shape
    n = b.shape[0] if turn_b else b.shape[1]
    if c is None:
        c = np.empty((m, n), dtype)
    elif not (type(c) is np.ndarray and c.dtype is dtype and c.ndim == 2 and c.flags.carray):
        return None
    turned = (TURNED_A if turn_a else 0) | (TURNED_B if turn_b else 0)
    if bias is None:
        if activation is None and m * n * k <= AT_ONCE:
            return c if small_product(a, b, c, turned) else None
        bias = NO_BIAS[dtype]
    elif not (type(bias) is np.ndarray and bias.dtype is dtype and bias.shape == (n,) and bias.flags.c_contiguous):
        return None
    if m * n * k <= AT_ONCE:
        return c if small_dense(a, b, c, bias, CODES[activation]) else None
    cut = direct_cut(m, n, k, dtype.itemsize)
    if cut.parts > 1 or way_of(m, n, k, dtype.itemsize, turn_a, turn_b) != "direct":
        return None
    if clash(a, b, c, bias, turned):
        return None
    _multiply_plain(cut.chunks, 2 * m * n * k, a, b, c, turned, cut.rows, cut.columns, bias, CODES[activation])
    return c


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
        # Without the room behind the panel, where nobody wrote.
        multiply_direct(0, dz, 0, n, 1, w_turned[: n * k], 0, k, 1, n, dx, 0, m, k, m, k, 1, none, NONE)
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
