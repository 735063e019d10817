"""fused: a step is one launch, which sums and applies the gates."""

from functools import cache

from numba import cuda, int32, int64

from ...arrays import address, namespace
from ...gemm.cuda import gemm_default
from ...launch import element_of, kernel, pointer
from ...ptx import copy_async, copy_async_commit, copy_async_wait, load, load4, store
from ...wide import accesses
from ..passes import Passes
from .around import THREADS, blocks_of, gradients, start, start_back, step_of

# A block's tile: 16 rows of the batch and 16 units, one for each thread. That is small, so that usual layers give every
# processor a block; yet a thread shall use what it reads more than once. So the threads part into groups, each of which
# sums some of the terms for the whole tile, several elements a thread; at the end each thread adds up one element.
TILE = 16
ELEMENTS = TILE * TILE
BYTES = 16


@cache
def interleave(T):
    _, put = accesses(T, 4, 128 // T.bitwidth)

    @kernel(threads=THREADS)
    def interleave_gates(u: pointer(T), packed: pointer(T), hidden: int32):
        """One thread: the four gates of packed[k, unit, gate] = U[k, gate * H + unit], where k is the block's. Those of
        16 units, which a block of `step_forward` reads together, are then neighbours, and start on a multiple of 16
        bytes for every H."""
        k, unit = int64(cuda.blockIdx.x), int32(cuda.blockIdx.y * THREADS + cuda.threadIdx.x)
        four = cuda.local.array(4, T)
        if unit < hidden:
            for gate in range(4):
                four[gate] = load(u, (k * 4 + gate) * hidden + unit)
            put(packed, (k * hidden + unit) * 4, 4, four)

    return interleave_gates


@cuda.jit(device=True, forceinline=True)
def bring(tiles, to, to_step, memory, at, at_step, left, down, sweeps):
    """Start to copy a thread's part of a tile: in each sweep over it 16 bytes, `down` rows below those before. Zeros
    stand for rows from `left` on, counted from the thread's first."""
    for sweep in range(sweeps):
        count = int32(BYTES if left > sweep * down else 0)
        copy_async(tiles, to + sweep * to_step, memory, at + sweep * at_step, count)


@cache
def fused_forward(T):
    finish, _ = step_of(T)
    V = 128 // T.bitwidth  # numbers in 16 bytes
    depth, groups = 16 * V, 4  # terms of a tile; groups of threads, and so parts of the terms
    across = THREADS // groups // TILE  # rows that lie side by side in a group
    rows, share = TILE // across, depth // groups
    wide, pitch = 4 * TILE, depth + V  # rows of tiles; those of h that are read together begin in other banks
    row_u, down_u = wide // V, THREADS * V // wide  # vectors of a row of U's tile, and rows of a sweep over it
    sweeps_u, step_u = depth // down_u, THREADS * V
    size_u, row_h = depth * wide, depth // V
    stage = size_u + TILE * pitch
    both, sums, numbers = 2 * stage, rows * 4, rows * V

    @cuda.jit(device=True, forceinline=True)
    def multiply(tiles, from_u, from_h, left, acc):
        """acc += V terms, for a thread's rows and the four gates of its unit."""
        for i in range(rows):
            vector = load4(tiles, from_h + i * across * pitch)
            for v in range(V):
                left[i * V + v] = vector[v]
        for v in range(V):
            for gate in range(0, 4, V):
                vector = load4(tiles, from_u + v * wide + gate)
                for j in range(V):
                    for i in range(rows):
                        acc[i * 4 + gate + j] += left[i * V + v] * vector[j]

    @kernel(threads=THREADS, blocks=2)
    def step_forward(
        u: pointer(T), state: pointer(T), gates: pointer(T), cells: pointer(T), y: pointer(T), inputs: pointer(T),
        t: int32, n: int32, steps: int32, size: int32, hidden: int32, keep: int32,
    ):  # fmt: skip
        """One block: step t of 16 rows and 16 units. First one thread of a group of 64: for the group's quarter of the
        terms, h U of four rows and the four gates of one unit; then one thread: gates and state of one row and unit.
        41 KB of shared memory: two pairs of tiles, U's [k, unit, gate] and h's [row, k], one of which arrives while the
        other is multiplied; afterwards the groups' sums.

        Of the states (2, N, H rounded up to 4, with zeros), even steps read the first and write the second.

        Why it is faster: one launch a step, not two or more; z goes from registers to the gates, not through memory;
        and the blocks are smaller than those of a product, so that there are enough of them for a few rows.
        """
        tiles = cuda.shared.array(both, T, alignment=16)
        acc, left = cuda.local.array(sums, T), cuda.local.array(numbers, T)
        thread = int32(cuda.threadIdx.x)
        group, y0, x = int32(thread // (THREADS // groups)), int32(thread // TILE % across), int32(thread % TILE)
        blocks = (hidden + TILE - 1) // TILE
        row0, unit0 = int32(cuda.blockIdx.x // blocks * TILE), int32(cuda.blockIdx.x % blocks * TILE)
        columns, pitch_h = hidden * 4, int32((hidden + 3) // 4 * 4)
        # What this thread brings of U: rows of terms, of which hidden - k are left where the column is in the matrix.
        k, col = int32(thread // row_u), int32(thread % row_u * V)
        at_u, to_u, left_u = int64(k) * columns + unit0 * 4 + col, k * wide + col, hidden - k
        if unit0 * 4 + col >= columns:
            left_u = int32(0)
        # And of h: one vector of a row of the batch.
        row, k = int32(thread // row_h), int32(thread % row_h * V)
        at_h = (int64(t % 2) * n + row0 + row) * pitch_h + k
        to_h, left_h = size_u + row * pitch + k, n - row0 - row
        bring(tiles, to_u, step_u, u, at_u, down_u * columns, left_u, down_u, sweeps_u)
        bring(tiles, to_h, 0, state, at_h, 0, left_h if k < pitch_h else int32(0), 0, 1)
        copy_async_commit()
        for i in range(sums):
            acc[i] = T(0)
        now = int32(0)  # where the pair begins that is read
        for k0 in range(depth, hidden + depth, depth):
            copy_async_wait(0)
            cuda.syncthreads()
            other = stage - now
            at_u += depth * int64(columns)
            bring(tiles, other + to_u, step_u, u, at_u, down_u * columns, left_u - k0, down_u, sweeps_u)
            bring(tiles, other + to_h, 0, state, at_h + k0, 0, left_h if k0 + k < pitch_h else int32(0), 0, 1)
            copy_async_commit()
            from_u, from_h = now + group * share * wide + x * 4, now + size_u + y0 * pitch + group * share
            multiply(tiles, from_u, from_h, left, acc)
            multiply(tiles, from_u + V * wide, from_h + V, left, acc)
            multiply(tiles, from_u + 2 * V * wide, from_h + 2 * V, left, acc)
            multiply(tiles, from_u + 3 * V * wide, from_h + 3 * V, left, acc)
            now = other
        copy_async_wait(0)
        cuda.syncthreads()
        for i in range(rows):
            for gate in range(4):
                store(tiles, (group * 4 + gate) * ELEMENTS + (y0 + i * across) * TILE + x, acc[i * 4 + gate])
        cuda.syncthreads()
        row, unit = row0 + thread // TILE, unit0 + x
        if row < n and unit < hidden:
            z = (int64(row) * steps + t) * 4 * hidden + unit
            for gate in range(4):
                acc[gate] = load(gates, z + gate * hidden)
                for part in range(groups):
                    acc[gate] += load(tiles, (part * 4 + gate) * ELEMENTS + thread)
            h = finish(acc[0], acc[1], acc[2], acc[3], gates, cells, y, inputs, row, unit, t, steps, size, hidden, keep)
            store(state, (int64(1 - t % 2) * n + row) * pitch_h + unit, h)

    return step_forward


@cache
def fused_backward(T):
    _, go_back = step_of(T)
    V = 128 // T.bitwidth
    depth, groups = 32 * V, 8
    across = 8  # units that lie side by side in a group, which is a warp
    down = THREADS // groups // across
    rows, units, share, pitch = TILE // down, TILE // across, depth // groups, depth + V
    row_vectors, sweep = depth // V, THREADS * V // depth  # vectors of a tile's row, and rows of a sweep over a tile
    sweeps, step, tile = TILE // sweep, sweep * pitch, TILE * pitch
    stage, sums, numbers = 2 * tile, rows * units, rows * V
    both = 2 * stage

    @cuda.jit(device=True, forceinline=True)
    def multiply(tiles, from_dz, from_u, left, acc):
        """acc += V terms, for a thread's rows and units."""
        for i in range(rows):
            vector = load4(tiles, from_dz + i * down * pitch)
            for v in range(V):
                left[i * V + v] = vector[v]
        for j in range(units):
            vector = load4(tiles, from_u + j * across * pitch)
            for v in range(V):
                for i in range(rows):
                    acc[i * units + j] += left[i * V + v] * vector[v]

    @kernel(threads=THREADS, blocks=2)
    def step_backward(
        u: pointer(T), gates: pointer(T), cells: pointer(T), dy: pointer(T), has_dy: int32, dh: pointer(T),
        dc: pointer(T), dz: pointer(T), t: int32, n: int32, steps: int32, hidden: int32,
    ):  # fmt: skip
        """One block: step t of 16 rows and 16 units. First one lane: for its warp's eighth of the terms, dz U^T of the
        step that follows, for four rows and two units; then one thread: dz of one row and unit. 33 KB of shared memory,
        used as in `step_forward`. The last step takes dh instead of a product.

        Why it is faster: as `step_forward` is.
        """
        tiles = cuda.shared.array(both, T, alignment=16)
        acc, left = cuda.local.array(sums, T), cuda.local.array(numbers, T)
        thread = int32(cuda.threadIdx.x)
        group, y0, x0 = int32(thread // (THREADS // groups)), int32(thread // across % down), int32(thread % across)
        blocks = (hidden + TILE - 1) // TILE
        row0, unit0 = int32(cuda.blockIdx.x // blocks * TILE), int32(cuda.blockIdx.x % blocks * TILE)
        columns, terms = hidden * 4, int32(0)
        if t + 1 < steps:
            terms = columns
        # What this thread brings of both tiles: a vector of every `sweep`th row.
        row, k = int32(thread // row_vectors), int32(thread % row_vectors * V)
        stride_dz, to, left_dz, left_u = int64(steps) * columns, row * pitch + k, n - row0 - row, hidden - unit0 - row
        at_dz, at_u = (row0 + row) * stride_dz + int64(t + 1) * columns + k, int64(unit0 + row) * columns + k
        if k >= terms:
            left_dz = left_u = int32(0)
        bring(tiles, to, step, dz, at_dz, sweep * stride_dz, left_dz, sweep, sweeps)
        bring(tiles, tile + to, step, u, at_u, sweep * columns, left_u, sweep, sweeps)
        copy_async_commit()
        for i in range(sums):
            acc[i] = T(0)
        now = int32(0)
        for k0 in range(depth, terms + depth, depth):
            if k0 + k >= terms:
                left_dz = left_u = int32(0)
            copy_async_wait(0)
            cuda.syncthreads()
            other = stage - now
            bring(tiles, other + to, step, dz, at_dz + k0, sweep * stride_dz, left_dz, sweep, sweeps)
            bring(tiles, other + tile + to, step, u, at_u + k0, sweep * columns, left_u, sweep, sweeps)
            copy_async_commit()
            from_dz, from_u = now + y0 * pitch + group * share, now + tile + x0 * pitch + group * share
            multiply(tiles, from_dz, from_u, left, acc)
            multiply(tiles, from_dz + V, from_u + V, left, acc)
            multiply(tiles, from_dz + 2 * V, from_u + 2 * V, left, acc)
            multiply(tiles, from_dz + 3 * V, from_u + 3 * V, left, acc)
            now = other
        copy_async_wait(0)
        cuda.syncthreads()
        for i in range(rows):
            for j in range(units):
                store(tiles, group * ELEMENTS + (y0 + i * down) * TILE + x0 + j * across, acc[i * units + j])
        cuda.syncthreads()
        row, unit = row0 + thread // TILE, unit0 + thread % TILE
        if row < n and unit < hidden:
            total = T(0)
            if terms == 0:
                total = load(dh, int64(row) * hidden + unit)
            for part in range(groups):
                total += load(tiles, part * ELEMENTS + thread)
            four = go_back(total, gates, cells, dy, has_dy, dc, row, unit, t, steps, hidden)
            for gate in range(4):
                store(dz, ((int64(row) * steps + t) * 4 + gate) * hidden + unit, four[gate])

    return step_backward


def _tiles(n, hidden):
    """The grid of a step."""
    return (-(-n // TILE) * -(-hidden // TILE),)


def _forward_fused(x, w, u, b, h0, c0, keep):
    (n, steps, size), hidden, T, xp = x.shape, u.shape[0], element_of(x), namespace(x)
    y, inputs, gates, cells, state = start(x, w, u, b, h0, c0, keep, -(-hidden // 4) * 4, states=2)
    packed, step = xp.empty((u.size,), u.dtype), fused_forward(T)
    interleave(T)((hidden, *blocks_of(hidden)), xp.ascontiguousarray(u), packed, hidden)
    arrays = packed, state, gates, cells, y, inputs if keep else y
    grid = _tiles(n, hidden)
    for t in range(steps):
        step(grid, *arrays, t, n, steps, size, hidden, keep)
    return y, inputs, gates, cells


def _backward_fused(saved, needs, dy, dh, dc):
    n, steps = saved.inputs.shape[:2]
    hidden, T, xp, has_dy = saved.u.shape[0], element_of(saved.u), namespace(saved.u), dy is not None
    u, step = xp.ascontiguousarray(saved.u), fused_backward(T)
    u = u.copy() if address(u) % BYTES else u
    dy, dh, dc, dz = start_back(saved, dy, dh, dc)
    grid = _tiles(n, hidden)
    for t in reversed(range(steps)):
        step(grid, u, saved.gates, saved.cells, dy, has_dy, dh, dc, dz, t, n, steps, hidden)
    if needs[4]:
        gemm_default(dz[:, 0], saved.u.T, dh)
    return gradients(saved, needs, dz, dh, dc)


FUSED = Passes(_forward_fused, _backward_fused)
