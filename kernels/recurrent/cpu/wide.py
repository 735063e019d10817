"""The rung "fused" where U is larger than a second-level cache: each thread takes a few units of all rows.

Rows by themselves would each read all of U in every step. Here every panel of U is read once a step, for all rows, and
with two threads each has its half of U in its own cache; for that, all wait for each other after every step: a step is
a round of chunks.
"""

import functools

from ... import simd
from ...gemm.cpu import LOOKS_AHEAD, NO_BIAS, gemm_threaded
from ...jit import jit
from ...simd import lanes, vfill, vload_part, vstore_part
from ...simd.machine import cache_sizes
from ...threads import threaded
from .products import panels_of, product_of
from .units import step_back_of_units, step_of_units


@functools.cache
def large():
    """Bytes of U from which on it pays: where they do not fit into a second-level cache of up to 2 MB.

    (With one of 2 MB, 32 x 50 x 256-256, whose U has 1 MB, took 8.6 instead of 10.8 ms by rows, and 32 x 50 x 384-384
    23.1 instead of 21.2.)
    """
    return min(1 << 21, max(1 << 20, cache_sizes().get("L2", 0)))


def suits(u, tile):
    """Whether U is large, and a panel's columns belong to one gate."""
    return u.nbytes >= large() and u.shape[0] % _width(u, tile) == 0


@functools.cache
def kernels_of(height, columns):
    """Both kernels, for tiles of this shape."""
    add_product = product_of(height, columns, False)
    # Forward only: a panel of U transposed has four times the bytes. (On a Xeon, 32 x 50 x 512-1024 took 0.91 times as
    # long so, and backward no less.)
    add_product_ahead = product_of(height, columns, LOOKS_AHEAD and height > 4)

    @jit(inner=True, name=f"{__name__}.forward-{height}x{columns}")
    def forward_units(chunk, x, u, none, inputs, gates, cells, y, n, steps, size, hidden):
        """One chunk: one step of a panel's width of units, all rows; `gates` holds x W + b."""
        width = columns * lanes(y)
        parts, wide, line = hidden // width, size + hidden, 4 * hidden
        t, part = chunk // parts, chunk % parts
        first = part * width
        for gate in range(4):
            column = gate * hidden + first
            following = column + hidden if gate < 3 else first + width
            add_product_ahead(
                inputs, t * wide + size, steps * wide, n, u, column * hidden, hidden,
                gates, t * line + column, steps * line, width, none, following * hidden,
            )  # fmt: skip
        x_first, x_end = part * size // parts, (part + 1) * size // parts
        for row in range(n):
            at_t = row * steps + t
            for k in range(x_first, x_end, lanes(x)):
                vstore_part(inputs, at_t * wide + k, vload_part(x, at_t * size + k, x_end - k), x_end - k)
            step_of_units(gates, cells, y, inputs, row, t, first, first + width, steps, size, hidden)

    @jit(inner=True, name=f"{__name__}.backward-{height}x{columns}")
    def backward_units(chunk, u, none, gates, cells, dy, dh, dc, dz, sums, n, steps, hidden):
        """One chunk: one step of a panel's width of units, all rows, from the last step to the one before the first:
        first dh after the step, from dz of the next one."""
        width = columns * lanes(dz)
        parts, line = hidden // width, 4 * hidden
        t, first = steps - 1 - chunk // parts, chunk % parts * width
        if t + 1 < steps:
            add_product(
                dz, (t + 1) * line, steps * line, n, u, first * line, line,
                dh, first, hidden, width, none,
            )  # fmt: skip
        if t >= 0:
            for row in range(n):
                step_back_of_units(gates, cells, dy, dh, dc, dz, sums, 0, row, t, first, first + width, steps, hidden)
                for j in range(first, first + width, lanes(dz)):
                    vstore_part(dh, row * hidden + j, vfill(dz, 0.0), width)

    return threaded(forward_units), threaded(backward_units)


def forward(x, w, u, bias, inputs, gates, cells, y, tile):
    n, steps, size = x.shape
    hidden, columns = u.shape
    gemm_threaded(x.reshape(-1, size), w, gates.reshape(-1, columns), bias)
    run, _ = kernels_of(*tile)
    run(
        hidden // _width(u, tile), 2 * n * columns * hidden,
        x.reshape(-1), panels_of("u", u, 1, columns, columns, hidden, tile[1]), NO_BIAS[u.dtype],
        inputs.reshape(-1), gates.reshape(-1), cells.reshape(-1), y.reshape(-1), n, steps, size, hidden,
        rounds=steps,
    )  # fmt: skip


def backward(u, gates, cells, dy, dh, dc, dz, sums, tile):
    n, steps, columns = gates.shape
    hidden = u.shape[0]
    _, run = kernels_of(*tile)
    run(
        hidden // _width(u, tile), 2 * n * columns * hidden,
        panels_of("u", u, columns, 1, hidden, columns, tile[1]), NO_BIAS[u.dtype],
        gates.reshape(-1), cells.reshape(-1), dy, dh.reshape(-1), dc.reshape(-1), dz, sums.reshape(-1),
        n, steps, hidden,
        rounds=steps + 1,
    )  # fmt: skip


def _width(u, tile):
    _, columns = tile
    return columns * simd.VECTOR_BYTES // u.itemsize
