"""What is the same in every variant: what comes before and after the steps, and what a step does with its sums."""

from functools import cache

from numba import cuda, int32, int64

from ...arrays import namespace
from ...gemm.cuda import dense_epilogue_backward, gemm_default
from ...launch import element_of, kernel, pointer
from ...ptx import exp, load, store, tanh

THREADS = 256
WARPS = THREADS // 32
# Blocks that share a sequence's copy; each then takes several steps a warp.
MOST_PARTS = 64


def blocks_of(threads):
    """The grid of a kernel with a thread for each element."""
    return (-(-threads // THREADS),)


@cache
def begin(T):
    @kernel(threads=THREADS)
    def begin_sequence(
        x: pointer(T), h0: pointer(T), c0: pointer(T), inputs: pointer(T), cells: pointer(T), state: pointer(T),
        steps: int32, size: int32, hidden: int32, pitch: int32, keep: int32,
    ):  # fmt: skip
        """One block: one sequence, or what falls to it of that where there are several along y. One warp: every so many
        steps of x, into inputs. The first of the blocks brings the first state, into inputs, cells, and the state (rows
        of `pitch` numbers) that the first step reads."""
        row, thread, wide = int64(cuda.blockIdx.x), int32(cuda.threadIdx.x), int32(size + hidden)
        t = int32(cuda.blockIdx.y * WARPS + (thread >> 5))
        while keep and t < steps:
            at_t = row * steps + t
            for i in range(thread % 32, size, 32):
                store(inputs, at_t * wide + i, load(x, at_t * size + i))
            t = int32(t + cuda.gridDim.y * WARPS)
        if cuda.blockIdx.y == 0:
            for unit in range(thread, hidden, THREADS):
                h = load(h0, row * hidden + unit)
                store(state, row * pitch + unit, h)
                store(cells, row * (steps + 1) * hidden + unit, load(c0, row * hidden + unit))
                if keep:
                    store(inputs, row * steps * wide + size + unit, h)

    return begin_sequence


@cache
def step_of(T):
    """The end of a step of one unit, for kernels that have summed its z: (forward, backward)."""

    @cuda.jit(device=True, forceinline=True)
    def sigmoid(z):
        return T(1) / (T(1) + exp(-z))

    @cuda.jit(device=True, forceinline=True)
    def finish(zi, zf, zg, zo, gates, cells, y, inputs, row, unit, t, steps, size, hidden, keep):
        """From the four z to gates and state, which go where they are kept. The new h."""
        at_t = int64(row) * steps + t
        z, cell = at_t * 4 * hidden + unit, (at_t + row) * hidden + unit
        i, f, g, o = sigmoid(zi), sigmoid(zf), tanh(zg), sigmoid(zo)
        c = f * load(cells, cell) + i * g
        h = o * tanh(c)
        store(cells, cell + hidden, c)
        store(y, at_t * hidden + unit, h)
        if keep:
            store(gates, z, i)
            store(gates, z + hidden, f)
            store(gates, z + 2 * hidden, g)
            store(gates, z + 3 * hidden, o)
            if t + 1 < steps:
                store(inputs, (at_t + 1) * (size + hidden) + size + unit, h)
        return h

    @cuda.jit(device=True, forceinline=True)
    def go_back(dh, gates, cells, dy, has_dy, dc, row, unit, t, steps, hidden):
        """From the gradient of h after the step, but for dy, to the four dz; dc becomes that of c before the step."""
        at_t = int64(row) * steps + t
        z, cell = at_t * 4 * hidden + unit, (at_t + row) * hidden + unit
        i, f, g, o = load(gates, z), load(gates, z + hidden), load(gates, z + 2 * hidden), load(gates, z + 3 * hidden)
        if has_dy:
            dh += load(dy, at_t * hidden + unit)
        tanh_c = tanh(load(cells, cell + hidden))
        dc_t = load(dc, int64(row) * hidden + unit) + dh * o * (T(1) - tanh_c * tanh_c)
        store(dc, int64(row) * hidden + unit, dc_t * f)
        return (
            dc_t * g * (i * (T(1) - i)),
            dc_t * load(cells, cell) * (f * (T(1) - f)),
            dc_t * i * (T(1) - g * g),
            dh * tanh_c * (o * (T(1) - o)),
        )

    return finish, go_back


def start(x, w, u, b, h0, c0, keep, pitch, states):
    """y, inputs, gates, cells and the states (states, N, pitch), with x W + b in the gates and the first state."""
    (n, steps, size), hidden, xp, T = x.shape, u.shape[0], namespace(x), element_of(x)
    y, gates = xp.empty((n, steps, hidden), x.dtype), xp.empty((n, steps, 4 * hidden), x.dtype)
    cells = xp.empty((n, steps + 1, hidden), x.dtype)
    inputs = xp.empty((n, steps, size + hidden), x.dtype) if keep else None
    state = xp.zeros((states, n, pitch), x.dtype)
    h0, c0 = (xp.zeros((n, hidden), x.dtype) if s is None else xp.ascontiguousarray(s) for s in (h0, c0))
    bias = None if b is None else xp.ascontiguousarray(b)
    gemm_default(x.reshape(-1, size), w, gates.reshape(-1, 4 * hidden), bias)
    begin(T)(
        (n, min(-(-steps // WARPS), MOST_PARTS) if keep else 1),
        xp.ascontiguousarray(x),
        h0,
        c0,
        inputs if keep else y,
        cells,
        state,
        steps,
        size,
        hidden,
        pitch,
        keep,
    )
    return y, inputs, gates, cells, state


def start_back(saved, dy, dh, dc):
    """dy, dh, dc as new arrays (but for a dy that is contiguous), and dz, empty."""
    n, steps = saved.inputs.shape[:2]
    hidden, dtype, xp = saved.u.shape[0], saved.u.dtype, namespace(saved.inputs)
    dh, dc = (xp.zeros((n, hidden), dtype) if d is None else d.copy() for d in (dh, dc))
    dz = xp.empty((n, steps, 4 * hidden), dtype)
    return dz if dy is None else xp.ascontiguousarray(dy), dh, dc, dz


def gradients(saved, needs, dz, dh, dc):
    """All that was asked for, from dz of all steps and the gradients of the first state."""
    w, u, _, inputs, *_ = saved
    need_x, need_w, need_u, need_b, need_h, need_c = needs
    (n, steps, wide), (size, columns), xp = inputs.shape, w.shape, namespace(inputs)
    rows, dx, dw_du, db = dz.reshape(-1, columns), None, None, None
    if need_x:
        dx = xp.empty((n, steps, size), dz.dtype)
        gemm_default(rows, w.T, dx.reshape(-1, size))
    if need_w or need_u:
        dw_du = xp.empty((wide, columns), dz.dtype)
        gemm_default(inputs.reshape(-1, wide).T, rows, dw_du)
    if need_b:
        db = dense_epilogue_backward(rows, rows, None)[1]
    dw, du = dw_du[:size] if need_w else None, dw_du[size:] if need_u else None
    return dx, dw, du, db, dh if need_h else None, dc if need_c else None
