"""The LSTM on a CPU: one number after another, or a register tile for a few rows of the batch.

    steps   every gate of every row and step is a dot product, in plain loops
    fused   one matrix product for all inputs of all steps; then each thread takes a few rows through all steps

A variant is a pair of launchers:

    forward(x, w, u, b, h0, c0, keep) -> y, gates, before, cells
    backward(saved, needs, dy, dh, dc) -> dx, dw, du, db, dh0, dc0

`x` is C-contiguous; `gates` (N, T, 4H) holds i, f, g, o after their activations, `before` (N, T, H) h before each step,
`cells` (N, T + 1, H) c before each step and after the last. Unless `keep`, these three lie in scratch memory.
"""

import math
from typing import NamedTuple

import numpy as np

from .. import simd
from ..gemm.cpu import add_rows, gemm_threaded, pack_panel
from ..jit import jit
from ..simd import (
    fma,
    lanes,
    tile_add,
    tile_outer_rows,
    tile_store,
    tile_zeros,
    vfill,
    vload_part,
    vstore_part,
)
from ..threads import threaded
from ..vecmath import vsigmoid, vtanh
from ..workspace import scratch


class Passes(NamedTuple):
    """Both passes of one variant."""

    forward: object
    backward: object


def _memory(name, shape, dtype, keep):
    """A new array, or scratch memory in this shape."""
    return np.empty(shape, dtype) if keep else scratch(f"recurrent.{name}", math.prod(shape), dtype).reshape(shape)


def _trace(n, steps, hidden, h0, c0, dtype, keep):
    """gates, before, cells: empty but for the first state."""
    gates = _memory("gates", (n, steps, 4 * hidden), dtype, keep)
    before = _memory("before", (n, steps, hidden), dtype, keep)
    cells = _memory("cells", (n, steps + 1, hidden), dtype, keep)
    before[:, 0] = 0 if h0 is None else h0
    cells[:, 0] = 0 if c0 is None else c0
    return gates, before, cells


def _state_gradient(given, shape, dtype):
    """A new array with the gradient that came, or zeros; it becomes that of the first state."""
    gradient = np.empty(shape, dtype)
    gradient[...] = 0 if given is None else given
    return gradient


# ---------------------------------------------------------------------------------------------------------------------
# steps


@jit
def sigmoid(z, one):
    return one / (one + math.exp(-z))


@jit
def forward_in_steps(x, w, u, b, y, gates, before, cells):
    """The formulas, for one number after another."""
    n, steps, inputs = x.shape
    hidden = u.shape[0]
    one = x.dtype.type(1)
    for t in range(steps):
        for row in range(n):
            z = gates[row, t]
            for j in range(4 * hidden):
                z[j] = b[j]
                for k in range(inputs):
                    z[j] += x[row, t, k] * w[k, j]
                for k in range(hidden):
                    z[j] += before[row, t, k] * u[k, j]
            for j in range(hidden):
                z[j] = i = sigmoid(z[j], one)
                z[hidden + j] = f = sigmoid(z[hidden + j], one)
                z[2 * hidden + j] = g = math.tanh(z[2 * hidden + j])
                z[3 * hidden + j] = o = sigmoid(z[3 * hidden + j], one)
                cells[row, t + 1, j] = f * cells[row, t, j] + i * g
                y[row, t, j] = o * math.tanh(cells[row, t + 1, j])
                if t + 1 < steps:
                    before[row, t + 1, j] = y[row, t, j]


@jit
def backward_in_steps(x, w, u, gates, before, cells, dy, dh, dc, dz, dx, dw, du, db):
    """One step and row after another, the last step first; dh and dc become the gradients of the first state."""
    n, steps, inputs = x.shape
    hidden = u.shape[0]
    one = x.dtype.type(1)
    for t in range(steps - 1, -1, -1):
        for row in range(n):
            for j in range(hidden):
                i, f = gates[row, t, j], gates[row, t, hidden + j]
                g, o = gates[row, t, 2 * hidden + j], gates[row, t, 3 * hidden + j]
                tanh_c = math.tanh(cells[row, t + 1, j])
                dh_j = dh[row, j] + dy[row, t, j]
                dc_j = dc[row, j] + dh_j * o * (one - tanh_c * tanh_c)
                dz[j] = dc_j * g * i * (one - i)
                dz[hidden + j] = dc_j * cells[row, t, j] * f * (one - f)
                dz[2 * hidden + j] = dc_j * i * (one - g * g)
                dz[3 * hidden + j] = dh_j * tanh_c * o * (one - o)
                dc[row, j] = dc_j * f
                dh[row, j] = 0
            for j in range(4 * hidden):
                db[j] += dz[j]
                for k in range(inputs):
                    dw[k, j] += x[row, t, k] * dz[j]
                    dx[row, t, k] += dz[j] * w[k, j]
                for k in range(hidden):
                    du[k, j] += before[row, t, k] * dz[j]
                    dh[row, k] += dz[j] * u[k, j]


def _forward_in_steps(x, w, u, b, h0, c0, keep):
    n, steps, _ = x.shape
    hidden = u.shape[0]
    trace = _trace(n, steps, hidden, h0, c0, x.dtype, keep)
    y = np.empty((n, steps, hidden), x.dtype)
    w, u = np.ascontiguousarray(w), np.ascontiguousarray(u)
    b = np.zeros(4 * hidden, x.dtype) if b is None else np.ascontiguousarray(b)
    forward_in_steps(x, w, u, b, y, *trace)
    return y, *trace


def _backward_in_steps(saved, needs, dy, dh, dc):
    x, w, u, _, gates, before, cells, _ = saved
    dy = np.zeros_like(before) if dy is None else np.ascontiguousarray(dy)
    dh, dc = (_state_gradient(given, before[:, 0].shape, x.dtype) for given in (dh, dc))
    w, u = np.ascontiguousarray(w), np.ascontiguousarray(u)
    dz, db = np.zeros((2, u.shape[1]), x.dtype)
    dx, dw, du = (np.zeros(a.shape, x.dtype) for a in (x, w, u))
    backward_in_steps(x, w, u, gates, before, cells, dy, dh, dc, dz, dx, dw, du, db)
    return tuple(grad if need else None for grad, need in zip((dx, dw, du, db, dh, dc), needs))


STEPS = Passes(_forward_in_steps, _backward_in_steps)

# ---------------------------------------------------------------------------------------------------------------------
# fused

# The register tile of the recurrent product: rows of the batch x vectors. 8 x 2 accumulators leave room for two
# vectors of U and eight addresses, keep both multiply-add units busy, and 8 divides the usual batch sizes.
ROWS, COLUMNS = 8 if simd.TILE_ROWS > 8 else simd.TILE_ROWS, 2
# Chunks are whole tiles of rows, and at most this many: from then on larger chunks read U more rarely.
CHUNKS = 16


@jit
def pack_panels(b, across, deep, columns, depth, width, panels):
    """B (depth, columns), element (k, j) at b[j * across + k * deep], cut into panels of `width` columns."""
    for j in range(0, columns, width):
        pack_panel(b, j * across, across, deep, columns - j, depth, width, panels, j * depth)


@jit(inner=True)
def add_product(a, a0, a_row, rows, panels, depth, c, c0, c_row, columns):
    """C[rows, columns] += A[rows, depth] B

    B lies in panels of two vectors' width, one after another, so that every step k of a tile reads the next two
    vectors. The panels together stay in the second-level cache from one time step to the next.
    """
    width = COLUMNS * lanes(c)
    for j0 in range(0, columns, width):
        for i in range(0, rows, ROWS):
            count = min(ROWS, rows - i)
            acc = tile_zeros(c, ROWS, COLUMNS)
            for k in range(depth):
                tile_outer_rows(acc, a, a0 + i * a_row + k, a_row, count, panels, j0 * depth + k * width)
            tile_add(acc, c, c0 + i * c_row + j0, c_row, count, columns - j0)
            tile_store(acc, c, c0 + i * c_row + j0, c_row, count, columns - j0)


@jit(inner=True)
def forward_chunk(chunk, rows, panels, gates, before, cells, y, n, steps, hidden):
    """One chunk: `rows` rows of the batch through all steps, without waiting for any other chunk.

    `gates` holds x W + b at first. Step t adds h U, then turns z_i, z_f, z_c, z_o of 16 units at a time into the gates,
    in place, and these into c and h.
    """
    first = chunk * rows
    count = min(rows, n - first)
    for t in range(steps):
        start, stride = first * steps + t, steps * hidden
        add_product(
            before, start * hidden, stride, count, panels, hidden,
            gates, start * 4 * hidden, 4 * stride, 4 * hidden,
        )  # fmt: skip
        for row in range(first, first + count):
            at_t = row * steps + t
            for j in range(0, hidden, lanes(y)):
                left = hidden - j
                z, state, cell = at_t * 4 * hidden + j, at_t * hidden + j, (at_t + row) * hidden + j
                i = vsigmoid(vload_part(gates, z, left))
                f = vsigmoid(vload_part(gates, z + hidden, left))
                g = vtanh(vload_part(gates, z + 2 * hidden, left))
                o = vsigmoid(vload_part(gates, z + 3 * hidden, left))
                c = fma(f, vload_part(cells, cell, left), i * g)
                h = o * vtanh(c)
                vstore_part(gates, z, i, left)
                vstore_part(gates, z + hidden, f, left)
                vstore_part(gates, z + 2 * hidden, g, left)
                vstore_part(gates, z + 3 * hidden, o, left)
                vstore_part(cells, cell + hidden, c, left)
                vstore_part(y, state, h, left)
                if t + 1 < steps:
                    vstore_part(before, state + hidden, h, left)


@jit(inner=True)
def backward_chunk(chunk, rows, panels, gates, cells, dy, dh, dc, dz, sums, n, steps, hidden):
    """One chunk: `rows` rows of the batch from the last step to the first.

    dh and dc (N, H) are the gradients of the state after step t; step t turns them into those of the state before it
    and writes dz. Row `chunk` of `sums` adds up dz, for db. `dy` may be empty.
    """
    first = chunk * rows
    count = min(rows, n - first)
    total = chunk * 4 * hidden
    for t in range(steps - 1, -1, -1):
        for row in range(first, first + count):
            at_t = row * steps + t
            for j in range(0, hidden, lanes(dz)):
                left = hidden - j
                z, state, cell = at_t * 4 * hidden + j, row * hidden + j, (at_t + row) * hidden + j
                i, f = vload_part(gates, z, left), vload_part(gates, z + hidden, left)
                g, o = vload_part(gates, z + 2 * hidden, left), vload_part(gates, z + 3 * hidden, left)
                tanh_c = vtanh(vload_part(cells, cell + hidden, left))
                dh_t = vload_part(dh, state, left)
                vstore_part(dh, state, vfill(dz, 0.0), left)
                if dy.size > 0:
                    dh_t = dh_t + vload_part(dy, at_t * hidden + j, left)
                dc_t = fma(dh_t * o, fma(-tanh_c, tanh_c, 1.0), vload_part(dc, state, left))
                df = dc_t * vload_part(cells, cell, left)
                put(dz, z, sums, total + j, dc_t * g * (i * (1.0 - i)), left)
                put(dz, z + hidden, sums, total + hidden + j, df * (f * (1.0 - f)), left)
                put(dz, z + 2 * hidden, sums, total + 2 * hidden + j, dc_t * i * fma(-g, g, 1.0), left)
                put(dz, z + 3 * hidden, sums, total + 3 * hidden + j, dh_t * tanh_c * (o * (1.0 - o)), left)
                vstore_part(dc, state, dc_t * f, left)
        start = first * steps + t
        add_product(
            dz, start * 4 * hidden, steps * 4 * hidden, count, panels, 4 * hidden,
            dh, first * hidden, hidden, hidden,
        )  # fmt: skip


@jit(inline=True)
def put(dz, index, sums, place, value, count):
    """dz[index:] = value, and sums[place:] += value."""
    vstore_part(dz, index, value, count)
    vstore_part(sums, place, vload_part(sums, place, count) + value, count)


_forward_chunks = threaded(forward_chunk)
_backward_chunks = threaded(backward_chunk)


def _panels(u, across, deep, columns, depth):
    """B (depth, columns) for `add_product`: element (k, j) is number j * across + k * deep of u."""
    width = COLUMNS * simd.VECTOR_BYTES // u.itemsize
    panels = scratch("recurrent.panels", -(-columns // width) * width * depth, u.dtype)
    pack_panels(np.ascontiguousarray(u).reshape(-1), across, deep, columns, depth, width, panels)
    return panels


def _chunks(n):
    """(number of chunks, rows of a chunk), from the batch size alone."""
    rows = -(-n // (ROWS * CHUNKS)) * ROWS
    return -(-n // rows), rows


def _forward_fused(x, w, u, b, h0, c0, keep):
    n, steps, inputs = x.shape
    hidden = u.shape[0]
    gates, before, cells = _trace(n, steps, hidden, h0, c0, x.dtype, keep)
    bias = None if b is None else np.ascontiguousarray(b)
    gemm_threaded(x.reshape(-1, inputs), w, gates.reshape(-1, 4 * hidden), bias)
    panels = _panels(u, 1, 4 * hidden, 4 * hidden, hidden)
    y = np.empty((n, steps, hidden), x.dtype)
    chunks, rows = _chunks(n)
    _forward_chunks(
        chunks, 8 * n * steps * hidden * hidden,
        rows, panels, gates.reshape(-1), before.reshape(-1), cells.reshape(-1), y.reshape(-1), n, steps, hidden,
    )  # fmt: skip
    return y, gates, before, cells


def _backward_fused(saved, needs, dy, dh, dc):
    x, w, u, _, gates, before, cells, _ = saved
    n, steps, hidden = before.shape
    inputs = x.shape[2]
    dy = np.empty(0, x.dtype) if dy is None else np.ascontiguousarray(dy).reshape(-1)
    dh, dc = (_state_gradient(given, (n, hidden), x.dtype) for given in (dh, dc))
    dz = scratch("recurrent.dz", 4 * n * steps * hidden, x.dtype)
    panels = _panels(u, 4 * hidden, 1, hidden, 4 * hidden)
    chunks, rows = _chunks(n)
    sums = np.zeros((chunks, 4 * hidden), x.dtype)
    _backward_chunks(
        chunks, 8 * n * steps * hidden * hidden,
        rows, panels, gates.reshape(-1), cells.reshape(-1), dy, dh.reshape(-1), dc.reshape(-1), dz, sums.reshape(-1),
        n, steps, hidden,
    )  # fmt: skip
    dz = dz.reshape(-1, 4 * hidden)
    need_x, need_w, need_u, need_b, need_h, need_c = needs
    return (
        _product(dz, w.T, x.shape) if need_x else None,
        _product(x.reshape(-1, inputs).T, dz, w.shape) if need_w else None,
        _product(before.reshape(-1, hidden).T, dz, u.shape) if need_u else None,
        _sum_of_rows(sums) if need_b else None,
        dh if need_h else None,
        dc if need_c else None,
    )


def _product(a, b, shape):
    c = np.empty(shape, a.dtype)
    gemm_threaded(a, b, c.reshape(-1, b.shape[1]))
    return c


def _sum_of_rows(sums):
    if len(sums) == 1:
        return sums[0]
    total = np.empty(sums.shape[1], sums.dtype)
    add_rows(sums.reshape(-1), *sums.shape, total)
    return total


FUSED = Passes(_forward_fused, _backward_fused)
