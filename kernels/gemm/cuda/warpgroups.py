"""The rung for Hopper's tensor cores, which take what they multiply from shared memory themselves: bfloat16 on sm_90a.

A block has two warpgroups, of four warps each, and computes 128 x 256 elements of C; a warpgroup 64 x 256 of them.

A tile is 64 terms of 128 of A's rows, and of 256 of B's columns, in rows of 64 numbers as the instruction wants them
(kernels/ptx): the terms of one row or column where they run along its memory, else of one term 64 rows or columns, and
then of the next terms, before the next 64 of them come. Chunks of 16 bytes trade places in these rows, so that eight
rows of one chunk lie in different banks. They are copied whole, or beyond the matrix filled with zeros, so that
operands start on 16 bytes and have strides of whole ones.
"""

from functools import cache

from numba import cuda, float32, int32, int64, uint16

from ...launch import kernel, pointer
from ...ptx import (
    copy_async,
    copy_async_commit,
    copy_async_wait,
    fence_async,
    store2,
    wgmma_bf16,
    wgmma_commit,
    wgmma_fence,
    wgmma_wait,
)
from .fragments import PAD
from .tensor_cores import writing
from .tiles import terms_of, tile_of

ONLY = "sm_90a"
THREADS, WARPGROUP = 256, 128
ROWS, COLUMNS = 128, 256  # of C, that a block computes
SUMS = 64 * COLUMNS // WARPGROUP  # of a thread
TERMS = 64  # of a tile
LINE = 64  # numbers in a row of a tile: 128 bytes
TILE_A, TILE_B = ROWS * TERMS, COLUMNS * TERMS
PAIR = TILE_A + TILE_B
# Four pairs of tiles: one is multiplied, one may still be, and the next two are on their way.
STAGES, AHEAD = 4, 2
UNDER_WAY = AHEAD - 1  # tiles that still may be, when the next ones are needed
SHARED_BYTES = STAGES * PAIR * 2
WIDE = COLUMNS + PAD  # rows of results in shared memory: pairs of four neighbouring ones lie in different banks


def _operand(outer, along):
    """(aim, bring, step): how a block copies an operand's tiles, which have so many rows (of B: columns), and how far
    apart in a tile the 16 terms of two instructions are. `along`: terms run along its rows in memory."""
    chunks = (TERMS if along else outer) // 8  # of 16 bytes, in a line of memory
    lines = THREADS // chunks  # that the threads copy at once
    turns = outer * TERMS // 8 // THREADS

    @cuda.jit(device=True, forceinline=True)
    def own():
        """This thread's first chunk of each tile: (line of memory, chunk of that line)."""
        return int32(cuda.threadIdx.x // chunks), int32(cuda.threadIdx.x % chunks)

    @cuda.jit(device=True, forceinline=True)
    def aim(start, first, stride):
        """Where it lies, in the matrix that begins at `start` and from its row or column `first` on."""
        line, chunk = own()
        if along:
            return start + (int64(first) + line) * stride + chunk * 8
        return start + line * stride + first + chunk * 8

    @cuda.jit(device=True, forceinline=True)
    def bring(tiles, to, memory, at, stride, left, k_left):
        """Start to copy this thread's chunks of a tile, of which the matrix has so many rows or columns and terms left.
        Zeros for those beyond."""
        line, chunk = own()
        there, beyond = (left, k_left) if along else (k_left, left)
        place = int32(to + chunk // 8 * (TERMS * LINE) + line * LINE + ((chunk ^ line) & 7) * 8)
        for turn in range(turns):
            count = int32(16) if line + turn * lines < there and chunk * 8 < beyond else int32(0)
            copy_async(tiles, int32(place + turn * lines * LINE), memory, at + turn * lines * stride, count)

    return aim, bring, 16 if along else 16 * LINE


@cache
def warpgroup(R, a_along, b_along):
    """The kernel for bfloat16, as uint16, and results of type R: these, or float32."""
    aim_a, bring_a, step_a = _operand(ROWS, a_along)
    aim_b, bring_b, step_b = _operand(COLUMNS, b_along)
    write = writing(uint16, R, COLUMNS, THREADS)

    @kernel(threads=THREADS, only=ONLY)
    def multiply_warpgroup(
        a: pointer(uint16), a_stride: int64, a_apart: int64, b: pointer(uint16), b_stride: int64, b_apart: int64,
        c: pointer(R), bias: pointer(uint16), m: int32, n: int32, k: int64, share: int32, has_bias: int32,
        activation: int32, whole: int32,
    ):  # fmt: skip
        """One block: 128 x 256 elements of C; one warpgroup: 64 x 256 of them, 128 in the registers of each thread.
        192 KB of shared memory: four pairs of tiles, and in the end the results. A launch computes a stack of products
        (tiles.py).

        Why it is faster: no register holds what is multiplied, so that the warps neither read tiles nor wait for those
        who do; an instruction does 262144 multiply-adds, and the next one is begun before it has ended.
        """
        tiles = cuda.shared.array(0, uint16, alignment=1024)
        stage = cuda.shared.array(0, float32, alignment=1024)  # the same memory
        acc = cuda.local.array(SUMS, float32)
        warp, lane = int32(cuda.threadIdx.x // 32), int32(cuda.threadIdx.x % 32)
        row0, col0 = tile_of(cuda.blockIdx.x, n, ROWS, COLUMNS)
        number = int64(cuda.blockIdx.y)
        mine = terms_of(number, k, share)
        for t in range(SUMS):  # not with the bias, which two sums share: then the compiler had each product waited for
            acc[t] = float32(0)
        tiles_a = int64(TERMS) if a_along else TERMS * a_stride  # from one to the next
        tiles_b = int64(TERMS) if b_along else TERMS * b_stride
        at_a, at_b = aim_a(number * a_apart, row0, a_stride), aim_b(number * b_apart, col0, b_stride)
        rows, columns = int32(m - row0), int32(n - col0)
        for ahead in range(AHEAD):
            k_left = int32(mine - ahead * TERMS)
            if k_left > 0:  # where there is nothing to sum, nothing need begin on 16 bytes
                bring_a(tiles, int32(ahead * PAIR), a, at_a, a_stride, rows, k_left)
                bring_b(tiles, int32(ahead * PAIR + TILE_A), b, at_b, b_stride, columns, k_left)
            copy_async_commit()
            at_a += tiles_a
            at_b += tiles_b
        now, free = int32(0), int32(AHEAD * PAIR)
        for k_now in range(int32(0), mine, int32(TERMS)):
            copy_async_wait(UNDER_WAY)
            fence_async()
            cuda.syncthreads()  # all have what they waited for, and have waited for the product before the last
            left = int32(now + warp // 4 * (TILE_A // 2))
            wgmma_fence()
            for step in range(TERMS // 16):
                wgmma_bf16(acc, tiles, left + step * step_a, now + TILE_A + step * step_b, a_along, b_along)
            wgmma_commit()
            k_left = int32(mine - k_now - AHEAD * TERMS)
            bring_a(tiles, free, a, at_a, a_stride, rows, k_left)
            bring_b(tiles, int32(free + TILE_A), b, at_b, b_stride, columns, k_left)
            copy_async_commit()
            at_a += tiles_a
            at_b += tiles_b
            now = int32(now + PAIR if now < (STAGES - 1) * PAIR else 0)
            free = int32(free + PAIR if free < (STAGES - 1) * PAIR else 0)
            wgmma_wait(1)
        wgmma_wait(0)
        copy_async_wait(0)  # for the zeros beyond the last tiles, too
        cuda.syncthreads()
        for t in range(SUMS // 4):
            at = int32((16 * warp + lane // 4) * WIDE + t * 8 + lane % 4 * 2)
            store2(stage, at, (acc[4 * t], acc[4 * t + 1]))
            store2(stage, at + 8 * WIDE, (acc[4 * t + 2], acc[4 * t + 3]))
        cuda.syncthreads()
        write(stage, c, number * m * n, row0, ROWS, col0, m, n, bias, has_bias, activation, whole)

    return multiply_warpgroup
