"""The LSTM on a CPU: one number after another, or a register tile for a few rows of the batch.

    steps   every gate of every row and step is a dot product, in plain loops
    fused   each thread takes a few rows through all steps: one matrix product for all their inputs, then step by step
            a small product for the state, and the gates in vectors

A variant is a pair of launchers:

    forward(x, w, u, b, h0, c0, keep) -> y, inputs, gates, cells
    backward(saved, needs, dy, dh, dc) -> dx, dw, du, db, dh0, dc0

`x` is C-contiguous. `inputs` (N, T, I + H) holds x and h before each step side by side, so that one product gives dW
above dU; `gates` (N, T, 4H) holds i, f, g, o after their activations, `cells` (N, T + 1, H) c before each step and
after the last. Unless `keep`, these three lie in scratch memory.
"""

import math
from typing import NamedTuple

import numpy as np

from .. import simd
from ..arrays import contiguous
from ..gemm.cpu import add_rows, gemm_threaded, pack_panel
from ..jit import jit
from ..recording import on_host
from ..simd import (
    fma,
    lanes,
    tile_add,
    tile_fill_rows,
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


def _trace(x, hidden, h0, c0, keep):
    """inputs, gates, cells: empty but for the first state."""
    n, steps, size = x.shape
    inputs = _memory("inputs", (n, steps, size + hidden), x.dtype, keep)
    gates = _memory("gates", (n, steps, 4 * hidden), x.dtype, keep)
    cells = _memory("cells", (n, steps + 1, hidden), x.dtype, keep)
    on_host(np.copyto, inputs[:, 0, size:], 0 if h0 is None else h0)
    on_host(np.copyto, cells[:, 0], 0 if c0 is None else c0)
    return inputs, gates, cells


def _state_gradient(given, shape, dtype):
    """A new array with the gradient that came, or zeros; it becomes that of the first state."""
    gradient = np.empty(shape, dtype)
    on_host(np.copyto, gradient, 0 if given is None else given)
    return gradient


# ---------------------------------------------------------------------------------------------------------------------
# steps


@jit
def sigmoid(z, one):
    return one / (one + math.exp(-z))


@jit
def forward_in_steps(x, w, u, b, y, inputs, gates, cells):
    """The formulas, for one number after another."""
    n, steps, size = x.shape
    hidden = u.shape[0]
    one = x.dtype.type(1)
    for t in range(steps):
        for row in range(n):
            z = gates[row, t]
            for k in range(size):
                inputs[row, t, k] = x[row, t, k]
            for j in range(4 * hidden):
                z[j] = b[j]
                for k in range(size):
                    z[j] += x[row, t, k] * w[k, j]
                for k in range(hidden):
                    z[j] += inputs[row, t, size + k] * u[k, j]
            for j in range(hidden):
                z[j] = i = sigmoid(z[j], one)
                z[hidden + j] = f = sigmoid(z[hidden + j], one)
                z[2 * hidden + j] = g = math.tanh(z[2 * hidden + j])
                z[3 * hidden + j] = o = sigmoid(z[3 * hidden + j], one)
                cells[row, t + 1, j] = f * cells[row, t, j] + i * g
                y[row, t, j] = o * math.tanh(cells[row, t + 1, j])
                if t + 1 < steps:
                    inputs[row, t + 1, size + j] = y[row, t, j]


@jit
def backward_in_steps(w, u, inputs, gates, cells, dy, dh, dc, dz, dx, dw, du, db):
    """One step and row after another, the last step first; dh and dc become the gradients of the first state."""
    n, steps, size = dx.shape
    hidden = u.shape[0]
    one = dx.dtype.type(1)
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
                for k in range(size):
                    dw[k, j] += inputs[row, t, k] * dz[j]
                    dx[row, t, k] += dz[j] * w[k, j]
                for k in range(hidden):
                    du[k, j] += inputs[row, t, size + k] * dz[j]
                    dh[row, k] += dz[j] * u[k, j]


def _forward_in_steps(x, w, u, b, h0, c0, keep):
    n, steps, _ = x.shape
    hidden = u.shape[0]
    trace = _trace(x, hidden, h0, c0, keep)
    y = np.empty((n, steps, hidden), x.dtype)
    w, u = contiguous(w), contiguous(u)
    b = np.zeros(4 * hidden, x.dtype) if b is None else contiguous(b)
    forward_in_steps(x, w, u, b, y, *trace)
    return y, *trace


def _backward_in_steps(saved, needs, dy, dh, dc):
    w, u, _, inputs, gates, cells, _ = saved
    n, steps, _ = inputs.shape
    hidden, dtype = u.shape[0], u.dtype
    dy = np.zeros((n, steps, hidden), dtype) if dy is None else contiguous(dy)
    dh, dc = (_state_gradient(given, (n, hidden), dtype) for given in (dh, dc))
    w, u = contiguous(w), contiguous(u)
    dx, dw, du = (np.zeros(shape, dtype) for shape in ((n, steps, w.shape[0]), w.shape, u.shape))
    dz, db = np.zeros((2, 4 * hidden), dtype)
    backward_in_steps(w, u, inputs, gates, cells, dy, dh, dc, dz, dx, dw, du, db)
    return tuple(grad if need else None for grad, need in zip((dx, dw, du, db, dh, dc), needs))


STEPS = Passes(_forward_in_steps, _backward_in_steps)

# ---------------------------------------------------------------------------------------------------------------------
# fused

# The register tile of products with few rows: 8 x 2 accumulators keep both multiply-add units busy, and 8 divides the
# usual batch sizes. The weights' gradient has many rows, and its tile fills the register file.
TALL, COLUMNS = simd.TILE_ROWS, simd.TILE_COLUMNS
ROWS = min(8, TALL)
# Chunks are whole tiles of rows, and at most this many: from then on larger chunks read the weights more rarely.
CHUNKS = 16
# Terms of the weights' gradient that one panel of dz holds: 128 x 128 bytes, half a first-level cache.
BLOCK = 128


@jit(inner=True)
def pack_panels(chunk, b, across, deep, columns, depth, width, panels):
    """The one chunk: B (depth, columns), element (k, j) at b[j * across + k * deep], in panels of `width` columns."""
    for j in range(0, columns, width):
        pack_panel(b, j * across, across, deep, columns - j, depth, width, panels, j * depth)


@jit(inner=True)
def add_product(a, a0, a_row, rows, panels, depth, c, c0, c_row, columns, start):
    """C[rows, columns] = start + A[rows, depth] B, with a row `start`; where that is empty, C += A B.

    B lies in panels of two vectors' width, one after another, so that every term k of a tile reads the next two
    vectors. All panels stay in the second-level cache from one time step to the next.
    """
    width = COLUMNS * lanes(c)
    for j0 in range(0, columns, width):
        for i in range(0, rows, ROWS):
            count = min(ROWS, rows - i)
            acc = tile_zeros(c, ROWS, COLUMNS)
            if start.size > 0:
                tile_fill_rows(acc, start, j0, columns - j0)
            for k in range(depth):
                tile_outer_rows(acc, a, a0 + i * a_row + k, a_row, count, panels, j0 * depth + k * width)
            if start.size == 0:
                tile_add(acc, c, c0 + i * c_row + j0, c_row, count, columns - j0)
            tile_store(acc, c, c0 + i * c_row + j0, c_row, count, columns - j0)


@jit(inner=True)
def forward_chunk(chunk, rows, x, w, u, b, none, inputs, gates, cells, y, n, steps, size, hidden):
    """One chunk: `rows` rows of the batch through all steps, without waiting for any other chunk.

    First `gates` receives x W + b of all steps. Step t adds h U, then turns z_i, z_f, z_c, z_o of 16 units at a time
    into the gates, in place, and these into c and h. w and u are panels; `none` is empty.

    Why it is faster than plain steps: sums in register tiles, exponentials in vectors, and z never leaves the caches
    between its sum and its gates. One core, N 32, T 50, 100 to 64: 68 ms before, 1.6 ms here (backward 95 and 3.5 ms).
    """
    first = chunk * rows
    count = min(rows, n - first)
    wide = size + hidden
    add_product(
        x, first * steps * size, size, count * steps, w, size,
        gates, first * steps * 4 * hidden, 4 * hidden, 4 * hidden, b,
    )  # fmt: skip
    for t in range(steps):
        start = first * steps + t
        add_product(
            inputs, start * wide + size, steps * wide, count, u, hidden,
            gates, start * 4 * hidden, steps * 4 * hidden, 4 * hidden, none,
        )  # fmt: skip
        for row in range(first, first + count):
            at_t = row * steps + t
            for k in range(0, size, lanes(x)):
                vstore_part(inputs, at_t * wide + k, vload_part(x, at_t * size + k, size - k), size - k)
            for j in range(0, hidden, lanes(y)):
                left = hidden - j
                z, cell = at_t * 4 * hidden + j, (at_t + row) * hidden + j
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
                vstore_part(y, at_t * hidden + j, h, left)
                if t + 1 < steps:
                    vstore_part(inputs, (at_t + 1) * wide + size + j, h, left)


@jit(inner=True)
def backward_chunk(chunk, rows, u, none, gates, cells, dy, dh, dc, dz, sums, n, steps, hidden):
    """One chunk: `rows` rows of the batch from the last step to the first.

    dh and dc (N, H) are the gradients of the state after step t; step t turns them into those of the state before it
    and writes dz. Row `chunk` of `sums` adds up dz, for db. `u` holds panels of U transposed, `dy` may be empty, `none`
    is.
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
            dz, start * 4 * hidden, steps * 4 * hidden, count, u, 4 * hidden,
            dh, first * hidden, hidden, hidden, none,
        )  # fmt: skip


@jit(inline=True)
def put(dz, index, sums, place, value, count):
    """dz[index:] = value, and sums[place:] += value."""
    vstore_part(dz, index, value, count)
    vstore_part(sums, place, vload_part(sums, place, count) + value, count)


@jit(inner=True)
def weights_chunk(chunk, inputs, dz, panels, dw_du, terms, wide, columns):
    """One chunk: two vectors of columns of dW above dU, the sum over `terms` rows of [x | h]^T dz, added to dw_du.

    For a tile, neighbouring rows are neighbouring numbers of `inputs`, which therefore need no packing; the columns of
    dz are far apart in memory, and are packed for the tiles that follow one another.
    """
    width = COLUMNS * lanes(dz)
    j0, panel = chunk * width, chunk * width * BLOCK
    for first in range(0, terms, BLOCK):
        depth = min(BLOCK, terms - first)
        pack_panel(dz, first * columns + j0, 1, columns, columns - j0, depth, width, panels, panel)
        for i in range(0, wide, TALL):
            count = min(TALL, wide - i)
            acc = tile_zeros(dw_du, TALL, COLUMNS)
            for k in range(depth):
                tile_outer_rows(acc, inputs, (first + k) * wide + i, 1, count, panels, panel + k * width)
            tile_add(acc, dw_du, i * columns + j0, columns, count, columns - j0)
            tile_store(acc, dw_du, i * columns + j0, columns, count, columns - j0)


_pack_panels = threaded(pack_panels)
_forward_chunks = threaded(forward_chunk)
_backward_chunks = threaded(backward_chunk)
_weights_chunks = threaded(weights_chunk)


def _panels(name, b, across, deep, columns, depth):
    """B (depth, columns) for `add_product`: element (k, j) is number j * across + k * deep of b."""
    width = COLUMNS * simd.VECTOR_BYTES // b.itemsize
    panels = scratch(f"recurrent.{name}", -(-columns // width) * width * depth, b.dtype)
    _pack_panels.in_turn(1, contiguous(b).reshape(-1), across, deep, columns, depth, width, panels)
    return panels


def _chunks(n):
    """(number of chunks, rows of a chunk), from the batch size alone."""
    rows = -(-n // (ROWS * CHUNKS)) * ROWS
    return -(-n // rows), rows


def _forward_fused(x, w, u, b, h0, c0, keep):
    n, steps, size = x.shape
    hidden, dtype = u.shape[0], x.dtype
    columns = 4 * hidden
    inputs, gates, cells = _trace(x, hidden, h0, c0, keep)
    y = np.empty((n, steps, hidden), dtype)
    bias = np.zeros(columns, dtype) if b is None else contiguous(b)
    chunks, rows = _chunks(n)
    _forward_chunks(
        chunks, 2 * n * steps * columns * (size + hidden),
        rows, x.reshape(-1), _panels("w", w, 1, columns, columns, size), _panels("u", u, 1, columns, columns, hidden),
        bias, np.empty(0, dtype), inputs.reshape(-1), gates.reshape(-1), cells.reshape(-1), y.reshape(-1),
        n, steps, size, hidden,
    )  # fmt: skip
    return y, inputs, gates, cells


def _backward_fused(saved, needs, dy, dh, dc):
    w, u, _, inputs, gates, cells, _ = saved
    n, steps, wide = inputs.shape
    (hidden, columns), dtype = u.shape, u.dtype
    size = wide - hidden
    none = np.empty(0, dtype)
    dy = none if dy is None else contiguous(dy).reshape(-1)
    dh, dc = (_state_gradient(given, (n, hidden), dtype) for given in (dh, dc))
    dz = scratch("recurrent.dz", n * steps * columns, dtype)
    chunks, rows = _chunks(n)
    sums = np.empty((chunks, columns), dtype)
    on_host(sums.fill, 0)
    _backward_chunks(
        chunks, 2 * n * steps * columns * hidden,
        rows, _panels("u", u, columns, 1, hidden, columns), none, gates.reshape(-1), cells.reshape(-1),
        dy, dh.reshape(-1), dc.reshape(-1), dz, sums.reshape(-1), n, steps, hidden,
    )  # fmt: skip
    need_x, need_w, need_u, need_b, need_h, need_c = needs
    dw = du = dx = None
    if need_w or need_u:
        dw_du = _weights_gradient(inputs, dz, columns)
        dw, du = dw_du[:size] if need_w else None, dw_du[size:] if need_u else None
    if need_x:
        dx = np.empty((n, steps, size), dtype)
        gemm_threaded(dz.reshape(-1, columns), w.T, dx.reshape(-1, size))
    return dx, dw, du, _sum_of_rows(sums) if need_b else None, dh if need_h else None, dc if need_c else None


def _weights_gradient(inputs, dz, columns):
    """dW above dU (I + H, 4H)."""
    n, steps, wide = inputs.shape
    width = COLUMNS * simd.VECTOR_BYTES // dz.itemsize
    chunks = -(-columns // width)
    panels = scratch("recurrent.panels", chunks * width * BLOCK, dz.dtype)
    dw_du = np.empty((wide, columns), dz.dtype)
    on_host(dw_du.fill, 0)
    _weights_chunks(
        chunks, 2 * n * steps * wide * columns,
        inputs.reshape(-1), dz, panels, dw_du.reshape(-1), n * steps, wide, columns,
    )  # fmt: skip
    return dw_du


def _sum_of_rows(sums):
    if len(sums) == 1:
        return sums[0]
    total = np.empty(sums.shape[1], sums.dtype)
    on_host(add_rows, sums.reshape(-1), *sums.shape, total)
    return total


FUSED = Passes(_forward_fused, _backward_fused)
