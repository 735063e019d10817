"""The rung "fused" where U is larger than a second-level cache: each thread takes a few units of all rows.

Rows by themselves would each read all of U in every step. Here every panel of U is read once a step, for all rows, and
with two threads each has its half of U in its own cache; for that, all wait for each other after every step.
"""

import functools

import numpy as np

from ... import simd
from ...gemm.cpu import NO_BIAS, gemm_threaded
from ...jit import jit
from ...recording import on_host
from ...simd import lanes, vfill, vstore_part
from ...threads import threaded
from .products import COLUMNS, height_for, panels_of, product_of
from .units import step_back_of_units, step_of_units

# Bytes of U from which on it pays.
LARGE = 1 << 20


def suits(u):
    """Whether U is large, and a panel's columns belong to one gate."""
    width = COLUMNS * simd.VECTOR_BYTES // u.itemsize
    return u.nbytes >= LARGE and u.shape[0] % width == 0


@functools.cache
def kernels_of(height):
    """Both kernels, for tiles of this height."""
    add_product = product_of(height)

    @jit(inner=True, name=f"{__name__}.forward-{height}")
    def forward_units(chunk, t, u, none, inputs, gates, cells, y, n, steps, size, hidden):
        """One chunk: step t of a panel's width of units, all rows; `gates` holds x W + b."""
        width = COLUMNS * lanes(y)
        first, wide, columns = chunk * width, size + hidden, 4 * hidden
        for gate in range(4):
            column = gate * hidden + first
            add_product(
                inputs, t * wide + size, steps * wide, n, u, column * hidden, hidden,
                gates, t * columns + column, steps * columns, width, none,
            )  # fmt: skip
        for row in range(n):
            step_of_units(gates, cells, y, inputs, row, t, first, first + width, steps, size, hidden)

    @jit(inner=True, name=f"{__name__}.backward-{height}")
    def backward_units(chunk, t, u, none, gates, cells, dy, dh, dc, dz, sums, n, steps, hidden):
        """One chunk: step t of a panel's width of units, all rows: first dh after it, from dz of step t + 1."""
        width = COLUMNS * lanes(dz)
        first, columns = chunk * width, 4 * hidden
        if t + 1 < steps:
            add_product(
                dz, (t + 1) * columns, steps * columns, n, u, first * columns, columns,
                dh, first, hidden, width, none,
            )  # fmt: skip
        if t >= 0:
            for row in range(n):
                step_back_of_units(gates, cells, dy, dh, dc, dz, sums, 0, row, t, first, first + width, steps, hidden)
                for j in range(first, first + width, lanes(dz)):
                    vstore_part(dh, row * hidden + j, vfill(dz, 0.0), width)

    return threaded(forward_units), threaded(backward_units)


def forward(x, w, u, bias, inputs, gates, cells, y):
    n, steps, size = x.shape
    hidden, columns = u.shape
    gemm_threaded(x.reshape(-1, size), w, gates.reshape(-1, columns), bias)
    on_host(np.copyto, inputs[:, :, :size], x)
    panels, chunks = panels_of("u", u, 1, columns, columns, hidden), hidden // _width(u)
    arrays = inputs.reshape(-1), gates.reshape(-1), cells.reshape(-1), y.reshape(-1)
    run, _ = kernels_of(height_for(n))
    for t in range(steps):
        run(chunks, 2 * n * columns * hidden, t, panels, NO_BIAS[u.dtype], *arrays, n, steps, size, hidden)


def backward(u, gates, cells, dy, dh, dc, dz, sums):
    n, steps, columns = gates.shape
    hidden = u.shape[0]
    panels, chunks = panels_of("u", u, columns, 1, hidden, columns), hidden // _width(u)
    arrays = gates.reshape(-1), cells.reshape(-1), dy, dh.reshape(-1), dc.reshape(-1), dz, sums.reshape(-1)
    _, run = kernels_of(height_for(n))
    for t in range(steps - 1, -2, -1):
        run(chunks, 2 * n * columns * hidden, t, panels, NO_BIAS[u.dtype], *arrays, n, steps, hidden)


def _width(u):
    return COLUMNS * simd.VECTOR_BYTES // u.itemsize
