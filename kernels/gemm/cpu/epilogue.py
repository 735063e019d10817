"""Bias and activation outside the tile, and their gradients."""

import numpy as np

from ...arrays import contiguous
from ...jit import jit
from ...recording import on_host
from ...simd import fma, lanes, select, vload_part, vstore, vstore_part
from ...threads import threaded
from ...workspace import scratch
from .tile import CODES, NONE, RELU, SIGMOID, activate

# Numbers of a row that are summed before the next ones.
STRETCH = 1024
NO_BIAS = {np.dtype(dtype): np.empty(0, dtype) for dtype in (np.float32, np.float64)}


@jit
def add_bias_and_activate(c, m, n, bias, activation):
    step = lanes(c)
    for i in range(m):
        for j in range(0, n, step):
            z = vload_part(c, i * n + j, n - j)
            if bias.size > 0:
                z = z + vload_part(bias, j, n - j)
            if activation == RELU:
                z = select(z < 0.0, 0.0, z)
            vstore_part(c, i * n + j, z, n - j)
        if activation > RELU:
            activate(c, i * n, n, activation)


def finish(c, bias, activation):
    if bias is not None or activation is not None:
        bias = NO_BIAS[c.dtype] if bias is None else bias
        on_host(add_bias_and_activate, c.reshape(-1), *c.shape, bias, CODES[activation])


@jit(inline=True)
def slope_times(dy, y, dz, i, count, activation):
    """`count` lanes of dz = dy f'(z), f' taken from y; returns them."""
    g = vload_part(dy, i, count)
    if activation != NONE:
        out = vload_part(y, i, count)
        if activation == RELU:
            g = select(out == 0.0, 0.0, g)
        elif activation == SIGMOID:
            g = g * (out * (1.0 - out))
        else:
            g = g * fma(-out, out, 1.0)
        vstore_part(dz, i, g, count)
    return g


@jit(inner=True)
def epilogue_backward(chunk, dy, y, dz, partial, m, n, rows, activation):
    """One chunk: `rows` rows of dz = dy f'(z), f' taken from y, and their sum in partial[chunk].

    Down the rows four vectors at a time, whole lines of the cache: one at a time, each line came from memory twice.
    """
    step = lanes(dy)
    first, end, whole = chunk * rows, min(m, (chunk + 1) * rows), n // (4 * step) * 4 * step
    zero = vload_part(partial, 0, 0)
    for j in range(0, whole, 4 * step):
        p, q, r, s = zero, zero, zero, zero
        for i in range(first * n + j, end * n + j, n):
            p = p + slope_times(dy, y, dz, i, step, activation)
            q = q + slope_times(dy, y, dz, i + step, step, activation)
            r = r + slope_times(dy, y, dz, i + 2 * step, step, activation)
            s = s + slope_times(dy, y, dz, i + 3 * step, step, activation)
        for k, total in enumerate((p, q, r, s)):
            vstore(partial, chunk * n + j + k * step, total)
    for j in range(whole, n, step):
        total = zero
        for i in range(first * n + j, end * n + j, n):
            total = total + slope_times(dy, y, dz, i, n - j, activation)
        vstore_part(partial, chunk * n + j, total, n - j)


@jit
def add_rows(partial, chunks, n, total):
    """total[j] = partial[0, j] + partial[1, j] + ..., in this order."""
    step = lanes(total)
    # Stretch by stretch, each read forward: the hardware then fetches ahead, which rows far apart keep it from.
    for first in range(0, n, STRETCH):
        end = min(n, first + STRETCH)
        for j in range(first, end, step):
            vstore_part(total, j, vload_part(partial, j, end - j), end - j)
        for chunk in range(1, chunks):
            for j in range(first, end, step):
                value = vload_part(total, j, end - j) + vload_part(partial, chunk * n + j, end - j)
                vstore_part(total, j, value, end - j)


@jit(inner=True)
def add_part(row, parts, count, m, n, c, bias, activation):
    """One chunk: one row of c = f(parts[0] + parts[1] + ... + bias), in this order; `count` copies of (M, N)."""
    step = lanes(c)
    for j in range(0, n, step):
        z = vload_part(parts, row * n + j, n - j)
        for part in range(1, count):
            z = z + vload_part(parts, (part * m + row) * n + j, n - j)
        if bias.size > 0:
            z = z + vload_part(bias, j, n - j)
        if activation == RELU:
            z = select(z < 0.0, 0.0, z)
        vstore_part(c, row * n + j, z, n - j)
    if activation > RELU:
        activate(c, row * n, n, activation)


_add_part = threaded(add_part)


def add_parts(parts, count, m, n, c, bias, activation):
    """c = f(sum of the parts + bias)."""
    _add_part(m, count * m * n, parts, count, m, n, c, bias, activation)


_epilogue_backward = threaded(epilogue_backward)


def dense_epilogue_backward(dy, y, activation):
    """(dz, db) for y = f(z + b): dz = dy f'(z), and db, the sum of dz's rows; dy and y are (M, N).

    With no activation dz is dy itself. Rows are cut into at most 16 chunks by their number alone, and the chunks'
    sums are added in order. Workspace: one row a chunk.
    """
    m, n = dy.shape
    dy, y = contiguous(dy), contiguous(y)
    rows = max(64, -(-m // 16))
    chunks = max(1, -(-m // rows))
    dz = dy if activation is None else np.empty_like(dy)
    db = np.empty(n, dy.dtype)
    partial = db if chunks == 1 else scratch("gemm.partial", chunks * n, dy.dtype)
    flat = dy.reshape(-1)
    _epilogue_backward(chunks, 8 * m * n, flat, y.reshape(-1), dz.reshape(-1), partial, m, n, rows, CODES[activation])
    if chunks > 1:
        on_host(add_rows, partial, chunks, n, db)
    return dz, db
