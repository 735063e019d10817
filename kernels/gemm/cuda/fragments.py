"""What the rungs on the tensor cores have in common: tiles in shared memory, and what a block's warps do with them.

A block has 128 threads and computes 128 x 128 elements of C; a warp 64 x 64 of them.

A tile is 8 KB of an operand: 128 of A's rows, or of B's columns, with 32 terms of each (16 of TF32). It lies in shared
memory as in the operand's own memory, the terms along its rows or down its columns, in chunks of 16 bytes. These are
copied whole, or beyond the matrix filled with zeros, so that operands start on 16 bytes and have strides of whole ones.

Four registers hold 16 rows by 16 terms (8 of TF32) as four matrices, of which lane l has the pair (the number) l % 4 of
row l // 4:

        terms  0   8                   B is read in the same way, its columns in place of rows: what one
    row 0    | 0 | 2 |  register       instruction takes is eight of them, so that registers 1 and 2 change places
    row 8    | 1 | 3 |                 ("paired"): its two registers shall be neighbours.
"""

from functools import cache

from numba import cuda, float32, int32, int64, uint16

from ...ptx import (
    as_float,
    copy_async,
    ldmatrix_x4,
    ldmatrix_x4_transposed,
    load,
    mma_bf16,
    mma_tf32,
    store2,
    to_tf32,
)
from .tiles import NEVER

THREADS = 128
BLOCK = 128  # rows and columns of C that a block computes
STAGES = 3  # pairs of tiles: one is multiplied while the next two are on their way
AHEAD = STAGES - 1
UNDER_WAY = STAGES - 2
SHARED_BYTES = STAGES * 2 * 8192
CHUNKS = 8192 // 16 // THREADS  # of a tile, that a thread brings
# A warp computes 64 x 64 elements of C: 4 x 8 of the instruction's 16 x 8, with sums in 128 registers of each lane. It
# reads 128 rows and columns of tiles for that; two warps with 64 x 32 each would read 192.
WARP = 64
SUMS = WARP * WARP // 32
# Rows of results in shared memory, longer by 32 bytes: the pairs of four neighbouring ones lie in different banks.
PAD = 8
WIDE = BLOCK + PAD


def terms_of_tile(E):
    return 512 // E.bitwidth


def _places(E):
    V = 128 // E.bitwidth  # numbers in a chunk
    terms, turns, turn = terms_of_tile(E), (7 if E is uint16 else 3), (1 if E is uint16 else 2)

    @cuda.jit(device=True, forceinline=True)
    def place(outer, p, along):
        """Where term p of row (of B: column) `outer` lies in a tile. Chunks trade places within each row, so that those
        that a warp reads at once, eight rows of one chunk or eight terms of one, lie in different banks."""
        if along:
            return int32(outer * terms + ((p // V) ^ (outer >> 1 & 3)) * V + (p & (V - 1)))
        return int32(p * BLOCK + ((outer // V) ^ ((p & turns) * turn)) * V + (outer & (V - 1)))

    return place


def _bf16():
    """How bfloat16 is read from a tile and multiplied."""
    place = _places(uint16)

    @cuda.jit(device=True, forceinline=True)
    def look(outer, along, paired):
        """The place that this lane names for the 16 rows from `outer` on and their first 16 terms: row l % 8 of matrix
        l // 8."""
        lane = int32(cuda.threadIdx.x & 31)
        low, high = lane & 8, lane >> 1 & 8
        below, beyond = (high, low) if paired else (low, high)
        if along:
            return place(outer + below + (lane & 7), beyond, True)
        return place(outer + below, beyond + (lane & 7), False)

    @cuda.jit(device=True, forceinline=True)
    def fragment(tiles, at, i, step, along, paired):
        """16 rows, 16 * i beyond those looked at, and 16 terms, 16 * step beyond. Chunks trade places by an exclusive
        or, and so it is that leads from one to the next."""
        if along:
            return ldmatrix_x4(tiles, (at ^ (16 * step)) + 16 * 32 * i)
        return ldmatrix_x4_transposed(tiles, (at ^ (16 * i)) + 16 * BLOCK * step)

    return place, look, fragment, mma_bf16


def _tf32():
    """How float32 is read from a tile as TF32 and multiplied."""
    place = _places(float32)

    @cuda.jit(device=True, forceinline=True)
    def look(outer, along, paired):
        """The place that this lane names for the 16 rows from `outer` on and their first 8 terms."""
        lane = int32(cuda.threadIdx.x & 31)
        if not along:
            return place(outer + (lane >> 2), lane & 3, False)
        low, high = lane >> 3 & 1, lane >> 4
        below, beyond = (high, low) if paired else (low, high)
        return place(outer + 8 * below + (lane & 7), 4 * beyond, True)

    @cuda.jit(device=True, forceinline=True)
    def fragment(tiles, at, i, step, along, paired):
        """16 rows, 16 * i beyond those looked at, and 8 terms, 8 * step beyond. No instruction turns matrices of 32-bit
        numbers: where terms run down columns they are read one by one."""
        if along:
            x = ldmatrix_x4(tiles, (at ^ (8 * step)) + 16 * 16 * i)
            return to_tf32(as_float(x[0])), to_tf32(as_float(x[1])), to_tf32(as_float(x[2])), to_tf32(as_float(x[3]))
        p = BLOCK * 8 * step
        upper, lower = (at ^ (16 * i)) + p, (at ^ (16 * i + 8)) + p
        second, third = (upper + BLOCK * 4, lower) if paired else (lower, upper + BLOCK * 4)
        return (
            to_tf32(load(tiles, upper)), to_tf32(load(tiles, second)),
            to_tf32(load(tiles, third)), to_tf32(load(tiles, lower + BLOCK * 4)),
        )  # fmt: skip

    return place, look, fragment, mma_tf32


@cache
def operations(E, a_along, b_along):
    """(place, look, own, aim, bring, multiply_step, put) of the kernel for float32, or bfloat16 as uint16; `along`: an
    operand's terms run along its rows in memory."""
    place, look, fragment, mma = _bf16() if E is uint16 else _tf32()
    V = 128 // E.bitwidth
    chunks = BLOCK // V  # in a row of C's tile

    @cuda.jit(device=True, forceinline=True)
    def own(f, along):
        """This thread's chunk f of a tile: its (row or column, term)."""
        chunk = int32(cuda.threadIdx.x + f * THREADS)
        if along:
            return int32(chunk >> 2), int32((chunk & 3) * V)
        return int32((chunk & (chunks - 1)) * V), int32(chunk // chunks)

    @cuda.jit(device=True, forceinline=True)
    def aim(start, first, left, stride, along, at, limit):
        """Where this thread's chunks of the first tile lie in memory, in the matrix that begins at `start` and from its
        row or column `first` on, of which there are `left`; and how many terms must be left for each to be in the
        matrix. Strides are whole chunks: it is in there or beyond."""
        for f in range(CHUNKS):
            outer, p = own(f, along)
            at[f] = start + ((int64(first) + outer) * stride + p if along else p * stride + first + outer)
            limit[f] = p if outer < left else int32(NEVER)

    @cuda.jit(device=True, forceinline=True)
    def bring(tiles, to, memory, at, limit, step, k_left, along):
        """Start to copy this thread's chunks of a tile, and go on to the next. Zeros for those beyond the matrix."""
        for f in range(CHUNKS):
            outer, p = own(f, along)
            count = int32(16) if limit[f] < k_left else int32(0)
            copy_async(tiles, int32(to + place(outer, p, along)), memory, at[f], count)
            at[f] += step

    @cuda.jit(device=True, forceinline=True)
    def multiply_step(tiles, at_a, at_b, step, right, acc):
        """acc += A's tile times B's, for the instruction's terms number `step`."""
        for j in range(4):
            x = fragment(tiles, at_b, j, step, b_along, True)
            right[4 * j], right[4 * j + 1], right[4 * j + 2], right[4 * j + 3] = x[0], x[1], x[2], x[3]
        for i in range(4):
            left = fragment(tiles, at_a, i, step, a_along, False)
            for j in range(8):
                t = 32 * i + 4 * j
                x = mma(left, (right[2 * j], right[2 * j + 1]), (acc[t], acc[t + 1], acc[t + 2], acc[t + 3]))
                acc[t], acc[t + 1], acc[t + 2], acc[t + 3] = x[0], x[1], x[2], x[3]

    @cuda.jit(device=True, forceinline=True)
    def put(stage, acc):
        """A warp's results into 64 rows of shared memory. Lane l has the pair l % 4 of rows l // 4 and l // 4 + 8."""
        lane, col0 = cuda.threadIdx.x % 32, cuda.threadIdx.x // 64 * WARP
        for i in range(4):
            for j in range(8):
                at, t = int32((16 * i + lane // 4) * WIDE + col0 + 8 * j + lane % 4 * 2), 32 * i + 4 * j
                store2(stage, at, (acc[t], acc[t + 1]))
                store2(stage, at + 8 * WIDE, (acc[t + 2], acc[t + 3]))

    return place, look, own, aim, bring, multiply_step, put
