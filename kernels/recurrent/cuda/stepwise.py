"""stepwise: a matrix product, and then the gates."""

from functools import cache

from numba import cuda, int32, int64

from ...arrays import namespace
from ...gemm.cuda import gemm_default
from ...launch import element_of, kernel, pointer
from ...ptx import load, store
from ..passes import Passes
from .around import THREADS, blocks_of, gradients, start, start_back, step_of


@cache
def gates_forward(T):
    finish, _ = step_of(T)

    @kernel(threads=THREADS)
    def apply_gates(
        product: pointer(T), gates: pointer(T), cells: pointer(T), y: pointer(T), inputs: pointer(T),
        state: pointer(T), t: int32, n: int32, steps: int32, size: int32, hidden: int32, keep: int32,
    ):  # fmt: skip
        """One thread: one row and unit of step t, whose z is x W + b, which lies in gates, plus the product h U.
        Neighbouring threads take neighbouring units, and so read and write whole cache lines."""
        i = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < int64(n) * hidden:
            row, unit = i // hidden, i % hidden
            u, z = row * 4 * hidden + unit, (row * steps + t) * 4 * hidden + unit
            h = finish(
                load(gates, z) + load(product, u), load(gates, z + hidden) + load(product, u + hidden),
                load(gates, z + 2 * hidden) + load(product, u + 2 * hidden),
                load(gates, z + 3 * hidden) + load(product, u + 3 * hidden),
                gates, cells, y, inputs, row, unit, t, steps, size, hidden, keep,
            )  # fmt: skip
            store(state, i, h)

    return apply_gates


@cache
def gates_backward(T):
    _, go_back = step_of(T)

    @kernel(threads=THREADS)
    def apply_gates_backward(
        gates: pointer(T), cells: pointer(T), dy: pointer(T), has_dy: int32, dh: pointer(T), dc: pointer(T),
        dz: pointer(T), dz_t: pointer(T), t: int32, n: int32, steps: int32, hidden: int32,
    ):  # fmt: skip
        """One thread: one row and unit of step t, as in `apply_gates`. dz of the step goes among those of all steps,
        and to dz_t (N, 4H), where its rows follow one another for the product that comes next."""
        i = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < int64(n) * hidden:
            row, unit = i // hidden, i % hidden
            four = go_back(load(dh, i), gates, cells, dy, has_dy, dc, row, unit, t, steps, hidden)
            for gate in range(4):
                store(dz, ((row * steps + t) * 4 + gate) * hidden + unit, four[gate])
                store(dz_t, (row * 4 + gate) * hidden + unit, four[gate])

    return apply_gates_backward


def _forward_stepwise(x, w, u, b, h0, c0, keep):
    (n, steps, size), hidden, T = x.shape, u.shape[0], element_of(x)
    y, inputs, gates, cells, state = start(x, w, u, b, h0, c0, keep, hidden, states=1)
    product, state, apply_gates = namespace(x).empty((n, 4 * hidden), x.dtype), state[0], gates_forward(T)
    arrays = product, gates, cells, y, inputs if keep else y, state
    grid = blocks_of(n * hidden)
    for t in range(steps):
        gemm_default(state, u, product)
        apply_gates(grid, *arrays, t, n, steps, size, hidden, keep)
    return y, inputs, gates, cells


def _backward_stepwise(saved, needs, dy, dh, dc):
    n, steps = saved.inputs.shape[:2]
    hidden, T, has_dy = saved.u.shape[0], element_of(saved.u), dy is not None
    dy, dh, dc, dz = start_back(saved, dy, dh, dc)
    dz_t, back, apply_gates = namespace(dz).empty((n, 4 * hidden), dz.dtype), saved.u.T, gates_backward(T)
    grid = blocks_of(n * hidden)
    for t in reversed(range(steps)):
        apply_gates(grid, saved.gates, saved.cells, dy, has_dy, dh, dc, dz, dz_t, t, n, steps, hidden)
        gemm_default(dz_t, back, dh)
    return gradients(saved, needs, dz, dh, dc)


STEPWISE = Passes(_forward_stepwise, _backward_stepwise)
