"""The rung on the tensor cores: one instruction of a warp adds the product of two small matrices to a third.

    bfloat16   16 x 16 by 16 x 8: exact products, sums in float32, and what is stored is rounded once
    TF32       16 x 8 by 8 x 8 of float32, rounded to ten bits of mantissa on the way in; sums and results in float32

fragments.py holds the tiles in shared memory and what a warp does with them, which convolutions share.
"""

from functools import cache

from numba import cuda, float32, int32, int64, uint16, uint32

from ...launch import kernel, pointer
from ...ptx import copy_async_commit, copy_async_wait, load, load4, store, store4, to_bf16
from .epilogue import conversions, finish
from .fragments import AHEAD, BLOCK, CHUNKS, PAD, SUMS, THREADS, UNDER_WAY, WARP, operations, terms_of_tile
from .tiles import terms_of, tile_of


def writing(E, R, columns, threads):
    """How rows of so many sums, in shared memory longer by PAD, become results of type R: with the bias, of type E, and
    the activation."""
    load_bias = conversions(E)[1]
    V = 128 // R.bitwidth  # results in 16 bytes
    chunks, wide = columns // V, columns + PAD

    @cuda.jit(device=True, forceinline=True)
    def narrow(z):
        return to_bf16(z) if R is uint16 else z

    @cuda.jit(device=True, forceinline=True)
    def result(z, bias, col, has_bias, activation):
        if has_bias:
            z += load_bias(bias, col)
        return narrow(finish(z, activation))

    @cuda.jit(device=True, forceinline=True)
    def four(stage, at, bias, col, has_bias, activation):
        z = load4(stage, at)
        return (
            result(z[0], bias, col, has_bias, activation), result(z[1], bias, col + 1, has_bias, activation),
            result(z[2], bias, col + 2, has_bias, activation), result(z[3], bias, col + 3, has_bias, activation),
        )  # fmt: skip

    @cuda.jit(device=True, forceinline=True)
    def eight(stage, at, bias, col, has_bias, activation):
        x = four(stage, at, bias, col, has_bias, activation)
        y = four(stage, at + 4, bias, col + 4, has_bias, activation)
        return x[0], x[1], x[2], x[3], y[0], y[1], y[2], y[3]

    vector = four if V == 4 else eight

    @cuda.jit(device=True, forceinline=True)
    def write(stage, c, start, row0, rows, col0, m, n, bias, has_bias, activation, whole):
        """`rows` of them, 16 bytes at once where C's rows are whole ones."""
        for chunk in range(int32(cuda.threadIdx.x), rows * chunks, threads):
            row, col = row0 + chunk // chunks, col0 + chunk % chunks * V
            if row < m and col < n:
                at, to = int32(chunk // chunks * wide + chunk % chunks * V), start + int64(row) * n + col
                if whole:
                    store4(c, to, vector(stage, at, bias, col, has_bias, activation))
                else:
                    for v in range(min(V, n - col)):
                        store(c, to + v, result(load(stage, at + v), bias, col + v, has_bias, activation))

    return write


@cache
def tensor(E, R, a_along, b_along):
    """The kernel for float32, or bfloat16 as uint16, and results of type R: E, or float32. `along`: the operand's terms
    run along its rows in memory."""
    _, look, _, aim, bring, multiply_step, put = operations(E, a_along, b_along)
    write = writing(E, R, BLOCK, THREADS)
    terms = terms_of_tile(E)
    tile = terms * BLOCK
    pair = 2 * tile

    @kernel(threads=THREADS, blocks=2)
    def multiply_tensor(
        a: pointer(E), a_stride: int64, a_apart: int64, b: pointer(E), b_stride: int64, b_apart: int64, c: pointer(R),
        bias: pointer(E), m: int32, n: int32, k: int64, share: int32, has_bias: int32, activation: int32, whole: int32,
    ):  # fmt: skip
        """One block: 128 x 128 elements of C; one warp: 64 x 64 of them, in registers. 48 KB of shared memory: three
        pairs of tiles, and in the end half of the results at a time. A launch computes a stack of products (tiles.py).

        Why it is faster: an instruction does 2048 multiply-adds (1024 of TF32) where a warp's ordinary one does 32; and
        tiles come without passing through registers, two ahead of the one that is multiplied.
        """
        tiles = cuda.shared.array(0, E, alignment=16)
        stage = cuda.shared.array(0, float32, alignment=16)  # the same memory
        acc, right = cuda.local.array(SUMS, float32), cuda.local.array(16, uint32)
        at_a, at_b = cuda.local.array(CHUNKS, int64), cuda.local.array(CHUNKS, int64)
        limit_a, limit_b = cuda.local.array(CHUNKS, int32), cuda.local.array(CHUNKS, int32)
        warp = cuda.threadIdx.x // 32
        row, col = int32(warp % 2 * WARP), int32(warp // 2 * WARP)
        row0, col0 = tile_of(cuda.blockIdx.x, n, BLOCK, BLOCK)
        number = int64(cuda.blockIdx.y)
        mine = terms_of(number, k, share)
        for t in range(SUMS):
            acc[t] = float32(0)
        step_a = int64(terms) if a_along else terms * a_stride
        step_b = int64(terms) if b_along else terms * b_stride
        aim(number * a_apart, row0, int32(m - row0), a_stride, a_along, at_a, limit_a)
        aim(number * b_apart, col0, int32(n - col0), b_stride, b_along, at_b, limit_b)
        look_a, look_b = look(row, a_along, False), int32(look(col, b_along, True) + tile)
        for ahead in range(AHEAD):
            k_left = int32(mine - ahead * terms)
            if k_left > 0:
                bring(tiles, int32(ahead * pair), a, at_a, limit_a, step_a, k_left, a_along)
                bring(tiles, int32(ahead * pair + tile), b, at_b, limit_b, step_b, k_left, b_along)
            copy_async_commit()
        now, free = int32(0), int32(AHEAD * pair)
        for k_now in range(int32(0), mine, int32(terms)):
            copy_async_wait(UNDER_WAY)
            cuda.syncthreads()  # all have what they waited for, and nobody reads the oldest tiles any more
            k_left = int32(mine - k_now - AHEAD * terms)
            if k_left > 0:
                bring(tiles, free, a, at_a, limit_a, step_a, k_left, a_along)
                bring(tiles, int32(free + tile), b, at_b, limit_b, step_b, k_left, b_along)
            copy_async_commit()
            at_now_a, at_now_b = int32(now + look_a), int32(now + look_b)
            multiply_step(tiles, at_now_a, at_now_b, 0, right, acc)
            multiply_step(tiles, at_now_a, at_now_b, 1, right, acc)
            free, now = now, int32(now + pair if now < AHEAD * pair else 0)
        for rows in range(0, BLOCK, WARP):
            cuda.syncthreads()
            if row == rows:
                put(stage, acc)
            cuda.syncthreads()
            write(stage, c, number * m * n, row0 + rows, WARP, col0, m, n, bias, has_bias, activation, whole)

    return multiply_tensor
