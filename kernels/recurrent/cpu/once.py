"""The rung "fused" for a single step, as of a cell: weights that are used once are not packed but read where they are.

Of one row of the batch, a step reads W and U once, and that is all it takes: 512 inputs and 1024 units, 25 MB.
"""

import numpy as np

from ...gemm.cpu import gemm_threaded
from ...jit import jit
from ...recording import on_host
from ...simd import lanes, vload_part, vstore_part
from ...threads import threaded
from ...workspace import scratch
from .units import step_back_of_units, step_of_units


@jit(inner=True)
def forward_once(row, recurrent, inputs, gates, cells, y, size, hidden):
    """One chunk: one row; `gates` holds x W + b, `recurrent` h U."""
    end = (row + 1) * 4 * hidden
    for j in range(row * 4 * hidden, end, lanes(y)):
        total = vload_part(gates, j, end - j) + vload_part(recurrent, j, end - j)
        vstore_part(gates, j, total, end - j)
    step_of_units(gates, cells, y, inputs, row, 0, 0, hidden, 1, size, hidden)


@jit(inner=True)
def backward_once(chunk, gates, cells, dy, dh, dc, dz, sums, n, hidden):
    """The one chunk: dz of all rows, and its sum."""
    for row in range(n):
        step_back_of_units(gates, cells, dy, dh, dc, dz, sums, 0, row, 0, 0, hidden, 1, hidden)


_forward_once, _backward_once = threaded(forward_once), threaded(backward_once)


def forward(x, w, u, bias, inputs, gates, cells, y):
    n, _, size = x.shape
    hidden, columns = u.shape
    on_host(np.copyto, inputs[:, 0, :size], x[:, 0])
    h = scratch("recurrent.h", n * hidden, x.dtype).reshape(n, hidden)
    recurrent = scratch("recurrent.hu", n * columns, x.dtype).reshape(n, columns)
    on_host(np.copyto, h, inputs[:, 0, size:])
    gemm_threaded(x.reshape(n, size), w, gates.reshape(n, columns), bias)
    gemm_threaded(h, u, recurrent)
    _forward_once(
        n, 50 * n * columns,
        recurrent.reshape(-1), inputs.reshape(-1), gates.reshape(-1), cells.reshape(-1), y.reshape(-1), size, hidden,
    )  # fmt: skip


def backward(u, gates, cells, dy, dh, dc, dz, sums):
    hidden, columns = u.shape
    state = dh.reshape(-1), dc.reshape(-1)
    _backward_once.in_turn(1, gates.reshape(-1), cells.reshape(-1), dy, *state, dz, sums.reshape(-1), len(dh), hidden)
    gemm_threaded(dz.reshape(-1, columns), u.T, dh)
